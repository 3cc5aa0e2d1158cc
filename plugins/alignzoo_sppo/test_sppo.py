"""SPPO on two groups of answers, worked out by hand, and one step of a real model."""

import math
from dataclasses import replace

import pytest
import torch

from alignzoo import DataError, GroupBatch
from alignzoo.testing import check_algorithm
from alignzoo_sppo import SPPO

# Two prompts, three answers each; rows go answer by answer: (p0, y0), (p1, y0), (p0, y1), ...
SEEN = torch.ones(6, 2, dtype=torch.bool)
SCORE = torch.tensor([1.0, 5.0, 0.0, 5.0, -1.0, 5.0])
BATCH = GroupBatch.of(3)(SEEN.long(), SEEN, SEEN & (torch.arange(2) > 0), SCORE, torch.ones(6))


def sigmoid(x):
    return 1 / (1 + math.exp(-x))


def test_a_win_rate_is_the_mean_chance_against_all_answers_to_the_prompt():
    best = (0.5 + sigmoid(1) + sigmoid(2)) / 3
    expected = [best, 0.5, 0.5, 0.5, 1 - best, 0.5]  # the second prompt's answers are equal
    assert SPPO().win_rates(BATCH).tolist() == pytest.approx(expected)


def test_shares_of_wins_are_win_rates_but_for_the_answer_itself():
    shares = torch.tensor([1.0, 0.5, 0.5, 0.5, 0.0, 0.5])
    batch = replace(BATCH, score=shares)
    expected = [(2 + 0.5) / 3, 0.5, 0.5, 0.5, 0.5 / 3, 0.5]
    assert SPPO(wins=True).win_rates(batch).tolist() == pytest.approx(expected)
    assert SPPO(wins=True).prepare(batch, {}, None) == {}
    with pytest.raises(DataError, match="wins is true, and scores are no shares"):
        SPPO(wins=True).prepare(BATCH, {}, None)
    for value in (1.0, 0.0, 0.6):  # nobody loses, or nobody wins
        with pytest.raises(DataError, match="wins is true, and scores are no shares"):
            SPPO(wins=True).prepare(replace(BATCH, score=torch.full((6,), value)), {}, None)
    assert (SPPO().takes_wins, SPPO(wins=True).takes_wins) == (False, True)


def test_the_loss_by_hand():
    sampled = torch.full((6, 2), -3.0, dtype=torch.float64)
    ratio = torch.tensor([0.2, 0.0, -0.1, 0.3, 0.4, 0.0], dtype=torch.float64)
    policy = sampled.clone()
    policy[:, 0] += ratio
    found = SPPO(eta=10.0).loss(BATCH, {"policy": policy, "sampled": sampled}, {})
    best = (0.5 + sigmoid(1) + sigmoid(2)) / 3
    aims = [10 * (best - 0.5), 0.0, 0.0, 0.0, -10 * (best - 0.5), 0.0]
    expected = [(r - aim) ** 2 for r, aim in zip(ratio.tolist(), aims, strict=True)]
    assert found.terms.value.tolist() == pytest.approx(expected)
    assert found.metrics["win_rate/best"].tolist() == pytest.approx([best, 0.5])
    assert found.metrics["log_ratio/seq"].tolist() == pytest.approx(ratio.tolist())


@pytest.mark.parametrize("eta", [1.0, 1000.0])
def test_losses_on_random_inputs_equal_an_independent_transcription(eta):
    torch.manual_seed(5)
    k, prompts, columns = 4, 3, 6
    seen = torch.arange(columns) < torch.randint(2, 7, (k * prompts, 1))
    score = torch.randn(k * prompts)
    batch = GroupBatch.of(k)(seen.long(), seen, seen & (torch.arange(columns) > 0), score, score)
    policy, sampled = (-torch.rand(k * prompts, columns, dtype=torch.float64) for _ in range(2))
    found = SPPO(eta=eta).loss(batch, {"policy": policy, "sampled": sampled}, {}).terms.value
    for i in range(prompts):
        rows = range(i, k * prompts, prompts)
        for row in rows:
            n = int(seen[row].sum()) - 1
            ratio = (policy[row, :n].sum() - sampled[row, :n].sum()).item()
            wins = [sigmoid(score[row].item() - score[other].item()) for other in rows]
            expected = (ratio - eta * (sum(wins) / k - 0.5)) ** 2
            assert found[row].item() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("method", [SPPO(), SPPO(eta=5.0)], ids=str)
def test_the_contract_is_kept(method):
    check_algorithm(method)
