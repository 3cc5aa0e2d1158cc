"""What every metric means: as its method declares it, or the engine."""

from __future__ import annotations

from collections.abc import Mapping

from alignzoo.contract.algorithm import Metric
from alignzoo.contract.logged import logged
from alignzoo.recipe.blocks import TrainSpec
from alignzoo.report.facts import MetricFacts

HELD_OUT = "validation/"


def meaning(name: str, declared: Mapping[str, Metric], spec: TrainSpec | None) -> MetricFacts:
    """What a logged metric is; limits that a recipe sets are those of its stage."""
    own = declared.get(name)
    if own is not None:
        return MetricFacts(name, own.doc, own.unit, own.low, own.high, declared=True)
    held_out = declared.get(name.removeprefix(HELD_OUT)) if name.startswith(HELD_OUT) else None
    if held_out is not None:
        return MetricFacts(name, f"{held_out.doc}, on held-out data", held_out.unit,
                           held_out.low, held_out.high, declared=True)  # fmt: skip
    known = logged(name) or Metric("")
    limit = known.high if known.high is not None else _limit(name, spec)
    return MetricFacts(name, known.doc, known.unit, known.low, limit, declared=False)


def _limit(name: str, spec: TrainSpec | None) -> float | None:
    """The largest healthy value that a recipe sets for a metric of the engine."""
    if spec is None:
        return None
    if name == "rollout/logprob_gap":
        return spec.rollout.max_gap if spec.rollout else None
    if name == "rollout/truncated":
        return spec.rails.max_truncated
    return spec.rails.max_kl if name.startswith("kl_full/") else None
