"""The bytes of all tensors that live, by what they are for, and their peak."""

from __future__ import annotations

import weakref
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

ACTIVATIONS, LOGITS, COPIES = "activations", "logits", "copies"
Shares = Mapping[str, float]  # category -> the share of its bytes that one device holds; absent: 1


@dataclass(frozen=True)
class Peak:
    """The most that was alive at once."""

    bytes: Mapping[str, float]  # category -> bytes on one device
    moment: str  # what was being done

    @property
    def total(self) -> float:
        """Bytes."""
        return sum(self.bytes.values())


class Live(TorchDispatchMode):
    """Counts the storages that operations make, once each, until they are freed.

    Works on tensors with data and without. What is alive is counted under a category: what it was
    marked as, LOGITS if its last dimension is a vocabulary, COPIES if it has the shape of a weight
    (a weight cast to bf16, a gradient on its way), else the present moment's.

    A tensor without data has no values either: asked for one, it says 0 or True.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.now: Counter[str] = Counter()
        self.moment, self.category = "", ACTIVATIONS
        self.widths: set[int] = set()
        self.shapes: set[torch.Size] = set()
        self._known: dict[int, tuple[str, int, Any]] = {}  # storage -> category, bytes, its end
        self.begin({"all": {}})

    def mark(self, tensors: Iterable[Tensor], category: str) -> None:
        """Count tensors under a category from now on."""
        for x in tensors:
            self._count(x, category)

    def begin(self, views: Mapping[str, Shares]) -> None:
        """Look for the peaks of these views from now on: those of loading do not count."""
        self.views = views
        self.peaks = {name: Peak(self._share(shares), "") for name, shares in views.items()}
        self.totals = {name: peak.total for name, peak in self.peaks.items()}
        self.highest = dict(self.totals)

    @contextmanager
    def holding(self, held: Mapping[str, int]) -> Iterator[None]:
        """Count bytes that are no tensors here."""
        for category, size in held.items():
            self._add(category, size)
        yield
        for category, size in held.items():
            self._add(category, -size)

    @contextmanager
    def during(self, moment: str, category: str = ACTIVATIONS) -> Iterator[None]:
        """Name what is being done, and what its tensors are for."""
        before = self.moment, self.category
        self.moment, self.category = moment, category
        yield
        self.moment, self.category = before

    def _count(self, x: Tensor, category: str | None = None) -> None:
        storage = x.untyped_storage()
        key, size = storage._cdata, storage.nbytes()
        if key in self._known:
            if category is None:
                return
            old, _, end = self._known[key]
            self._add(old, -size)
        else:
            end = weakref.ref(storage, lambda _: self._gone(key))
        category = category or self._kind(x)
        self._known[key] = category, size, end
        self._add(category, size)

    def _gone(self, key: int) -> None:
        category, size, _ = self._known.pop(key)
        self._add(category, -size)

    def _add(self, category: str, size: int) -> None:
        self.now[category] += size
        for name, shares in self.views.items():
            self.totals[name] += size * shares.get(category, 1.0)
            if self.totals[name] > self.highest[name]:
                self.highest[name] = self.totals[name]
                self.peaks[name] = Peak(self._share(shares), self.moment)

    def _share(self, shares: Shares) -> dict[str, float]:
        held = {kind: n * shares.get(kind, 1.0) for kind, n in self.now.items()}
        return {kind: n for kind, n in held.items() if n}

    def _kind(self, x: Tensor) -> str:
        if self.category != ACTIVATIONS or x.ndim < 2:
            return self.category
        if x.shape in self.shapes:
            return COPIES
        return LOGITS if x.shape[-1] in self.widths else ACTIVATIONS

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Do it, and count what comes out."""
        if func is torch.ops.aten._local_scalar_dense.default and isinstance(args[0], FakeTensor):
            return True if args[0].dtype is torch.bool else 0
        if func is torch.ops.aten.equal.default and isinstance(args[0], FakeTensor):
            return True
        if func is torch.ops.aten.ones_like.default and args[0].ndim == 1:  # what counts rows
            args = (torch.empty(args[0].shape, dtype=args[0].dtype),)
        if func in INDEXED:
            args = (args[0], _numbered(args[1]), *args[2:])
        out = func(*args, **(kwargs or {}))
        for x in tree_leaves(out):
            if isinstance(x, Tensor):
                self._count(x)
        return out


INDEXED = (
    torch.ops.aten.index.Tensor,
    torch.ops.aten.index_put.default,
    torch.ops.aten.index_put_.default,
)


def _numbered(indices: Iterable[Tensor | None]) -> list[Tensor | None]:
    """Masks with data as numbers: tensors without data cannot count what a mask selects."""
    found: list[Tensor | None] = []
    for x in indices:
        is_mask = x is not None and x.dtype is torch.bool and not isinstance(x, FakeTensor)
        found += x.nonzero(as_tuple=True) if x is not None and is_mask else [x]
    return found
