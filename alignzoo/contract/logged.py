"""What the engine logs for every method, beside the metrics that a method declares itself."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from alignzoo.contract.algorithm import Metric

# NAME and ROLE stand for any name of a term, a role or a metric.
LOGGED: Final[Mapping[str, Metric]] = {
    "loss": Metric("the loss over the optimiser batch; `loss/NAME` where it has several terms"),
    "grad_norm": Metric("gradient norm before clipping; `grad_norm/ROLE` with several roles"),
    "lr": Metric("learning rate of the step"),
    "response_length": Metric("mean response length, stop token included", "tokens"),
    "padding": Metric("share of scored columns that are padding", high=0.2),
    "redone": Metric(
        "gradients of the step that were formed twice, per process; absent where there is none"
    ),
    "rollout/length": Metric("mean length of sampled responses", "tokens"),
    "rollout/truncated": Metric("share of them cut at max_new_tokens"),
    "rollout/reward": Metric("mean reward of sampled responses"),
    "reward/NAME": Metric("mean of one reward of a weighted sum, its weight left out"),
    "rollout/unjudged": Metric(
        "responses without a verdict of judges that are asked; they earn the mean of the others to "
        "their prompt; `rollout/unjudged/NAME` in a sum",
        "share",
        high=0.1,
    ),
    "rollout/judging_cost": Metric(
        "price of all replies so far; `rollout/judging_cost/NAME` in a sum", "as the judge's prices"
    ),
    "rollout/share": Metric(
        "prompts that the policy answered; the others keep the data's", "share"
    ),
    "rollout/ties": Metric("pairs made of them by lot, because nothing spoke for either", "share"),
    "rollout/logprob_gap": Metric("mean |log p of trainer - engine|", "nats"),
    "kl_full/ROLE": Metric("KL(policy || frozen start), full vocabulary", "nats"),
    "validation/NAME": Metric("the metric on held-out data"),
}


def logged(name: str) -> Metric | None:
    """What the engine means by a name that it logs; None: it logs no such thing."""
    kind = name.partition("/")[0]
    found = LOGGED.get(name) or LOGGED.get(f"{kind}/ROLE") or LOGGED.get(f"{kind}/NAME")
    return found or LOGGED.get(name.rpartition("/")[0])
