"""A mixture of experts: the loss of its router is that of plain transformers, or said to be off."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from typing import ClassVar

import pytest
import torch
from alignzoo_dpo import DPO
from alignzoo_reward_model import RewardModel
from alignzoo_sft import SFT
from engine_jobs import job, rollout
from transformers import (
    GptOssConfig,
    GptOssForCausalLM,
    GraniteMoeConfig,
    GraniteMoeForCausalLM,
    MixtralConfig,
    MixtralForCausalLM,
    MixtralForSequenceClassification,
    OlmoeConfig,
    OlmoeForCausalLM,
    PhimoeConfig,
    PhimoeForCausalLM,
    Qwen3MoeConfig,
    Qwen3MoeForCausalLM,
)

from alignzoo import Role, TextBatch
from alignzoo.contract.errors import TrainingError
from alignzoo.contract.types import Item, Loss, PairBatch, Signal, Term, Tokens
from alignzoo.engine.layout.optim import Optim
from alignzoo.engine.models.quiet import own_config, silence
from alignzoo.engine.models.routers import router_of
from alignzoo.engine.scoring.fused import Fused
from alignzoo.engine.scoring.scorer import ROUTER, ScoringModule
from alignzoo.engine.train.loop import train
from alignzoo.engine.train.rails import Rails
from alignzoo.ops import log_prob
from alignzoo.testing import tiny_model, toy_items

SMALL = {
    "vocab_size": 13,
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "num_experts_per_tok": 2,
    "initializer_range": 0.5,
    "pad_token_id": 0,
    "bos_token_id": 0,
    "eos_token_id": 1,
    "head_dim": 8,
}
MIXTURES = {
    "mixtral": (MixtralForCausalLM, MixtralConfig, {"num_local_experts": 4}),
    "qwen3_moe": (
        Qwen3MoeForCausalLM,
        Qwen3MoeConfig,
        {"num_experts": 4, "moe_intermediate_size": 16},
    ),
    "olmoe": (OlmoeForCausalLM, OlmoeConfig, {"num_experts": 4}),
    "phimoe": (PhimoeForCausalLM, PhimoeConfig, {"num_local_experts": 4}),
    "granitemoe": (GraniteMoeForCausalLM, GraniteMoeConfig, {"num_local_experts": 4}),
    "gpt_oss": (GptOssForCausalLM, GptOssConfig, {"num_local_experts": 4}),
}
COEFFICIENT = 0.25
ONCE = Optim(steps=1, batch_size=6, micro_batch_size=6, lr=1e-30, max_grad_norm=1e9)


def mixture(kind="mixtral", **more):
    torch.manual_seed(0)
    model, config, own = MIXTURES[kind]
    made = model(config(**SMALL, **own, router_aux_loss_coef=COEFFICIENT, **more))
    silence(made)
    return made.eval()


def items(*lengths):
    chance = torch.Generator().manual_seed(1)
    rows = [torch.randint(2, 13, (n,), generator=chance).tolist() for n in lengths]
    return [Item((Tokens(tuple(row[:2]), tuple(row[2:])),)) for row in rows]


def plain(model, batch, **mask):
    """The library's own loss on a batch."""
    return model(input_ids=batch.ids, use_cache=False, output_router_logits=True, **mask).aux_loss


def ours(model, batch):
    """The engine's, from its rows."""
    module = ScoringModule({"policy": model}, frozenset({"policy"}), Fused())
    rows = module(batch, {"x": log_prob("policy")}, frozenset({"policy"}))
    return rows[ROUTER + "policy"][batch.attention].mean()


def gradient(model, loss):
    learnt = [p for p in model.parameters() if p.requires_grad]
    grads = torch.autograd.grad(loss, learnt, allow_unused=True)
    return torch.cat([x.flatten() for x in grads if x is not None])


