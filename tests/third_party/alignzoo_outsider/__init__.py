"""What an outsider would write: a method, a reward function, and a hook that watches."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from alignzoo import (
    Algorithm,
    Answer,
    Judge,
    Loss,
    Metric,
    PairBatch,
    Role,
    Score,
    Signal,
    Signals,
    State,
    Term,
    hookimpl,
    option,
)
from alignzoo.ops import log_prob, log_sigmoid, pair_metrics, sequence_mean

HOOKS_VERSION = 1


@dataclass(frozen=True)
class MarginDPO(Algorithm[PairBatch]):
    """L = -log sigmoid(beta (m_w - m_l) - gamma), m the mean log-ratio per token.

    Length-normalised DPO with a margin. Source: arXiv:2305.18290 Eq. 7, arXiv:2405.14734 Eq. 6.
    """

    name = "margin-dpo"
    roles = {"policy": Role(trainable=True), "reference": Role(like="policy")}
    metrics = {
        "rewards/chosen": Metric("beta m_w", "nats per token"),
        "rewards/rejected": Metric("beta m_l", "nats per token"),
        "rewards/margin": Metric("beta (m_w - m_l)", "nats per token"),
        "rewards/accuracy": Metric("share of pairs with m_w > m_l"),
    }
    beta: float = option(2.0, "scale of the reward", gt=0)
    gamma: float = option(0.5, "margin a pair should reach", ge=0)

    def signals(self) -> Mapping[str, Signal]:
        return {"policy": log_prob("policy")}

    def snapshots(self) -> Mapping[str, Signal]:
        return {"reference": log_prob("reference")}

    def loss(self, batch: PairBatch, signals: Signals, state: State) -> Loss:
        ratio = sequence_mean(signals["policy"] - signals["reference"], batch.mask)
        reward = self.beta * ratio
        margin = reward[batch.chosen] - reward[batch.rejected]
        return Loss(Term(-log_sigmoid(margin - self.gamma)), pair_metrics(reward, batch))


@dataclass(frozen=True)
class Politeness(Judge):
    """A reward function: one point for a polite opening."""

    name = "politeness"

    def score(self, answers: list[Answer]) -> list[Score]:
        polite = ("sure", "great")
        return [Score(float(a.response.text.strip().startswith(polite))) for a in answers]


@hookimpl
def register_algorithms():
    return [MarginDPO]


@hookimpl
def register_judges():
    return [Politeness]


@hookimpl
def on_step(run: Path, stage: str, step: int, metrics: Mapping[str, float]) -> None:
    with (run / "outsider.jsonl").open("a") as file:
        file.write(json.dumps({"stage": stage, "step": step, "loss": metrics.get("loss")}) + "\n")
