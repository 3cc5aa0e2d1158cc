"""Training that ends when validations stop getting better."""

import json
from dataclasses import replace

import pytest
import torch
from alignzoo_gkd import GKD
from engine_jobs import assert_equal_runs, job, rollout, weights

from alignzoo import TextBatch
from alignzoo.contract.types import PairBatch
from alignzoo.engine.train.job import Validation
from alignzoo.engine.train.loop import train
from alignzoo.engine.train.rails import Rails
from alignzoo.testing import toy_items

HELD = Validation(toy_items(PairBatch, 5, seed=9), every=1, metric="loss", sign=1, patience=2)


def rows(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def stops_at(values, every, patience):
    """The step at which a list of validations ends training by hand: the highest is the best."""
    for n, _ in enumerate(values, 1):
        best = values.index(max(values[:n])) + 1
        if n - best >= patience:
            return n * every
    return None


@pytest.mark.parametrize("patience", [1, 2])
def test_training_ends_after_so_many_validations_without_a_better_one(tmp_path, patience):
    whole = job(tmp_path / "whole", steps=8, validation=replace(HELD, patience=None))
    train(whole)
    values = [row["validation/loss"] for row in rows(tmp_path / "whole")]
    expected = stops_at(values, 1, patience)
    assert expected is not None and expected < 8, "the toy must get worse for this test"
    train(job(tmp_path / "early", steps=8, validation=replace(HELD, patience=patience)))
    assert rows(tmp_path / "early") == rows(tmp_path / "whole")[:expected]


def test_the_best_weights_are_the_result_and_the_end_is_told(tmp_path):
    said = []
    models = train(job(tmp_path / "a", steps=8, validation=HELD, rails=Rails(say=said.append)))
    values = [row["validation/loss"] for row in rows(tmp_path / "a")]
    best, last = values.index(max(values)) + 1, len(values)
    assert f"ends at step {last} of 8: 2 validations without a better one (patience)" in said
    assert any(text.startswith(f"keeps the weights of step {best} of {last}") for text in said)
    short = train(job(tmp_path / "b", steps=8, validation=replace(HELD, patience=1)))
    for name, x in weights(models).items():
        assert torch.equal(x, weights(short)[name]), name


def test_only_every_so_many_steps_count(tmp_path):
    held = replace(HELD, every=2, patience=1)
    train(job(tmp_path / "run", steps=12, validation=held))
    found = rows(tmp_path / "run")
    values = [row["validation/loss"] for row in found if "validation/loss" in row]
    assert len(found) == stops_at(values, 2, 1)


def test_a_run_that_is_stopped_on_the_way_ends_at_the_same_step(tmp_path):
    whole = train(job(tmp_path / "whole", steps=8, validation=HELD))
    last = len(rows(tmp_path / "whole"))

    class StopError(Exception):
        pass

    def stop(step, *_):
        if step == last - 1:
            raise StopError

    with pytest.raises(StopError):
        train(job(tmp_path / "cut", steps=8, validation=HELD, on_step=stop))
    resumed = train(job(tmp_path / "cut", steps=8, validation=HELD))
    assert_equal_runs(tmp_path / "whole", tmp_path / "cut", whole, resumed)
    again = train(job(tmp_path / "cut", steps=8, validation=HELD))  # it had ended already
    assert_equal_runs(tmp_path / "whole", tmp_path / "cut", whole, again)


def test_a_buffer_of_several_updates_is_left_in_the_middle(tmp_path):
    held = replace(HELD, items=toy_items(TextBatch, 5, seed=9), patience=1)
    said = []
    sampled = rollout(prompts_per_buffer=6, samples_per_prompt=4, epochs=2)  # twelve updates
    rails = Rails(say=said.append)
    train(job(tmp_path / "run", GKD(), steps=12, rollout=sampled, validation=held, rails=rails))
    values = [row["validation/loss"] for row in rows(tmp_path / "run")]
    assert len(values) == stops_at(values, 1, 1) < 12
    assert not any("served" in text for text in said)
