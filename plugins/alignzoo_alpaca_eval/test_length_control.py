"""Win rates and length control on numbers worked out by hand or drawn from a known model."""

import importlib
import math

import numpy as np
import pytest

from alignzoo import AlignzooError
from alignzoo_alpaca_eval.columns import length_controlled
from alignzoo_alpaca_eval.files import Instruction, Instructions
from alignzoo_alpaca_eval.length_control import (
    Comparison,
    Gamed,
    best_C,
    fit,
    floats,
    length_control,
    length_control_interval,
    training_rows,
)
from alignzoo_alpaca_eval.metrics import moved_far, win_rate
from alignzoo_alpaca_eval.variants import LengthData, by_instruction, by_position

INSTRUCTIONS = Instructions(tuple(Instruction(f"Say {n}.", "word") for n in range(1, 9)))

# --- rates -------------------------------------------------------------------------------------


def test_rates_by_hand():
    row = win_rate([1.0, 0.75, 0.5, 0.0, None])
    assert (row.n_wins, row.n_losses, row.n_draws, row.n_total) == (2, 1, 1, 4)
    assert row.win_rate == pytest.approx(56.25)
    assert row.discrete_win_rate == pytest.approx(62.5)
    assert row.standard_error == pytest.approx(100 * np.std([1, 0.75, 0.5, 0], ddof=1) / 2)


def test_rates_of_nothing_are_no_numbers_and_of_one_have_no_error():
    assert math.isnan(win_rate([None]).win_rate)
    assert win_rate([0.25]).standard_error == 0


def test_a_win_rate_moved_far_is_noticed():
    assert moved_far(20, 86) and moved_far(50, 30)
    assert not moved_far(15.7, 25.3), "10 points and a quarter of the way are both needed"
    assert not moved_far(50, 61)


# --- length control ----------------------------------------------------------------------------


def test_without_length_differences_the_quality_term_is_known_in_closed_form():
    # The gradient C n (sigmoid(c) - mean p) + 1 vanishes.
    data = Comparison(floats([1.0, 0.8, 0.9, 0.7, 0.6] * 4), np.zeros(20))
    found = length_control(data, C=2.0)
    assert found.win_rate == pytest.approx(100 * (0.8 - 1 / (2.0 * 20)), abs=1e-6)
    assert found.coefficients[0] == 0


def synthetic(n=400, length=-1.5, difficulty=0.8, quality=0.6, gamed=False):
    noise = np.random.default_rng(0)
    longer, hard = noise.normal(20, 300, n), noise.normal(0, 1, n)
    z = length * np.tanh(longer / longer.std(ddof=1)) + difficulty * hard + quality
    rows = Gamed(floats([0.7, 0.3] * 50), floats([-1.0, 1.0] * 50), np.zeros(100))
    return Comparison(1 / (1 + np.exp(-z)), longer, hard, rows if gamed else None)


def test_the_coefficients_that_made_the_preferences_are_found():
    data = synthetic()
    found = length_control(data, C=1e4)
    assert found.coefficients == pytest.approx((-1.5, 0.8, 0.6), abs=1e-3)
    q = 1 / (1 + np.exp(-(0.8 * data.difficulty + 0.6)))
    assert found.win_rate == pytest.approx(100 * q.mean(), abs=0.01)


def test_a_row_without_a_verdict_is_not_fitted_but_predicted():
    data = synthetic(40)
    holes = Comparison(data.preference.copy(), data.longer, data.difficulty)
    holes.preference[:5] = np.nan
    found = length_control(holes, C=10.0)
    assert len(training_rows(holes).preference) == 35
    assert len(found.predictions) == 40


def test_gamed_rows_have_a_tenth_of_the_weight_and_no_quality_term():
    design = training_rows(synthetic(30, gamed=True))
    assert design.weight[:100] == pytest.approx(0.1) and design.weight[100:] == pytest.approx(1)
    assert not design.features[:100, 2].any() and design.features[100:, 2].all()


def test_a_model_against_itself_has_50_by_construction():
    found = length_control(Comparison(np.full(3, 0.5), np.zeros(3), np.ones(3)))
    assert (found.win_rate, found.standard_error, found.C) == (50, 0, None)
    assert length_control_interval(Comparison(np.full(3, 0.5), np.zeros(3)), None) == (50, 50)


