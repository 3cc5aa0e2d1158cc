"""The scorer that forms the gradient of a chunk of logits while it has them, and drops them.

ahead        the upstream gradient is forecast from the rows of the chunk (`ahead.py`), verified in
the backward pass, and where it was wrong all is done again: 3 matrix products for a
role that learns, 1 for one that does not
two-phase    rows in the forward pass, the gradient in the backward pass: 4 and 2
per unit     where heads do not learn (LoRA): d row / d hidden state is kept, 2 and 1
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from alignzoo.contract.closed import Scratch
from alignzoo.contract.types import Signal
from alignzoo.engine.scoring.chunks import Buffers, Chunks, Summed, Sums
from alignzoo.engine.scoring.forming import Form, Generic
from alignzoo.engine.scoring.probe import Nature, check_form, form_of
from alignzoo.engine.scoring.rows import Heads, Named, States, Upstream, dense

# Bytes of a chunk. Thin matrix products leave most of a GPU idle; on a CPU, wide ones gain nothing.
BUDGET, MOST = 256 * 2**20, 3 * 2**30  # on a CPU, and on a GPU at most
SHARE = 32  # parts of a GPU's memory, of which a chunk takes one
CLOSE = 16  # roundings by which a forecast may differ
Live = Mapping[str, tuple[bool, bool]]  # role that learns -> whether its hidden states, its head do


@dataclass(frozen=True)
class Fused:
    """Rows and their gradient, chunk by chunk; at most one chunk of logits per role exists.

    What is small is left to `dense`, which needs no second look at anything.
    """

    budget: int | None = None  # bytes; None: the device's
    smallest: int = 64  # positions of a chunk; thinner matrix products waste time
    small: int = 2**24  # bytes up to which `dense` is used
    formulas: bool = True  # whether closed forms are used
    buffers: Buffers = field(default_factory=Buffers, compare=False)
    scratch: Scratch = field(default_factory=Scratch, compare=False)
    tried: set[Any] = field(default_factory=set, compare=False)  # signals with formulas

    def __call__(
        self,
        hidden: States,
        heads: Heads,
        labels: Tensor,
        signals: Mapping[str, Signal],
        upstream: Upstream | None = None,
    ) -> Named:
        """{row name: [N]}."""
        width, half = sum(head.width for head in heads.values()), half_of(labels.device)
        few = 6 * 4 * width * len(labels) <= self.small
        if not len(labels) or (few and (half is None or width == len(heads))):
            return dense(hidden, heads, labels, signals)
        still = {role: x.detach() for role, x in hidden.items()}
        live = live_of(hidden, heads)
        with torch.autocast(labels.device.type, enabled=False):
            chunks = Chunks(still, heads, self.buffers, half)
            nature = self._nature(chunks, labels, signals, live)
            call = Call(self, still, heads, labels, live, nature, nature.form, upstream, half)
            if not nature.learn:
                return call.read()[0]
            inputs = [x for role in live for x in _inputs(role, hidden, heads)]
            made = Score.apply(call, *inputs)  # type: ignore[no-untyped-call]
            return dict(zip(nature.names, made, strict=True))

    def chunk(self, heads: Heads, form: Form) -> int:
        """Positions per chunk: what a form holds of them at once fits the budget."""
        width = sum(form.wide * 4 * head.width for head in heads.values())
        device = next(iter(heads.values())).linear.weight.device.type
        budget = budget_on(device) if self.budget is None else self.budget
        return max(self.smallest, budget // width // 64 * 64)

    def _nature(
        self, chunks: Chunks, labels: Tensor, signals: Mapping[str, Signal], live: Live
    ) -> Nature:
        """Formulas are tried against `reduce` once; the signals are made anew for every batch."""
        generic = Generic(signals, chunks.heads, live.keys())
        learning = generic.learning(labels) if live else {}
        rounded = [role for role in live if chunks.rounds(role)]
        form = form_of(generic, learning, self.scratch if self.formulas else None, rounded)
        key = (*((name, signal.roles) for name, signal in signals.items()), *live.items())
        if form is not generic and key not in self.tried:
            first = slice(0, 1)
            check_form(form, generic, chunks.logits(first), labels[first])
            self.tried.add(key)
        return Nature(learning, generic, form)


def budget_on(device: str, memory: float | None = None) -> int:
    """Bytes of a chunk where nothing else is said; `memory` is a GPU's, if not that of this one."""
    if device == "cpu":
        return BUDGET
    if memory is None and device == "cuda" and torch.cuda.is_available():
        memory = torch.cuda.mem_get_info()[1]
    return MOST if memory is None else min(MOST, int(memory / SHARE))