@pytest.mark.parametrize("recompute", [False, True], ids=["plain", "gradient checkpointing"])
@pytest.mark.parametrize("kind", MIXTURES)
def test_the_routers_loss_and_gradient_are_those_of_plain_transformers(kind, recompute):
    model, batch = mixture(kind), TextBatch.collate(items(6, 6, 6, 6), 0)
    right = plain(model, batch)
    expected = gradient(model, right)
    if recompute:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    got = ours(model, batch)
    assert got.item() == pytest.approx(right.item(), rel=1e-6)
    assert torch.allclose(gradient(model, got), expected, atol=1e-7)
    assert router_of(model).coefficient == COEFFICIENT


def test_padding_is_left_out_as_plain_transformers_leaves_it_out():
    model, batch = mixture(), TextBatch.collate(items(6, 6, 6, 5), 0)
    right = plain(model, batch, attention_mask=batch.attention.long())
    assert ours(model, batch).item() == pytest.approx(right.item(), rel=1e-6)


def first_row(folder):
    return json.loads((folder / "metrics.jsonl").read_text().splitlines()[0])


def test_aux_loss_adds_coefficient_times_the_loss_and_logs_it(tmp_path):
    rows = {}
    for asked in (False, True):
        optim = replace(ONCE, aux_loss=asked)
        changes = {"items": items(*[6] * 6), "load": lambda role: mixture(), "optim": optim}
        train(job(tmp_path / str(asked), SFT(), **changes))
        rows[asked] = first_row(tmp_path / str(asked))
    right = plain(mixture(), TextBatch.collate(items(*[6] * 6), 0)).item()
    assert rows[True]["router/aux_loss"] == pytest.approx(right, rel=1e-6)
    assert rows[True]["loss/router"] == pytest.approx(COEFFICIENT * right, rel=1e-6)
    assert rows[True]["loss/method"] == pytest.approx(rows[False]["loss"], rel=1e-6)
    assert rows[True]["loss"] == pytest.approx(rows[False]["loss"] + COEFFICIENT * right, rel=1e-6)
    assert "router/aux_loss" not in rows[False] and "loss/router" not in rows[False]
    assert rows[True]["grad_norm"] != pytest.approx(rows[False]["grad_norm"], rel=1e-6)


def test_over_micro_batches_it_is_the_mean_of_their_losses_by_tokens(tmp_path):
    optim = replace(ONCE, aux_loss=True, micro_batch_size=2)
    lengths = (9, 9, 6, 6, 4, 4)
    changes = {"items": items(*lengths), "load": lambda role: mixture(), "optim": optim}
    train(job(tmp_path / "run", SFT(), **changes))
    pairs = [TextBatch.collate(items(*lengths)[n : n + 2], 0) for n in (0, 2, 4)]
    losses = [plain(mixture(), pair).item() * int(pair.attention.sum()) for pair in pairs]
    assert first_row(tmp_path / "run")["router/aux_loss"] == pytest.approx(
        sum(losses) / sum(lengths), rel=1e-6
    )


class OnChosen(SFT):
    """SFT on the chosen half of pairs: the other half is not read."""

    batch: ClassVar = PairBatch

    def signals(self):
        chosen = lambda b: b.mask & (torch.arange(len(b.ids)) < b.n_items)[:, None]  # noqa: E731
        return {"policy": Signal(("policy",), log_prob("policy").reduce, chosen)}

    def loss(self, batch, signals, state):
        return Loss(Term(-signals["policy"][batch.chosen], batch.mask[batch.chosen]))


def test_rows_that_a_method_does_not_read_count_in_no_routers_loss(tmp_path):
    rows = [item.rows[0] for item in items(*[6] * 12)]
    pairs = [Item(pair) for pair in zip(rows[:6], rows[6:], strict=True)]
    optim = replace(ONCE, aux_loss=True)
    changes = {"items": pairs, "load": lambda role: mixture(), "optim": optim}
    train(job(tmp_path / "run", OnChosen(), **changes))
    right = plain(mixture(), TextBatch.collate([Item((row,)) for row in rows[:6]], 0)).item()
    assert first_row(tmp_path / "run")["router/aux_loss"] == pytest.approx(right, rel=1e-6)


