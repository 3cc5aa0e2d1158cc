"""Binary classifier optimisation, arXiv:2404.04656."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import log

import torch

from alignzoo import (
    Algorithm,
    Batch,
    LabelledBatch,
    Loss,
    Mean,
    Metric,
    Role,
    Signal,
    Signals,
    State,
    Term,
    option,
)
from alignzoo.ops import implicit_reward, log_prob, log_sigmoid


def _matched(batch: Batch) -> torch.Tensor:
    """[B, S] bool: the response of the first half of the rows, (x_i, y_i)."""
    row = torch.arange(batch.ids.shape[0], device=batch.ids.device)
    return batch.mask & (row < batch.n_items)[:, None]


@dataclass(frozen=True)
class BCO(Algorithm[LabelledBatch]):
    """L = -log sigmoid(s (r - delta)), mean over examples.

    r = beta [S_pi - S_ref](y), S the sum of log-probabilities of the response; s = 1 if y is
    desirable, else -1. delta = (mean r of desirable + mean r of undesirable) / 2 over the steps
    before, each step counting alike, without gradient; 0 at the start, where r is. Source:
    arXiv:2404.04656. Deviations: delta lags one step, so no pass over the batch comes before the
    loss; the weights by a prompt classifier (underlying distribution matching) are left out.
    """

    name = "bco"
    batch = LabelledBatch
    roles = {
        "policy": Role(trainable=True, doc="the model that learns"),
        "reference": Role(like="policy", doc="frozen; by default the policy's start"),
    }
    metrics = {
        "rewards/desirable": Metric("r of desirable examples", "nats"),
        "rewards/undesirable": Metric("r of undesirable examples", "nats"),
        "delta": Metric("shift of the rewards", "nats"),
    }

    beta: float = option(0.1, "strength of the KL constraint", gt=0)

    def signals(self) -> Mapping[str, Signal]:
        """Log-probabilities that are trained."""
        return {"policy": replace(log_prob("policy"), positions=_matched)}

    def snapshots(self) -> Mapping[str, Signal]:
        """Log-probabilities that never change."""
        return {"reference": replace(log_prob("reference"), positions=_matched)}

    def at_start(self) -> Mapping[str, float]:
        """Equal policy and reference reward nothing."""
        return {"loss": log(2), **dict.fromkeys(self.metrics, 0.0)}

    def init_state(self) -> State:
        """Mean reward of either kind so far, and over how many steps."""
        nothing = torch.zeros((), dtype=torch.float64)
        return {f"{x}/{kind}": nothing for x in ("mean", "steps") for kind in ("good", "bad")}

    def next_state(self, state: State, metrics: Mapping[str, float]) -> State:
        """The means with this step; a batch without a kind leaves its mean."""
        after = dict(state)
        for kind, name in (("good", "rewards/desirable"), ("bad", "rewards/undesirable")):
            if name in metrics:
                mean, n = state[f"mean/{kind}"], state[f"steps/{kind}"] + 1
                after |= {f"mean/{kind}": mean + (metrics[name] - mean) / n, f"steps/{kind}": n}
        return after

    def loss(self, batch: LabelledBatch, signals: Signals, state: State) -> Loss:
        """One value per example."""
        reward = implicit_reward(self.beta, signals["policy"], signals["reference"], batch.mask)
        r = reward[batch.matched]  # [I]
        good = batch.desirable.to(r)
        delta = ((state["mean/good"] + state["mean/bad"]) / 2).to(r).expand_as(r)
        own = {"rewards/desirable": Mean(r, good), "rewards/undesirable": Mean(r, 1 - good)}
        return Loss(Term(-log_sigmoid((2 * good - 1) * (r - delta))), {**own, "delta": Mean(delta)})