def half_of(device: torch.device) -> torch.dtype | None:
    """bfloat16 where autocast multiplies in it on a GPU; None where nothing is to be rounded."""
    if device.type != "cuda" or not torch.is_autocast_enabled(device.type):
        return None
    dtype = torch.get_autocast_dtype(device.type)
    return dtype if dtype == torch.bfloat16 else None


def live_of(hidden: States, heads: Heads) -> Live:
    """The roles through which a gradient goes."""
    if not torch.is_grad_enabled():
        return {}
    found = {
        role: (h.requires_grad, heads[role].linear.weight.requires_grad)
        for role, h in hidden.items()
        if not heads[role].still
    }
    return {role: learns for role, learns in found.items() if any(learns)}


def _inputs(role: str, hidden: States, heads: Heads) -> tuple[Tensor | None, ...]:
    linear = heads[role].linear
    return hidden[role], linear.weight, linear.bias


@dataclass(frozen=True)
class Forecast:
    """What a forward pass leaves behind: gradients, and the upstream that they are for."""

    upstream: Named
    sums: Summed


@dataclass(frozen=True)
class Units:
    """d row / d hidden state [N, H] of the only row that learns."""

    of_hidden: Mapping[str, Tensor | None]


@dataclass(frozen=True)
class Call:
    """One call of the scorer: everything but the graph."""

    scorer: Fused
    hidden: States
    heads: Heads
    labels: Tensor
    live: Live
    nature: Nature
    form: Form
    upstream: Upstream | None
    half: torch.dtype | None = None  # of the factors of products

    def read(self) -> tuple[Named, Forecast | Units | None, Call]:
        """Rows, what is known of the gradient, and the call that was made.

        Formulas are for finite numbers: where a row is not, all is read again by autograd.
        """
        rows, kept = self._read()
        if isinstance(self.form, Generic) or _finite(rows):
            return rows, kept, self
        again = replace(self, form=self.nature.generic)
        return (*again._read(), again)

    def _read(self) -> tuple[Named, Forecast | Units | None]:
        if not self.nature.learn:
            return self._rows(), None
        if self._per_unit:
            return self._units()
        if self.upstream is not None and self.upstream.pays(len(self._slices())):
            return self._ahead(self.upstream)
        return self._rows(), None

    @property
    def _per_unit(self) -> bool:
        """No head learns, and the gradient is one row's: it only waits for a factor."""
        frozen = not any(head for _, head in self.live.values())
        return frozen and len(self.nature.learn) == 1

    def _slices(self) -> list[slice]:
        n = self.scorer.chunk(self.heads, self.form)
        return [slice(i, i + n) for i in range(0, len(self.labels), n)]

    def _chunks(self) -> Chunks:
        return Chunks(self.hidden, self.heads, self.scorer.buffers, self.half)

    def _rows(self) -> Named:
        chunks, found = self._chunks(), Grids(len(self.labels))
        for at in self._slices():
            found.put(at, self.form.rows(chunks.logits(at), self.labels[at]))
        return found.rows

    def _ahead(self, upstream: Upstream) -> tuple[Named, Forecast]:
        chunks, found, guesses = self._chunks(), Grids(len(self.labels)), Grids(len(self.labels))
        sums = Sums(chunks, self.live)
        for at in self._slices():

            def guess(rows: Named, at: slice = at) -> Named:
                found.put(at, rows)
                made = upstream(at, rows, self.nature.learn)
                guesses.put(at, made)
                return made

            sums.add(at, self.form.both(chunks.logits(at), self.labels[at], guess)[1])
        return found.rows, Forecast(guesses.rows, sums.found)

    def _units(self) -> tuple[Named, Units]:
        chunks, found = self._chunks(), Grids(len(self.labels))
        sums = Sums(chunks, self.live)
        (row,) = self.nature.learn
        for at in self._slices():

            def unit(rows: Named, at: slice = at) -> Named:
                found.put(at, rows)
                return {row: torch.ones_like(rows[row])}

            sums.add(at, self.form.both(chunks.logits(at), self.labels[at], unit)[1])
        return found.rows, Units({role: of[0] for role, of in sums.found.items()})

    def gradients(self, upstream: Named, kept: Forecast | Units | None) -> Summed:
        """For the true upstream {row: [N]}."""
        if isinstance(kept, Units):
            (row,) = self.nature.learn
            if row not in upstream:
                return {}
            times, units = upstream[row][:, None], kept.of_hidden.items()
            return {r: (None if x is None else x * times, None, None) for r, x in units}
        if kept is not None and _equal(upstream, kept.upstream):
            return kept.sums
        if kept is not None and self.upstream is not None:
            self.upstream.missed()
        return self._pulled(upstream)

    def _pulled(self, upstream: Named) -> Summed:
        chunks = self._chunks()
        sums = Sums(chunks, self.live)
        for at in self._slices() if upstream else ():
            here = {row: x[at] for row, x in upstream.items()}
            sums.add(at, self.form.pull(chunks.logits(at), self.labels[at], here))
        return sums.found


