"""Values that travel between data, engine and algorithms: samples, batches, signals, losses.

Legend for shapes: I items of a batch (a pair is one item), B sequences, S columns, N scored
positions, V vocabulary. Position p of a row holds the logits that predict token p+1.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, Self, TypeAlias, Union

import torch

if TYPE_CHECKING:
    from torch import Tensor

from alignzoo.contract.closed import Closed, bound
from alignzoo.contract.grids import column_of, grid

# {"role": "user", "content": "..."}, and whatever else the row's author wrote: tool_calls, name.
# `content` is None only beside tool calls.
Message: TypeAlias = Mapping[str, Any]
PromptText: TypeAlias = str | tuple[Message, ...]  # plain text, or the messages of a chat


# --- text: what a dataset yields -----------------------------------------------------------


@dataclass(frozen=True)
class Response:
    """An answer as text; a sampled one keeps its ids, because text does not round-trip to ids.

    `text` holds the special tokens that are content, such as <think>; those that begin, end or pad
    a turn stand in neither text. `message` is what an author wrote as the assistant's message,
    where that is more than its text: tool calls, reasoning in a field of its own.
    """

    text: str
    ids: tuple[int, ...] | None = None  # response tokens, the stop token included
    ended: bool = True  # False: cut at the length limit, no stop token
    plain: str | None = None  # the text without any special token; None: the same as `text`
    message: Message | None = field(default=None, hash=False)

    def without_special(self) -> Response:
        """The same answer with the text that holds no special token."""
        return self if self.plain is None else replace(self, text=self.plain, plain=None)


@dataclass(frozen=True)
class PromptSample:
    """A prompt without an answer (on-policy training, generation, evaluation).

    In every sample `meta["tools"]` are the tools of a chat as JSON schemas, for its template.
    """

    prompt: PromptText
    meta: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class TextSample:
    """A prompt with the answer to imitate or to distil on."""

    prompt: PromptText
    response: Response
    meta: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class PairSample:
    """A prompt with a preferred and a dispreferred answer."""

    prompt: PromptText
    chosen: Response
    rejected: Response
    meta: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class LabelledSample:
    """A prompt with one answer and whether it is desirable (unpaired preferences)."""

    prompt: PromptText
    response: Response
    desirable: bool
    meta: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class GroupSample:
    """A prompt with several sampled answers and, once judged, their scores."""

    prompt: PromptText
    responses: tuple[Response, ...]
    scores: tuple[float, ...] | None = None
    meta: Mapping[str, Any] = field(default_factory=dict)


Sample: TypeAlias = PromptSample | TextSample | PairSample | LabelledSample | GroupSample


# --- tokens: what the engine feeds to models -------------------------------------------------


@dataclass(frozen=True)
class Tokens:
    """One sequence: prompt ids, then response ids (the stop token is the last one, if any).

    Where several turns of a chat are learnt, the response begins with the first of them, and
    `learnt` says of each of its tokens whether it belongs to one; None: all do.
    """

    prompt: tuple[int, ...]
    response: tuple[int, ...]
    learnt: tuple[bool, ...] | None = None

    def __len__(self) -> int:
        return len(self.prompt) + len(self.response)


@dataclass(frozen=True)
class Item:
    """One unit that is never split: its sequences, and its numbers, e.g. {"desirable": 1.0}.

    A number is the item's, a tuple has one for each of its rows. A view has the same responses
    behind other prompts.
    """

    rows: tuple[Tokens, ...]
    values: Mapping[str, float | tuple[float, ...]] = field(default_factory=dict)
    views: Mapping[str, tuple[Tokens, ...]] = field(default_factory=dict)

    def __len__(self) -> int:
        return max(len(row) for rows in (self.rows, *self.views.values()) for row in rows)


@dataclass(frozen=True)
class Batch:
    """Right-padded sequences. Rows come item by item within each column of the item.

    With `rows_per_item` = 2 and I items, rows 0..I-1 hold the first sequence of every item and
    rows I..2I-1 the second. Masks are made from lengths, never by comparing ids.
    """

    ids: Tensor  # [B, S] int64: the tokens; padding on the right
    attention: Tensor  # [B, S] bool: a token, not padding
    response: Tensor  # [B, S] bool: token belongs to the response, stop token included
    # The same responses behind other prompts, row by row, with columns of their own.
    views: Mapping[str, Batch] = field(default_factory=dict, kw_only=True)

    rows_per_item: ClassVar[int] = 1

    @property
    def tensors(self) -> dict[str, Tensor]:
        """Every field but the views."""
        return {f.name: getattr(self, f.name) for f in fields(self) if f.name != "views"}

    @property
    def lengths(self) -> Tensor:
        """[B] int64: tokens of each row, or of its longest view."""
        every = [x._sizes for x in (self, *self.views.values())]
        return torch.stack(every).amax(0) if self.views else every[0].clone()

    @cached_property
    def _sizes(self) -> Tensor:
        return self.attention.sum(-1)

    @property
    def mask(self) -> Tensor:
        """[B, S] bool: positions that predict a response token (first one in, after-EOS out)."""
        return self._mask.clone()  # whoever asks may write into it

    @cached_property
    def _mask(self) -> Tensor:
        return torch.nn.functional.pad(self.response[:, 1:], (0, 1))

    @property
    def labels(self) -> Tensor:
        """[B, S] int64: the token that position p predicts; 0 in the last column."""
        return torch.nn.functional.pad(self.ids[:, 1:], (0, 1))

    @property
    def n_items(self) -> int:
        """Number of units (pairs, groups or single sequences)."""
        return self.ids.shape[0] // self.rows_per_item

    def rows(self, items: Tensor) -> Tensor:
        """[k * rows_per_item] int64: row numbers of the given items [k]."""
        n = self.n_items
        rows = [items + k * n if k else items for k in range(self.rows_per_item)]
        return torch.cat(rows) if len(rows) > 1 else items

    def take(self, items: Tensor) -> Self:
        """The sub-batch of the given items [k], trimmed to its own longest row."""
        views = {name: view.take(self.rows(items)) for name, view in self.views.items()}
        return replace(self, views=views, **self.take_signals(items, self.tensors))

    def take_signals(self, items: Tensor, signals: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Cut signals [B, S], [B] or [I] the same way as `take` cuts the batch."""
        rows = self.rows(items)
        width = int(self._sizes[rows].max()) if signals else 0

        def cut(x: Tensor) -> Tensor:
            at = items if len(x) == self.n_items else rows
            return x[at] if x.ndim == 1 else x[at, :width]

        return {name: cut(x) for name, x in signals.items()}

    def to(self, device: torch.device) -> Self:
        """The same batch on a device."""
        if self.ids.device == device:
            return self
        views = {name: view.to(device) for name, view in self.views.items()}
        return replace(self, views=views, **{n: x.to(device) for n, x in self.tensors.items()})

    @classmethod
    def collate(cls, items: Sequence[Item], pad_id: int) -> Self:
        """Pad items into one batch; extra fields of a subclass come from `Item.values`."""
        rows = [item.rows[k] for k in range(cls.rows_per_item) for item in items]
        ids, attention, response = grid(rows, pad_id)
        extra = {
            f.name: column_of([item.values[f.name] for item in items], cls.rows_per_item)
            for f in fields(cls)
            if f.name not in ("ids", "attention", "response", "views")
        }
        views = {name: _view(name, items, cls.rows_per_item, pad_id) for name in items[0].views}
        return cls(ids, attention, response, views=views, **extra)


