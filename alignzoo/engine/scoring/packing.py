"""Which rows of a batch go through a body together, and where each of their positions comes out."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from itertools import accumulate

import torch
from torch import Tensor

from alignzoo.contract.types import Batch, Tokens
from alignzoo.engine.models.prefixes import visible

PADDING = 0.2  # share of a pass's columns, at most
LEAST_PROMPT = 32  # tokens that are worth sharing
LEAST_SAVING = 0.1  # of the work of a batch
MATRICES = 6  # a layer's weights take as long as attention to 6 H other tokens
CALLS, COLUMNS = 30_000, 16  # a pass costs a layer as much by itself, in this unit and in columns
LAUNCHES = 40_000_000  # the same on a GPU, which computes faster than it is told what


@dataclass(frozen=True)
class Pass:
    """One forward of a body."""

    rows: Tensor  # [k] row numbers of the batch that it holds
    ids: Tensor  # [n, w] int64
    positions: Tensor | None = None  # [n, w] int64; None: rows that stand alone, from 0
    mask: Tensor | None = None  # [n, 1, w, w] bool: what a token sees; None: what is before it
    edges: Tensor | None = None  # [k + 1] int32: where rows side by side begin, and the last ends
    longest: int = 0  # of them


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
class Reader:
    """What decides how the rows of a model are cut into passes."""

    hidden: int  # H
    shares: bool = False  # whether its rows may share their prompts
    joins: bool = False  # whether they may lie side by side, without padding
    together: bool = False  # one pass for all rows, as sharded models must have
    calls: int = CALLS

    def row(self, width: int) -> int:
        """What a layer does for a row of so many columns, in a token's attention to another."""
        return width * (MATRICES * self.hidden + width)

    @property
    def start(self) -> int:
        """What one more pass costs a layer: calls, and gradients of weights that are added up.

        Measured on a CPU for H from 64 to 1,024 and on an H200 for 1,536, forward and backward.
        """
        return self.calls + COLUMNS * MATRICES * self.hidden


@dataclass(frozen=True)
class Packer:
    """The packings of one batch, each made once for all models that read the same rows alike."""

    batch: Batch
    shapes: dict[str | None, Shape] = field(default_factory=dict)
    made: dict[tuple[str | None, tuple[int, ...], Reader], Packing] = field(default_factory=dict)

    def seen(self, view: str | None) -> Batch:
        """The batch, or a view of it."""
        return self.batch if view is None else self.batch.views[view]

    def shape(self, view: str | None) -> Shape:
        """Lengths and prompts."""
        if view not in self.shapes:
            self.shapes[view] = Shape.of(self.seen(view))
        return self.shapes[view]

    def __call__(self, view: str | None, read: Tensor, reader: Reader) -> Packing:
        """Passes over the rows that are read [B].

        Where no row is read, the shortest one: wrappers and other ranks wait for every model.
        """
        seen, shape = self.seen(view), self.shape(view)
        rows = tuple(read.nonzero().squeeze(-1).tolist())
        rows = rows or (min(range(len(shape.lengths)), key=lambda b: shape.lengths[b]),)
        key = (view, rows, reader)
        if key not in self.made:
            self.made[key] = _placed(seen, shape, _cut(shape, rows, reader))
        return self.made[key]


def _cut(shape: Shape, rows: Sequence[int], reader: Reader) -> _Cut:
    alone = [(row,) for row in rows]
    apart = _Cut.joined(alone, shape) if reader.joins else _Cut.of(alone, shape, reader)
    if not reader.shares:
        return apart
    shared = _Cut.of(_packs(shape, rows, reader), shape, reader)
    pays = shared.work(reader) <= (1 - LEAST_SAVING) * apart.work(reader)
    return shared if pays else apart


