"""FSDP2: every rank holds a slice of each weight, gradient and moment."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, ClassVar, cast

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor
from transformers import PreTrainedModel

from alignzoo.contract.errors import TrainingError
from alignzoo.engine.layout.base import Layout, keys_of
from alignzoo.engine.layout.optim import Optim, build_optimizer, clip_by_role, count, is_count
from alignzoo.engine.layout.plain import filled, outline, size_of
from alignzoo.engine.layout.refused import (
    refuse_lists_of_experts,
    refuse_scalars,
    refuse_shared,
)
from alignzoo.engine.models.adapters import is_adapted
from alignzoo.engine.parallel.ranks import Ranks
from alignzoo.engine.scoring.scorer import ScoringModule

ASKED = "parallel.strategy: fsdp2"


class Sharded(Layout):
    """Layers are whole only while they compute; embeddings and heads during a whole step.

    Each layer that a model names in `_no_split_modules` is a unit that is gathered when it runs.
    All else belongs to the root, `ScoringModule`, and is gathered when its forward begins and kept
    until the backward pass ends: so a head is a plain tensor wherever a chunk is recomputed.
    Gradients are reduced and scattered in every micro-batch, as their memory is what is saved.
    Weights are gathered in float32 and autocast rounds them, as it does under DDP.
    """

    together: ClassVar[bool] = True

    def __init__(self, ranks: Ranks, scoring: ScoringModule, optim: Optim) -> None:
        super().__init__(ranks, scoring)
        scoring.pass_once()  # groups of rows are as many as a rank's lengths ask for
        self.outlines = {role: outline(model) for role, model in scoring.by_role.items()}
        self.units = [*layers_of(scoring), scoring]  # wrapping changes the names of their classes
        refuse_scalars(scoring, ASKED)
        refuse_shared(scoring, self.units[:-1], ASKED)
        refuse_lists_of_experts(scoring, ASKED)
        together = _set_apart(scoring, self.units[:-1])
        mesh = init_device_mesh(ranks.device.type, (ranks.size,))
        for unit in self.units:
            fully_shard(unit, mesh=mesh)
        for one, other, key in together:
            setattr(other, key, nn.Parameter(getattr(one, key).detach(), requires_grad=False))
        self.module = scoring
        self.optimizer = build_optimizer(optim, self.trained)  # of slices: after sharding

    def check(self) -> None:
        """Every unit is wrapped, every weight is cut into as many slices as there are ranks."""
        size, every = self.ranks.size, dict(self.scoring.models.named_parameters())
        loose = [type(m).__name__ for m in self.units if not isinstance(m, FSDPModule)]
        whole = [name for name, p in every.items() if not _is_slice(p, self.ranks.rank, size)]
        here = sum(_local(p).numel() for p in every.values())
        found = self.ranks.sum(torch.tensor([float(here)], dtype=torch.float64)).item()
        total = sum(p.numel() for p in every.values())
        known = {id(p) for group in self.optimizer.param_groups for p in group["params"]}
        foreign = [name for name, p in self.parameters() if id(p) not in known]
        for odd in (loose, whole, foreign, [] if found == total else [f"{found:.0f} of {total}"]):
            if odd:
                raise TrainingError(
                    f"{ASKED} was asked for and is not engaged on {size} ranks: {odd[0]} is not "
                    "sharded as it should be; take ddp, and report this with the model's name"
                )

    @property
    def _root(self) -> FSDPModule:
        return cast(FSDPModule, self.scoring)

    def unsynced(self, last: bool) -> AbstractContextManager[Any]:
        """Nothing is put off."""
        return nullcontext()

    def backward(self, value: Tensor) -> None:
        """Add to this rank's slice of the gradients."""
        self.ranks.accelerator.backward(value)

    def clip(self, max_norm: float) -> dict[str, Tensor]:
        """By the norm over all slices."""
        return {role: _full(x) for role, x in clip_by_role(self.optimizer, max_norm).items()}

    def step(self) -> None:
        """Each rank updates its slices."""
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)

    def forwards(self, wanted: int) -> int:
        """As many as the rank with most makes."""
        return int(self.ranks.max(torch.tensor(float(wanted))).item())

    def whole(self, role: str) -> Iterator[tuple[str, Tensor]]:
        """Gathered one by one."""
        self._root.reshard()  # after a pass without gradient the root is still gathered
        for name, p in self.scoring.by_role[role].named_parameters():
            yield name, _full(p.detach())

    def plain(self, role: str, device: torch.device) -> PreTrainedModel:
        """A copy that is not sharded."""
        return filled(self.outlines[role], self.whole(role), device)

    def copied(self, role: str) -> int:
        """All weights."""
        return size_of(self.outlines[role])

    @torch.no_grad()
    def follow(self, role: str, of: str, mix: float) -> None:
        """Slice by slice, where the two are cut alike."""
        if is_adapted(self.scoring.by_role[of]):
            return super().follow(role, of, mix)
        self._root.reshard()
        pairs = (self.scoring.by_role[name].parameters() for name in (role, of))
        for own, target in zip(*pairs, strict=True):
            _local(own).lerp_(_local(target), mix)

    @torch.no_grad()
    def load(self, role: str, tensors: Mapping[str, Tensor]) -> None:
        """Each rank takes its slice."""
        self._root.reshard()
        own = dict(self.scoring.by_role[role].named_parameters())
        for name in tensors:
            own[name].copy_(_slice(tensors[name], own[name]))

    def learnt(self) -> Iterator[tuple[str, Tensor]]:
        """Gathered one by one."""
        self._root.reshard()
        yield from ((name, _full(p.detach())) for name, p in self.parameters())

    def moments(self) -> Iterator[tuple[str, Tensor]]:
        """Gathered one by one."""
        self._root.reshard()
        for name, p in self.parameters():
            for key, x in self.optimizer.state[p].items():
                yield f"{name}/{key}", _full(torch.as_tensor(x))

    def load_moments(self, tensors: Mapping[str, Tensor]) -> None:
        """Each rank takes its slices; counts of steps are not sliced."""
        self._root.reshard()
        known = keys_of(tensors)
        self.optimizer.state.clear()
        for name, p in self.parameters():
            self.optimizer.state[p] = {
                key: self._moment(tensors[f"{name}/{key}"], p, key) for key in known.get(name, ())
            }

    def _moment(self, x: Tensor, parameter: Tensor, key: str) -> Tensor:
        if is_count(x, parameter, key):
            return count(x, parameter, self.optimizer)
        return _slice(x, parameter).clone()


