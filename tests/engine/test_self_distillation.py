"""Teachers that are the policy behind a hint, two teachers, and policies that play themselves.

Steps of the real loop on tiny models, against plain transformers on whole sequences.
"""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from alignzoo_gkd import GKD, MOPD, OPSD, SDFT, SDPO
from alignzoo_sppo import SPPO
from engine_jobs import assert_equal_runs, job, rollout
from torch.nn.functional import log_softmax

from alignzoo import TextBatch
from alignzoo.contract.errors import DataError
from alignzoo.engine.layout.optim import Optim
from alignzoo.engine.train.journal import rows_until
from alignzoo.engine.train.loop import train
from alignzoo.testing import tiny_model, toy_items
from alignzoo.testing.toys import items_for

OPTIM = Optim(
    steps=4, batch_size=4, micro_batch_size=2, lr=1e-2, save_every=1, eps=1e-4, shuffle=False
)


def rows(folder):
    return rows_until(folder / "metrics.jsonl", 100)


def run(folder, method, **changes):
    return train(job(folder, method, **({"optim": OPTIM} | changes)))


def whole(model, prompt, response):
    """[n, V] log-probabilities before each answer token, from plain transformers."""
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([[*prompt, *response]])).logits[0]
    return log_softmax(logits[len(prompt) - 1 : -1].double(), -1)


def reverse(teacher, policy):
    """KL(policy || teacher), mean over the tokens of an answer."""
    return (policy.exp() * (policy - teacher)).sum(-1).mean().item()


@pytest.mark.parametrize("on_policy", [False, True])
def test_sdft_behind_the_plain_prompt_is_gkd_to_the_byte(tmp_path, on_policy):
    """The same teacher, whose view is the very prompt."""
    if on_policy:
        prompts = [item.rows[0].prompt for item in toy_items(TextBatch, 6)]
        views = lambda n, done, scores: [{"told": prompts[n]} for _ in done]  # noqa: E731
        plain, own = ({"rollout": rollout(reward=None, views=x)} for x in (None, views))
    else:
        plain = {"items": toy_items(TextBatch, 11)}
        own = {"items": [replace(x, views={"told": x.rows}) for x in plain["items"]]}
    first = run(tmp_path / "gkd", GKD(divergence="reverse"), **plain)
    second = run(tmp_path / "sdft", SDFT(follow=0), **own)
    assert rows(tmp_path / "gkd")[0]["loss"] > 0.01
    assert_equal_runs(tmp_path / "gkd", tmp_path / "sdft", first, second)


def test_opsd_is_sdft_whose_teacher_stays_and_whose_divergence_is_jsd(tmp_path):
    items = items_for(OPSD(), 11)
    first = run(tmp_path / "one", OPSD(), items=items)
    second = run(tmp_path / "two", SDFT(follow=0, divergence="jsd"), items=items)
    assert_equal_runs(tmp_path / "one", tmp_path / "two", first, second)


def test_a_step_of_sdft_has_the_divergence_that_plain_transformers_gives(tmp_path):
    """The teacher of the second step is that of the first and a fifth of what the policy became."""
    method, items = SDFT(follow=0.2), items_for(SDFT(), 4)
    optim = replace(OPTIM, steps=2, schedule="constant")
    run(tmp_path / "x", method, items=items, optim=optim)
    once = run(tmp_path / "y", method, items=items, optim=replace(optim, steps=1))
    models = {"policy": tiny_model(0), "teacher": tiny_model(1)}
    expected = []
    for _ in range(2):
        found = [
            reverse(
                whole(models["teacher"], item.views["told"][0].prompt, item.rows[0].response),
                whole(models["policy"], item.rows[0].prompt, item.rows[0].response),
            )
            for item in items
        ]
        expected.append(sum(found) / 4)
        models["policy"] = once["policy"]
        moved = dict(once["policy"].named_parameters())
        with torch.no_grad():
            for name, w in models["teacher"].named_parameters():
                w.lerp_(moved[name], 0.2)
    assert [row["loss"] for row in rows(tmp_path / "x")] == pytest.approx(expected, rel=1e-4)


def test_a_teacher_that_is_the_policy_differs_by_its_hint_alone(tmp_path):
    items = items_for(SDFT(), 4)
    same = [replace(item, views={"told": item.rows}) for item in items]
    run(tmp_path / "hint", SDFT(follow=1.0), items=items)
    run(tmp_path / "none", SDFT(follow=1.0), items=same)
    assert rows(tmp_path / "none")[0]["loss"] == pytest.approx(0, abs=1e-6)
    assert rows(tmp_path / "hint")[0]["loss"] > 0.01


SCORES = [[0.0, 2.0, 1.0], [0.0, 0.5, 0.0], [3.0, 3.0, 3.0], [5.0, 0.0, 0.5]]  # success is 1


