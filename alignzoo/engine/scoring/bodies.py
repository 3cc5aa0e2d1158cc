"""Run the bodies of models on the rows of a batch: [B, S] ids to hidden states [n, H].

Rows of similar length share a forward pass, so that little is computed on padding.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from alignzoo.contract.errors import TrainingError
from alignzoo.contract.types import Batch
from alignzoo.engine.models.fit import embedding_rows
from alignzoo.engine.models.heads import body_of
from alignzoo.engine.models.routers import Router

PADDING = 0.2  # share of a group's columns


@dataclass(frozen=True)
class Packing:
    """How the rows of a batch go through a body: the groups, and where a position comes out."""

    groups: Sequence[Tensor]  # row numbers of every forward pass, the longest first
    ids: Sequence[Tensor]  # [rows, columns] int64 of every pass
    slots: Tensor  # [B, S] int64: place of (b, p) in the passes' flattened hidden states


@dataclass(frozen=True)
class Hidden:
    """What a body made of a batch."""

    states: Tensor  # [n, H] after the final norm, before the head
    slots: Tensor  # [B, S] int64: the state that stands at a position of the batch
    balance: Tensor | None = None  # [B, S] load-balancing loss of the pass that a token was in


class Bodies:
    """The bodies of all roles, and what each of them reads."""

    def __init__(
        self,
        models: Mapping[str, PreTrainedModel],
        trainable: frozenset[str],
        sees: Mapping[str, str],
        routers: Mapping[str, Router],
    ) -> None:
        self.models, self.trainable, self.sees, self.routers = models, trainable, sees, routers
        self.readable = {role: embedding_rows(model) for role, model in models.items()}

    def __call__(
        self, role: str, batch: Batch, read: Tensor, limit: float, balanced: bool
    ) -> Hidden:
        """Hidden states of the rows [B] that are read; `limit` bounds the share of padding."""
        seen = self._seen(role, batch)
        packing = packed(seen, read, limit)
        with torch.set_grad_enabled(torch.is_grad_enabled() and role in self.trainable):
            states, losses = self._states(role, seen, packing, balanced)
        slots = packing.slots
        if seen is not batch:
            slots = slots.gather(1, _columns(batch, seen))
        balance = _at_tokens(torch.stack(losses), batch, packing.groups) if losses else None
        return Hidden(states, slots, balance)

    def _seen(self, role: str, batch: Batch) -> Batch:
        """What a role reads: the batch, or a view of it.

        Samples of one model may hold ids that another has no row for.
        """
        view = self.sees.get(role)
        seen = batch if view is None else batch.views[view]
        largest = int(seen.ids.max())
        if largest >= self.readable[role]:
            raise TrainingError(
                f"a row holds id {largest}, but the embedding of '{role}' has "
                f"{self.readable[role]} rows; take models with one vocabulary"
            )
        return seen

    def _states(
        self, role: str, batch: Batch, packing: Packing, balanced: bool
    ) -> tuple[Tensor, list[Tensor]]:
        """[n, H], pass by pass; the router's losses [].

        No attention mask: padding is on the right, and a causal model never looks there.
        """
        body: Any = body_of(self.models[role])
        more = {"output_router_logits": True} if balanced else {}
        parts, losses = [], []
        found = embeddings(body, packing.ids)
        for rows, ids, embedded in zip(packing.groups, packing.ids, found, strict=True):
            with _looked_up(body, ids, embedded):
                out = body(input_ids=ids, use_cache=False, **more)
            parts.append(out.last_hidden_state.flatten(0, 1))
            if balanced:
                seen = batch.attention[rows, : ids.shape[1]]
                losses.append(self.routers[role].loss(out.router_logits, seen))
        return torch.cat(parts), losses


def embeddings(body: Any, passes: Sequence[Tensor]) -> list[Tensor | None]:
    """The embeddings [n, w, H] of the ids [n, w] of each pass, from one look-up for all of them.

    The gradient of a look-up is a whole [V, H], and several passes need only one. None: a single
    pass looks up its own, which sharded models can do inside their forward alone.
    """
    if len(passes) == 1:
        return [None]
    every = body.get_input_embeddings()(torch.cat([ids.flatten() for ids in passes]))
    sizes = [ids.numel() for ids in passes]
    parts = zip(passes, every.unsafe_split_with_sizes(sizes), strict=True)  # may be scaled in place
    return [part.unflatten(0, ids.shape) for ids, part in parts]


@contextmanager
def _looked_up(body: Any, ids: Tensor, embedded: Tensor | None) -> Iterator[None]:
    """The body's embedding of these very ids is the given one.

    It gets the ids too, because some layers read them: embeddings per layer, experts by token.
    """

    def instead(module: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> Tensor | None:
        return embedded if inputs and ids.is_set_to(inputs[0]) else None

    if embedded is None:
        yield
        return
    hook = body.get_input_embeddings().register_forward_hook(instead)
    try:
        yield
    finally:
        hook.remove()


def packed(batch: Batch, read: Tensor, limit: float = PADDING) -> Packing:
    """Passes over the rows that are read [B].

    Where there is none, the shortest row: wrappers and other ranks wait for every model.
    """
    lengths = batch.attention.sum(-1)
    rows = read.nonzero().squeeze(-1) if bool(read.any()) else lengths.argmin()[None]
    groups = [rows[group] for group in row_groups(lengths[rows], limit)]
    ids, slots, start = [], torch.zeros_like(batch.ids), 0
    for group in groups:
        width = int(lengths[group[0]])
        n = len(group) * width
        ids.append(batch.ids[group, :width])
        slots[group, :width] = torch.arange(start, start + n, device=slots.device).view(-1, width)
        start += n
    return Packing(groups, ids, slots)


def row_groups(lengths: Tensor, limit: float = PADDING) -> list[Tensor]:
    """Row numbers cut into groups of similar length, longest first.

    A group takes the next shorter row as long as padding stays under `limit` of its columns, so
    the share of padding is bounded whatever the data.
    """
    order = torch.argsort(lengths, descending=True, stable=True).tolist()
    sizes = lengths.tolist()
    groups: list[list[int]] = []
    total = 0
    for row in order:
        total += sizes[row]
        width = sizes[groups[-1][0]] if groups else 0
        if groups and total >= (1 - limit) * width * (len(groups[-1]) + 1):
            groups[-1].append(row)
        else:
            groups.append([row])
            total = sizes[row]
    return [torch.tensor(group, device=lengths.device) for group in groups]


def padding_share(lengths: Tensor, limit: float = PADDING) -> float:
    """Share of columns that are padding when these rows are scored."""
    columns = sum(int(lengths[group[0]]) * len(group) for group in row_groups(lengths, limit))
    return 1 - int(lengths.sum()) / columns


def _columns(batch: Batch, view: Batch) -> Tensor:
    """[B, S] int64: the view's column of the token in column p; both end with one answer."""
    shift = view.attention.sum(-1) - batch.attention.sum(-1)
    column = torch.arange(batch.ids.shape[1], device=batch.ids.device)
    return (column + shift[:, None]).clamp(0, view.ids.shape[1] - 1)


def _at_tokens(losses: Tensor, batch: Batch, groups: Sequence[Tensor]) -> Tensor:
    """[B, S] the loss of each row's group [G] at the tokens of the row, 0 elsewhere."""
    rows = torch.cat(list(groups))
    sizes = torch.tensor([len(group) for group in groups], device=rows.device)
    of_row = losses.repeat_interleave(sizes)
    spread = losses.new_zeros(len(batch.ids)).index_put((rows,), of_row)
    return spread[:, None] * batch.attention
