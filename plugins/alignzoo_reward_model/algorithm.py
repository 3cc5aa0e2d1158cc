"""A Bradley-Terry reward model, arXiv:1706.03741 and arXiv:2203.02155."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Self

import torch

from alignzoo import (
    Algorithm,
    Batch,
    Item,
    Loss,
    Metric,
    PairBatch,
    Role,
    Signal,
    Signals,
    State,
    Term,
)
from alignzoo.ops import log_sigmoid, pair_metrics, spread_on_last, value


@dataclass(frozen=True)
class GradedPairBatch(PairBatch):
    """Pairs of which some say by how much the chosen response is better."""

    margin: torch.Tensor  # [I] float32: the number `margin` of a pair, 0 without one

    @classmethod
    def collate(cls, items: Sequence[Item], pad_id: int) -> Self:
        """Pad items into one batch."""
        graded = [replace(item, values={"margin": 0.0, **item.values}) for item in items]
        return super().collate(graded, pad_id)


def last_token(batch: Batch) -> torch.Tensor:
    """[B, S] bool: the last attended position of every row, wherever the padding is."""
    one = torch.ones(batch.ids.shape[0], device=batch.ids.device)
    return spread_on_last(one, batch.attention) > 0


@dataclass(frozen=True)
class RewardModel(Algorithm[GradedPairBatch]):
    """L = -log sigmoid(r(x, y_w) - r(x, y_l) - m), mean over pairs.

    r is a scalar head's output at the last token of prompt and response, m the pair's margin, 0
    unless the data give one. Source: Bradley-Terry, as in arXiv:2203.02155 Eq. 1 (AlignDistil,
    arXiv:2503.02832, Eq. 1); the margin: arXiv:2307.09288 Eq. 2.
    """

    name = "reward_model"
    batch = GradedPairBatch
    roles = {
        "policy": Role(trainable=True, head="scalar", doc="body of a language model, new head")
    }
    metrics = {
        "rewards/chosen": Metric("r of the chosen response"),
        "rewards/rejected": Metric("r of the rejected response"),
        "rewards/margin": Metric("chosen minus rejected reward", low=0.0),
        "rewards/accuracy": Metric("share of pairs with chosen > rejected, ties wrong", low=0.5),
    }

    def signals(self) -> Mapping[str, Signal]:
        """The head's output, with gradient, at one position of each row."""
        return {"reward": replace(value("policy"), positions=last_token)}

    def loss(self, batch: GradedPairBatch, signals: Signals, state: State) -> Loss:
        """One value per pair."""
        reward = signals["reward"].sum(-1)  # [B]
        difference = reward[batch.chosen] - reward[batch.rejected]  # [I]
        return Loss(Term(-log_sigmoid(difference - batch.margin)), pair_metrics(reward, batch))