class Recorded:
    """A reward and views that note what was sampled."""

    def __init__(self):
        self.done = {}

    def reward(self, numbers, done):
        for n, completion in zip(numbers, done, strict=True):
            self.done.setdefault(n, []).append(completion.ids)
        return [SCORES[n][k] for n in sorted(set(numbers)) for k in range(3)]

    def views(self, number, done, scores):
        return [{"told": (2 + number, 3 + k)} for k in range(len(done))]


def test_a_step_of_sdpo_teaches_failed_answers_to_prompts_with_a_success(tmp_path):
    seen, optim = Recorded(), replace(OPTIM, steps=1)
    prompts = [item.rows[0].prompt for item in toy_items(TextBatch, 4)]
    how = {"prompts": prompts, "reward": seen.reward, "views": seen.views, "epochs": 1}
    run(tmp_path / "x", SDPO(), optim=optim, rollout=rollout(samples_per_prompt=3, **how))
    (row,) = rows(tmp_path / "x")
    policy, teacher = tiny_model(0), tiny_model(1)
    taught = [(0, 0), (3, 1), (3, 2)]  # prompt 1 has no success, prompt 2 no failure
    found = [
        reverse(
            whole(teacher, (2 + n, 3 + k), seen.done[n][k]),
            whole(policy, prompts[n], seen.done[n][k]),
        )
        for n, k in taught
    ]
    assert row["loss"] == pytest.approx(sum(found) / 3, rel=1e-4)
    assert row["kl_full/teacher_token"] == pytest.approx(sum(found) / 3, rel=1e-4)
    assert row["taught"] == pytest.approx(3 / 12)
    assert row["success"] == pytest.approx(6 / 12)


def test_two_teachers_teach_their_own_rows(tmp_path):
    items = [
        replace(x, values={"teacher": float(i % 2)}) for i, x in enumerate(toy_items(TextBatch, 4))
    ]
    run(tmp_path / "x", MOPD(), items=items, optim=replace(OPTIM, steps=1))
    policy, teachers = tiny_model(0), (tiny_model(1), tiny_model(2))
    found = []
    for i, item in enumerate(items):
        answer = (item.rows[0].prompt, item.rows[0].response)
        found.append(reverse(whole(teachers[i % 2], *answer), whole(policy, *answer)))
    (row,) = rows(tmp_path / "x")
    assert row["loss"] == pytest.approx(sum(found) / 4, rel=1e-4)
    assert row["teacher_1"] == 0.5


def test_a_row_that_no_teacher_speaks_of_is_refused(tmp_path):
    items = [replace(x, values={"teacher": 2.0}) for x in toy_items(TextBatch, 4)]
    with pytest.raises(DataError, match=r"meta\.teacher 2; give it 0 or 1"):
        run(tmp_path / "x", MOPD(), items=items)


def test_a_first_step_of_sppo_is_the_win_rates_alone(tmp_path):
    """The policy is what it was when it sampled: every log-ratio is 0."""
    seen, optim = Recorded(), replace(OPTIM, steps=1)
    prompts = [item.rows[0].prompt for item in toy_items(TextBatch, 4)]
    sampled = rollout(prompts=prompts, reward=seen.reward, samples_per_prompt=3, epochs=1)
    run(tmp_path / "x", SPPO(eta=10.0), optim=optim, rollout=sampled)
    scores = torch.tensor(SCORES, dtype=torch.float64)
    wins = torch.sigmoid(scores[:, :, None] - scores[:, None, :]).mean(-1)
    (row,) = rows(tmp_path / "x")
    assert row["loss"] == pytest.approx((10 * (wins - 0.5)).square().mean().item(), rel=1e-5)
    assert row["win_rate/best"] == pytest.approx(wins.amax(-1).mean().item(), rel=1e-6)
    assert row["log_ratio/seq"] == pytest.approx(0, abs=1e-5)


@pytest.mark.parametrize(
    "method", [SDFT(follow=0.3), SDPO(success=3.0), MOPD(), SPPO(eta=5.0)], ids=lambda m: m.name
)
def test_an_interrupted_run_resumes_bit_for_bit(tmp_path, method):
    views = lambda n, done, scores: [{"told": (2, 2 + len(c.ids))} for c in done]  # noqa: E731
    own = {"samples_per_prompt": 3, "epochs": 1, "prompts_per_buffer": 2}
    own |= {"views": views} if isinstance(method, SDFT | SDPO) else {}
    own |= {"values": [{"teacher": float(n % 2)} for n in range(6)]}
    how = {"rollout": rollout(**own)}
    first = run(tmp_path / "whole", method, **how)

    def stop(step, total, metrics, timing):
        if step == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "cut", method, on_step=stop, **how)
    second = run(tmp_path / "cut", method, **how)
    assert_equal_runs(tmp_path / "whole", tmp_path / "cut", first, second)
