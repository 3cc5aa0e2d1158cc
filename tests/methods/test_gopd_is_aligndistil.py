"""G-OPD is AlignDistil: vanilla reward, a constant weight, all tokens weighted alike."""

import pytest
import torch
from alignzoo_aligndistil import AlignDistil
from alignzoo_gopd import GOPD
from logit_models import SCORERS, evaluate

from alignzoo import TextBatch

ANSWERS, COLUMNS, WORDS = 3, 5, 7


def inputs():
    """Answers of three lengths, and three models' logits."""
    torch.manual_seed(5)
    seen = torch.arange(COLUMNS) < torch.tensor([[5], [3], [4]])
    ids = torch.randint(0, WORDS, seen.shape) * seen
    batch = TextBatch(ids, seen, seen & (torch.arange(COLUMNS) > 0))
    names = ("policy", "teacher", "reference")
    tables = {x: torch.randn(*seen.shape, WORDS, dtype=torch.float64) for x in names}
    return batch, tables


def of_gopd(scale, scorer):
    batch, tables = inputs()
    return evaluate(GOPD(reward_scale=scale), batch, tables, scorer)


def of_aligndistil(scale, scorer):
    batch, tables = inputs()
    method = AlignDistil(
        reward="vanilla",
        extrapolation="constant",
        beta0=scale,
        beta=1.0,
        beta_weighting="none",
    )
    tables["anchor"] = tables.pop("reference")
    return evaluate(method, batch, tables, scorer)


@pytest.mark.parametrize("scorer", SCORERS)
@pytest.mark.parametrize("scale", [0.5, 1.0, 1.25, 3.0])
def test_their_gradients_are_equal(scale, scorer):
    ours, theirs = of_gopd(scale, SCORERS[scorer]), of_aligndistil(scale, SCORERS[scorer])
    torch.testing.assert_close(ours.gradient(), theirs.gradient(), rtol=1e-12, atol=1e-15)
    assert ours.gradient().abs().max() > 1e-3


def test_their_losses_differ_by_a_number_that_the_policy_does_not_move():
    batch, tables = inputs()
    logs = {name: x.log_softmax(-1) for name, x in tables.items()}
    beyond = logs["reference"] + 1.25 * (logs["teacher"] - logs["reference"])
    constant = (beyond.logsumexp(-1) * batch.mask).sum(-1) / batch.mask.sum(-1)
    gap = of_aligndistil(1.25, SCORERS["dense"]).total - of_gopd(1.25, SCORERS["dense"]).total
    torch.testing.assert_close(gap, constant.mean())
