"""A closed form that is not the formula of its `reduce` is caught, and told by row and by role."""

import re

import pytest
import torch
from source_tree import ROOT
from test_kit import Sound

from alignzoo import PluginError, Signal
from alignzoo.ops import log_prob
from alignzoo.testing.forms import form_trials

REDUCE = log_prob("policy").reduce
SOUND = log_prob("policy").closed.form


def trial(closed, reduce=REDUCE):
    """What the kit says of a form."""

    class Formed(Sound):
        def signals(self):
            return {"x": Signal(("policy",), reduce, closed=closed)}

    ((_, tried),) = form_trials(Formed())
    return tried()


def wrong_row(outputs, labels, scratch, wanted):
    row, gradients = SOUND(outputs, labels, scratch, wanted)
    return row + 1e-6, gradients


def wrong_sign(outputs, labels, scratch, wanted):
    row, gradients = SOUND(outputs, labels, scratch, wanted)
    return row, {role: -x for role, x in gradients.items()}


def no_gradient(outputs, labels, scratch, wanted):
    return SOUND(outputs, labels, scratch, ())


def means_of_the_block(outputs, labels, scratch, wanted):
    row, gradients = SOUND(outputs, labels, scratch, wanted)
    return row, {role: x - x.mean(0) / len(x) for role, x in gradients.items()}


def other_names(outputs, labels, scratch, wanted):
    row, gradients = SOUND(outputs, labels, scratch, wanted)
    return {"log_prob": row}, gradients


def not_a_number(outputs, labels, scratch, wanted):
    row, gradients = SOUND(outputs, labels, scratch, wanted)
    return row * torch.nan, gradients


FLAWED = {
    wrong_row: "signal 'x': row differs by",
    wrong_sign: "the gradient by the logits of 'policy' differs",
    no_gradient: "only one of `reduce` and `closed` has policy",
    means_of_the_block: "the gradient by the logits of 'policy' differs",
    other_names: "only one of `reduce` and `closed` has row, row log_prob",
    not_a_number: "differs by inf",
}


@pytest.mark.parametrize("flawed", FLAWED, ids=lambda form: form.__name__)
def test_a_flawed_form_is_told_what_differs(flawed):
    with pytest.raises(PluginError, match=re.escape(FLAWED[flawed])):
        trial(flawed)


def test_rows_that_lie_in_the_storage_of_the_logits_are_caught():
    def reduce(outputs, labels):
        return outputs["policy"][:, 0]

    def view(outputs, labels, scratch, wanted):
        gradient = torch.zeros_like(outputs["policy"])
        gradient[:, 0] = 1
        return outputs["policy"][:, 0], {"policy": gradient}

    def copied(outputs, labels, scratch, wanted):
        row, gradients = view(outputs, labels, scratch, wanted)
        return row.clone(), gradients

    with pytest.raises(PluginError, match="differs by inf"):
        trial(view, reduce)
    assert trial(copied, reduce)


def test_a_form_of_two_rows_with_gradients_is_told_that_it_is_never_used():
    def reduce(outputs, labels):
        return {"one": REDUCE(outputs, labels), "two": 2 * REDUCE(outputs, labels)}

    with pytest.raises(PluginError, match="rows one and two of 'x' have gradients"):
        trial(SOUND, reduce)


def test_a_sound_form_passes_and_a_method_without_forms_is_not_asked():
    class Bare(Sound):
        def signals(self):
            return {"x": Signal(("policy",), REDUCE)}

    assert trial(SOUND).startswith("1 signals, largest difference")
    assert list(form_trials(Bare())) == []


def test_the_form_that_the_page_for_authors_shows_is_sound():
    page = (ROOT / "docs/write-a-plugin.md").read_text(encoding="utf-8")
    section = page.partition("## A closed form")[2]
    names: dict = {}
    exec(re.search(r"```python\n(.*?)```", section, re.DOTALL)[1], names)
    assert trial(names["closed"], names["reduce"])
    assert names["signal"].closed.form is names["closed"]
