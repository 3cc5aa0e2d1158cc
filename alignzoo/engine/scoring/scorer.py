"""Evaluate signals from hidden states: every [n, V] tensor of a run is made by a scorer.

`ScoringModule.forward` is the one place where a model's head is touched, because it is the module
that Accelerate wraps and wrappers gather weights only inside `forward`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from alignzoo.contract.errors import PluginError, TrainingError
from alignzoo.contract.types import Batch, Signal
from alignzoo.engine.models.heads import head_of
from alignzoo.engine.models.routers import router_of
from alignzoo.engine.scoring.ahead import Ahead, Forecast
from alignzoo.engine.scoring.bodies import Bodies, Hidden
from alignzoo.engine.scoring.fused import Fused
from alignzoo.engine.scoring.known import States
from alignzoo.engine.scoring.packing import Packer, padding_share
from alignzoo.engine.scoring.rows import Named, Scorer, dense

ROUTER = "router/"  # rows with the load-balancing loss of a role


SCORERS: Mapping[str, Callable[[int], Scorer]] = {
    "dense": lambda budget: dense,
    "fused": Fused,
}


@dataclass(frozen=True)
class Special:
    """What is particular about some roles."""

    shared: Mapping[str, str] = field(default_factory=dict)  # role -> the trained one that it is
    moving: Sequence[str] = ()  # roles that do not learn, whose own weights change
    sees: Mapping[str, str] = field(default_factory=dict)  # role -> the view that it reads
    known: Mapping[str, States] = field(default_factory=dict)  # role -> what its body would make


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
        known = self.special.known
        self.bodies = Bodies(self.by_role, trainable, self.special.sees, self.routers, known)
        self.set_modes()

    def pass_once(self) -> None:
        """Every forward passes each body once, as sharded models must.

        What has to be tried of a model is tried here, while it is whole.
        """
        self.bodies.together = True
        for role in self.by_role:
            self.bodies.shares(role)
            if torch.cuda.is_available():
                self.bodies.joins(role)

    def padding_in(
        self, packer: Packer, parts: Sequence[Sequence[int]], balanced: frozenset[str] = frozenset()
    ) -> list[float]:
        """The share of padding in what a role that learns reads, for rows that pass together."""
        role = min(self.trainable)
        shape = packer.shape(self.special.sees.get(role))
        reader = self.bodies.reader(role, shape, role in balanced)
        return [padding_share(shape, rows, reader) for rows in parts]

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
        self,
        batch: Batch,
        signals: Mapping[str, Signal],
        balanced: frozenset[str] = frozenset(),
        ahead: Ahead | None = None,
    ) -> Named:
        """{row name: [B, S]}, zero outside each signal's positions.

        A role in `balanced` has a row "router/ROLE" too: at each token, the load-balancing loss of
        the forward pass that the token was in. `ahead` knows the loss that is made of the rows.
        """
        if not signals:
            return {}
        masks = {name: mask_of(name, s, batch, self.special) for name, s in signals.items()}
        rows: Named = {}
        hidden, packer = {}, Packer(batch)
        for role, read in _rows_of_roles(signals, masks).items():
            hidden[role] = self.bodies(role, packer, read, role in balanced)
            balance = hidden[role].balance
            if balance is not None:
                rows[ROUTER + role] = balance
        every = [part for group in _same_positions(masks) for part in _apart(group, signals)]
        learn = [part for part in every if self._learns(part, signals)]
        # What has no gradient, and what is narrow, is known to the forecasts of the others.
        for part in sorted(every, key=lambda part: (part in learn, self._width(part, signals))):
            mask, some = masks[part[0]], {name: signals[name] for name in part}
            told = Forecast(ahead, mask, _still(rows), len(learn) == 1) if ahead else None
            rows |= self._score(hidden, batch, mask, some, told)
        return rows

    def _learns(self, names: Sequence[str], signals: Mapping[str, Signal]) -> bool:
        """Whether a gradient goes through any of these signals."""
        return any(role in self.trainable for name in names for role in signals[name].roles)

    def _width(self, names: Sequence[str], signals: Mapping[str, Signal]) -> int:
        """Logits per position."""
        roles = {role for name in names for role in signals[name].roles}
        return sum(self.heads[role].width for role in roles)

    def _score(
        self,
        hidden: Mapping[str, Hidden],
        batch: Batch,
        mask: Tensor,
        signals: Mapping[str, Signal],
        upstream: Forecast | None,
    ) -> Named:
        roles = dict.fromkeys(role for signal in signals.values() for role in signal.roles)
        picked = {r: hidden[r].states[hidden[r].slots[mask]] for r in roles}  # [N, H]
        heads = {role: self.heads[role] for role in roles}
        for name, signal in signals.items():
            _check_widths(name, {role: heads[role].width for role in signal.roles})
        rows = self.scorer(picked, heads, batch.labels[mask], signals, upstream)
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


def mask_of(name: str, signal: Signal, batch: Batch, special: Special) -> Tensor:
    """[B, S] bool: where a signal is read; PluginError where a role has nothing to be read there.

    Only answers lie side by side with those of a view, and are kept of what is known.
    """
    mask = _mask(name, signal, batch)
    apart = {*special.sees, *special.known} & set(signal.roles)
    if signal.positions is None or not apart or not bool((mask & ~_answers(batch)).any()):
        return mask
    role, why = min(apart), "sees another one; name positions that predict the answer"
    if role not in special.sees:
        why = "is kept at answers alone; remove train.cache_teacher"
    raise PluginError(f"signal '{name}' names positions of the prompt, but '{role}' {why}")


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


def _still(rows: Named) -> Named:
    return {name: x.detach() for name, x in rows.items()}


def _apart(names: Sequence[str], signals: Mapping[str, Signal]) -> list[list[str]]:
    """Names cut into parts that have no role in common, so that few logits exist at once."""
    parts: list[list[str]] = []
    for name in names:
        roles = set(signals[name].roles)
        kin = [p for p in parts if any(roles & set(signals[other].roles) for other in p)]
        parts = [p for p in parts if p not in kin] + [[*(n for p in kin for n in p), name]]
    return parts


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
