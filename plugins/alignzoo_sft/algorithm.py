"""Supervised fine-tuning: imitate the responses."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from alignzoo import Algorithm, Loss, Mean, Metric, Role, Signal, Signals, State, TextBatch, option
from alignzoo.ops import REDUCTIONS, log_prob


@dataclass(frozen=True)
class SFT(Algorithm[TextBatch]):
    """L = -sum_t log pi(y_t | x, y_<t) / sum_t 1, over the response tokens of the batch.

    Source: maximum likelihood, as in arXiv:2203.02155 section 3.5. The prompt is never trained on.
    """

    name = "sft"
    batch = TextBatch
    roles = {"policy": Role(trainable=True, doc="the model that learns")}
    metrics = {"nll": Metric("negative log-likelihood per response token", "nats", low=0.0)}

    reduction: Literal["token_mean", "sequence_mean", "sequence_sum"] = option(
        "token_mean", "mean over all tokens, or per sequence first"
    )

    def signals(self) -> Mapping[str, Signal]:
        """Log-probability of each response token."""
        return {"policy": log_prob("policy")}

    def loss(self, batch: TextBatch, signals: Signals, state: State) -> Loss:
        """One value per token."""
        nll = -signals["policy"]  # [B, S]
        term = REDUCTIONS[self.reduction](nll, batch.mask)
        return Loss(term, {"nll": Mean(nll.detach(), batch.mask)})
