"""Triton kernels give what the closed forms give in torch, as exactly.

On a GPU, or anywhere with Triton installed and TRITON_INTERPRET=1.
"""

from __future__ import annotations

import os
from dataclasses import replace
from importlib.util import find_spec

import pytest
import torch
from form_cases import ALONE, TOGETHER, Given, by_autograd, by_pull, by_unit, forms_of

from alignzoo.closed import kernels
from alignzoo.ops import kl

ON_GPU, INTERPRETED = torch.cuda.is_available(), os.environ.get("TRITON_INTERPRET") == "1"
PLACE = "cuda" if ON_GPU else "cpu"
# Those with a kernel, and groups in which some have one.
WITH = ["log_prob", "kl", "forward kl", "gkd forward 0.5 1.0", "gkd reverse 0.5 1.0"]
WITH += [name for name in ALONE if name.startswith("aligndistil") and " 1.0 " in name]
SHAPES = [(16, 3000, 3.0), (5, 257, 8.0), (3, 2, 1.0)]

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(find_spec("triton") is None, reason="Triton is not installed"),
    pytest.mark.skipif(
        not (ON_GPU or INTERPRETED), reason="no GPU, and Triton does not interpret its kernels"
    ),
]


@pytest.fixture(autouse=True)
def several_blocks_a_row(monkeypatch):
    for name in kernels.SHAPES:
        monkeypatch.setitem(kernels.SHAPES, name, (256, 4))


@pytest.fixture
def called(monkeypatch):
    """The kernels that were run."""
    names, run = [], kernels._run

    def noted(name, *given, **constants):
        names.append(name)
        run(name, *given, **constants)

    monkeypatch.setattr(kernels, "_run", noted)
    return names


def placed(given, dtype=torch.float32):
    z = {role: x.float().to(PLACE, dtype) for role, x in given.z.items()}
    return replace(given, z=z, labels=given.labels.to(PLACE))


def single_and_exact(name, *shape, group=ALONE):
    given = Given.draw(group[name], *shape)
    return placed(given), placed(given, torch.float64)


def rms(x):
    return x.double().square().mean().sqrt()


def assert_as_exact(found, torch_form, truth):
    """Rows and gradients are within 1.2 of the torch form's own distance from float64."""
    for here in ("rows", "gradients"):
        for name, right in getattr(truth, here).items():
            ours, theirs = getattr(found, here)[name], getattr(torch_form, here)[name]
            assert ours.dtype == torch.float32
            size = rms(right).clamp(min=1.0) if here == "rows" else rms(right)
            bound = 1.2 * rms(theirs - right) + 1e-7 * size
            assert rms(ours - right) <= bound, (here, name)


def by_torch(ask, monkeypatch):
    with monkeypatch.context() as without:
        without.setattr(kernels, "serve", lambda *logits: False)
        return ask()


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("name", WITH)
def test_a_kernel_is_as_exact_as_the_form_in_torch(name, shape, called, monkeypatch):
    single, exact = single_and_exact(name, *shape)
    truth = by_autograd(ALONE[name], exact)
    found = by_unit(ALONE[name], single)
    assert called
    theirs = by_torch(lambda: by_unit(ALONE[name], single), monkeypatch)
    assert_as_exact(found, theirs, truth)


@pytest.mark.parametrize("shape", [(16, 3000, 3.0), (5, 257, 8.0)], ids=str)
@pytest.mark.parametrize("name", WITH)
def test_a_gradient_in_bfloat16_is_the_other_one_rounded(name, shape):
    single, _ = single_and_exact(name, *shape)
    right = by_unit(ALONE[name], single)
    z = single.copies()
    forms = replace(forms_of(ALONE[name], single), rounded=frozenset(single.live))
    rows, row_of = forms.unit(z, single.labels)
    assert row_of
    for row, x in right.rows.items():  # of another program, which may join operations otherwise
        assert torch.allclose(rows[row], x, 1e-6, 1e-6)
    for role, x in right.gradients.items():
        assert z[role].dtype == torch.bfloat16
        assert torch.allclose(z[role].float(), x, 2**-7, 1e-30)  # the interpreter cuts digits off


def test_where_rows_meet_on_one_role_nothing_is_rounded():
    single, _ = single_and_exact("tdpo", 9, 700, group=TOGETHER)
    single = replace(single, live=("teacher",))
    z, forms = single.copies(), forms_of(TOGETHER["tdpo"], single)
    forms = replace(forms, rounded=frozenset(single.live))
    upstream = {form.row: torch.ones(9, device=PLACE) for form in forms.forms if form.row}
    forms.pull(z, single.labels, upstream)
    right = by_pull(TOGETHER["tdpo"], single, upstream)
    assert torch.equal(z["teacher"], right.gradients["teacher"])