def test_the_start_of_a_method_is_checked_without_the_routers_loss(tmp_path):
    said = []
    optim = replace(ONCE, aux_loss=True)
    changes = {"items": toy_items(PairBatch, 6), "load": lambda role: mixture(), "optim": optim}
    equal = dict.fromkeys(("policy", "reference"), "x")
    rails = Rails(stop=True, say=said.append)
    train(job(tmp_path / "run", DPO(), digests=equal, rails=rails, **changes))
    assert said == []


class Twins(DPO):
    """DPO whose reference learns too: two models with routers."""

    roles: ClassVar = {"policy": Role(trainable=True), "reference": Role(True, like="policy")}

    def signals(self):
        return {"policy": log_prob("policy"), "reference": log_prob("reference")}

    def snapshots(self):
        return {}


def test_the_start_of_a_method_is_checked_without_the_losses_of_several_routers(tmp_path):
    said = []
    rows = [item.rows[0] for item in items(*[6] * 12)]  # of one length: one forward pass
    pairs = [Item(pair) for pair in zip(rows[:6], rows[6:], strict=True)]
    optim = replace(ONCE, aux_loss=True)
    changes = {"items": pairs, "load": lambda role: mixture(), "optim": optim}
    equal = dict.fromkeys(("policy", "reference"), "x")
    rails = Rails(stop=True, say=said.append)
    train(job(tmp_path / "run", Twins(), digests=equal, rails=rails, **changes))
    row = first_row(tmp_path / "run")
    right = plain(mixture(), PairBatch.collate(pairs, 0)).item()
    for role in ("policy", "reference"):
        assert row[f"loss/router/{role}"] == pytest.approx(COEFFICIENT * right, rel=1e-6)
    routers = row["loss/router/policy"] + row["loss/router/reference"]
    assert row["loss"] - routers == pytest.approx(math.log(2), abs=1e-6)
    assert said == []


def test_a_router_that_is_not_balanced_is_said_once(tmp_path):
    said = []
    changes = {"load": lambda role: mixture(), "rails": Rails(say=said.append)}
    train(job(tmp_path / "run", SFT(), optim=replace(ONCE, steps=3), **changes))
    assert [text for text in said if "load-balancing" in text] == [
        "the load-balancing loss of the router (coefficient 0.25 in its config) is off; "
        "train.aux_loss: true adds it"
    ]


def test_aux_loss_of_a_model_without_experts_is_refused(tmp_path):
    changes = {"load": lambda role: tiny_model(), "optim": replace(ONCE, aux_loss=True)}
    with pytest.raises(TrainingError, match="no model that learns has a router"):
        train(job(tmp_path / "run", SFT(), **changes))


def test_aux_loss_of_a_scalar_head_is_refused_as_plain_transformers_has_none(tmp_path):
    torch.manual_seed(0)
    config = MixtralConfig(**SMALL, num_local_experts=4, num_labels=1)
    made = MixtralForSequenceClassification(config).eval()
    silence(made)
    changes = {"load": lambda role: made, "optim": replace(ONCE, aux_loss=True)}
    with pytest.raises(TrainingError, match="no model that learns has a router"):
        train(job(tmp_path / "run", RewardModel(), **changes))


def test_a_model_that_gives_its_router_logits_can_be_sampled_and_keeps_its_config(tmp_path):
    model = mixture(output_router_logits=True)
    changes = {"rollout": rollout(epochs=1), "load": lambda role: model}
    train(job(tmp_path / "run", SFT(), steps=2, **changes))
    with own_config(model):
        model.save_pretrained(tmp_path / "saved")
    assert json.loads((tmp_path / "saved" / "config.json").read_text())["output_router_logits"]
