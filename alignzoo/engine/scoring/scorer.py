"""Evaluate signals from hidden states: every [n, V] tensor of a run is made in this file.

`ScoringModule.forward` is the one place where a model's head is touched, because it is the module
that Accelerate wraps and wrappers gather weights only inside `forward`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel

from alignzoo.contract.errors import PluginError, TrainingError
from alignzoo.contract.types import Batch, Signal
from alignzoo.engine.models.heads import Head, head_of
from alignzoo.engine.models.routers import router_of
from alignzoo.engine.scoring.bodies import Bodies, Hidden
from alignzoo.engine.scoring.packing import PADDING, Packer

States = Mapping[str, Tensor]  # role -> [N, H]
Heads = Mapping[str, Head]
Named = dict[str, Tensor]
ROUTER = "router/"  # rows with the load-balancing loss of a role


class Scorer(Protocol):
    """How the rows of some signals come from hidden states."""

    def __call__(
        self, hidden: States, heads: Heads, labels: Tensor, signals: Mapping[str, Signal]
    ) -> Named:
        """{row name: [N]}."""
        ...


def dense(hidden: States, heads: Heads, labels: Tensor, signals: Mapping[str, Signal]) -> Named:
    """All logits at once: the reference that every other scorer must equal."""
    outputs = {role: heads[role](h) for role, h in hidden.items()}
    rows: Named = {}
    for name, signal in signals.items():
        result = signal.reduce({role: outputs[role] for role in signal.roles}, labels)
        if isinstance(result, Tensor):
            rows[name] = result
        else:
            rows |= {f"{name}/{row}": x for row, x in result.items()}
    return rows


@dataclass(frozen=True)
class Chunked:
    """`dense` on slices of positions, each recomputed in the backward pass.

    At most one chunk of logits, [n, V] per role, exists at any time; n follows from the budget.
    """

    budget: int = 256 * 2**20  # bytes
    smallest: int = 64  # positions; thinner matrix products waste time

    def __call__(
        self, hidden: States, heads: Heads, labels: Tensor, signals: Mapping[str, Signal]
    ) -> Named:
        """{row name: [N]}."""
        n = self.chunk(heads)
        if len(labels) <= n:
            return dense(hidden, heads, labels, signals)
        parts = [
            self._part(
                {r: h[i : i + n] for r, h in hidden.items()}, heads, labels[i : i + n], signals
            )
            for i in range(0, len(labels), n)
        ]
        return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}

    def chunk(self, heads: Heads) -> int:
        """Positions per chunk: about 6 vocabulary-wide fp32 tensors per role fit the budget."""
        width = sum(6 * 4 * head.width for head in heads.values())
        return max(self.smallest, self.budget // width // 64 * 64)

    @staticmethod
    def _part(hidden: States, heads: Heads, labels: Tensor, signals: Mapping[str, Signal]) -> Named:
        if not torch.is_grad_enabled():
            return dense(hidden, heads, labels, signals)
        result: Named = checkpoint(
            dense, hidden, heads, labels, signals, use_reentrant=False, preserve_rng_state=False
        )
        return result


SCORERS: Mapping[str, Callable[[int], Scorer]] = {
    "dense": lambda budget: dense,
    "chunked": Chunked,
}


@dataclass(frozen=True)
class Special:
    """What is particular about some roles."""

    shared: Mapping[str, str] = field(default_factory=dict)  # role -> the trained one that it is
    moving: Sequence[str] = ()  # roles that do not learn, whose own weights change
    sees: Mapping[str, str] = field(default_factory=dict)  # role -> the view that it reads


class ScoringModule(nn.Module):
    """All models of a stage, frozen ones included, behind one forward."""

    def __init__(
        self,
        models: Mapping[str, PreTrainedModel],
        trainable: frozenset[str],
        scorer: Scorer,
        special: Special | None = None,
    ) -> None:
        super().__init__()
        self.special = special or Special()
        self.padding = PADDING  # 1: one pass, whatever the lengths
        self.models = nn.ModuleDict(models)
        twins = self.special.shared.items()
        self.by_role = {**models, **{role: models[of] for role, of in twins}}
        self.heads = {role: head_of(model) for role, model in models.items()}
        self.heads |= {role: replace(self.heads[of], still=True) for role, of in twins}
        found = {role: router_of(model) for role, model in models.items()}
        self.routers = {role: router for role, router in found.items() if router}
        self.trainable = trainable
        self.scorer = scorer
        for role, model in models.items():
            if role not in trainable:  # never on: who loads a model may have frozen parts of it
                model.requires_grad_(False)
            elif not any(p.requires_grad for p in model.parameters()):
                raise PluginError(
                    f"role '{role}' learns, but every parameter of its model is frozen; let the "
                    "plug-in that loads it leave some open"
                )
        sees = self.special.sees
        self.bodies = Bodies(self.by_role, trainable, sees, self.routers)
        self.set_modes()

    def pass_once(self) -> None:
        """Every forward passes each body once, as sharded models must.

        What has to be tried of a model is tried here, while it is whole.
        """
        self.padding = 1.0
        for role in self.by_role:
            self.bodies.shared(role)

    def set_modes(self) -> None:
        """Evaluation mode for all: a model that learns is the function that was sampled from.

        Only layers that recompute themselves in the backward pass do so in training mode, and RWKV
        keeps its weights as they are saved in that mode alone.
        """
        self.eval()
        for role in self.trainable:
            for part in self.by_role[role].modules():
                recomputes = getattr(part, "gradient_checkpointing", False)
                part.training = recomputes or hasattr(part, "layers_are_rescaled")

    def forward(
        self, batch: Batch, signals: Mapping[str, Signal], balanced: frozenset[str] = frozenset()
    ) -> Named:
        """{row name: [B, S]}, zero outside each signal's positions.

        A role in `balanced` has a row "router/ROLE" too: at each token, the load-balancing loss of
        the forward pass that the token was in.
        """
        if not signals:
            return {}
        masks = {name: self._mask(name, signal, batch) for name, signal in signals.items()}
        rows: Named = {}
        hidden, packer = {}, Packer(batch, self.padding)
        for role, read in _rows_of_roles(signals, masks).items():
            hidden[role] = self.bodies(role, packer, read, role in balanced)
            balance = hidden[role].balance
            if balance is not None:
                rows[ROUTER + role] = balance
        for group in _same_positions(masks):
            some = {name: signals[name] for name in group}
            rows |= self._score(hidden, batch, masks[group[0]], some)
        return rows

    def _mask(self, name: str, signal: Signal, batch: Batch) -> Tensor:
        """[B, S] bool: where a signal is read. Only answers lie side by side with a view's."""
        mask = _mask(name, signal, batch)
        apart = signal.positions is not None and self.special.sees.keys() & set(signal.roles)
        if apart and bool((mask & ~_answers(batch)).any()):
            raise PluginError(
                f"signal '{name}' names positions of the prompt, but '{min(apart)}' sees another "
                "one; name positions that predict the answer"
            )
        return mask

    def _score(
        self,
        hidden: Mapping[str, Hidden],
        batch: Batch,
        mask: Tensor,
        signals: Mapping[str, Signal],
    ) -> Named:
        roles = dict.fromkeys(role for signal in signals.values() for role in signal.roles)
        picked = {r: hidden[r].states[hidden[r].slots[mask]] for r in roles}  # [N, H]
        heads = {role: self.heads[role] for role in roles}
        for name, signal in signals.items():
            _check_widths(name, {role: heads[role].width for role in signal.roles})
        rows = self.scorer(picked, heads, batch.labels[mask], signals)
        return {name: _scatter(x, mask) for name, x in rows.items()}


