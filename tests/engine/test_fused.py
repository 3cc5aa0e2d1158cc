"""The fused scorer: one gradient whenever it is formed, and one choice for a whole run."""

import json
import os
import signal
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from engine_jobs import assert_equal_runs, job
from extra_methods import Turning
from torch import nn

from alignzoo import Signal
from alignzoo.contract.errors import PluginError
from alignzoo.engine.models.heads import PLAIN, Head, Transform
from alignzoo.engine.parallel.ranks import start_ranks
from alignzoo.engine.scoring import forms
from alignzoo.engine.scoring.fused import Fused
from alignzoo.engine.scoring.rows import dense
from alignzoo.engine.scoring.scorer import SCORERS
from alignzoo.engine.train.loop import train
from alignzoo.engine.train.separable import is_separable
from alignzoo.engine.train.step import denominators, share_of_loss
from alignzoo.ops import entropy, kl, log_prob, value
from alignzoo.recipe.registry import load_plugins
from alignzoo.testing.toys import scoring, shown, toy_batch

N, H, V = 11, 5, 17
SIGNALS = {"policy": log_prob("policy"), "kl": kl("policy", "teacher"), "h": entropy("policy")}


class Told:
    """An upstream as a forecast would give it, right or wrong."""

    def __init__(self, weights, right=True):
        self.weights, self.right, self.misses = weights, right, 0

    def pays(self, chunks):
        return True

    def missed(self):
        self.misses += 1

    def __call__(self, at, rows, learn):
        return {name: self.weights[name][at] * (1 if self.right else 2) for name in learn}


def heads_and_states(dtype=torch.float64, bias=False, transform=PLAIN, learns=True):
    torch.manual_seed(0)
    heads, states = {}, {}
    for role in ("policy", "teacher"):
        linear = nn.Linear(H, V, bias=bias, dtype=dtype)
        linear.requires_grad_(learns and role == "policy")
        heads[role] = Head(linear, transform)
        states[role] = torch.randn(N, H, dtype=dtype).requires_grad_(role == "policy")
    return heads, states


def score(scorer, signals, told=None, **how):
    """Rows, and gradients of the policy's states and head for weights that are all different."""
    heads, states = heads_and_states(**how)
    labels = torch.arange(N) % V
    rows = scorer(states, heads, labels, signals, told)
    weights = weights_of(rows)
    sum((x * weights[name]).sum() for name, x in rows.items() if x.requires_grad).backward()
    linear = heads["policy"].linear
    grads = {"h": states["policy"].grad, "w": linear.weight.grad}
    if linear.bias is not None:
        grads["b"] = linear.bias.grad
    return {**{name: x.detach() for name, x in rows.items()}, **grads}


def weights_of(rows):
    names = sorted(rows)
    return {n: torch.linspace(k + 1, k + 2, N, dtype=torch.float64) for k, n in enumerate(names)}


def assert_close(found, right, tolerance=1e-12):
    assert found.keys() == right.keys()
    for name, x in right.items():
        if x is None:
            assert found[name] is None
        else:
            assert torch.allclose(found[name], x, rtol=tolerance, atol=tolerance), name


def small(**how):
    return Fused(budget=1, smallest=4, small=0, **how)


HEADS = {
    "plain": {},
    "bias": {"bias": True},
    "factor": {"transform": Transform(factor=0.3)},
    "divisor and bias": {"transform": Transform(divisor=3.0), "bias": True},
    "cap": {"transform": Transform(factor=2.0, cap=1.5)},
    "frozen head": {"learns": False},
    "frozen head with a factor": {"learns": False, "transform": Transform(factor=0.3)},
}


@pytest.mark.parametrize("formulas", [True, False], ids=["formulas", "autograd"])
@pytest.mark.parametrize("how", HEADS.values(), ids=HEADS)
@pytest.mark.parametrize("names", [("policy",), ("kl", "h"), ("policy", "kl", "h")], ids=len)
def test_rows_and_gradients_are_those_of_dense(names, how, formulas):
    signals = {name: SIGNALS[name] for name in names}
    right = score(dense, signals, **how)
    told = Told(weights_of(signals))
    assert_close(score(small(formulas=formulas), signals, **how), right)
    assert_close(score(small(formulas=formulas), signals, told, **how), right)
    assert told.misses == 0


