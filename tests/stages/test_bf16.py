"""bf16: what trains equals what samples equals what is saved."""

import gzip
import json
import random
from itertools import islice

import pytest
import torch
from recording import REQUESTS, every_kind_of_sampling, registry
from safetensors.torch import load_file
from shared_data import shared
from small_models import TALK, logged, run_stages, word_model, write_rows
from transformers import AutoModelForCausalLM

HALF = {"precision": "bf16"}


@pytest.fixture(autouse=True)
def _fresh(tmp_path, monkeypatch):
    monkeypatch.setenv("ALIGNZOO_CACHE", str(tmp_path / "cache"))
    REQUESTS.clear()


def words(rng, n):
    return " ".join(rng.choices(TALK, k=n))


def pairs(file, n=8):
    """Pairs whose answers have up to 220 words."""
    rng = random.Random(3)
    return write_rows(
        file,
        [
            {
                "prompt": words(rng, rng.randint(3, 30)),
                "chosen": " " + words(rng, rng.randint(60, 220)),
                "rejected": " " + words(rng, rng.randint(60, 220)),
            }
            for _ in range(n)
        ],
    )


def weights(run, stage="01-it"):
    return load_file(run / "stages" / stage / "model" / "model.safetensors")


def dpo(data, **train):
    given = {"batch_size": 8, "micro_batch_size": 4, "steps": 1, "lr": 1e-9} | train
    return {"name": "it", "algorithm": "dpo", "data": data, "train": given}


def test_a_policy_that_equals_its_reference_starts_at_log_2(tmp_path):
    model = word_model(tmp_path / "m", context=512)
    notes = run_stages(model, tmp_path / "r", dpo(pairs(tmp_path / "d.jsonl")), **HALF)
    (first,) = logged(tmp_path / "r" / "stages" / "01-it")
    assert first["loss"] == pytest.approx(0.6931472, abs=1e-3)
    for name in ("rewards/chosen", "rewards/rejected", "rewards/margin"):
        assert first[name] == pytest.approx(0, abs=1e-3), name
    assert not any("warning" in note for note in notes)


def test_a_stage_saves_the_weights_that_it_trained_and_not_rounded_ones(tmp_path):
    model = word_model(tmp_path / "m", context=512)
    run_stages(model, tmp_path / "r", dpo(pairs(tmp_path / "d.jsonl"), lr=1e-6), **HALF)
    start, end = load_file(tmp_path / "m" / "model.safetensors"), weights(tmp_path / "r")
    assert {x.dtype for x in end.values()} == {torch.float32}
    moved = torch.cat([(end[name] - x).abs().flatten() for name, x in start.items()])
    # Adam's first step is the learning rate in every direction that has a gradient.
    assert moved.max().item() == pytest.approx(1e-6, rel=0.1)
    assert (moved > 5e-7).float().mean() > 0.5


def test_export_alone_rounds_by_default_to_the_recipe_s_precision(tmp_path, cli):
    model = word_model(tmp_path / "m", context=512)
    run_stages(model, tmp_path / "r", dpo(pairs(tmp_path / "d.jsonl"), lr=1e-3), **HALF)
    run_stages(model, tmp_path / "s", dpo(pairs(tmp_path / "d.jsonl"), lr=1e-3))
    asked = {
        "rounded": ("r", torch.bfloat16, ()),
        "kept": ("r", torch.float32, ("--dtype", "fp32")),
        "plain": ("s", torch.float32, ()),
        "asked": ("s", torch.bfloat16, ("--dtype", "bf16")),
    }
    for name, (run, dtype, words_) in asked.items():
        folder = tmp_path / name
        status, _, err = cli("export", tmp_path / run / "it", folder, *words_)
        assert status == 0, err
        loaded = AutoModelForCausalLM.from_pretrained(folder)
        assert loaded.dtype == dtype
        saved = loaded.state_dict()
        for key, x in weights(tmp_path / run).items():
            assert torch.equal(saved[key], x.to(dtype)), (name, key)
    status, _, err = cli("export", tmp_path / "r" / "it", tmp_path / "x", "--dtype", "int4")
    assert status == 2 and "fp32, bf16" in err and not (tmp_path / "x").exists()


def test_every_place_that_samples_uses_float32_weights_under_the_autocast_of_training(tmp_path):
    model = word_model(tmp_path / "m")
    rows = [{"prompt": line} for line in ("the cat", "hello", "how are", "a mat")]
    data = write_rows(tmp_path / "d.jsonl", rows)
    stages, evaluate = every_kind_of_sampling(model, data, {"sampling": {"max_new_tokens": 4}})
    for name, more, expected in (("r", HALF, torch.bfloat16), ("s", {}, None)):
        REQUESTS.clear()
        run_stages(model, tmp_path / name, *stages, registry=registry(), evaluate=evaluate, **more)
        assert [request.autocast for request in REQUESTS] == [expected] * 3
        assert {request.weights for request in REQUESTS} == {torch.float32}


def real_pairs(file, n=16):
    """Real pairs of about 220 tokens."""
    found = []
    with gzip.open(shared("data", "alpaca_pairs.jsonl.gz"), "rt") as lines:
        for line in islice(lines, n):
            row = json.loads(line)
            text = {key: row[key][0]["content"] for key in ("prompt", "chosen", "rejected")}
            found.append(text)
    return write_rows(file, found)


def test_a_real_model_on_real_pairs_starts_at_log_2_whatever_rows_are_scored_together(tmp_path):
    data = {"name": real_pairs(tmp_path / "d.jsonl"), "max_length": 480}
    model = str(shared("models", "stories260k"))
    run_stages(model, tmp_path / "r", dpo(data), **HALF)
    (first,) = logged(tmp_path / "r" / "stages" / "01-it")
    assert first["response_length"] > 200
    assert first["loss"] == pytest.approx(0.6931472, abs=1e-3)
    assert first["rewards/margin"] == pytest.approx(0, abs=1e-3)


def test_the_log_probs_of_rollouts_are_nearly_those_of_training(tmp_path):
    data = write_rows(tmp_path / "d.jsonl", [{"prompt": f"Lily saw {n} dogs."} for n in range(8)])
    stage = {
        "name": "it",
        "algorithm": "gkd",
        "roles": {"teacher": "initial"},
        "data": data,
        "train": {"steps": 1, "batch_size": 8, "lr": 1e-9},
        "rollout": {"prompts": 8, "sampling": {"max_new_tokens": 80}},
    }
    run_stages(str(shared("models", "stories260k")), tmp_path / "r", stage, **HALF)
    (first,) = logged(tmp_path / "r" / "stages" / "01-it")
    assert first["rollout/logprob_gap"] < 6e-3  # .011 with logits rounded to bf16
