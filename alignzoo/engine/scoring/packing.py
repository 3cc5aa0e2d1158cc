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
    """What is known of the rows of a batch on the CPU: a single wait for the device."""

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
        starts = torch.where(batch.response.any(-1), first, lengths)
        known = torch.cat([lengths[:, None], starts[:, None], batch.ids], 1).cpu()
        ids = known.numpy()
        prompts = [
            ids[b, 2 : 2 + ids[b, 1]].tobytes() if ids[b, 1] >= LEAST_PROMPT else b
            for b in range(len(ids))
        ]
        return cls(known[:, 0].tolist(), prompts, known[:, 1].tolist())


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
    rows: dict[Hashable, list[int]] = {}
    for row in sorted(range(len(lengths)), key=lambda row: -lengths[row]):
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
    apart = _Cut.of([(row,) for row in rows], shape, limit)
    if hidden is None:
        return _placed(batch, shape, apart)
    shared = _Cut.of(_packs(shape, rows, hidden), shape, limit)
    pays = shared.work(hidden) <= (1 - LEAST_SAVING) * apart.work(hidden)
    return _placed(batch, shape, shared if pays else apart)


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
    device, columns = batch.ids.device, batch.ids.shape[1]
    slots = torch.zeros(batch.ids.shape, dtype=torch.int64)
    passes, start = [], 0
    for group in cut.groups:
        width = cut.sizes[group[0]]
        packs = [cut.packs[number] for number in group]
        laid = [_laid(shape, pack, width, columns) for pack in packs]
        source = torch.stack([places for places, _ in laid])
        for i, pack in enumerate(packs):
            _note(slots, shape, pack, source[i], start + i * width)
        shared = len(packs) < sum(map(len, packs))
        segments = torch.stack([numbers for _, numbers in laid]).to(device) if shared else None
        source = source.to(device)
        passes.append(
            Pass(
                torch.tensor([b for pack in packs for b in pack], device=device),
                batch.ids.flatten()[source],
                None if segments is None else source % columns,
                None if segments is None else visible(segments),
            )
        )
        start += len(packs) * width
    return Packing(passes, slots.to(device))


def _laid(shape: Shape, pack: Sequence[int], width: int, columns: int) -> tuple[Tensor, Tensor]:
    """[w] places in the flattened batch, and [w] segments: 0 the prompt, then each answer."""
    if len(pack) == 1:  # with the batch's own padding
        places = torch.arange(width).clamp(max=columns - 1) + pack[0] * columns
        return places, torch.zeros(width, dtype=torch.int64)
    prompt = shape.starts[pack[0]]
    parts = [torch.arange(prompt) + pack[0] * columns]
    parts += [torch.arange(prompt, shape.lengths[b]) + b * columns for b in pack]
    parts.append(torch.full((width - _size(shape, pack),), pack[0] * columns))  # never read
    sizes = torch.tensor([len(part) for part in parts])
    return torch.cat(parts), torch.arange(len(parts)).repeat_interleave(sizes)


def _note(slots: Tensor, shape: Shape, pack: Sequence[int], source: Tensor, start: int) -> None:
    """Write where the rows of a pack come out, which lies at `start`."""
    n = _size(shape, pack)
    slots.view(-1)[source[:n]] = torch.arange(start, start + n)
    for b in pack[1:]:
        prompt = shape.starts[b]
        slots[b, :prompt] = slots[pack[0], :prompt]


def row_groups(lengths: Sequence[int], limit: float = PADDING) -> list[list[int]]:
    """Row numbers cut into groups of similar length, longest first.

    A group takes the next shorter row as long as padding stays under `limit` of its columns, so
    the share of padding is bounded whatever the data.
    """
    order = sorted(range(len(lengths)), key=lambda row: -lengths[row])
    groups: list[list[int]] = []
    total = 0
    for row in order:
        total += lengths[row]
        width = lengths[groups[-1][0]] if groups else 0
        if groups and total >= (1 - limit) * width * (len(groups[-1]) + 1):
            groups[-1].append(row)
        else:
            groups.append([row])
            total = lengths[row]
    return groups


def padding_share(lengths: Sequence[int], limit: float = PADDING) -> float:
    """Share of columns that are padding when these rows are scored."""
    columns = sum(lengths[group[0]] * len(group) for group in row_groups(lengths, limit))
    return 1 - sum(lengths) / columns
