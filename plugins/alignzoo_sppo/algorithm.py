"""Self-play preference optimisation, arXiv:2405.00675."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch

from alignzoo import (
    Algorithm,
    DataError,
    GroupBatch,
    Loss,
    Metric,
    Role,
    Signal,
    Signals,
    State,
    Term,
    World,
    option,
)
from alignzoo.ops import log_prob, sequence_sum

HALF, EXACT = 0.5, 1e-6


@dataclass(frozen=True)
class SPPO(Algorithm[GroupBatch]):
    """L = (log pi/pi_t (y) - eta (P(y) - 1/2))^2, mean over answers.

    log pi/pi_t (y) is the sum over the response; pi_t is the policy that sampled the buffer; P(y)
    = 1/k sum_j sigmoid(s(y) - s(y_j)) over all k answers to the prompt, y among them, is how often
    y beats an answer of pi_t, from the scores s. With `wins`, s is the share of the other answers
    that y beats, and P = ((k - 1) s + 1/2) / k. Source: arXiv:2405.00675, and for P the authors'
    code, which scores pairs so. There is no other reference: what a buffer starts from is the
    anchor, so the number of updates on it decides how far the policy goes. Deviation: all k
    answers are learnt, as in the paper's algorithm; the authors' runs keep the best and the worst.
    """

    name = "sppo"
    batch = GroupBatch
    least_samples = 2
    assumes_policy_samples = True
    roles = {"policy": Role(trainable=True, doc="the model that learns, against its past self")}
    metrics = {
        "win_rate/best": Metric("P of the best answer to a prompt, mean over prompts", low=0.5),
        "log_ratio/seq": Metric("log pi/pi_t of an answer, 0 before the first update", "nats"),
        "score/seq": Metric("score of an answer"),
    }

    eta: float = option(1000.0, "log-ratio that a certain win and a certain loss differ by", gt=0)
    wins: bool = option(False, "scores are shares of wins, as with reward: {by: wins}")

    @property
    def takes_wins(self) -> bool:
        """As the option says: scores go through a sigmoid, shares of wins do not."""
        return self.wins

    def signals(self) -> Mapping[str, Signal]:
        """Log-probabilities that are trained."""
        return {"policy": log_prob("policy")}

    def snapshots(self) -> Mapping[str, Signal]:
        """The same before the first update on the buffer."""
        return {"sampled": log_prob("policy")}

    def win_rates(self, batch: GroupBatch) -> torch.Tensor:
        """[B] float64: P of every answer."""
        score, k = batch.by_group(batch.score.double()), batch.rows_per_item  # [I, k]
        if self.wins:
            return ((k - 1) * score.T.flatten() + 0.5) / k
        beats = (score[:, :, None] - score[:, None, :]).sigmoid()  # [I, k, k]
        return beats.mean(-1).T.flatten()

    def prepare(self, batch: GroupBatch, signals: Signals, world: World) -> Signals:
        """Nothing; DataError for `wins` that are no shares: of the answers to a prompt some win at
        most half of their games, and some at least half.
        """
        shares = batch.by_group(batch.score.double())  # [I, k]
        most, least = shares.amax(-1), shares.amin(-1)
        fit = (least >= 0) & (most <= 1) & (least <= HALF + EXACT) & (most >= HALF - EXACT)
        if self.wins and not fit.all():
            raise DataError("sppo: wins is true, and scores are no shares; give reward.by: wins")
        return {}

    def loss(self, batch: GroupBatch, signals: Signals, state: State) -> Loss:
        """One value per answer."""
        log_ratio = sequence_sum(signals["policy"] - signals["sampled"], batch.mask)  # [B]
        win_rate = self.win_rates(batch).to(log_ratio)
        logged = {
            "win_rate/best": batch.by_group(win_rate).amax(-1),
            "log_ratio/seq": log_ratio.detach(),
            "score/seq": batch.score,
        }
        return Loss(Term((log_ratio - self.eta * (win_rate - 0.5)) ** 2), logged)
