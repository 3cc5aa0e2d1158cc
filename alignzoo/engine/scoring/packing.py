"""Which rows of a batch go through a body together, and where each of their positions comes out."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from alignzoo.contract.types import Batch, Tokens
from alignzoo.engine.models.prefixes import visible

PADDING = 0.2  # share of a group's columns
LEAST_PROMPT = 32  # tokens that are worth sharing
LEAST_SAVING = 0.1  # of the work of a batch
MATRICES = 6  # a layer's weights take as long as attention to 6 H other tokens


@dataclass(frozen=True)
class Pass:
    """One forward of a body."""

    rows: Tensor  # [k] row numbers of the batch that it holds
    ids: Tensor  # [n, w] int64
    positions: Tensor | None = None  # [n, w] int64; None: rows that stand alone, from 0
    mask: Tensor | None = None  # [n, 1, w, w] bool: what a token sees; None: what is before it


@dataclass(frozen=True)
class Packing:
    """How the rows of a batch go through a body."""

    passes: Sequence[Pass]
    slots: Tensor  # [B, S] int64: place of (b, p) in the passes' flattened hidden states


@dataclass(frozen=True)
class Shape:
    """What is known of the rows of a batch on the CPU, which a device is waited for."""

    lengths: Sequence[int]
    prompts: Sequence[Hashable]  # the same of rows that may share theirs, else the row's own
    starts: Sequence[int]  # tokens of the prompt

    @property
    def repeats(self) -> bool:
        """Whether some rows may share a prompt."""
        return _repeated(self.prompts)

    @classmethod
    def of(cls, batch: Batch) -> Shape:
        """Rows of a batch; prompts that are too short to share are every row's own."""
        first = batch.response.int().argmax(-1)
        lengths = batch.attention.sum(-1)
        known = torch.stack([lengths, torch.where(batch.response.any(-1), first, lengths)])
        sizes, starts = known.tolist()
        prompts: list[Hashable] = list(range(len(sizes)))
        if max(starts) >= LEAST_PROMPT:
            ids = batch.ids.cpu().numpy()
            for row, start in enumerate(starts):
                if start >= LEAST_PROMPT:
                    prompts[row] = ids[row, :start].tobytes()
        return cls(sizes, prompts, starts)


def by_prompt(prompts: Sequence[Hashable], shared: Callable[[], bool]) -> Sequence[Hashable]:
    """The prompts, or a number for each row where none comes twice or no model shares them."""
    return prompts if _repeated(prompts) and shared() else range(len(prompts))


def _repeated(prompts: Sequence[Hashable]) -> bool:
    return len({*prompts}) < len(prompts)


def shared_prompt(row: Tokens, own: int) -> Hashable:
    """The same of rows that may share their prompts; one that is too short is a row's own."""
    return row.prompt if len(row.prompt) >= LEAST_PROMPT else own


def batches_of(lengths: Sequence[int], prompts: Sequence[Hashable], size: int) -> list[list[int]]:
    """Row numbers in batches of at most `size`, the longest first; one prompt's rows are not torn
    apart if they fit, and come side by side.

    A prompt stands where its longest row does. Where all prompts differ this is the order of
    lengths, cut every `size` rows.
    """
    order = sorted(range(len(lengths)), key=lambda row: -lengths[row])
    if not _repeated(prompts):
        return [order[i : i + size] for i in range(0, len(order), size)]
    rows: dict[Hashable, list[int]] = {}
    for row in order:
        rows.setdefault(prompts[row], []).append(row)
    batches: list[list[int]] = []
    for group in rows.values():
        if not batches or len(batches[-1]) + min(len(group), size) > size:
            batches.append([])
        for row in group:
            if len(batches[-1]) == size:
                batches.append([])
            batches[-1].append(row)
    return batches


@dataclass(frozen=True)
class Packer:
    """The packings of one batch, each made once for all models that read the same rows alike."""

    batch: Batch
    limit: float = PADDING  # of the share of padding; 1: one pass, as sharded models must have
    shapes: dict[str | None, Shape] = field(default_factory=dict)
    made: dict[tuple[str | None, tuple[int, ...], int | None], Packing] = field(
        default_factory=dict
    )

    def seen(self, view: str | None) -> Batch:
        """The batch, or a view of it."""
        return self.batch if view is None else self.batch.views[view]

    def shape(self, view: str | None) -> Shape:
        """Lengths and prompts."""
        if view not in self.shapes:
            self.shapes[view] = Shape.of(self.seen(view))
        return self.shapes[view]

    def __call__(self, view: str | None, read: Tensor, hidden: int | None) -> Packing:
        """Passes over the rows that are read [B]; `hidden` is H where prompts may be shared.

        Where no row is read, the shortest one: wrappers and other ranks wait for every model.
        """
        seen, shape = self.seen(view), self.shape(view)
        rows = tuple(read.nonzero().squeeze(-1).tolist())
        rows = rows or (min(range(len(shape.lengths)), key=lambda b: shape.lengths[b]),)
        key = (view, rows, hidden)
        if key not in self.made:
            self.made[key] = _packing(seen, shape, rows, self.limit, hidden)
        return self.made[key]


def _packing(
    batch: Batch, shape: Shape, rows: Sequence[int], limit: float, hidden: int | None
) -> Packing:
    return _placed(batch, shape, _cut(shape, rows, limit, hidden))


def _cut(shape: Shape, rows: Sequence[int], limit: float, hidden: int | None) -> _Cut:
    apart = _Cut.of([(row,) for row in rows], shape, limit)
    if hidden is None:
        return apart
    shared = _Cut.of(_packs(shape, rows, hidden), shape, limit)
    pays = shared.work(hidden) <= (1 - LEAST_SAVING) * apart.work(hidden)
    return shared if pays else apart