@dataclass(frozen=True)
class _Cut:
    """Packs, each some rows behind one prompt, cut into passes."""

    packs: Sequence[tuple[int, ...]]
    sizes: Sequence[int]  # tokens of each
    groups: Sequence[Sequence[int]]  # numbers of the packs of each pass, the longest first
    beside: bool = False  # one pass with all of them side by side in one row

    @classmethod
    def of(cls, packs: Sequence[tuple[int, ...]], shape: Shape, reader: Reader) -> _Cut:
        sizes = [_size(shape, pack) for pack in packs]
        return cls(packs, sizes, row_groups(sizes, reader))

    @classmethod
    def joined(cls, packs: Sequence[tuple[int, ...]], shape: Shape) -> _Cut:
        """Rows side by side, in their order."""
        sizes = [_size(shape, pack) for pack in packs]
        return cls(packs, sizes, [range(len(packs))], beside=True)

    @property
    def widths(self) -> list[int]:
        """Columns that each pack takes, padding included."""
        if self.beside:
            return [*self.sizes]
        return [self.sizes[group[0]] for group in self.groups for _ in group]

    def work(self, reader: Reader) -> int:
        """Of all passes, padding included."""
        return sum(map(reader.row, self.widths)) + len(self.groups) * reader.start


def _size(shape: Shape, pack: Sequence[int]) -> int:
    """Tokens of some rows behind one copy of their prompt."""
    if len(pack) == 1:
        return shape.lengths[pack[0]]
    return sum(shape.lengths[b] for b in pack) - (len(pack) - 1) * shape.starts[pack[0]]


def _packs(shape: Shape, rows: Sequence[int], reader: Reader) -> list[tuple[int, ...]]:
    """Rows of one prompt packed as long as the next is cheaper behind the others than alone."""
    packs: list[list[int]] = []
    last: dict[Hashable, list[int]] = {}
    for row in rows:
        pack = last.get(shape.prompts[row])
        if pack is not None:
            before, after = (reader.row(_size(shape, x)) for x in (pack, [*pack, row]))
            if after - before < reader.row(shape.lengths[row]):
                pack.append(row)
                continue
        last[shape.prompts[row]] = pack = [row]
        packs.append(pack)
    return [tuple(pack) for pack in packs]


def _placed(batch: Batch, shape: Shape, cut: _Cut) -> Packing:
    """The passes of a cut, on the device of the batch."""
    if cut.beside:
        return _side_by_side(batch, shape, [row for (row,) in cut.packs])
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


def _side_by_side(batch: Batch, shape: Shape, rows: Sequence[int]) -> Packing:
    """One row of the model with all rows, without padding."""
    device, columns = batch.ids.device, batch.ids.shape[1]
    sizes = [shape.lengths[b] for b in rows]
    edges = torch.tensor([0, *accumulate(sizes)], dtype=torch.int32)
    places = torch.cat([torch.arange(n) + b * columns for b, n in zip(rows, sizes, strict=True)])
    slots = torch.zeros(batch.ids.shape, dtype=torch.int64)
    slots.view(-1)[places] = torch.arange(len(places))
    source = places[None].to(device)
    ids = batch.ids.flatten()[source]
    kept, edges = torch.tensor(rows, device=device), edges.to(device)
    one = Pass(kept, ids, source % columns, edges=edges, longest=max(sizes))
    return Packing([one], slots.to(device))


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


def row_groups(lengths: Sequence[int], reader: Reader) -> list[list[int]]:
    """Row numbers cut into passes, longest first, at the least work that is predicted.

    work(passes) = sum over passes of start + rows x row(widest), by dynamic programming over the
    rows in order. Among passes of several rows only those count in which less than `PADDING` of
    the columns is padding, so its share is bounded whatever the data.
    """
    order = sorted(range(len(lengths)), key=lambda row: -lengths[row])
    if reader.together:
        return [order]
    sizes = [lengths[row] for row in order]
    works, sums = [reader.row(size) for size in sizes], [0, *accumulate(sizes)]
    best = [(0, 0)]  # for the first so many rows: the work, and where their last pass begins
    for end in range(1, len(order) + 1):
        options = (
            (best[i][0] + reader.start + (end - i) * works[i], i)
            for i in range(end)
            if i == end - 1 or sums[end] - sums[i] > (1 - PADDING) * (end - i) * sizes[i]
        )
        best.append(min(options))
    groups, end = [], len(order)
    while end:
        groups.append(order[best[end][1] : end])
        end = best[end][1]
    return groups[::-1]


def padding_share(shape: Shape, rows: Sequence[int], reader: Reader) -> float:
    """Share of columns that are padding when some rows are scored."""
    cut = _cut(shape, rows, reader)
    return 1 - sum(cut.sizes) / sum(cut.widths)
