"""Roles that follow one that learns: what they are after a step, and what that costs."""

from __future__ import annotations

import copy
import math
from dataclasses import replace

import pytest
import torch
from alignzoo_dpo import DPO, TRDPO
from engine_jobs import assert_equal_runs, job, rollout, weights
from extra_methods import Mirrored, Renewed, Twin

from alignzoo import Follow, TextBatch
from alignzoo.contract.errors import PluginError, TrainingError
from alignzoo.engine.layout.optim import Optim
from alignzoo.engine.models.adapters import Adapted, Lora
from alignzoo.engine.models.tensors import read_tensors
from alignzoo.engine.train.build import module_of
from alignzoo.engine.train.checkpoint import WEIGHTS
from alignzoo.engine.train.job import Job
from alignzoo.engine.train.journal import rows_until
from alignzoo.engine.train.loop import train
from alignzoo.engine.train.rails import drift_signals
from alignzoo.ops import log_prob
from alignzoo.testing import tiny_model, toy_items

OPTIM = Optim(steps=4, batch_size=4, micro_batch_size=2, lr=1e-2, save_every=1, eps=1e-4)


def rows(folder):
    return rows_until(folder / "metrics.jsonl", 100)


def alike(role):
    return tiny_model(0)


def run(folder, method, **changes) -> tuple[dict, Job]:
    own = job(folder, method, **({"load": alike, "optim": OPTIM} | changes))
    return train(own), own


def saved(folder, step):
    return read_tensors(folder / "state" / f"step-{step:08d}" / WEIGHTS)[0]


@pytest.mark.parametrize("tau", [1, 2])
def test_a_reference_moves_towards_the_policy_as_the_formula_says(tmp_path, tau):
    """By hand: w_ref + alpha (w_pi - w_ref) after every tau steps, from the saved weights."""
    method, alpha = TRDPO(alpha=0.3, tau=tau), 0.3
    expected = dict(tiny_model(0).named_parameters())
    expected = {name: x.detach().clone() for name, x in expected.items()}
    for step in range(1, 5):
        run(tmp_path / "x", method, optim=replace(OPTIM, steps=step, schedule="constant"))
        found = saved(tmp_path / "x", step)
        for name, w in expected.items() if step % tau == 0 else ():
            expected[name] = w + alpha * (found[f"policy/{name}"] - w)
        for name, w in expected.items():
            torch.testing.assert_close(found[f"reference/{name}"], w, atol=1e-7, rtol=1e-6)


def test_a_reference_that_is_the_policy_keeps_the_loss_at_log_two(tmp_path):
    run(tmp_path / "x", TRDPO(alpha=1.0, tau=1))
    found = rows(tmp_path / "x")
    assert [row["loss"] for row in found] == pytest.approx([math.log(2)] * 4, abs=1e-6)
    assert all(row["grad_norm"] > 0 for row in found)  # its gradient is that of DPO at the start


def test_the_first_step_is_that_of_dpo(tmp_path):
    moved, still = TRDPO(alpha=0.5), DPO()
    run(tmp_path / "moved", moved)
    run(tmp_path / "still", still)
    one, other = rows(tmp_path / "moved"), rows(tmp_path / "still")
    assert one[0]["loss"] == pytest.approx(other[0]["loss"], abs=1e-6)
    assert one[0]["grad_norm"] == pytest.approx(other[0]["grad_norm"], rel=1e-5)
    assert abs(one[3]["rewards/margin"]) < abs(other[3]["rewards/margin"])


@pytest.mark.parametrize("method", [TRDPO(alpha=0.3), TRDPO(alpha=1.0, tau=2), Renewed()])
@pytest.mark.parametrize("on_policy", [False, True])
def test_an_interrupted_run_resumes_bit_for_bit_where_the_reference_was(
    tmp_path, method, on_policy
):
    how = {"optim": replace(OPTIM, steps=6)}
    how |= {"rollout": rollout(epochs=1, prompts_per_buffer=2)} if on_policy else {}
    whole = run(tmp_path / "whole", method, **how)[0]

    def stop(step, total, metrics, timing):
        if step == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "cut", method, on_step=stop, **how)
    assert (tmp_path / "cut" / "state" / "step-00000004").exists()
    resumed = run(tmp_path / "cut", method, **how)[0]
    assert_equal_runs(tmp_path / "whole", tmp_path / "cut", whole, resumed)


def test_buffers_are_counted_where_a_rule_says_so(tmp_path):
    sampled = rollout(epochs=2, prompts_per_buffer=2)  # four answers: two updates each
    optim = replace(OPTIM, steps=6, schedule="constant")
    run(tmp_path / "x", Renewed(), rollout=sampled, optim=optim)
    apart = [row["distance"] > 1e-6 for row in rows(tmp_path / "x")]
    assert apart == [False, True, True, True, False, True]  # renewed after two buffers