@dataclass(frozen=True)
class _Cut:
    """Packs, each some rows behind one prompt, cut into passes."""

    packs: Sequence[tuple[int, ...]]
    sizes: Sequence[int]  # tokens of each
    groups: Sequence[Sequence[int]]  # numbers of the packs of each pass, the longest first

    @classmethod
    def of(cls, packs: Sequence[tuple[int, ...]], shape: Shape, limit: float) -> _Cut:
        sizes = [_size(shape, pack) for pack in packs]
        return cls(packs, sizes, row_groups(sizes, limit))

    def work(self, hidden: int) -> int:
        """Of all passes, padding included."""
        return sum(len(group) * _work(self.sizes[group[0]], hidden) for group in self.groups)


def _size(shape: Shape, pack: Sequence[int]) -> int:
    """Tokens of some rows behind one copy of their prompt."""
    if len(pack) == 1:
        return shape.lengths[pack[0]]
    return sum(shape.lengths[b] for b in pack) - (len(pack) - 1) * shape.starts[pack[0]]


def _work(width: int, hidden: int) -> int:
    """What a layer does for a row of so many columns, in units of a token's attention to one."""
    return width * (MATRICES * hidden + width)


def _packs(shape: Shape, rows: Sequence[int], hidden: int) -> list[tuple[int, ...]]:
    """Rows of one prompt packed as long as the next is cheaper behind the others than alone."""
    packs: list[list[int]] = []
    last: dict[Hashable, list[int]] = {}
    for row in rows:
        pack = last.get(shape.prompts[row])
        if pack is not None:
            before, after = (_work(_size(shape, x), hidden) for x in (pack, [*pack, row]))
            if after - before < _work(shape.lengths[row], hidden):
                pack.append(row)
                continue
        last[shape.prompts[row]] = pack = [row]
        packs.append(pack)
    return [tuple(pack) for pack in packs]


def _placed(batch: Batch, shape: Shape, cut: _Cut) -> Packing:
    """The passes of a cut, on the device of the batch."""
    slots = torch.zeros(batch.ids.shape, dtype=torch.int64)
    passes, start = [], 0
    for group in cut.groups:
        width = cut.sizes[group[0]]
        packs = [cut.packs[number] for number in group]
        if all(len(pack) == 1 for pack in packs):
            rows = torch.tensor([pack[0] for pack in packs])
            slots[rows, :width] = torch.arange(start, start + len(packs) * width).view(-1, width)
            rows = rows.to(batch.ids.device)
            passes.append(Pass(rows, batch.ids[rows, :width]))
        else:
            passes.append(_behind_prompts(batch, shape, packs, width, (slots, start)))
        start += len(packs) * width
    return Packing(passes, slots.to(batch.ids.device))


def _behind_prompts(
    batch: Batch,
    shape: Shape,
    packs: Sequence[Sequence[int]],
    width: int,
    noted: tuple[Tensor, int],
) -> Pass:
    """A pass over packs; where their rows come out is noted in the slots, from the start."""
    columns, (slots, start) = batch.ids.shape[1], noted
    laid = [_laid(shape, pack, width, columns) for pack in packs]
    for i, (pack, (places, _)) in enumerate(zip(packs, laid, strict=True)):
        n, first = _size(shape, pack), start + i * width
        slots.view(-1)[places[:n]] = torch.arange(first, first + n)
        for b in pack[1:]:
            slots[b, : shape.starts[b]] = slots[pack[0], : shape.starts[b]]
    source, segments = (torch.stack(x).to(batch.ids.device) for x in zip(*laid, strict=True))
    rows = torch.tensor([b for pack in packs for b in pack], device=batch.ids.device)
    return Pass(rows, batch.ids.flatten()[source], source % columns, visible(segments))


def _laid(shape: Shape, pack: Sequence[int], width: int, columns: int) -> tuple[Tensor, Tensor]:
    """[w] places in the flattened batch, and [w] segments: 0 the prompt, then each answer."""
    prompt = shape.starts[pack[0]]
    parts = [torch.arange(prompt) + pack[0] * columns]
    parts += [torch.arange(prompt, shape.lengths[b]) + b * columns for b in pack]
    parts.append(torch.full((width - _size(shape, pack),), pack[0] * columns))  # never read
    sizes = torch.tensor([len(part) for part in parts])
    return torch.cat(parts), torch.arange(len(parts)).repeat_interleave(sizes)


def row_groups(lengths: Sequence[int], limit: float = PADDING) -> list[list[int]]:
    """Row numbers cut into groups of similar length, longest first.

    A group takes the next shorter row as long as padding stays under `limit` of its columns, so
    the share of padding is bounded whatever the data.
    """
    order = sorted(range(len(lengths)), key=lambda row: -lengths[row])
    groups: list[list[int]] = []
    group: list[int] = []
    total, least = 0, 0.0
    for row in order:
        total += lengths[row]
        if group and total >= least * (len(group) + 1):
            group.append(row)
        else:
            group, total, least = [row], lengths[row], (1 - limit) * lengths[row]
            groups.append(group)
    return groups


def padding_share(
    shape: Shape, rows: Sequence[int], limit: float = PADDING, hidden: int | None = None
) -> float:
    """Share of columns that are padding when some rows are scored; `hidden` as for a `Packer`."""
    cut = _cut(shape, rows, limit, hidden)
    columns = sum(cut.sizes[group[0]] * len(group) for group in cut.groups)
    return 1 - sum(cut.sizes) / columns