@pytest.mark.parametrize("formulas", [True, False], ids=["formulas", "autograd"])
def test_a_wrong_forecast_costs_a_second_pass_and_no_digit(formulas):
    told = Told(weights_of(SIGNALS), right=False)
    assert_close(score(small(formulas=formulas), SIGNALS, told), score(dense, SIGNALS))
    assert told.misses == 1


def test_weights_in_bfloat16_are_widened_before_the_product():
    signals = {"policy": log_prob("policy")}
    found, right = (score(s, signals, dtype=torch.bfloat16) for s in (small(), dense))
    assert found["policy"].dtype == torch.float32
    assert found["h"].dtype == found["w"].dtype == torch.bfloat16
    assert_close(found, right, 1e-2)
    assert torch.allclose(found["policy"], right["policy"], rtol=1e-5)


def test_a_gradient_that_is_asked_for_twice_is_given_twice():
    heads, states = heads_and_states()
    rows = small()(states, heads, torch.arange(N), {"policy": log_prob("policy")})
    for _ in range(2):
        rows["policy"].sum().backward(retain_graph=True)
    once = score_sum()
    assert torch.allclose(states["policy"].grad, 2 * once)


def score_sum():
    heads, states = heads_and_states()
    dense(states, heads, torch.arange(N), {"policy": log_prob("policy")})["policy"].sum().backward()
    return states["policy"].grad


def test_rows_that_are_views_of_logits_outlive_them():
    heads = {"policy": Head(nn.Linear(H, 1))}
    states = {"policy": torch.randn(N, H, requires_grad=True)}
    found = small()(states, heads, torch.zeros(N, dtype=torch.int64), {"v": value("policy")})
    assert torch.allclose(found["v"], heads["policy"](states["policy"]).squeeze(-1), rtol=1e-6)


def one_token(out, labels):
    return out["policy"].softmax(-1)[:, 5]


def view_of_storage(outputs, labels, scratch, wanted):
    p = scratch.probs("policy")
    row = p[:, 5]
    if "policy" not in wanted:
        return row, {}
    gradient = torch.mul(p, -row[:, None], out=scratch.gradient("policy"))
    gradient[:, 5] += row
    return row, {"policy": gradient}


@pytest.mark.parametrize("learns", [True, False])
def test_rows_of_a_form_that_are_views_of_its_storage_outlive_the_next_block(monkeypatch, learns):
    monkeypatch.setitem(forms.ELEMENTS, "cpu", V)  # blocks of one position in chunks of four
    signal = {"end": Signal(("policy",), one_token, closed=view_of_storage)}
    heads, states = heads_and_states(learns=learns)
    with torch.set_grad_enabled(learns):
        found = small()(states, heads, torch.arange(N) % V, signal)["end"]
    logits = heads["policy"](states["policy"])
    assert found.allclose(one_token({"policy": logits}, None), rtol=1e-9)


def test_a_closed_form_with_a_wrong_gradient_is_stopped_before_it_is_used():
    right = log_prob("policy")

    def doubled(outputs, labels, scratch, wanted):
        rows, gradients = right.closed(outputs, labels, scratch, wanted)
        return rows, {role: x.mul_(2) for role, x in gradients.items()}

    flawed = {"policy": Signal(right.roles, right.reduce, closed=doubled)}
    with pytest.raises(PluginError, match="'policy': d policy by the closed form differs"):
        score(small(), flawed)


def test_a_wrong_form_is_stopped_where_the_policy_still_is_its_reference():
    """There a divergence and its gradient are 0, and so is three times as much."""
    right = SIGNALS["kl"]

    def tripled(outputs, labels, scratch, wanted):
        rows, gradients = right.closed(outputs, labels, scratch, wanted)
        return 3 * rows, {role: x.mul_(3) for role, x in gradients.items()}

    heads, states = heads_and_states()
    heads["teacher"].linear.load_state_dict(heads["policy"].linear.state_dict())
    states["teacher"] = states["policy"].detach()
    flawed = {"kl": Signal(right.roles, right.reduce, closed=tripled)}
    with pytest.raises(PluginError, match="'kl': kl by the closed form differs"):
        small()(states, heads, torch.arange(N) % V, flawed)


