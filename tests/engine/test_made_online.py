"""Pairs and groups that are made of what the policy samples."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from alignzoo_dpo import DPO
from alignzoo_kto import KTO
from engine_jobs import assert_equal_runs, job, rollout, weights
from extra_methods import Grouped, Marked, OfMarked

from alignzoo import GroupBatch, Item, PairBatch, TextBatch, Tokens
from alignzoo.contract.choosing import CHOOSERS
from alignzoo.contract.errors import TrainingError
from alignzoo.engine.layout.build import build_layout
from alignzoo.engine.layout.optim import Optim
from alignzoo.engine.train.build import buffers_of, module_of
from alignzoo.engine.train.journal import rows_until
from alignzoo.engine.train.loop import train
from alignzoo.engine.train.rails import Rails
from alignzoo.testing import toy_items

OPTIM = Optim(steps=4, batch_size=4, micro_batch_size=2, lr=1e-2, save_every=1, eps=1e-4)


def rows(folder: Path):
    return rows_until(folder / "metrics.jsonl", 100)


def source_of(made, folder):
    own = job(folder, made.pop("algorithm", DPO()), **made)
    layout = build_layout(own.ranks, module_of(own), own.optim, "ddp")
    return buffers_of(own, layout, {})


@pytest.mark.parametrize("choose", CHOOSERS)
def test_the_first_online_buffer_is_offline_dpo_on_the_same_pairs(tmp_path, choose):
    """Sampled, judged and paired by hand; then given as data."""
    sampled = rollout(epochs=1, samples_per_prompt=3, chooser=CHOOSERS[choose])
    size = 4 * CHOOSERS[choose].count(3)
    optim = replace(OPTIM, steps=1, batch_size=size, shuffle=False)
    source = source_of({"rollout": sampled, "optim": optim}, tmp_path / "seen")
    batch = source.buffer(0).batch
    assert isinstance(batch, PairBatch) and batch.n_items == size
    pairs = []
    for i in range(size):
        both = []
        for row in (i, size + i):
            ids = batch.ids[row][batch.attention[row]].tolist()
            n = int(batch.response[row].sum())
            both.append(Tokens(tuple(ids[:-n]), tuple(ids[-n:])))
        pairs.append(Item(tuple(both)))
    online = train(job(tmp_path / "on", DPO(), rollout=sampled, optim=optim))
    offline = train(job(tmp_path / "off", DPO(), items=pairs, optim=optim))
    one, other = rows(tmp_path / "on")[0], rows(tmp_path / "off")[0]
    for name in ("loss", "grad_norm", *DPO.metrics):
        assert one[name] == pytest.approx(other[name], abs=1e-6), name
    for name, x in weights(offline).items():
        torch.testing.assert_close(weights(online)[name], x, atol=1e-5, rtol=0)


def test_the_pairs_of_a_buffer_are_chosen_by_what_the_answers_earn(tmp_path):
    made = {"rollout": rollout(samples_per_prompt=4), "optim": OPTIM}
    buffer = source_of(made, tmp_path / "x").buffer(0)
    lengths = buffer.batch.response.sum(-1)
    assert (lengths[buffer.batch.chosen] >= lengths[buffer.batch.rejected]).all()
    assert buffer.places[0].startswith("answers ") and " to prompt " in buffer.places[0]
    assert 0 <= buffer.metrics["rollout/ties"] < 1


def test_answers_that_earn_the_same_are_ties_and_counted(tmp_path):
    same = rollout(epochs=1, reward=lambda numbers, done: [1.0] * len(done))
    train(job(tmp_path / "x", DPO(), rollout=same, optim=OPTIM))
    assert [row["rollout/ties"] for row in rows(tmp_path / "x")] == [1.0] * 4


def test_a_reward_that_is_no_number_is_refused_with_its_answers(tmp_path):
    odd = rollout(epochs=1, reward=lambda numbers, done: [float("nan")] + [1.0] * (len(done) - 1))
    with pytest.raises(TrainingError, match=r"in answers? .* to prompt \d+, its reward is nan"):
        train(job(tmp_path / "x", DPO(), rollout=odd, optim=OPTIM, rails=Rails(say=print)))


@pytest.mark.parametrize("method", [DPO(), Grouped()])
def test_an_interrupted_run_on_pairs_or_groups_resumes_bit_for_bit(tmp_path, method):
    how = {"rollout": rollout(samples_per_prompt=3), "optim": OPTIM}
    whole = train(job(tmp_path / "whole", method, **how))

    def stop(step, total, metrics, timing):
        if step == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(job(tmp_path / "cut", method, on_step=stop, **how))
    resumed = train(job(tmp_path / "cut", method, **how))
    assert_equal_runs(tmp_path / "whole", tmp_path / "cut", whole, resumed)


@pytest.mark.parametrize("method", [DPO(), Grouped()])
def test_micro_batches_of_pairs_and_groups_change_nothing(tmp_path, method):
    found = {}
    for micro in (1, 4):
        optim = replace(OPTIM, micro_batch_size=micro)
        sampled = rollout(samples_per_prompt=3)
        train(job(tmp_path / str(micro), method, rollout=sampled, optim=optim))
        found[micro] = [row["loss"] for row in rows(tmp_path / str(micro))]
    assert found[1] == pytest.approx(found[4], abs=1e-5)


def test_a_group_learns_from_all_answers_to_a_prompt(tmp_path):
    sampled = rollout(samples_per_prompt=3, epochs=1)
    source = source_of({"algorithm": Grouped(), "rollout": sampled, "optim": OPTIM}, tmp_path / "x")
    batch = source.buffer(0).batch
    assert isinstance(batch, GroupBatch) and (batch.n_items, batch.rows_per_item) == (4, 3)
    assert batch.by_group(batch.score).tolist() == [
        [float(n) for n in row] for row in batch.by_group(batch.response.sum(-1)).tolist()
    ]
    prompts = [(batch.attention & ~batch.response)[i].sum().item() for i in range(12)]
    assert prompts[:4] == prompts[4:8] == prompts[8:]


def test_numbers_of_a_prompts_row_come_with_its_answers(tmp_path):
    prompts = [item.rows[0].prompt for item in toy_items(TextBatch, 6)]
    marks = [{"mark": float(n)} for n in range(6)]
    made = {"algorithm": OfMarked(), "rollout": rollout(values=marks), "optim": OPTIM}
    batch = source_of(made, tmp_path / "x").buffer(0).batch
    assert isinstance(batch, Marked)
    starts = (batch.attention & ~batch.response).sum(-1).tolist()
    for ids, n, mark in zip(batch.ids.tolist(), starts, batch.mark.tolist(), strict=True):
        assert prompts[int(mark)] == tuple(ids[:n])


def test_kto_has_rows_that_no_rollout_makes():
    assert KTO.batch.rows_per_item == 2 and not issubclass(KTO.batch, PairBatch | GroupBatch)