def _view(name: str, items: Sequence[Item], rows: int, pad_id: int) -> Batch:
    """The rows of one view, in the order of the batch."""
    return Batch.collate([Item((x.views[name][k],)) for k in range(rows) for x in items], pad_id)


@dataclass(frozen=True)
class TextBatch(Batch):
    """Prompt and response, B = I. Algorithms that eat it may also be fed rollouts."""


@dataclass(frozen=True)
class PairBatch(Batch):
    """Preference pairs: B = 2I, chosen rows first."""

    rows_per_item: ClassVar[int] = 2

    @property
    def chosen(self) -> slice:
        """Rows of the preferred responses: `x[batch.chosen]` is [I, ...]."""
        return slice(0, self.n_items)

    @property
    def rejected(self) -> slice:
        """Rows of the dispreferred responses."""
        return slice(self.n_items, None)


@dataclass(frozen=True)
class LabelledBatch(Batch):
    """Unpaired preferences; each item carries its row and a mismatched one (same prompt, a
    response that answers another prompt), B = 2I.
    """

    desirable: Tensor  # [I] float32: 1 desirable, 0 not

    rows_per_item: ClassVar[int] = 2

    @property
    def matched(self) -> slice:
        """Rows (x_i, y_i)."""
        return slice(0, self.n_items)

    @property
    def mismatched(self) -> slice:
        """Rows (x_i, y_j) with y_j an answer to another prompt."""
        return slice(self.n_items, None)