@dataclass
class Grids:
    """Rows [N] put together from chunks; copies, as a chunk's may be views of its logits."""

    n: int
    rows: Named = field(default_factory=dict)

    def put(self, at: slice, part: Named) -> None:
        """Values [n] of some positions; of a row that lacks others these are 0."""
        for name, x in part.items():
            if name not in self.rows:
                self.rows[name] = x.new_zeros(self.n, *x.shape[1:])
            self.rows[name][at] = x


class Score(torch.autograd.Function):
    """Rows of a call; `backward` gives the gradients of hidden states, weights and biases."""

    @staticmethod
    def forward(ctx: Any, call: Call, *inputs: Tensor | None) -> tuple[Tensor, ...]:
        """In the order of the names that the call's nature has."""
        ctx.set_materialize_grads(False)
        rows, ctx.kept, ctx.call = call.read()
        ordered = tuple(rows[name] for name in call.nature.names)
        still = [x for name, x in rows.items() if name not in call.nature.learn]
        ctx.mark_non_differentiable(*still)
        return ordered

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *upstream: Tensor | None) -> tuple[Tensor | None, ...]:
        """What was kept is given away, and made again if it is asked for again."""
        call, kept = ctx.call, ctx.kept
        ctx.kept = None
        pairs = zip(call.nature.names, upstream, strict=True)
        known = {name: x for name, x in pairs if x is not None}
        with torch.autocast(call.labels.device.type, enabled=False):
            found = call.gradients(known, kept)
        return (None, *(x for role in call.live for x in _narrowed(role, call, found)))


def _narrowed(role: str, call: Call, found: Summed) -> Iterator[Tensor | None]:
    """Gradients in the types of what they are of."""
    linear = call.heads[role].linear
    of = (call.hidden[role], linear.weight, linear.bias)
    for like, x in zip(of, found.get(role, (None, None, None)), strict=True):
        yield None if x is None or like is None else x.to(like.dtype)


def _finite(rows: Named) -> bool:
    return bool(torch.stack([x.isfinite().all() for x in rows.values()]).all())


def _equal(true: Named, guessed: Named) -> bool:
    """Up to rounding; a row that one of them lacks is zeros there. Waits for the device once."""
    found = [_close(x, guessed.get(name)) for name, x in true.items()]
    found += [(x == 0).all() for name, x in guessed.items() if name not in true]
    return bool(torch.stack(found).all()) if found else True


def _close(true: Tensor, guessed: Tensor | None) -> Tensor:
    if guessed is None:
        return (true == 0).all()
    rounding = CLOSE * torch.finfo(true.dtype).eps
    return true.isclose(guessed, rtol=rounding, atol=0.0, equal_nan=True).all()
