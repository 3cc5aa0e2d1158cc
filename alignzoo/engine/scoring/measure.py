"""Quantities of finished models on given sequences."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from torch import Tensor
from transformers import PreTrainedModel

from alignzoo.contract.types import Batch, Item, TextBatch, Tokens
from alignzoo.engine.scoring.fused import Fused
from alignzoo.engine.scoring.scorer import ScoringModule
from alignzoo.engine.scoring.snapshots import score_buffer
from alignzoo.ops import kl, log_prob, sequence_sum, value


def sequence_kl(
    policy: PreTrainedModel,
    other: PreTrainedModel,
    rows: Sequence[Tokens],
    pad_id: int,
    batch_size: int = 64,
) -> list[float]:
    """Full-vocabulary KL(policy || other) in nats, summed over each response.

    Non-negative by construction; an estimate of the sequence KL when the policy sampled the rows.
    """
    module = ScoringModule({"policy": policy, "other": other}, frozenset(), Fused())
    batch = TextBatch.collate([Item((row,)) for row in rows], pad_id)
    grid = score_buffer(module, batch, {"kl": kl("policy", "other")}, batch_size)["kl"]
    return sequence_sum(grid.double(), batch.mask).tolist()


def sequence_log_probs(
    model: PreTrainedModel, rows: Sequence[Tokens], pad_id: int, batch_size: int = 64
) -> list[list[float]]:
    """Log p of every token of each response, in nats, as training computes it."""
    module = ScoringModule({"policy": model}, frozenset(), Fused())
    batch = TextBatch.collate([Item((row,)) for row in rows], pad_id)
    grid = score_buffer(module, batch, {"x": log_prob("policy")}, batch_size)["x"]
    return [x[mask].tolist() for x, mask in zip(grid, batch.mask, strict=True)]


def sequence_log_ratios(
    model: PreTrainedModel,
    over: PreTrainedModel,
    rows: Sequence[Tokens],
    pad_id: int,
    batch_size: int = 64,
) -> list[float]:
    """Log p(response | prompt) under `model` minus the same under `over`, nats, summed."""
    module = ScoringModule({"model": model, "over": over}, frozenset(), Fused())
    batch = TextBatch.collate([Item((row,)) for row in rows], pad_id)
    wanted = {"model": log_prob("model"), "over": log_prob("over")}
    grid = score_buffer(module, batch, wanted, batch_size)
    return sequence_sum((grid["model"] - grid["over"]).double(), batch.mask).tolist()


def sequence_values(
    model: PreTrainedModel, rows: Sequence[Tokens], pad_id: int, batch_size: int = 64
) -> list[float]:
    """A reward model's output at the last token of each sequence, wherever the padding is."""
    role = "reward model"  # how errors call it
    module = ScoringModule({role: model}, frozenset(), Fused())
    at_end = replace(value(role), positions=_last_token)
    batch = TextBatch.collate([Item((row,)) for row in rows], pad_id)
    return score_buffer(module, batch, {"value": at_end}, batch_size)["value"].sum(-1).tolist()


def _last_token(batch: Batch) -> Tensor:
    following = batch.attention.roll(-1, dims=1)
    following[:, -1] = False
    return batch.attention & ~following