def test_another_reduce_is_never_computed_by_the_form_of_the_first():
    half = replace(SIGNALS["policy"], reduce=lambda out, y: SIGNALS["policy"].reduce(out, y) / 2)
    assert_close(score(small(), {"policy": half}), score(dense, {"policy": half}))


def sharp(out, labels):
    z = out["teacher"]
    z *= 4
    return log_prob("teacher").reduce(out, labels)


def shifted(out, labels):
    labels.clamp_(min=1)
    return log_prob("teacher").reduce(out, labels)


@pytest.mark.parametrize("scorer", [dense, small(), small(formulas=False)])
@pytest.mark.parametrize(
    ("reduce", "what"), [(sharp, "the logits of 'teacher'"), (shifted, "the labels")]
)
@pytest.mark.parametrize("learns", [True, False])
def test_a_reduce_that_changes_what_other_signals_read_is_refused(scorer, reduce, what, learns):
    signals = {"odd": Signal(("teacher",), reduce), "kl": SIGNALS["kl"]}
    heads, states = heads_and_states(learns=learns)
    said = rf"'odd': `reduce` changes {what} in place \(.*test_fused.py:\d+\); other signals"
    with torch.set_grad_enabled(learns), pytest.raises(PluginError, match=said):
        scorer(states, heads, torch.arange(N) % V, signals)


def test_tokens_that_cannot_be_are_left_to_reduce():
    signals = {"kl": kl("policy", "teacher")}
    found = []
    for scorer in (small(), dense):
        heads, states = heads_and_states(bias=True)
        for head in heads.values():
            head.linear.bias.data[3] = -torch.inf
        rows = scorer(states, heads, torch.arange(N) + 4, signals)
        rows["kl"].sum().backward()
        found.append({"kl": rows["kl"].detach(), "h": states["policy"].grad})
    assert bool(found[1]["kl"].isfinite().all())
    assert_close(*found)


DISTILLED = ["aligndistil", "gkd", "g_opd", "exopd", "opd2", "negative_advantage"]
AHEAD = [*DISTILLED, "grpo", "dr_grpo", "cispo", "rloo", "ppo", "rto", "rto_v3", "sft"]
PAIRS = ["dpo", "hinge_dpo", "ipo", "tdpo1", "tdpo2", "simpo", "hinge_simpo", "orpo", "cpo"]
AFTER = [*PAIRS, "kto", "reinforce", "gspo", "reward_model"]


@pytest.mark.parametrize("name", [*AHEAD, *AFTER])
def test_gradients_are_formed_ahead_of_losses_that_take_positions_apart(name):
    cls = load_plugins().algorithms[name]
    method = cls(**cls.example_options)
    batch = toy_batch(method, 4)
    seen = shown(method, batch, scoring(method))
    terms = denominators(method.loss, batch, seen.given, seen.state, start_ranks("fp32"))

    def value_of(rows):
        return share_of_loss(method.loss(batch, rows, seen.state), terms)

    assert is_separable(value_of, batch, seen.given, method.signals()) == (name in AHEAD)


def logged(folder: Path):
    return [json.loads(row) for row in (folder / "metrics.jsonl").read_text().splitlines()]


def test_a_run_that_is_cut_after_a_missed_forecast_resumes_bit_for_bit(tmp_path, monkeypatch):
    monkeypatch.setitem(SCORERS, "fused", lambda budget: small())

    def interrupt(step, total, metrics, timing):
        if step == 3:
            os.kill(os.getpid(), signal.SIGINT)

    whole = train(job(tmp_path / "whole", Turning()))
    with pytest.raises(KeyboardInterrupt):
        train(job(tmp_path / "cut", Turning(), on_step=interrupt))
    resumed = train(job(tmp_path / "cut", Turning()))
    assert_equal_runs(tmp_path / "whole", tmp_path / "cut", whole, resumed)
    assert ["redone" in row for row in logged(tmp_path / "cut")] == [False] * 2 + [True] + [
        False
    ] * 3
