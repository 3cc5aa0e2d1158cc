"""What a step adds up over its micro-batches, and over the ranks: one exchange for all of it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import torch
from torch import Tensor

from alignzoo.contract.algorithm import Algorithm
from alignzoo.contract.errors import PluginError
from alignzoo.contract.types import Loss, Max, Mean, Term
from alignzoo.engine.parallel.ranks import Ranks

Number: TypeAlias = Tensor | float  # a tensor holds one, and is read at the end of the step


@dataclass
class Sums:
    """Numerators and denominators of every micro-batch of one optimiser step on this rank."""

    means: dict[str, list[tuple[Number, Number]]] = field(default_factory=dict)  # sum(v w), sum(w)
    maxima: dict[str, Tensor] = field(default_factory=dict)

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

    def compare(self, name: str, term: Term, known: Tensor | None) -> None:
        """Add how far a term's weights are from those that were known, sum |w - w_known|.

        Over no weight, so that it is no metric.
        """
        if term.weight is not None or known is not None:
            now = term.weights
            before = torch.ones_like(now) if known is None else known.to(now)
            self.know(f"moved/{name}", torch.dist(now, before, 1), 0.0)

    def totals(self, ranks: Ranks) -> dict[str, tuple[float, float]]:
        """Global numerators and denominators, by name.

        A rank that saw no item of a kind does not know its name, so the ranks agree on them first.
        """
        names = ranks.union(list(self.means))
        if not names:
            return {}
        pairs = [self.means.get(name, []) for name in names]
        own = _totals([[pair[k] for pair in some] for some in pairs for k in (0, 1)])
        whole = ranks.sum(torch.tensor(own, dtype=torch.float64, device=ranks.device)).tolist()
        return dict(zip(names, zip(whole[::2], whole[1::2], strict=True), strict=True))

    def largest(self, ranks: Ranks) -> dict[str, float]:
        """Global maxima, by name; one over nothing is absent."""
        names = ranks.union(list(self.maxima))
        if not names:
            return {}
        none = torch.tensor(-torch.inf, dtype=torch.float64, device=ranks.device)
        top = ranks.max(torch.stack([self.maxima.get(n, none) for n in names])).tolist()
        return {n: x for n, x in zip(names, top, strict=True) if x != -math.inf}

    def reduce(self, ranks: Ranks) -> dict[str, float]:
        """Global values, by name; one over nothing is absent."""
        return means(self.totals(ranks)) | self.largest(ranks)


def means(totals: Mapping[str, tuple[float, float]]) -> dict[str, float]:
    """Numerators over denominators."""
    return {name: x / y for name, (x, y) in totals.items() if y != 0}


def _totals(some: Sequence[Sequence[Number]]) -> list[float]:
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