def test_a_role_that_is_another_has_no_weights_and_no_gradient_of_its_own(tmp_path):
    trained, own = run(tmp_path / "x", Twin())
    module = module_of(own)
    assert list(module.models) == ["policy"]
    assert module.by_role["teacher"] is module.by_role["policy"]
    assert [row["distance"] for row in rows(tmp_path / "x")] == pytest.approx([0.0] * 4, abs=1e-6)
    assert not any(name.startswith("teacher") for name in saved(tmp_path / "x", 4))
    # The same loss without the twin: KL(p || p) adds no gradient.
    plain = type("Plain", (Twin,), {"moving": lambda self: {"teacher": Follow("policy", every=9)}})
    other = run(tmp_path / "y", plain(), optim=replace(OPTIM, steps=1))[0]
    first = run(tmp_path / "z", Twin(), optim=replace(OPTIM, steps=1))[0]
    for name, x in weights(first).items():
        torch.testing.assert_close(x, weights(other)[name], atol=1e-6, rtol=0)
    assert trained.keys() == {"policy"}


def test_no_gradient_goes_into_the_head_that_a_role_shares_with_another(tmp_path):
    module = module_of(job(tmp_path / "x", Twin()))
    batch = TextBatch.collate(toy_items(TextBatch, 3), 0)
    rows = module(batch, {"own": log_prob("policy"), "told": log_prob("teacher")})
    assert rows["own"].requires_grad and not rows["told"].requires_grad
    torch.testing.assert_close(rows["own"].detach(), rows["told"])


def test_signals_of_a_role_that_moves_are_not_kept_on_disk(tmp_path):
    own = job(tmp_path / "a", TRDPO(alpha=0.3))
    assert not own.scored[0] and "reference" in own.scored[1]
    assert "reference" in job(tmp_path / "b", DPO()).scored[0]


def test_a_role_that_moves_is_no_anchor_to_measure_drift_from():
    assert list(drift_signals(DPO())) == ["kl_full/reference"]
    assert not drift_signals(TRDPO(alpha=0.3))


def test_a_follower_is_held_in_float32_where_its_model_is_not(tmp_path):
    def load(role):
        return tiny_model(0).bfloat16() if role == "teacher" else tiny_model(0)

    module = module_of(job(tmp_path / "x", Mirrored(), load=load))
    assert {p.dtype for p in module.by_role["teacher"].parameters()} == {torch.float32}


def test_models_of_two_shapes_cannot_follow_one_another(tmp_path):
    def load(role):
        return tiny_model(0, width=32 if role == "teacher" else 16)

    with pytest.raises(TrainingError, match=r"role 'teacher' follows 'policy', but .* not alike"):
        run(tmp_path / "x", Mirrored(), load=load)


@pytest.mark.parametrize(
    ("rule", "what"),
    [
        (Follow("critic"), "follows 'critic', which is no role that learns"),
        (Follow("policy", mix=0.0), "0 < mix <= 1"),
        (Follow("policy", every=0), "every >= 1"),
    ],
)
def test_a_rule_that_cannot_be_followed_is_refused(tmp_path, rule, what):
    odd = type("Odd", (Mirrored,), {"rule": rule})
    with pytest.raises(PluginError, match=what):
        run(tmp_path / "x", odd())


@pytest.mark.parametrize("method", [Mirrored(), Twin()])
def test_a_follower_takes_over_an_adapter_as_merged_weights(tmp_path, method):
    """The average of full weights: W_ref + mix (W + s B A - W_ref), in no low rank."""
    pytest.importorskip("peft")
    base = copy.deepcopy(tiny_model(0))
    adapted = {"policy": Adapted("base", new=Lora(r=2))}
    trained, _ = run(
        tmp_path / "x", method, adapted=adapted, load=lambda role: copy.deepcopy(base),
        optim=replace(OPTIM, steps=1, schedule="constant", lr=0.1),
    )  # fmt: skip
    found = saved(tmp_path / "x", 1)
    if isinstance(method, Twin):
        assert not any(name.startswith("teacher") for name in found)
        return
    name = "model.layers.0.mlp.up_proj"
    layer = trained["policy"].get_submodule(name)
    own = dict(base.named_parameters())[f"{name}.weight"]
    delta = (
        layer.scaling["default"] * layer.lora_B["default"].weight @ layer.lora_A["default"].weight
    )
    assert delta.abs().max() > 1e-4
    torch.testing.assert_close(found[f"teacher/{name}.weight"], own + 0.5 * delta)