@dataclass(frozen=True)
class RolloutBatch(TextBatch):
    """Responses the policy sampled, with the reward of each."""

    reward: Tensor  # [B] float32: from a judge or a scalar-head role; 0 without one
    ended: Tensor  # [B] float32: 1 if a stop token was sampled, 0 if cut at the length limit
    group: Tensor  # [B] float32: samples of one prompt share a number


# --- signals and losses ----------------------------------------------------------------------

Signals: TypeAlias = Mapping[str, "Tensor"]  # name -> [B, S], 0 outside the signal's positions
Outputs: TypeAlias = Mapping[str, "Tensor"]  # role -> [N, V] fp32 logits; scalar head: [N, 1]
State: TypeAlias = Mapping[str, "Tensor"]
Rows: TypeAlias = Union["Tensor", Mapping[str, "Tensor"]]  # [N], or several named [N]


@dataclass(frozen=True)
class Signal:
    """A per-token quantity and the models it is read from.

    `reduce(outputs, labels)` maps {role: [n, V]} and labels [n] to [n], or to several named rows
    which arrive in the loss as "signal/row". The engine chooses n: no one holds [B, S, V].
    `key` identifies the computation across runs; a signal with a key whose roles are all frozen
    is computed once per sequence and cached on disk. `closed` gives what `reduce` gives, faster.
    """

    roles: tuple[str, ...]
    reduce: Callable[[Outputs, Tensor], Rows]
    positions: Callable[[Batch], Tensor] | None = None  # Batch -> [B, S] bool; default batch.mask
    key: str | None = None
    closed: Closed | None = None

    def __post_init__(self) -> None:
        """A form that belongs to another `reduce` is dropped."""
        object.__setattr__(self, "closed", bound(self.closed, self.reduce))

    def mask(self, batch: Batch) -> Tensor:
        """[B, S] bool: where the signal is defined."""
        return batch.mask if self.positions is None else self.positions(batch)


@dataclass(frozen=True)
class Term:
    """scale * sum(value * weight) / sum(weight), both sums over the whole optimiser batch.

    `value` is [I], [B] or [B, S]; `weight`, of its shape, depends on the batch alone (default 1).
    """

    value: Tensor
    weight: Tensor | None = None
    scale: float = 1.0

    @property
    def weights(self) -> Tensor:
        """The weight, ones by default, detached."""
        value = self.value.detach()
        return torch.ones_like(value) if self.weight is None else self.weight.to(value)


@dataclass(frozen=True)
class Mean:
    """A metric reduced like a Term: sum(value * weight) / sum(weight)."""

    value: Tensor
    weight: Tensor | None = None


@dataclass(frozen=True)
class Max:
    """A metric whose largest value over the optimiser batch is reported (over weight > 0)."""

    value: Tensor
    weight: Tensor | None = None


@dataclass(frozen=True)
class Loss:
    """What `Algorithm.loss` returns; only the engine reduces it.

    One unnamed term or several named ones, and metrics: a bare tensor is a `Mean` over its items.
    """

    terms: Term | Mapping[str, Term]
    metrics: Mapping[str, Mean | Max | Tensor] = field(default_factory=dict)

    @property
    def named(self) -> Mapping[str, Term]:
        """The terms by name; an only, unnamed one is called "loss"."""
        return {"loss": self.terms} if isinstance(self.terms, Term) else self.terms


class World(Protocol):
    """What `prepare` may know beyond its own rows: the other ranks, the state, and fair noise."""

    @property
    def state(self) -> State:
        """The method's running quantities, as `loss` will see them; to be read only."""
        ...

    def uniform(self, like: Tensor) -> Tensor:
        """Noise in [0, 1) of the shape of `like`: [I], [B] or [B, S].

        A row's numbers depend on the seed, the buffer, the number of the call and the row's tokens,
        so they are the same for any number of ranks. Equal rows get equal noise.
        """
        ...

    def sum(self, x: Tensor) -> Tensor:
        """Sum x over all ranks."""
        ...

    def mean(self, x: Tensor, mask: Tensor) -> Tensor:
        """Mean of x where mask, over all ranks: a scalar."""
        ...