@pytest.mark.parametrize("n", [1, 2, 4, 5, 6])
def test_a_handful_of_rows_gives_a_finite_number(n):
    noise = np.random.default_rng(n)
    data = Comparison(noise.uniform(size=n), noise.normal(size=n) * 100)
    assert 0 <= length_control(data).win_rate <= 100


@pytest.mark.parametrize("p", [0.0, 1.0])
def test_a_model_that_always_loses_or_wins_is_not_called_even(p):
    data = Comparison(np.full(50, p), np.zeros(50))
    miss = 100 / (10.0 * 50)  # sigmoid(c) = 1 / (C n), as above
    assert length_control(data, C=10.0).win_rate == pytest.approx(abs(100 * p - miss), abs=1e-3)
    assert abs(length_control(Comparison(data.preference, np.arange(50.0))).win_rate - 100 * p) < 1


def test_without_a_verdict_there_is_nothing_to_fit():
    with pytest.raises(AlignzooError, match="no instruction has a verdict"):
        length_control(Comparison(np.full(3, np.nan), np.arange(3.0)))


def test_the_choice_of_C_is_the_same_every_time_and_prefers_the_smaller():
    design = training_rows(synthetic(60, gamed=True))
    assert best_C(design) == best_C(design)
    assert best_C(training_rows(Comparison(np.full(20, 0.5), np.zeros(20)))) == 1e-4


def test_the_interval_holds_the_estimate_and_is_repeatable():
    noise = np.random.default_rng(3)
    data = Comparison((noise.uniform(size=80) < 0.3) * 1.0, noise.normal(size=80) * 100)
    found = length_control(data, C=2.0)
    low, high = length_control_interval(data, 2.0, rounds=40)
    assert low < found.win_rate < high and high - low > 5
    assert (low, high) == length_control_interval(data, 2.0, rounds=40)


def test_a_missing_scikit_learn_is_one_sentence_with_the_command(monkeypatch):
    def absent(name):
        raise ImportError(name)

    monkeypatch.setattr(importlib, "import_module", absent)
    with pytest.raises(AlignzooError, match=r"pip install 'alignzoo\[eval\]'"):
        fit(training_rows(synthetic(10)), 1.0)


# --- difficulty --------------------------------------------------------------------------------


def test_difficulty_follows_the_instruction_and_only_the_official_way_the_position():
    texts = ["Say 3.", "Say 1."]
    data = LengthData("v1", floats([float(n) for n in range(8)]))
    assert data.on(by_instruction(texts, INSTRUCTIONS)).difficulty.tolist() == [2, 0]
    assert data.on(by_position(texts, INSTRUCTIONS)).difficulty.tolist() == [0, 1]


def test_one_unknown_instruction_makes_the_minimal_model():
    data = LengthData("v1", floats([0.0] * 8))
    assert data.on(by_instruction(["Say 1.", "Sing."], INSTRUCTIONS)).variant == "minimal"
    short = LengthData("noreg", floats([0.0]))
    assert short.on(by_position(["Say 1.", "Say 2."], INSTRUCTIONS)).variant == "minimal"


# --- too few rows ----------------------------------------------------------------------------


def alike(n, missing=0):
    """P = .9 for the candidate on n instructions, whatever the length; `missing` more unread."""
    preference = np.array([0.9] * n + [np.nan] * missing)
    return Comparison(preference, np.array([(-1.0) ** i * i for i in range(n + missing)]))


@pytest.mark.parametrize(("n", "missing"), [(1, 0), (3, 0), (4, 4)])
def test_with_too_few_rows_there_is_no_length_controlled_figure_and_the_reason(n, missing):
    column = length_controlled(alike(n, missing), "minimal", 90.0, None)
    assert column.values == (None,) * (n + missing) and column.estimate is None
    assert column.note == f"no figure: the fit needs 5 verdicts, there are {n}"
    assert length_controlled(alike(n, missing), "minimal", 90.0, 10.0).estimate is None, "any C"


def test_with_enough_rows_there_is_one_and_equal_verdicts_give_a_point():
    found = length_controlled(alike(8), "minimal", 90.0, None).estimate
    assert found.value == pytest.approx(90, abs=0.01)
    assert found.low == found.high == found.value


def test_without_any_verdict_nothing_is_said_about_the_fit():
    assert length_controlled(alike(0, 3), "minimal", 90.0, None).note == ""
