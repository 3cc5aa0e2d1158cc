"""Which items of several sources stand in a pass over all of them."""

from __future__ import annotations

import random
from collections.abc import Sequence

from alignzoo.contract.errors import DataError


def times(n: int, weight: float) -> int:
    """How many of n items a weight makes."""
    return n if weight == 1 else round(n * weight)


def drawn(name: str, n: int, weight: float, key: str) -> list[int]:
    """The numbers of a source's items in a pass: each floor(weight) times, some once more.

    They are in order. Which ones come once more is drawn by the key, so it is the same in every
    process and after every interruption. Raises DataError when nothing is left.
    """
    whole, more = divmod(times(n, weight), n) if n else (0, 0)
    extra = set(random.Random(key).sample(range(n), more))
    found = [i for i in range(n) for _ in range(whole + (i in extra))]
    if not found:
        raise DataError(f"{name}: weight {weight:g} of {n} items leaves none; raise the weight")
    return found


def told(parts: Sequence[tuple[str, int, float, int]]) -> str:
    """The account of a mixture from (source, items, weight, items in a pass)."""
    every = sum(taken for *_, taken in parts)
    lines = [
        f"\n  {name}: {n} x {weight:g} = {taken} ({taken / every:.1%})"
        for name, n, weight, taken in parts
    ]
    return f"a mixture of {every} items in a pass" + "".join(lines)
