"""The closed forms of some signals, run over a chunk of logits block by block."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from alignzoo.contract.closed import Scratch
from alignzoo.contract.errors import PluginError, place_of
from alignzoo.contract.types import Outputs, Rows, Signal

# Elements of a block [b, V]. On the CPU two rows of a large vocabulary are as fast as eight; on
# other devices a call costs as much as a pass over some megabytes.
ELEMENTS = {"cpu": 2**19}
ELSEWHERE = 2**24

Named = dict[str, Tensor]


def named(name: str, rows: Rows) -> Named:
    """Rows as a loss sees them: "signal", or "signal/row" where a signal has several."""
    if isinstance(rows, Tensor):
        return {name: rows}
    return {f"{name}/{row}": x for row, x in rows.items()}


def rows_of(name: str, signal: Signal, outputs: Outputs, labels: Tensor) -> Named:
    """The rows [n] of a signal's `reduce`. Raises PluginError where it changes what it was given,
    which the signals after it are given too.
    """
    given = {role: outputs[role] for role in signal.roles}
    shown = {**{f"the logits of '{role}'": x for role, x in given.items()}, "the labels": labels}
    before = {what: _age(x) for what, x in shown.items()}
    rows = named(name, signal.reduce(given, labels))
    changed = [what for what, x in shown.items() if _age(x) != before[what]]
    if changed:
        at = place_of(signal.reduce)
        raise PluginError(
            f"signal '{name}': `reduce` changes {' and '.join(changed)} in place"
            f"{f' ({at})' if at else ''}; other signals read them too, so make a new tensor"
        )
    return rows


def _age(x: Tensor) -> int:
    """How often it was written to, which tensors of inference mode do not count."""
    return 0 if x.is_inference() else x._version


@dataclass(frozen=True)
class Form:
    """A signal, and what is wanted of it; `reduce` serves where nothing is but rows."""

    name: str
    signal: Signal
    row: str = ""  # the one with gradient
    wanted: frozenset[str] = frozenset()  # roles that it reaches

    def __call__(self, block: Named, labels: Tensor, scratch: Scratch) -> tuple[Named, Named]:
        """Rows [b] and gradients [b, V]. Raises PluginError where a wanted one is missing."""
        outputs = {role: block[role] for role in self.signal.roles}
        closed = self.signal.closed
        if closed is None:
            return _kept(rows_of(self.name, self.signal, outputs, labels)), {}
        rows, gradients = closed(outputs, labels, scratch, self.wanted)
        if lost := sorted(self.wanted - gradients.keys()):
            raise PluginError(
                f"signal '{self.name}': its closed form gives no gradient for '{lost[0]}', which "
                "learns; return one, or leave `closed` out"
            )
        kept = _kept(named(self.name, rows))
        return kept, {role: gradients[role] for role in self.wanted}


def _kept(rows: Named) -> Named:
    """Copies: rows may be views of logits or of storage that the next block writes over."""
    return {name: x.clone() for name, x in rows.items()}


@dataclass(frozen=True)
class Forms:
    """Signals that are read at the same positions; those with gradient have closed forms.

    Logits [n, V] belong to whoever is asked: they are written over. So those that need them as they
    are come first, then those without gradient.
    """

    forms: tuple[Form, ...]
    scratch: Scratch
    rounded: frozenset[str] = frozenset()  # roles whose gradient is next multiplied in bfloat16

    @classmethod
    def of(
        cls,
        signals: Mapping[str, Signal],
        scratch: Scratch,
        live_rows: Mapping[str, bool],
        live_roles: Collection[str],
        rounded: Collection[str] = (),
    ) -> Forms | None:
        """None where a signal with gradient has no form, or several rows with gradient.

        `live_rows` says of each row whether it depends on a role that learns.
        """
        forms = []
        for name, signal in signals.items():
            own = (r for r in live_rows if r == name or r.startswith(f"{name}/"))
            rows = [r for r in own if live_rows[r]]
            if len(rows) > (signal.closed is not None):
                return None
            reached = frozenset(live_roles).intersection(signal.roles) if rows else frozenset()
            forms.append(Form(name, signal, rows[0] if rows else "", reached))
        forms.sort(key=lambda form: (bool(form.wanted), form.signal.closed is not None))
        return cls(tuple(forms), scratch, frozenset(rounded))

    @property
    def live(self) -> frozenset[str]:
        """Roles that rows with gradient reach."""
        return frozenset().union(*(form.wanted for form in self.forms))

    @property
    def shared(self) -> frozenset[str]:
        """Roles of which several rows with gradient are read."""
        every = [role for form in self.forms for role in form.wanted]
        return frozenset(role for role in every if every.count(role) > 1)

    @property
    def alone(self) -> bool:
        """Whether `unit` may be asked: each role that learns is read by one row with gradient."""
        return not self.shared

    def rows(self, z: Named, labels: Tensor) -> Named:
        """[n] each. z may be left as log-probabilities, of which `pull` gives the same."""
        dead = [Form(form.name, form.signal) for form in self.forms]
        parts = []
        for block, at in self._blocks(z):
            self.scratch.begin(block)
            found: Named = {}
            for form in dead:
                found |= form(block, labels[at], self.scratch)[0]
            parts.append(found)
        return _joined(parts)

    def unit(self, z: Named, labels: Tensor) -> tuple[Named, dict[str, str]]:
        """Rows [n], and {role: the row whose d row / d logits its z now holds}.

        Where that was made in bfloat16, it is a view of the same storage.
        """
        parts: list[Named] = []
        narrow: set[str] = set()
        for block, at in self._blocks(z):
            self.scratch.begin(block, rounded=self.rounded)
            found: Named = {}
            for form in self.forms:
                rows, gradients = form(block, labels[at], self.scratch)
                found |= rows
                for role, gradient in gradients.items():
                    if _half(gradient, block[role]):
                        narrow.add(role)
                    else:
                        _move(gradient, block[role])
            parts.append(found)
        for role in narrow:
            z[role] = z[role].view(torch.bfloat16)[:, : z[role].shape[1]]
        return _joined(parts), {role: form.row for form in self.forms for role in form.wanted}

    def pull(self, z: Named, labels: Tensor, upstream: Mapping[str, Tensor]) -> None:
        """Sum over rows of upstream [n] times d row / d logits, over z of the roles that learn."""
        live = [form for form in self.forms if form.wanted and form.row in upstream]
        for block, at in self._blocks(z):
            self.scratch.begin(block, self.shared)
            sums: Named = {}
            for form in live:
                gradients = form(block, labels[at], self.scratch)[1]
                for role, gradient in gradients.items():
                    self._add(sums, role, gradient, upstream[form.row][at, None])
            for role in self.live:
                _move(sums[role], block[role]) if role in sums else block[role].zero_()

    def _add(self, sums: Named, role: str, gradient: Tensor, upstream: Tensor) -> None:
        if role in sums:
            sums[role].addcmul_(gradient, upstream)
        elif role in self.shared:
            kept = self.scratch.empty(f"sum of {role}", gradient)
            sums[role] = torch.mul(gradient, upstream, out=kept)
        else:
            sums[role] = gradient.mul_(upstream)

    def _blocks(self, z: Named) -> Iterator[tuple[Named, slice]]:
        """The rest at once, elsewhere than on a CPU, if a first block needed no storage."""
        some = next(iter(z.values()))
        n, width = len(some), max(x.shape[-1] for x in z.values())
        size, start = max(1, ELEMENTS.get(some.device.type, ELSEWHERE) // width), 0
        while start < max(n, 1):
            at = slice(start, start + size)
            yield {role: x[at] for role, x in z.items()}, at
            start += size
            if some.device.type not in ELEMENTS and not self.scratch.asked:
                size = n


def _half(made: Tensor, place: Tensor) -> bool:
    """Whether a gradient in bfloat16 lies over the logits."""
    return made.dtype == torch.bfloat16 and made.data_ptr() == place.data_ptr()


def _move(made: Tensor, place: Tensor) -> None:
    if made is not place:
        place.copy_(made)


def _joined(parts: list[Named]) -> Named:
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
