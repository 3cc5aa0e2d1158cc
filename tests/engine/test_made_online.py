"""Pairs and groups that are made of what the policy samples."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from alignzoo_dpo import DPO
from alignzoo_gkd import GKD
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
    place = buffer.place(0)
    assert place.startswith("answers ") and " to prompt " in place
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


def mixed(share, method=None, **changes):
    """Prompts with answers of their own, in a share of which the policy answers."""
    method = method or GKD()
    items = toy_items(method.batch, 8, seed=5)
    prompts = [item.rows[0].prompt for item in items]
    how = {"samples_per_prompt": 1, "epochs": 1, "reward": None}
    own = rollout(prompts=prompts, share=share, own=items, **(how | changes))
    return {"algorithm": method, "rollout": own, "optim": OPTIM}, items


def test_a_share_of_the_prompts_is_answered_and_the_rest_has_the_datas_answers(tmp_path):
    made, items = mixed(0.5)
    source = source_of(made, tmp_path / "x")
    sampled, of_data = 0, 0
    for index in range(2):
        buffer = source.buffer(index)
        batch = buffer.batch
        compared = buffer.given["rollout/log_prob"]
        places = [buffer.place(b) for b in range(batch.n_items)]
        assert len(places) == 4
        for b, place in enumerate(places):
            number = int(place.rpartition(" ")[2]) - 1
            ids = tuple(batch.ids[b][batch.attention[b]].tolist())
            row = items[number].rows[0]
            assert ids[: len(row.prompt)] == row.prompt
            if place.startswith("the data's answer"):
                of_data += 1
                assert ids == row.prompt + row.response
                assert compared[b][batch.mask[b]].isnan().all()
            else:
                sampled += 1
                assert not compared[b].isnan().any()
        share = sum(not place.startswith("the data") for place in places) / 4
        assert buffer.metrics.get("rollout/share", 0.0) == share
    assert sampled and of_data


@pytest.mark.parametrize("method", [GKD(), DPO()])
def test_a_mixed_run_resumes_bit_for_bit_and_logs_no_gap_of_given_answers(tmp_path, method):
    changes = {} if method.batch is TextBatch else {"samples_per_prompt": 2}
    reward = {"reward": lambda numbers, done: [float(len(c.ids)) for c in done]}
    made, _ = mixed(0.5, method, **changes, **(reward if changes else {}))
    how = {key: made[key] for key in ("rollout", "optim")}
    whole = train(job(tmp_path / "whole", method, **how))

    def stop(step, total, metrics, timing):
        if step == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(job(tmp_path / "cut", method, on_step=stop, **how))
    resumed = train(job(tmp_path / "cut", method, **how))
    assert_equal_runs(tmp_path / "whole", tmp_path / "cut", whole, resumed)
    logged = rows(tmp_path / "whole")
    assert all(row["rollout/logprob_gap"] < 1e-5 for row in logged if "rollout/share" in row)


def test_a_vanishing_share_is_the_offline_method(tmp_path):
    made, items = mixed(1e-12)
    train(job(tmp_path / "on", GKD(), rollout=made["rollout"], optim=OPTIM))
    train(job(tmp_path / "off", GKD(), items=items, optim=OPTIM))
    one, other = rows(tmp_path / "on"), rows(tmp_path / "off")
    assert [r["loss"] for r in one] == pytest.approx([r["loss"] for r in other], abs=1e-6)
    assert not any(name.startswith("rollout/") for name in one[0])
