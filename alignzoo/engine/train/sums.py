"""What a step adds up over its micro-batches, and over the ranks: one exchange for all of it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import torch
from torch import Tensor

from alignzoo.contract.algorithm import Algorithm
from alignzoo.contract.errors import PluginError
from alignzoo.contract.types import Loss, Max, Mean, Term
from alignzoo.engine.parallel.ranks import Ranks
from alignzoo.engine.train.guard import Marks

Number: TypeAlias = Tensor | float  # a tensor holds one, and is read at the end of the step


@dataclass
class Sums:
    """Numerators and denominators of every micro-batch of one optimiser step on this rank."""

    means: dict[str, list[tuple[Number, Number]]] = field(default_factory=dict)  # sum(v w), sum(w)
    maxima: dict[str, Tensor] = field(default_factory=dict)
    prints: dict[str, list[Number]] = field(default_factory=dict)  # fingerprints of terms' weights

    def add(self, name: str, value: Tensor, weight: Tensor | None) -> None:
        """Add values [k] or [B, S] with weights to a mean."""
        value = value.detach()
        if weight is None:
            self.know(name, value.sum(dtype=torch.float64), float(value.numel()))
        elif weight.dtype == torch.bool:
            above = value.masked_fill(~weight, 0.0).sum(dtype=torch.float64)
            self.know(name, above, weight.sum())
        else:
            value = value.double()
            weight = weight.to(value)
            above = (value.masked_fill(weight == 0, 0.0) * weight).sum()
            self.know(name, above, weight.sum())

    def know(self, name: str, above: Number, below: Number) -> None:
        """Add a numerator and a denominator to a mean."""
        self.means.setdefault(name, []).append((above, below))

    def add_max(self, name: str, value: Tensor, weight: Tensor | None) -> None:
        """Take the largest value where weight > 0 into account."""
        value = value.detach().double()
        if weight is not None:
            value = value.masked_fill(weight == 0, -torch.inf)
        largest = value.max()
        self.maxima[name] = torch.maximum(self.maxima.get(name, largest), largest)

    def mark(self, loss: Loss, marks: Marks) -> None:
        """Add the fingerprints of the terms' weights."""
        for name, term in loss.named.items():
            self.prints.setdefault(name, []).append(marks.fingerprint(term))

    def weighed(self, terms: Iterable[str], ranks: Ranks) -> list[list[float]]:
        """The global sum of the weights of each term, and their fingerprint."""
        below = [[pair[1] for pair in self.means.get(f"term/{name}", ())] for name in terms]
        marked = [self.prints.get(name, []) for name in terms]
        rows = list(zip(_totals(below), _totals(marked), strict=True))
        return _over(ranks, rows).tolist() if rows else []

    def reduce(self, ranks: Ranks) -> dict[str, float]:
        """Global values, by name; one over nothing is absent.

        A rank that saw no item of a kind does not know its name, so the ranks agree on them first.
        """
        means, maxima = ranks.union(list(self.means)), ranks.union(list(self.maxima))
        out: dict[str, float] = {}
        if means:
            pairs = [self.means.get(name, []) for name in means]
            above, below = (_totals([[pair[k] for pair in some] for some in pairs]) for k in (0, 1))
            whole = _over(ranks, list(zip(above, below, strict=True))).tolist()  # [n, 2]
            out |= {n: x / y for n, (x, y) in zip(means, whole, strict=True) if y != 0}
        if maxima:
            none = torch.tensor(-torch.inf, dtype=torch.float64, device=ranks.device)
            top = ranks.max(torch.stack([self.maxima.get(n, none) for n in maxima])).tolist()
            out |= {n: x for n, x in zip(maxima, top, strict=True) if x != -math.inf}
        return out


def _over(ranks: Ranks, rows: list[tuple[float, float]]) -> Tensor:
    """[n, 2] the sums over all ranks."""
    return ranks.sum(torch.tensor(rows, dtype=torch.float64, device=ranks.device))


def _totals(some: list[list[Number]]) -> list[float]:
    """The sum of every list, in its order and in float64; a device is waited for once."""
    there = [x for numbers in some for x in numbers if isinstance(x, Tensor)]
    read = iter(torch.stack([x.double() for x in there]).tolist() if there else ())
    found = []
    for numbers in some:
        total = 0.0
        for x in numbers:  # `sum` rounds differently from Python 3.12 on
            total += next(read) if isinstance(x, Tensor) else x
        found.append(total)
    return found


def collect(algorithm: Algorithm[Any], loss: Loss, sums: Sums) -> None:
    """Add a micro-batch's terms and metrics to the sums; undeclared metrics are errors."""
    for name, term in loss.named.items():
        sums.add(f"term/{name}", term.value, plain_weight(term))
    for name, metric in loss.metrics.items():
        if name not in algorithm.metrics:
            raise PluginError(
                f"algorithm '{algorithm.name}' logs '{name}' without declaring it in `metrics`"
            )
        if not isinstance(metric, (Max, Mean, torch.Tensor)):
            raise PluginError(
                f"algorithm '{algorithm.name}': metric '{name}' is a {type(metric).__name__}; "
                "log a tensor [I] or [B] (its mean is taken), a Mean or a Max"
            )
        if isinstance(metric, Max):
            sums.add_max(name, metric.value, metric.weight)
        else:
            mean = metric if isinstance(metric, Mean) else Mean(metric)
            sums.add(name, mean.value, mean.weight)


def plain_weight(term: Term) -> Tensor | None:
    """`Term.weights`, where nothing (each counts once) and a mask stay what they are."""
    weight = term.weight
    return weight if weight is None or weight.dtype == torch.bool else term.weights


def total_loss(reduced: dict[str, float], scales: Mapping[str, float]) -> dict[str, float]:
    """Turn "term/x" entries into "loss", and into "loss/x" where there are several terms.

    A term over nothing is 0.
    """
    terms = {name: reduced.pop(f"term/{name}", 0.0) * scale for name, scale in scales.items()}
    out = {"loss": sum(terms.values())}
    if len(terms) > 1:
        out |= {f"loss/{name}": x for name, x in terms.items()}
    return out | reduced
