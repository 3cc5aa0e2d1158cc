"""A lens as compact bytes for the page's script: typed arrays one after the other, compressed.

Nothing is kept that the page does not show: signals to three digits (12 bits of the mantissa),
probabilities to a tenth of a percent. Texts of tokens stand once in a table; the most probable
tokens of a further distribution are written as what differs from the first one's.
"""

from __future__ import annotations

import base64
import gzip
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from alignzoo.lens.export import described
from alignzoo.lens.gather import Readings
from alignzoo.lens.view import Lens
from alignzoo.pages import visible

LOST = 12  # bits of a float32's mantissa that are dropped
FULL = 1000  # what a probability of 1 is written as
LEVEL = 5  # of compression


@dataclass
class Table:
    """Shown tokens, each once: (text, id)."""

    entries: list[tuple[str, int]] = field(default_factory=list)
    places: dict[tuple[str, int], int] = field(default_factory=dict)

    def __call__(self, text: str, number: int) -> int:
        """Where a token stands."""
        key = (text, number)
        if key not in self.places:
            self.places[key] = len(self.entries)
            self.entries.append(key)
        return self.places[key]


def packed(lens: Lens) -> str:
    """Base64 of gzip: a little-endian length, a JSON head, then the arrays that it lists."""
    table, arrays = Table(), dict[str, NDArray[Any]]()
    arrays["starts"] = np.cumsum([0, *map(len, lens.texts)]).astype("<u4")
    own = [
        table(text, number)
        for row, texts in zip(lens.rows, lens.texts, strict=True)
        for text, number in zip(texts, row.tokens.response, strict=True)
    ]
    arrays["tokens"] = np.array(own, dtype="<u4")
    for m, method in enumerate(lens.methods):
        for q, quantity in enumerate(method.quantities):
            arrays[f"v{m}.{q}"] = rounded([row.values[quantity.name] for row in method.rows])
        arrays |= _tops(method, m, table, lens)
    head = {
        "methods": [described(method) for method in lens.methods],
        "rows": [[visible(text) for text in (r.near, r.label, r.prompt_text)] for r in lens.rows],
        "table": table.entries,
        "full": FULL,
    }
    return _sealed(head, arrays)


def rounded(values: Sequence[torch.Tensor]) -> NDArray[Any]:
    """Values one after the other, each to the nearest of those without the lost bits."""
    every = torch.cat(list(values)).numpy().astype("<f4")
    bits = every.view("<u4").astype(np.uint64)
    near = ((bits + (1 << (LOST - 1))) >> LOST) << LOST
    return np.where(np.isfinite(every), near, bits).astype("<u4").view("<f4")


def _tops(method: Readings, m: int, table: Table, lens: Lens) -> dict[str, NDArray[Any]]:
    arrays: dict[str, NDArray[Any]] = {}
    for d, name in enumerate(method.distributions):
        tops = [row.top[name] for row in method.rows]
        ids = torch.cat([top.ids for top in tops]).numpy()
        distinct, where = np.unique(ids, return_inverse=True)
        known = [table(lens.pieces.alone(int(i)), int(i)) for i in distinct]
        arrays[f"t{m}.{d}"] = np.array(known, dtype="<u4")[where.reshape(-1)]
        arrays[f"p{m}.{d}"] = _share(torch.cat([top.shares for top in tops]))
        arrays[f"o{m}.{d}"] = _share(torch.cat([top.own for top in tops]))
    first = arrays.get(f"t{m}.0")
    for d in range(1, len(method.distributions)):
        arrays[f"t{m}.{d}"] = arrays[f"t{m}.{d}"] ^ first
    return arrays


def _share(p: torch.Tensor) -> NDArray[Any]:
    return (p.double() * FULL).round().numpy().astype("<u2").reshape(-1)


def _small(x: NDArray[Any]) -> NDArray[Any]:
    """Whole numbers in two bytes where they fit."""
    return x.astype("<u2") if x.dtype == np.dtype("<u4") and x.max(initial=0) < 1 << 16 else x


def _sealed(head: dict[str, Any], arrays: dict[str, NDArray[Any]]) -> str:
    arrays = {name: _small(x) for name, x in arrays.items()}
    listed = [[name, x.dtype.str[1:], int(x.size)] for name, x in arrays.items()]
    text = json.dumps({**head, "arrays": listed}).encode()
    text += b" " * (-len(text) % 4)
    parts = [len(text).to_bytes(4, "little"), text]
    for x in arrays.values():
        raw = np.ascontiguousarray(x).tobytes()
        parts.append(raw + b"\0" * (-len(raw) % 4))
    return base64.b64encode(gzip.compress(b"".join(parts), LEVEL, mtime=0)).decode()
