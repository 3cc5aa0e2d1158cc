"""Run the bodies of models on the rows of a batch: [B, S] ids to hidden states [n, H]."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from alignzoo.contract.errors import TrainingError
from alignzoo.contract.types import Batch
from alignzoo.engine.models.beside import beside, joins_rows, kernel_takes
from alignzoo.engine.models.context import longest_row
from alignzoo.engine.models.fit import embedding_rows, embedding_width
from alignzoo.engine.models.heads import body_of
from alignzoo.engine.models.prefixes import shares_prompts
from alignzoo.engine.models.routers import Router
from alignzoo.engine.scoring.known import States, looked_up
from alignzoo.engine.scoring.packing import CALLS, LAUNCHES, Packer, Packing, Pass, Reader, Shape

Trial = Callable[[PreTrainedModel], bool]


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
        known: Mapping[str, States] = MappingProxyType({}),
    ) -> None:
        self.models, self.trainable, self.sees, self.routers = models, trainable, sees, routers
        self.known = known
        self._tried: dict[tuple[int, Trial], bool] = {}  # by the model's id
        self.together = False  # one pass for all rows, whatever their lengths
        self.readable = {role: embedding_rows(model) for role, model in models.items()}
        self.hidden = {role: embedding_width(model) for role, model in models.items()}
        self.longest = {role: longest_row(model.config) for role, model in models.items()}

    def __call__(self, role: str, packer: Packer, read: Tensor, balanced: bool) -> Hidden:
        """Hidden states of the rows [B] that are read."""
        batch, view = packer.batch, self.sees.get(role)
        seen = packer.seen(view)
        if role in self.known:
            rows = read.nonzero().squeeze(-1).tolist()
            hidden = Hidden(*looked_up(self.known[role], seen, packer.shape(view), rows))
        else:
            hidden = self._passed(role, packer, read, balanced)
        if seen is batch:
            return hidden
        return replace(hidden, slots=hidden.slots.gather(1, _columns(batch, seen)))

    def _passed(self, role: str, packer: Packer, read: Tensor, balanced: bool) -> Hidden:
        """What the body makes of the rows; slots are those of what the role sees."""
        batch, view = packer.batch, self.sees.get(role)
        seen, shape = packer.seen(view), packer.shape(view)
        self._check_ids(role, seen)
        self._check_lengths(role, shape.lengths)
        packing = packer(view, read, self.reader(role, shape, balanced))
        with torch.set_grad_enabled(torch.is_grad_enabled() and role in self.trainable):
            states, losses = self._states(role, seen, packing, balanced)
        groups = [one.rows for one in packing.passes]
        balance = _at_tokens(torch.stack(losses), batch, groups) if losses else None
        return Hidden(states, packing.slots, balance)

    def reader(self, role: str, shape: Shape, balanced: bool) -> Reader:
        """How rows of a shape are cut for a role; a router that is balanced counts every token."""
        shares = shape.repeats and not balanced and self.shares(role)
        joins = not balanced and kernel_takes(self.models[role]) and self.joins(role)
        calls = CALLS if self.models[role].device.type == "cpu" else LAUNCHES
        return Reader(self.hidden[role], shares, joins, self.together, calls)

    def shares(self, role: str) -> bool:
        """Whether rows of a model may share their prompts."""
        return self._try(role, shares_prompts)

    def joins(self, role: str) -> bool:
        """Whether rows of a model may lie side by side."""
        return self._try(role, joins_rows)

    def _try(self, role: str, trial: Trial) -> bool:
        """What a trial says of a model, made when it is first asked.

        Models that are about to be sharded are asked before, while they are whole.
        """
        model = self.models[role]
        key = (id(model), trial)
        if key not in self._tried:
            self._tried[key] = trial(model)
        return self._tried[key]

    def any_shared(self, roles: Iterable[str]) -> bool:
        """Whether some of these models may share prompts."""
        return any(self.shares(role) for role in sorted(roles))

    def _check_ids(self, role: str, seen: Batch) -> None:
        """Samples of one model may hold ids that another has no row for."""
        largest = int(seen.ids.max())
        if largest >= self.readable[role]:
            raise TrainingError(
                f"a row holds id {largest}, but the embedding of '{role}' has "
                f"{self.readable[role]} rows; take models with one vocabulary"
            )

    def _check_lengths(self, role: str, lengths: Sequence[int]) -> None:
        """A pass has one set of angles, that of its longest row; shorter ones need their own."""
        limit, longest = self.longest[role], max(lengths)
        if limit is not None and longest > limit:
            raise TrainingError(
                f"a row has {longest} tokens, and beyond {limit} the rotary embedding of '{role}' "
                "would read the rows beside it otherwise; lower data.max_length or max_new_tokens"
            )

    def _states(
        self, role: str, batch: Batch, packing: Packing, balanced: bool
    ) -> tuple[Tensor, list[Tensor]]:
        """[n, H], pass by pass; the router's losses [].

        No mask where rows stand alone: padding is on the right, and a causal model never looks
        there.
        """
        body: Any = body_of(self.models[role])
        more: dict[str, Any] = {"output_router_logits": True} if balanced else {}
        parts, losses = [], []
        found = embeddings(body, [one.ids for one in packing.passes])
        for one, embedded in zip(packing.passes, found, strict=True):
            with _looked_up(body, one.ids, embedded):
                out = body(input_ids=one.ids, use_cache=False, **more, **_placed(one))
            parts.append(out.last_hidden_state.flatten(0, 1))
            if balanced:
                seen = batch.attention[one.rows, : one.ids.shape[1]]
                losses.append(self.routers[role].loss(out.router_logits, seen))
        return torch.cat(parts), losses


def _placed(one: Pass) -> Mapping[str, Any]:
    """What a body is told of the rows of a pass."""
    if one.positions is None:
        return {}
    if one.edges is not None:
        return beside(one.positions, one.edges, one.longest)
    return {"attention_mask": one.mask, "position_ids": one.positions}


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
