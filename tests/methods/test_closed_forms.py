"""Closed forms give what autograd gives of the signals' own `reduce`, as exactly as it."""

from __future__ import annotations

import pytest
import torch
from form_cases import ALONE, TOGETHER, Found, Given, by_autograd, by_pull, by_unit, forms_of

from alignzoo import Signal
from alignzoo.engine.scoring import forms as scoring_forms
from alignzoo.engine.scoring.forms import Forms, named
from alignzoo.ops import kl, log_prob
from alignzoo.recipe.registry import load_plugins

EXACT = 1e-12
SHAPES = [(9, 17, 2.0), (1, 5, 2.0), (4, 2, 0.1), (12, 300, 8.0)]
alone = pytest.mark.parametrize("name", ALONE)

# Signals over the vocabulary without a form, and why they have none.
GENERIC: dict[str, str] = {}


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    """Several blocks even of a few positions."""
    monkeypatch.setitem(scoring_forms.ELEMENTS, "cpu", 40)


@alone
def test_a_form_gives_the_rows_and_the_gradient_of_its_reduce(name):
    for n, width, scale in SHAPES:
        given = Given.draw(ALONE[name], n, width, scale)
        assert by_unit(ALONE[name], given).error(by_autograd(ALONE[name], given)) < EXACT


@pytest.mark.parametrize("name", TOGETHER)
def test_rows_that_meet_on_one_role_add_up_in_its_gradient(name):
    given = Given.draw(TOGETHER[name])
    live = [form.row for form in forms_of(TOGETHER[name], given).forms if form.row]
    upstream = {row: torch.randn(9, dtype=torch.float64) for row in live}
    expected = by_autograd(TOGETHER[name], given, upstream)
    assert by_pull(TOGETHER[name], given, upstream).error(expected) < EXACT


def test_both_roles_of_a_divergence_may_learn():
    signals = {"x": kl("a", "b")}
    given = Given.draw(signals, live=("a", "b"))
    assert by_unit(signals, given).error(by_autograd(signals, given)) < EXACT


@alone
def test_logits_of_any_size_are_as_exact_and_shifts_do_not_matter(name):
    given = Given.draw(ALONE[name], width=30)
    if given.z["policy"].shape[1] == 1:
        pytest.skip("a value is no distribution")
    wild = {role: x.clone() for role, x in given.z.items()}
    for k, x in enumerate(wild.values()):
        x[0] *= 300  # all mass on one token; the others underflow
        x[1] = 0.0  # uniform
        x[2] += 1e4 * (k + 1)  # far from 0, and far from the other roles
        x[3, :15] -= 200.0
    extreme = Given(wild, given.labels)
    found, expected = by_unit(ALONE[name], extreme), by_autograd(ALONE[name], extreme)
    finite = torch.stack([x.isfinite() for x in found.rows.values()]).all(0)
    assert finite.all()
    assert found.error(expected) < 1e-10  # 1e4 has lost digits before


def cut(found, kept):
    """The positions [n] bool of what was found."""
    return Found(
        {name: x[kept] for name, x in found.rows.items()},
        {role: x[kept] for role, x in found.gradients.items()},
    )


@alone
@pytest.mark.parametrize("where", ["every role", "policy", "others"])
def test_where_tokens_are_impossible_a_row_is_right_or_not_finite(name, where):
    given = Given.draw(ALONE[name], width=30)
    if given.z["policy"].shape[1] == 1:
        pytest.skip("a value is no distribution")
    masked = {role: x.clone() for role, x in given.z.items()}
    for role, x in masked.items():
        if where == "every role" or (role == "policy") == (where == "policy"):
            x[:4, 3:9] = -torch.inf
    part = Given(masked, given.labels)
    found, expected = by_unit(ALONE[name], part), by_autograd(ALONE[name], part)
    finite = torch.stack([x.isfinite() for x in found.rows.values()]).all(0)
    assert finite[4:].all()  # the mask of one position is not another's
    assert cut(found, finite).error(cut(expected, finite)) < EXACT
    if name == "log_prob":
        assert finite[given.labels < 3].all()  # no fallback where the label is possible


@alone
def test_float32_is_as_exact_as_autograd_of_reduce(name):
    exact = Given.draw(ALONE[name], 16, 3000, 3.0)
    single = Given({r: x.float() for r, x in exact.z.items()}, exact.labels)
    exact = Given({r: x.double() for r, x in single.z.items()}, exact.labels)
    truth = by_autograd(ALONE[name], exact)
    ours, naive = by_unit(ALONE[name], single), by_autograd(ALONE[name], single)
    assert single.z["policy"].dtype == ours.gradients["policy"].dtype == torch.float32
    for row, x in truth.rows.items():
        assert rms(ours.rows[row] - x) <= 1.2 * rms(naive.rows[row] - x) + 1e-7 * rms(x)
    gradient = truth.gradients["policy"]
    apart = [rms(found.gradients["policy"] - gradient) for found in (ours, naive)]
    assert apart[0] <= 1.2 * apart[1] + 1e-8 * rms(gradient)


def rms(x):
    return x.double().square().mean().sqrt()


def test_rows_without_gradient_are_the_same_with_forms_and_without():
    def reduce(outputs, labels):
        return outputs["policy"].double()[:, 3]  # a view of the logits

    own = Signal(("policy",), reduce)
    signals = {"own": own, "lp": log_prob("policy"), "kl": kl("policy", "teacher")}
    given = Given.draw(signals)
    z = given.copies()
    with torch.no_grad():
        found = Forms.of(signals, forms_of(ALONE["kl"], given).scratch, {}, ()).rows(
            z, given.labels
        )
        for x in z.values():
            x.fill_(torch.nan)
        for name, signal in signals.items():
            of = {role: given.z[role] for role in signal.roles}
            for row, x in named(name, signal.reduce(of, given.labels)).items():
                assert (found[row] - x).abs().max() < EXACT


def test_no_position_at_all_gives_rows_of_none():
    given = Given({"policy": torch.zeros(0, 5)}, torch.zeros(0, dtype=torch.int64))
    forms = Forms.of(
        ALONE["log_prob"], forms_of(ALONE["kl"], Given.draw(ALONE["kl"])).scratch, {}, ()
    )
    assert forms.rows(given.z, given.labels)["x"].shape == (0,)


def test_every_signal_of_every_method_has_a_form_or_a_reason_to_have_none():
    bare = set()
    for name, method in load_plugins().algorithms.items():
        algorithm = method(**method.example_options)
        every = {**algorithm.signals(), **algorithm.snapshots()}
        bare |= {f"{name}: {n}" for n, signal in every.items() if signal.closed is None}
    assert bare == set(GENERIC)
