"""Metrics over nothing, terms without weight, and values that are not finite: none in silence."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import ClassVar

import pytest
import torch
from alignzoo_dpo import DPO
from alignzoo_gkd import GKD
from alignzoo_grpo import GRPO
from alignzoo_kto import KTO
from alignzoo_sft import SFT
from alignzoo_tdpo import TDPO1, TDPO2
from engine_jobs import job, rollout
from safetensors.torch import load_file
from transformers import PhiConfig, PhiForCausalLM

from alignzoo import Algorithm, LabelledBatch, Loss, Mean, Metric, PairBatch, Term, TextBatch
from alignzoo.contract.errors import TrainingError
from alignzoo.engine.layout.optim import Optim
from alignzoo.engine.train.loop import Validation, train
from alignzoo.engine.train.rails import Rails, Watch
from alignzoo.engine.train.step import Denominators, share_of_loss
from alignzoo.ops import log_prob, sequence_sum
from alignzoo.testing import toy_items

STILL = Optim(steps=1, batch_size=4, micro_batch_size=3, lr=1e-9)


def rows_of(folder):
    return [json.loads(x) for x in (folder / "metrics.jsonl").read_text().splitlines()]


# --- probability exactly 0


@cache
def forbidding(*forbidden: int):
    """A model whose head's bias is -inf for some tokens, as for the unused rows of a vocabulary."""
    torch.manual_seed(0)
    config = PhiConfig(
        vocab_size=20,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=64,
        pad_token_id=0,
        eos_token_id=1,
    )
    model = PhiForCausalLM(config)
    with torch.no_grad():
        model.lm_head.bias[list(forbidden)] = -torch.inf
    return model


UNUSED = tuple(range(13, 20))  # toy items hold tokens below 13


def fresh(role):
    copy = PhiForCausalLM(forbidding(*UNUSED).config)
    copy.load_state_dict(forbidding(*UNUSED).state_dict())
    return copy


EQUAL = {"load": fresh, "digests": dict.fromkeys(("policy", "reference", "teacher"), "x")}


@pytest.mark.parametrize(
    ("method", "right"),
    [(DPO(), math.log(2)), (TDPO1(), math.log(2)), (TDPO2(), math.log(2))]
    + [(GKD(divergence=name), 0.0) for name in ("forward", "reverse", "jsd")],
    ids=repr,
)
def test_a_model_that_forbids_tokens_starts_where_the_formula_says(tmp_path, method, right):
    models = train(job(tmp_path / "run", method, optim=STILL, rails=Rails(stop=True), **EQUAL))
    row = rows_of(tmp_path / "run")[0]
    assert row["loss"] == pytest.approx(right, abs=1e-6)
    assert all(map(math.isfinite, row.values())), row
    learnt = models["policy"].state_dict()
    assert all(x.isfinite().all() for n, x in learnt.items() if n != "lm_head.bias")


def test_the_kl_rail_fires_for_a_model_that_forbids_tokens(tmp_path):
    fast = Optim(steps=12, batch_size=8, lr=1e-1, warmup=0.0)
    changes = {"rollout": rollout(epochs=1), "optim": fast, **EQUAL}
    with pytest.raises(TrainingError, match="kl_full/reference reached"):
        train(job(tmp_path / "run", GRPO(), rails=Rails(stop=True, max_kl=1e-3), **changes))
    assert all(math.isfinite(row["kl_full/reference"]) for row in rows_of(tmp_path / "run"))


def test_a_teacher_that_forbids_what_the_student_says_is_named_and_not_the_learning_rate(tmp_path):
    models = {"policy": forbidding(), "teacher": forbidding(*UNUSED)}
    with pytest.raises(TrainingError) as caught:
        train(job(tmp_path / "run", GKD(divergence="reverse"), optim=STILL, load=models.get))
    said = str(caught.value)
    assert said.startswith("step 1: loss, kl_full/teacher_seq, kl_full/teacher_token")
    assert "became inf (in item " in said and "signal 'distil/loss' is inf" in said
    assert "probability exactly 0" in said and "learning rate" not in said.lower()


# --- values that are not finite


def test_a_row_that_the_model_forbids_is_named(tmp_path):
    items = toy_items(TextBatch, 4)
    third = items[2].rows[0]
    items[2] = replace(items[2], rows=(replace(third, response=(15, 1)),))
    changes = {"items": items, "load": fresh, "optim": STILL}
    with pytest.raises(TrainingError) as caught:
        train(job(tmp_path / "run", SFT(), **changes))
    said = str(caught.value)
    assert "loss, nll became inf (in item 3 of the data, signal 'policy' is -inf)" in said
    assert "no update has been made yet" in said and "learning rate" not in said.lower()


