"""What a step adds up: the same whether a weight is absent, a mask or a tensor of numbers."""

from __future__ import annotations

import pytest
import torch

from alignzoo import Loss, Term
from alignzoo.contract.types import TextBatch
from alignzoo.engine.parallel.ranks import start_ranks
from alignzoo.engine.train.step import Denominators, share_of_loss
from alignzoo.engine.train.sums import Sums
from alignzoo.testing import toy_items

RANKS = start_ranks("fp32")


def parts(n=3):
    """Values [7, 11] that spread over many orders, NaN where nothing counts, and a mask."""
    generator = torch.Generator().manual_seed(0)
    for _ in range(n):
        size = torch.rand(7, 11, generator=generator) * 20 - 10
        value = torch.randn(7, 11, generator=generator) * size.exp()
        mask = torch.rand(7, 11, generator=generator) < 0.6
        yield torch.where(mask, value, torch.nan), mask


def test_a_mask_counts_bit_for_bit_like_weights_of_ones_and_zeros():
    sums = Sums()
    for value, mask in parts():
        sums.add("mask", value, mask)
        sums.add("numbers", value, mask.float())
    found = sums.reduce(RANKS)
    assert found["mask"] == found["numbers"]


def test_no_weight_counts_bit_for_bit_like_weights_of_ones():
    sums = Sums()
    for value, mask in parts():
        known = value.masked_fill(~mask, 0.0)
        sums.add("none", known, None)
        sums.add("ones", known, torch.ones_like(known))
    found = sums.reduce(RANKS)
    assert found["none"] == found["ones"]


def test_a_mean_is_that_of_all_micro_batches_in_float64():
    sums, every = Sums(), list(parts())
    for value, mask in every:
        sums.add("mean", value, mask)
    flat = torch.cat([value[mask] for value, mask in every]).double()
    assert abs(sums.reduce(RANKS)["mean"] - flat.mean().item()) <= 1e-12 * flat.abs().mean().item()


def test_the_share_of_the_loss_and_its_gradient_are_those_of_weights_of_ones_and_zeros():
    (value, mask), *_ = parts()
    known = Denominators({"loss": 3.0}, {}, {"loss": 0.7})
    found = []
    for weight in (mask, mask.float()):
        leaf = value.clone().requires_grad_()
        share = share_of_loss(Loss(Term(leaf, weight)), known)
        share.backward()
        found.append((share, leaf.grad))
    assert torch.equal(found[0][0], found[1][0]) and torch.equal(found[0][1], found[1][1])


def test_numerators_and_weights_of_terms_are_those_of_all_micro_batches():
    batch = TextBatch.collate(toy_items(TextBatch, 5), 0)
    value, sums = torch.rand(batch.ids.shape), Sums()
    for at in (torch.tensor([3, 0]), torch.tensor([1, 2, 4])):
        part = batch.take(at)
        own = batch.take_signals(at, {"value": value})["value"]
        sums.add("term/a", own, part.mask)
        sums.add("term/b", own[:, 0], None)
    found = sums.totals(RANKS)
    assert found["term/a"] == pytest.approx(
        (value[batch.mask].sum().item(), batch.mask.sum().item())
    )
    assert found["term/b"] == pytest.approx((value[:, 0].sum().item(), 5))


def test_a_mask_that_is_written_into_leaves_the_batch_as_it_is():
    batch = TextBatch.collate(toy_items(TextBatch, 5), 0)
    before = torch.nn.functional.pad(batch.response[:, 1:], (0, 1))
    batch.mask.zero_()
    batch.lengths.zero_()
    assert torch.equal(batch.mask, before) and before.any()
    assert torch.equal(batch.lengths, batch.attention.sum(-1))
