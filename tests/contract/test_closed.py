"""Whose closed form a signal keeps, and what forms share of a block."""

from dataclasses import dataclass, replace

import pytest
import torch

from alignzoo import Scratch, Signal
from alignzoo.ops import entropy, kl, log_prob, watched


def other(outputs, labels):
    return outputs["policy"].sum(-1)


def form(outputs, labels, scratch, wanted):
    return outputs["policy"].sum(-1), {}


def test_a_signal_whose_reduce_is_replaced_loses_the_form():
    assert log_prob("policy").closed is not None
    assert replace(log_prob("policy"), reduce=other).closed is None
    assert Signal(("policy",), other, closed=log_prob("policy").closed).closed is None


def test_other_positions_or_another_key_keep_it_and_so_does_a_pair_of_both():
    plain = log_prob("policy")
    assert replace(plain, positions=lambda b: b.response, key=None).closed == plain.closed
    assert replace(plain, reduce=other, closed=form).closed.form is form


@dataclass(frozen=True)
class Method:
    scale: float = 1.0

    def signal(self):
        return Signal(("policy",), self.rows, closed=self.closed)

    def rows(self, outputs, labels):
        return outputs["policy"].sum(-1)

    def closed(self, outputs, labels, scratch, wanted):
        return outputs["policy"].sum(-1), {}


class OtherRows(Method):
    def rows(self, outputs, labels):
        return outputs["policy"].amax(-1)


class OtherForm(Method):
    def closed(self, outputs, labels, scratch, wanted):
        return super().closed(outputs, labels, scratch, wanted)


def test_a_class_with_rows_of_its_own_does_not_inherit_their_form():
    assert OtherRows().signal().closed is None
    for method in (Method(), OtherForm()):
        assert method.signal().closed is not None


def test_watched_rows_are_the_same_and_have_no_gradient():
    scratch, z = Scratch(), {"policy": torch.randn(3, 5)}
    scratch.begin(z)
    row, gradients = watched(entropy("policy")).closed(z, None, scratch, ["policy"])
    assert gradients == {}
    assert torch.allclose(row, torch.distributions.Categorical(logits=z["policy"]).entropy())
    assert watched(Signal(("policy",), other)).closed is None


def test_a_distance_from_itself_has_no_form():
    assert kl("policy", "policy").closed is None


@pytest.mark.parametrize("temperature", [1.0, 0.5])
def test_distributions_of_a_block_are_made_once_and_kept_whatever_else_is_asked(temperature):
    logits = torch.randn(3, 50, dtype=torch.float64) * 9
    expected = (logits / temperature).log_softmax(-1)
    scratch = Scratch()
    scratch.begin({"policy": logits.clone()})
    label = scratch.label_log_prob("policy", torch.tensor([0, 7, 49]))
    first = scratch.probs("policy", temperature)
    log_probs = scratch.log_probs("policy", temperature)
    assert torch.allclose(log_probs, expected, rtol=0, atol=1e-13)
    assert torch.allclose(first, expected.exp(), rtol=0, atol=1e-14)
    assert scratch.probs("policy", temperature) is first
    scratch.log_probs("policy")  # logits become log-probabilities; nothing else moves
    assert torch.equal(scratch.label_log_prob("policy", torch.tensor([0, 7, 49])), label)


def test_storage_is_the_same_in_every_block_and_grows_to_the_largest():
    scratch = Scratch()
    small, large = torch.zeros(2, 4), torch.zeros(5, 4)
    scratch.empty("x", small)
    kept = scratch.empty("x", large)
    assert scratch.empty("x", small).data_ptr() == kept.data_ptr()
    assert scratch.empty("y", small).data_ptr() != kept.data_ptr()
    assert scratch.empty("x", small.double()).dtype == torch.float64


def test_a_gradient_takes_the_place_of_logits_unless_several_are_made():
    scratch, logits = Scratch(), torch.randn(2, 4)
    scratch.begin({"policy": logits})
    assert scratch.gradient("policy") is logits
    scratch.begin({"policy": logits}, apart=["policy"])
    assert scratch.gradient("policy").data_ptr() != logits.data_ptr()