def test_a_reward_that_is_no_number_is_named_with_its_answer(tmp_path):
    def reward(numbers, done):
        return [math.nan if (n, k % 2) == (3, 1) else 1.0 for k, n in enumerate(numbers)]

    with pytest.raises(TrainingError) as caught:
        train(job(tmp_path / "run", GRPO(), rollout=rollout(reward=reward)))
    said = str(caught.value)
    assert "rollout/reward became nan (in answer 2 to prompt 4, its reward is nan)" in said
    assert "the weights of the reward model" in said and "learning rate" not in said


def broken_reference(role):
    model = fresh(role)
    if role == "reference":
        with torch.no_grad():
            model.get_input_embeddings().weight[12] = torch.nan
    return model


def test_a_broken_reference_is_blamed_on_itself_however_late(tmp_path):
    items = toy_items(PairBatch, 6, vocabulary=12)  # no token 12 but in the last
    row = items[5].rows[1]
    items[5] = replace(items[5], rows=(items[5].rows[0], replace(row, prompt=(12, *row.prompt))))
    slow = Optim(steps=6, batch_size=1, lr=1e-9, shuffle=False)
    with pytest.raises(TrainingError) as caught:
        train(job(tmp_path / "run", items=items, load=broken_reference, optim=slow))
    said = str(caught.value)
    assert said.startswith("step 6: ") and "learning rate" not in said
    assert "became nan (in item 6 of the data, signal 'reference' is nan)" in said


def test_a_step_that_explodes_later_is_blamed_on_the_learning_rate(tmp_path):
    explode = Optim(steps=30, batch_size=4, lr=1e12, warmup=0.0)
    with pytest.raises(TrainingError, match=r"step [2-9]: .*lower the learning rate, or .*\.safet"):
        train(job(tmp_path / "run", optim=explode))


def test_held_out_numbers_that_are_not_finite_name_their_row(tmp_path):
    held = toy_items(TextBatch, 5)
    held[3] = replace(held[3], rows=(replace(held[3].rows[0], response=(15, 1)),))
    changes = {"validation": Validation(held, 1, "loss", -1), "optim": STILL}
    changes["load"] = fresh
    with pytest.raises(
        TrainingError, match=r"loss, nll became inf .in item 4 of the validation data"
    ):
        train(job(tmp_path / "run", SFT(), **changes))


@dataclass(frozen=True)
class Steep(Algorithm):
    """L = sqrt(x - x) of answers of some length: finite, but not its gradient."""

    name = "steep"
    batch: ClassVar = TextBatch
    length: int = 7

    def signals(self):
        return {"policy": log_prob("policy")}

    def loss(self, batch, signals, state):
        total = sequence_sum(signals["policy"], batch.mask)
        long = batch.response.sum(-1) == self.length
        return Loss(Term(-total + torch.where(long, total - total.detach(), 1.0).abs().sqrt()))


def test_a_gradient_that_is_not_finite_names_its_row(tmp_path):
    items = toy_items(TextBatch, 11)
    lengths = [len(item.rows[0].response) for item in items]
    long = lengths.index(max(lengths))
    optim = Optim(steps=1, batch_size=11, shuffle=False)
    words = rf"grad_norm became nan .in item {long + 1} of the data, its gradient is not finite"
    with pytest.raises(TrainingError, match=words):
        train(job(tmp_path / "run", Steep(max(lengths)), items=items, optim=optim))


@pytest.mark.parametrize(
    "metrics",
    [
        {"rollout/truncated": math.nan},
        {"kl_full/reference": math.nan},
        {"kl_full/reference": math.inf},
        {"rewards/accuracy": math.nan},
        {"loss": math.nan, "rewards/margin": 0.0},
    ],
    ids=str,
)
def test_a_rail_whose_metric_is_not_finite_fires(metrics):
    said = []
    rails = Rails(max_kl=1.0, max_truncated=0.5, say=said.append)
    watch = Watch(DPO(), same_start=True, rails=rails)
    for step in range(1, 12):
        watch.see(step, metrics)
    assert any(next(iter(metrics)) in text or "rollouts hit" in text for text in said)


# --- nothing to average


def test_a_metric_over_nothing_is_absent(tmp_path):
    items = [replace(x, values={"desirable": 1.0}) for x in toy_items(LabelledBatch, 8)]
    train(job(tmp_path / "run", KTO(), items=items, rails=Rails(stop=True)))
    for row in rows_of(tmp_path / "run"):
        assert "rewards/desirable" in row and "rewards/undesirable" not in row


