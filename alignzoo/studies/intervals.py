"""95 % intervals of a mean: Student's t over seeds, normal over the prompts of one seed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from alignzoo.contract.evaluation import Z, mean, standard_error

LEVEL = 0.95
SEEDS, PROMPTS = "seeds", "prompts"


@dataclass(frozen=True)
class Spread:
    """A mean and half of its 95 % interval; None where nothing tells how wide it is."""

    mean: float
    half: float | None
    n: int
    over: str  # seeds, or prompts


def over_seeds(values: Sequence[float]) -> Spread:
    """Mean +- t s / sqrt(n). Seeds that are all alike, or a single one, have no interval."""
    n = len(values)
    return Spread(mean(values), _half(values, t_quantile(n - 1) if n > 1 else 0.0), n, SEEDS)


def over_prompts(values: Sequence[float]) -> Spread:
    """Mean +- 1.96 s / sqrt(n). Prompts that are all alike have no interval."""
    return Spread(mean(values), _half(values, Z), len(values), PROMPTS)


def _half(values: Sequence[float], quantile: float) -> float | None:
    """Equal values say nothing of how far others would lie apart: a point is no certainty."""
    if len(values) < 2 or math.isclose(min(values), max(values), rel_tol=1e-9, abs_tol=1e-12):
        return None
    return quantile * standard_error(values)


def t_quantile(freedom: int, level: float = LEVEL) -> float:
    """The t with P(|T| < t) = level, for Student's t of so many degrees of freedom.

    By bisection on the sums of Abramowitz and Stegun (1964), 26.7.3 and 26.7.4.
    """
    low, high = 0.0, 1.0
    while _inside(high, freedom) < level:
        high *= 2
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if _inside(middle, freedom) < level else (low, middle)
    return (low + high) / 2


def _inside(t: float, freedom: int) -> float:
    """P(|T| < t): with theta = atan(t / sqrt(nu)), for odd nu
    2/pi (theta + sin (cos + 2/3 cos^3 + ...)), for even nu sin (1 + 1/2 cos^2 + 3/8 cos^4 + ...).
    """
    theta = math.atan(t / math.sqrt(freedom))
    sine, cosine = math.sin(theta), math.cos(theta)
    odd = freedom % 2
    term, total = (cosine if odd else 1.0), 0.0
    for k in range(2 + odd, freedom + 1, 2):
        total += term
        term *= (k - 1) / k * cosine * cosine
    return 2 / math.pi * (theta + sine * total) if odd else sine * total