def _full(x: Tensor) -> Tensor:
    return x.full_tensor() if isinstance(x, DTensor) else x


def _local(p: Tensor) -> Tensor:
    return p.to_local() if isinstance(p, DTensor) else p


def _is_slice(p: Tensor, rank: int, size: int) -> bool:
    """Whether rank r of n holds rows [r k, r k + k) of a weight with R rows, k = ceil(R / n)."""
    if not isinstance(p, DTensor) or p.device_mesh.size() != size:
        return False
    most = -(-p.shape[0] // size)
    mine = max(0, min(most, p.shape[0] - rank * most))
    return len(p.to_local()) == mine


def _slice(x: Tensor, like: Tensor) -> Tensor:
    """The slice of this rank, of a tensor that every rank has whole; nothing is sent."""
    own = cast(DTensor, like)
    there = x.to(own.device, own.dtype)
    return distribute_tensor(there, own.device_mesh, own.placements, src_data_rank=None)


def layers_of(module: ScoringModule) -> list[nn.Module]:
    """The units of all models, innermost first.

    Raises TrainingError for a model that does not say what its layers are.
    """
    found: dict[int, nn.Module] = {}
    for role, model in module.by_role.items():
        names = set(getattr(model, "_no_split_modules", None) or ())
        own = [part for part in model.modules() if type(part).__name__ in names]
        if not own:
            raise TrainingError(
                f"{ASKED} shards layer by layer, and {type(model).__name__} (role '{role}') does "
                "not name its layers in _no_split_modules; take ddp"
            )
        found |= {id(part): part for part in reversed(own)}
    return list(found.values())


def _set_apart(
    module: ScoringModule, layers: Sequence[nn.Module]
) -> list[tuple[nn.Module, nn.Module, str]]:
    """The weights of a base that several models hold, as a parameter for each unit but one.

    Returns where one parameter and each other is, (module, module, name): FSDP2 wants parameters
    of its own in every unit, whose slices are then made one again; they are read and never learn.
    """
    unit = {id(part): id(layer) for layer in reversed(layers) for part in layer.modules()}
    first: dict[int, nn.Module] = {}
    found = []
    for part in module.models.modules():
        for key, p in list(part.named_parameters(recurse=False)):
            one = first.setdefault(id(p), part)
            if not p.requires_grad and unit.get(id(one)) != unit.get(id(part)):
                setattr(part, key, nn.Parameter(p.detach(), requires_grad=False))
                found.append((one, part, key))
    return found