@dataclass(frozen=True)
class Ties(Algorithm):
    """L = -log p(y_w) of the pairs that count, none of them here. Source: http://example.org."""

    name = "ties"
    metrics: ClassVar = {"of_pairs": Metric("mean over pairs that count")}
    count: float = 0.0

    def signals(self):
        return {"policy": log_prob("policy")}

    def loss(self, batch, signals, state):
        total = sequence_sum(signals["policy"], batch.mask)[batch.chosen]
        weight = torch.full_like(total, self.count)
        nll = Term(-signals["policy"][batch.chosen], batch.mask[batch.chosen])
        terms = {"pairs": Term(total, weight), "nll": nll}
        return Loss(terms, {"of_pairs": Mean(total.detach(), weight)})


def test_a_term_whose_weights_are_all_zero_contributes_exactly_zero(tmp_path):
    train(job(tmp_path / "run", Ties(), steps=3))
    for row in rows_of(tmp_path / "run"):
        assert row["loss/pairs"] == 0.0 and row["loss"] == row["loss/nll"] > 0
        assert math.isfinite(row["grad_norm"]) and "of_pairs" not in row


def test_the_share_of_a_term_without_weight_is_zero_in_float32_too():
    value = torch.tensor([3.0, -2.0], requires_grad=True)
    loss = Loss({"a": Term(value, torch.zeros(2), scale=0.1), "b": Term(value)})
    known = Denominators({"a": 0.0, "b": 2.0}, {}, {"a": 0.1, "b": 1.0})
    share = share_of_loss(loss, known)
    share.backward()
    assert share.item() == 0.5 and value.grad.tolist() == [0.5, 0.5]


RANKS = """
import sys, json
from alignzoo.engine.parallel.agreement import end
from alignzoo.engine.parallel.ranks import start_ranks
from alignzoo.engine.train.step import Sums
import torch
ranks, sums = start_ranks("fp32"), Sums()
if ranks.rank == 1:
    sums.add("mean", torch.tensor([1.0, 3.0]), None)
    sums.add("nothing", torch.tensor([5.0]), torch.tensor([0.0]))
    sums.add_max("most", torch.tensor([7.0]), None)
    sums.add_max("none", torch.tensor([7.0]), torch.tensor([0.0]))
else:
    sums.add("other", torch.tensor([2.0]), None)
print("RESULT " + json.dumps(sums.reduce(ranks)) + "\\n", end="", flush=True)
ranks.barrier()
end(0)
"""


@pytest.mark.slow
def test_a_rank_without_items_agrees_with_the_others_on_every_metric(tmp_path):
    script = tmp_path / "ranks.py"
    script.write_text(RANKS)
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node"]
    done = subprocess.run(
        [*launch, "2", str(script)], capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    found = [json.loads(x.split("RESULT ")[1]) for x in done.stdout.splitlines() if "RESULT" in x]
    assert found == [{"other": 2.0, "mean": 2.0, "most": 7.0}] * 2


ON_TWO_RANKS = """
import os
from dataclasses import replace
from pathlib import Path
from alignzoo_sft import SFT
from engine_jobs import job
from test_numbers import STILL, fresh
from alignzoo import TextBatch
from alignzoo.contract.errors import TrainingError
from alignzoo.engine.parallel.agreement import end
from alignzoo.engine.train.loop import train
from alignzoo.testing import toy_items
items = toy_items(TextBatch, 4)
items[{n}] = replace(items[{n}], rows=(replace(items[{n}].rows[0], response=(15, 1)),))
folder = Path("{folder}") / "run"
try:
    train(job(folder, SFT(), items=items, load=fresh, optim=replace(STILL, shuffle=False)))
except TrainingError as error:
    print(os.environ["RANK"] + f" {{error}}\\n", end="", flush=True)  # one write, one line
end(0)
"""


def test_every_process_names_the_row_that_only_one_of_them_has(tmp_path):
    n, script = 2, tmp_path / "two.py"
    script.write_text(ON_TWO_RANKS.format(n=n, folder=tmp_path))
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    there = os.pathsep.join([str(Path(__file__).parent), *sys.path])
    done = subprocess.run(
        [*launch, "--nproc-per-node", "2", str(script)],
        capture_output=True, text=True, timeout=120, check=False,
        env={**os.environ, "PYTHONPATH": there},
    )  # fmt: skip
    said = dict(line.split(" ", 1) for line in done.stdout.splitlines() if line[:2] in ("0 ", "1 "))
    assert len(said) == 2, done.stderr[-2000:]
    assert said["0"] == said["1"]
    assert f"in item {n + 1} of the data, signal 'policy' is -inf" in said["0"]
    kept = Path(said["0"].rpartition("(")[2].rstrip(")"))
    assert bool((load_file(kept)["ids"] == 15).any())
