"""Every command that measures works in its smallest setting and prints the keys it promises."""

import importlib
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from alignzoo.recipe.file import load_recipe
from alignzoo.recipe.registry import load_plugins

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
SHARED_KEYS = {"commit", "versions", "machine", "load", "rows"}
LOSSES = ("log_prob", "pair_log_prob", "reverse_kl", "forward_kl", "jsd", "aligndistil", "entropy")
ROWS = ("dpo", "dpo_cached", "kto", "simpo", "reward_model", "sft", "grpo", "rloo")
ROWS += ("distillation", "online_dpo", "aligndistil")


@pytest.fixture
def command(monkeypatch):
    monkeypatch.syspath_prepend(BENCHMARKS)
    return importlib.import_module


@pytest.mark.parametrize("name", LOSSES)
def test_the_naive_loss_and_its_gradients_are_those_of_the_engine(command, name):
    case = command("loss_case")
    loss, shape = case.CASES[name], case.Shape(96, 300, 8)
    found, grads = [], []
    for way in (case.naive, case.engine):
        made = {role: case.model(shape, n) for n, role in enumerate(case.read_roles(loss))}
        found.append(way(loss, made)(*case.given(loss, shape, made)))
        grads.append(made["policy"].lm_head.weight.grad)
    assert found[0] == pytest.approx(found[1], abs=1e-5)
    torch.testing.assert_close(grads[0], grads[1], atol=1e-6, rtol=1e-3)
    assert grads[0].abs().max() > 1e-5


def test_the_products_of_the_three_models_are_five(command, monkeypatch):
    case = command("loss_case")
    loss, shape, seen = case.CASES["aligndistil"], case.Shape(128, 300, 8), []
    made = {role: case.model(shape, n) for n, role in enumerate(case.read_roles(loss))}
    step = case.matmuls(loss, made)
    mm, addmm = torch.mm, torch.Tensor.addmm_
    monkeypatch.setattr(torch, "mm", lambda *a, **k: seen.append(0) or mm(*a, **k))
    monkeypatch.setattr(torch.Tensor, "addmm_", lambda *a: seen.append(0) or addmm(*a))
    step(*case.given(loss, shape))
    assert len(seen) == 5 * shape.positions / case.CHUNK


def test_a_step_is_measured_with_its_memory(command):
    case = command("loss_case")
    found = case.measure(case.CASES["log_prob"], "naive", case.Shape(256, 20_000, 8))
    logits = 256 * 20_000 * 4 / 1e6
    assert found["peak"] > 2 * logits  # the log-softmax too
    assert found["loss"] > 0
    assert case.gradient_error(case.CASES["log_prob"], case.Shape(128, 500, 8))["error"] < 3


@pytest.mark.parametrize("name", ROWS)
@pytest.mark.parametrize("long", [False, True])
def test_what_is_compared_with_trl_is_a_recipe_over_the_rows_that_trl_gets(
    command, tmp_path, name, long
):
    script, data = command("vs_trl"), command("trl_data")
    assert tuple(script.ROWS) == ROWS
    row, place = script.ROWS[name], script.Place(tmp_path, Path(sys.executable), data.SMALL)
    made = load_recipe(script.recipe(place, row, tmp_path, long=long), load_plugins(), [])
    (stage,) = made.stages
    assert stage.train.batch_size == data.SMALL.batch
    assert stage.data.name == str(place.data(row, long=long))
    count = len(place.data(row, long=long).read_text().splitlines())
    items = count * max(1, row.samples) * stage.train.epochs
    batches = data.SMALL.more * (1 + long) if row.epochs else 1 + data.SMALL.more * long
    assert items == batches * data.SMALL.batch


def test_the_rows_of_a_short_run_are_the_first_of_a_long_one(command, tmp_path):
    data = command("trl_data")
    for kind in data.ROWS:
        few = data.write_rows(tmp_path / "few", kind, 3, 50).read_text().splitlines()
        more = data.write_rows(tmp_path / "more", kind, 5, 50).read_text().splitlines()
        assert more[:3] == few


def test_batches_of_pairs_are_as_long_as_each_other_and_as_those_of_hh_rlhf(command):
    lengths = [
        [len(pair[name].split()) for name in ("prompt", "chosen", "rejected")]
        for pair in command("trl_data").pairs(64, 50)
    ]
    batches = [
        [sum(column) for column in zip(*lengths[at : at + 16], strict=True)]
        for at in range(0, 64, 16)
    ]
    assert batches == [batches[0]] * 4
    assert len({tuple(row) for row in lengths}) > 48  # in other orders
    # Means of 2,308 pairs of harmless-base by words x 1.15; the quantiles cut the tail.
    assert [x / 16 for x in batches[0]] == pytest.approx([100, 35, 45], rel=0.15)


@pytest.mark.parametrize("axis", ["batch", "pairs", "prompts"])
def test_a_stage_of_a_size_takes_cpu_seconds(command, axis):
    case = command("scaling_case")
    size = {"length": 4, "vocabulary": 50, "batch": 2, "pairs": 4, "prompts": 2}
    assert 0 < case.main(axis, size) < 60


def test_pairs_of_the_world_have_two_answers(command, tmp_path):
    command("overhead").write_pairs(tmp_path / "pairs.jsonl", 5)
    rows = [json.loads(line) for line in (tmp_path / "pairs.jsonl").read_text().splitlines()]
    assert len(rows) == 5
    assert all(row["chosen"] != row["rejected"] and row["prompt"] for row in rows)


COMMANDS = {
    "loss_memory": {"peak_ratio", "peak_ratio_leanest", "cpu_ratio", "cpu_over_matmuls"}
    | {"cpu_over_matmuls_wide", "peak_growth", "gradient_error"},
    "loss_speed": {f"{name}_{key}" for name in LOSSES for key in ("cpu", "peak")},
    "overhead": {"sft_overhead", "dpo_overhead", "grpo_overhead"},
    "scaling": {f"{axis}_{key}" for axis in ("length", "vocabulary", "batch", "pairs", "prompts")
                for key in ("slope", "fit")},
    "startup": {"help", "plan", "one_step", "reused_run", "tokenise_ms"},
}  # fmt: skip


FEW = {"loss_speed": "log_prob", "overhead": "sft"}  # seconds; the others start many processes


def ends_well(name, keys, *words):
    line = [sys.executable, BENCHMARKS / f"{name}.py", "--small", "--json", *words]
    done = subprocess.run(line, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    told = json.loads(done.stdout.splitlines()[-1])
    assert told.keys() == SHARED_KEYS | {"small"} | keys
    assert all(isinstance(told[key], float) for key in keys)
    assert set(told["versions"]) == {"python", "torch", "transformers"}
    assert told["rows"]


@pytest.mark.slow
@pytest.mark.parametrize("name", FEW)
def test_a_part_of_a_command_ends_with_one_line_of_its_figures(name):
    keys = {key for key in COMMANDS[name] if key.startswith(f"{FEW[name]}_")}
    ends_well(name, keys, "--only", FEW[name])


@pytest.mark.grid
@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_ends_with_one_line_that_holds_its_figures(name):
    ends_well(name, COMMANDS[name])