def _check_widths(name: str, widths: Mapping[str, int]) -> None:
    """Distributions over vocabularies of two sizes cannot be compared; values have width 1."""
    if len({width for width in widths.values() if width > 1}) > 1:
        shown = " and ".join(f"'{role}' has {width} entries" for role, width in widths.items())
        raise TrainingError(
            f"signal '{name}' reads several distributions, and the vocabulary of {shown}; take "
            "models of one vocabulary"
        )


def _mask(name: str, signal: Signal, batch: Batch) -> Tensor:
    mask = signal.mask(batch)
    if signal.positions is not None and bool((mask & ~batch.attention).any()):
        raise PluginError(f"signal '{name}' names positions of padding, which have no logits")
    return mask


def read_rows(batch: Batch, signals: Mapping[str, Signal], role: str) -> Tensor:
    """[B] bool: the rows that some of these signals reads from a role."""
    masks = {name: _mask(name, signal, batch) for name, signal in signals.items()}
    return _rows_of_roles(signals, masks)[role]


def _rows_of_roles(signals: Mapping[str, Signal], masks: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Role -> [B] bool: the rows that it is read on."""
    found: dict[str, Tensor] = {}
    for name, signal in signals.items():
        for role in signal.roles:
            rows = masks[name].any(-1)
            found[role] = found[role] | rows if role in found else rows
    return found


def _answers(batch: Batch) -> Tensor:
    """[B, S] bool: positions from the one that predicts an answer's first token to the end."""
    column = torch.arange(batch.ids.shape[1], device=batch.ids.device)
    first = torch.where(batch.response, column, len(column)).amin(-1, keepdim=True)
    return batch.attention & (column >= first - 1)


def _scatter(x: Tensor, mask: Tensor) -> Tensor:
    """[N] values back onto the [B, S] grid; not a view, to which wrappers cannot hook."""
    return x.new_zeros(mask.shape).index_put(mask.nonzero(as_tuple=True), x)


def _same_positions(masks: Mapping[str, Tensor]) -> list[list[str]]:
    """Names grouped by equal masks, so that logits are read once per group."""
    groups: list[list[str]] = []
    for name, mask in masks.items():
        for group in groups:
            if torch.equal(masks[group[0]], mask):
                group.append(name)
                break
        else:
            groups.append([name])
    return groups
