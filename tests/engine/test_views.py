"""Roles that read other prompts before the same answers, and roles that are read on some rows."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest
import torch
from alignzoo_gkd import GKD
from engine_jobs import assert_equal_runs, job, rollout, weights
from extra_methods import Hinted, TwoTeachers
from safetensors.torch import load_file
from torch.nn.functional import kl_div, log_softmax

from alignzoo import Item, Role, Signal, TextBatch, Tokens
from alignzoo.contract.errors import PluginError
from alignzoo.engine.layout.optim import Optim
from alignzoo.engine.scoring.scorer import SCORERS, ScoringModule, Special
from alignzoo.engine.scoring.snapshots import cache_name
from alignzoo.engine.train.faults import save_batch
from alignzoo.engine.train.job import Job
from alignzoo.engine.train.journal import rows_until
from alignzoo.engine.train.loop import train
from alignzoo.ops import kl, label_log_prob, log_prob
from alignzoo.testing import tiny_model, toy_items

OPTIM = Optim(steps=4, batch_size=4, micro_batch_size=2, lr=1e-2, save_every=1, eps=1e-4)


@dataclass(frozen=True)
class HintedGKD(GKD):
    """GKD whose teacher sees a view."""

    name = "hinted_gkd"
    roles = {**GKD.roles, "teacher": replace(GKD.roles["teacher"], sees="hint")}


def rows(folder):
    return rows_until(folder / "metrics.jsonl", 100)


def hinted(n=11, seed=0):
    return toy_items(TextBatch, n, seed=seed, views=["hint"])


def run(folder, method, **changes) -> tuple[dict, Job]:
    own = job(folder, method, **({"optim": OPTIM} | changes))
    return train(own), own


def scored(module, items, signals):
    batch = TextBatch.collate(items, 0)
    with torch.no_grad():
        return batch, module(batch, signals)


def whole(model, tokens):
    """Plain transformers on one whole sequence: [n_response, V] logits before each answer token."""
    ids = torch.tensor([[*tokens.prompt, *tokens.response]])
    with torch.no_grad():
        logits = model(input_ids=ids).logits[0]
    return logits[len(tokens.prompt) - 1 : -1]


@pytest.mark.parametrize("scorer", SCORERS)
def test_what_is_read_behind_a_view_is_what_plain_transformers_gives_there(scorer):
    models = {"policy": tiny_model(0).double(), "teacher": tiny_model(1).double()}
    special = Special(sees={"teacher": "hint"})
    module = ScoringModule(models, frozenset(), SCORERS[scorer](1), special)
    items = hinted()
    signals = {"kl": kl("teacher", "policy"), "told": log_prob("teacher")}
    batch, found = scored(module, items, signals)
    for i, item in enumerate(items):
        mine, view = item.rows[0], item.views["hint"][0]
        assert mine.response == view.response and mine.prompt != view.prompt
        teacher = log_softmax(whole(models["teacher"], view), -1)
        policy = log_softmax(whole(models["policy"], mine), -1)
        labels = torch.tensor(mine.response)
        expected = kl_div(policy, teacher, log_target=True, reduction="none").sum(-1)
        at = batch.mask[i]
        torch.testing.assert_close(found["kl"][i][at], expected, atol=1e-12, rtol=1e-12)
        told = label_log_prob(teacher, labels)
        torch.testing.assert_close(found["told"][i][at], told, atol=1e-12, rtol=1e-12)
        assert not found["kl"][i][~at].any()


def test_a_hint_changes_what_is_learnt(tmp_path):
    run(tmp_path / "gkd", GKD(), items=toy_items(TextBatch, 11))
    run(tmp_path / "hinted", HintedGKD(), items=hinted())
    assert rows(tmp_path / "gkd")[0]["loss"] != rows(tmp_path / "hinted")[0]["loss"]


@pytest.mark.parametrize("method", [HintedGKD(), Hinted()])
def test_micro_batches_of_views_change_nothing(tmp_path, method):
    found = {}
    for micro in (1, 4):
        run(
            tmp_path / str(micro),
            method,
            items=hinted(),
            optim=replace(OPTIM, micro_batch_size=micro),
        )
        found[micro] = [row["loss"] for row in rows(tmp_path / str(micro))]
    assert found[1] == pytest.approx(found[4], abs=1e-5)


@pytest.mark.parametrize("on_policy", [False, True])
def test_an_interrupted_run_with_views_resumes_bit_for_bit(tmp_path, on_policy):
    views = lambda n, done, scores: [{"hint": (2, 2 + len(c.ids))} for c in done]  # noqa: E731
    how = {"rollout": rollout(epochs=1, views=views)} if on_policy else {"items": hinted()}
    first = run(tmp_path / "whole", Hinted(), **how)[0]

    def stop(step, total, metrics, timing):
        if step == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "cut", Hinted(), on_step=stop, **how)
    second = run(tmp_path / "cut", Hinted(), **how)[0]
    assert_equal_runs(tmp_path / "whole", tmp_path / "cut", first, second)


def test_cached_values_are_those_behind_the_view_that_was_read(tmp_path):
    """The same answers behind two hints, one after the other, from one cache."""
    optim = replace(OPTIM, steps=1)
    for seed in (0, 1):
        other = [
            replace(item, views={"hint": (replace(item.rows[0], prompt=(3 + seed,)),)})
            for item in toy_items(TextBatch, 4)
        ]
        own = job(tmp_path / str(seed), Hinted(), items=other, optim=optim, cache=tmp_path / "c")
        assert "told" in own.scored[0]
        train(own)
    told = [rows(tmp_path / str(seed))[0]["likely"] for seed in (0, 1)]
    assert told[0] != told[1]
    assert len(list((tmp_path / "c").glob("*.safetensors"))) == 2
    model = tiny_model(1)  # of the second role
    tokens = [Tokens((4,), item.rows[0].response) for item in toy_items(TextBatch, 4)]
    expected = [
        label_log_prob(whole(model, t), torch.tensor(t.response)).sum().item() for t in tokens
    ]
    assert told[1] == pytest.approx(sum(expected) / 4, abs=1e-4)


def test_cached_values_are_keyed_by_which_of_two_roles_reads_the_view():
    """Of a divergence one side or the other may read it; the models and the sequences are alike."""
    items, models = hinted(4), {"first": "a", "second": "b"}
    every = [{}, {"first": "hint"}, {"second": "hint"}, {"first": "hint", "second": "hint"}]
    names = [cache_name(kl("first", "second"), models, items, sees=sees) for sees in every]
    assert len(set(names)) == 4


def test_a_signal_on_the_prompt_of_a_role_that_sees_another_is_refused():
    models = {"policy": tiny_model(0), "teacher": tiny_model(1)}
    module = ScoringModule(models, frozenset(), SCORERS["dense"](1), Special(sees={"teacher": "v"}))
    everywhere = Signal(("teacher",), log_prob("teacher").reduce, lambda batch: batch.attention)
    items = [replace(x, views={"v": x.rows}) for x in toy_items(TextBatch, 3)]
    with pytest.raises(PluginError, match="positions of the prompt, but 'teacher' sees another"):
        scored(module, items, {"x": everywhere})


def test_rows_are_sorted_by_their_longest_view():
    items = [
        Item((Tokens((2,), (3,) * n),), views={"v": (Tokens((2,) * (9 - n), (3,) * n),)})
        for n in (1, 2, 5)
    ]
    batch = TextBatch.collate(items, 0)
    assert batch.lengths.tolist() == [9, 9, 9]
    assert batch.take(torch.tensor([2])).views["v"].ids.tolist() == [[2] * 4 + [3] * 5]


def test_the_sequences_that_are_kept_of_a_bad_step_have_their_views(tmp_path):
    batch = TextBatch.collate(hinted(3), 0)
    save_batch(batch, torch.tensor([1]), tmp_path / "x.safetensors")
    kept = load_file(tmp_path / "x.safetensors")
    assert torch.equal(kept["views/hint/ids"], batch.take(torch.tensor([1])).views["hint"].ids)


def test_a_role_that_learns_reads_the_prompt_itself(tmp_path):
    odd = type("Odd", (Hinted,), {"roles": {"policy": Role(trainable=True, sees="hint")}})
    with pytest.raises(PluginError, match="'policy' learns, and `sees` is for roles that do not"):
        run(tmp_path / "x", odd(), items=hinted())


def taught(n=8):
    """Answers in turn to one of two teachers."""
    return [
        replace(x, values={"teacher": float(i % 2)}) for i, x in enumerate(toy_items(TextBatch, n))
    ]


def counted(model, seen):
    """A model that notes how many rows its body reads at a time."""
    plain = model.model.forward

    def forward(input_ids, **more):
        seen.append(len(input_ids))
        return plain(input_ids=input_ids, **more)

    model.model.forward = forward
    return model


def test_a_teacher_reads_only_the_rows_of_which_it_speaks(tmp_path):
    seen = {"policy": [], "first": [], "second": []}
    models = {role: counted(tiny_model(k), seen[role]) for k, role in enumerate(seen)}
    optim = replace(OPTIM, steps=1, batch_size=8, micro_batch_size=8, shuffle=False)
    run(tmp_path / "x", TwoTeachers(), items=taught(), optim=optim, load=lambda role: models[role])
    assert {role: sum(n) for role, n in seen.items()} == {"policy": 8, "first": 4, "second": 4}


def test_two_teachers_that_are_one_teach_as_one_does(tmp_path):
    """Rows shared out between two copies of a teacher, against all rows by one of them."""

    def load(role):
        return tiny_model(0 if role == "policy" else 1)

    one = [replace(item, values={"teacher": 0.0}) for item in taught()]
    both = run(tmp_path / "both", TwoTeachers(), items=taught(), load=load)[0]
    alone = run(tmp_path / "alone", TwoTeachers(), items=one, load=load)[0]
    for first, second in zip(rows(tmp_path / "both"), rows(tmp_path / "alone"), strict=True):
        assert first["loss"] == pytest.approx(second["loss"], abs=1e-6)
    for name, x in weights(both).items():
        torch.testing.assert_close(x, weights(alone)[name], atol=1e-5, rtol=0)


def test_a_micro_batch_that_a_teacher_says_nothing_of_is_learnt_all_the_same(tmp_path):
    optim = replace(OPTIM, micro_batch_size=1)
    run(tmp_path / "x", TwoTeachers(), items=taught(), optim=optim)
    run(tmp_path / "y", TwoTeachers(), items=taught())
    one, other = ([row["loss"] for row in rows(tmp_path / name)] for name in "xy")
    assert one == pytest.approx(other, abs=1e-5)