@pytest.mark.parametrize("name", TOGETHER)
def test_kernels_and_forms_meet_on_one_role(name, called, monkeypatch):
    single, exact = single_and_exact(name, 9, 700, group=TOGETHER)
    live = [form.row for form in forms_of(TOGETHER[name], exact).forms if form.row]
    upstream = {row: torch.linspace(1, 2, 9, device=PLACE) for row in live}
    truth = by_autograd(TOGETHER[name], exact, {row: x.double() for row, x in upstream.items()})
    found = by_pull(TOGETHER[name], single, upstream)
    assert called
    theirs = by_torch(lambda: by_pull(TOGETHER[name], single, upstream), monkeypatch)
    assert_as_exact(found, theirs, truth)


def test_both_roles_of_a_divergence_may_learn(called, monkeypatch):
    signals = {"x": kl("a", "b")}
    given = Given.draw(signals, 5, 600, live=("a", "b"))
    single, exact = placed(given), placed(given, torch.float64)
    theirs = by_torch(lambda: by_unit(signals, single), monkeypatch)
    assert_as_exact(by_unit(signals, single), theirs, by_autograd(signals, exact))
    assert called == ["kl"]


@pytest.mark.parametrize("name", WITH)
def test_logits_of_any_size_are_as_exact_and_shifts_do_not_matter(name, monkeypatch):
    single, _ = single_and_exact(name, 5, 600)
    for k, x in enumerate(single.z.values()):
        x[0] *= 300  # all mass on one token; the others underflow
        x[1] = 0.0  # uniform
        x[2] += 1e4 * (k + 1)  # far from 0, and far from the other roles
        x[3, :300] -= 200.0
    exact = replace(single, z={role: x.double() for role, x in single.z.items()})
    found, truth = by_unit(ALONE[name], single), by_autograd(ALONE[name], exact)
    theirs = by_torch(lambda: by_unit(ALONE[name], single), monkeypatch)
    for here in ("rows", "gradients"):
        for part, right in getattr(truth, here).items():
            ours, other = (getattr(x, here)[part].double() for x in (found, theirs))
            for k in range(5):  # each row by itself, whatever its size
                size = right[k].abs().max().clamp(min=1.0)
                apart = [(x[k] - right[k]).abs().max() for x in (ours, other)]
                # Two units of exp, and half a unit each of its scale, the difference and a product.
                assert apart[0] <= 1.2 * apart[1] + 5e-7 * size, (here, part, k)


@pytest.mark.parametrize("bad", [-torch.inf, torch.inf, torch.nan], ids=str)
@pytest.mark.parametrize("where", ["every role", "policy", "others"])
@pytest.mark.parametrize("name", WITH)
def test_a_row_that_no_formula_serves_is_right_or_not_finite(name, where, bad):
    single, _ = single_and_exact(name, 6, 600)
    for role, x in single.z.items():
        if where == "every role" or (role == "policy") == (where == "policy"):
            x[:3, 290:310] = bad
    exact = replace(single, z={role: x.double() for role, x in single.z.items()})
    found, truth = by_unit(ALONE[name], single), by_autograd(ALONE[name], exact)
    finite = torch.stack([x.isfinite() for x in found.rows.values()]).all(0)
    assert finite[3:].all()  # one position is not another's
    for row, right in truth.rows.items():
        assert torch.allclose(found.rows[row][finite], right[finite].float(), 1e-5, 1e-5)


def test_a_label_that_there_is_not_makes_no_number():
    z = torch.randn(2, 300, device=PLACE)
    rows = kernels.log_prob(z, torch.tensor([300, -1], device=PLACE), None)
    assert rows.isnan().all()


@pytest.mark.parametrize("name", ["log_prob", "kl"])
def test_rows_without_gradient_leave_the_logits_alone(name):
    single, _ = single_and_exact(name, 4, 600)
    kept = single.copies()
    signal = ALONE[name]["x"]
    forms = forms_of(ALONE[name], single)
    forms.rows(kept, single.labels)
    assert signal.roles
    for role, x in single.z.items():
        assert torch.equal(kept[role], x)


def test_slices_of_wider_storage_are_read_by_their_own_steps(monkeypatch):
    wide = torch.randn(4, 1000, device=PLACE)
    labels = torch.tensor([0, 3, 5, 599], device=PLACE)
    found = kernels.log_prob(wide[:, :600], labels, None)
    right = wide[:, :600].double().log_softmax(-1).gather(1, labels[:, None])[:, 0]
    assert torch.allclose(found, right.float(), 1e-6, 1e-6)


def test_float64_is_left_to_torch():
    assert not kernels.serve(torch.zeros(1, 3, dtype=torch.float64, device=PLACE))
    assert kernels.serve(torch.zeros(1, 3, device=PLACE))


def test_no_position_at_all_gives_rows_of_none():
    none, labels = torch.zeros(0, 5, device=PLACE), torch.zeros(0, dtype=torch.int64, device=PLACE)
    assert kernels.log_prob(none, labels, None).shape == (0,)
