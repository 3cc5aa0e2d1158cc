"""What every metric means: those of the engine here, the others where methods declare them."""

from __future__ import annotations

from collections.abc import Mapping

from alignzoo.contract.algorithm import Metric
from alignzoo.recipe.blocks import TrainSpec
from alignzoo.report.facts import MetricFacts

ENGINE = {  # logged for every method: (meaning, unit, healthy)
    "loss": ("the loss over the optimiser batch; `loss/NAME` where it has several terms", "", ""),
    "grad_norm": ("gradient norm before clipping; `grad_norm/ROLE` with several roles", "", ""),
    "lr": ("learning rate of the step", "", ""),
    "response_length": ("mean response length, stop token included", "tokens", ""),
    "padding": ("share of scored columns that are padding", "", "< 0.2"),
    "rollout/length": ("mean length of sampled responses", "tokens", ""),
    "rollout/truncated": ("share of them cut at max_new_tokens", "", "rails.max_truncated"),
    "rollout/reward": ("mean reward of sampled responses", "", ""),
    "rollout/logprob_gap": ("mean |log p of trainer - engine|", "nats", "< rollout.max_gap"),
    "kl_full/ROLE": ("KL(policy || frozen start), full vocabulary", "nats", "rails.max_kl"),
    "validation/NAME": ("the metric on held-out data", "", ""),
}
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
    known = ENGINE.get(name) or ENGINE.get(f"{name.split('/', maxsplit=1)[0]}/ROLE")
    doc, unit, _ = known or ENGINE.get(f"{name.split('/', maxsplit=1)[0]}/NAME") or ("", "", "")
    return MetricFacts(name, doc, unit, None, _limit(name, spec), declared=False)


def _limit(name: str, spec: TrainSpec | None) -> float | None:
    """The largest healthy value of a metric of the engine."""
    if name == "padding":
        return 0.2
    if spec is None:
        return None
    if name == "rollout/logprob_gap":
        return spec.rollout.max_gap if spec.rollout else None
    if name == "rollout/truncated":
        return spec.rails.max_truncated
    return spec.rails.max_kl if name.startswith("kl_full/") else None
