"""Intervals are honest: what is alike on all prompts is no certainty."""

import math

import pytest

from alignzoo import Column, Estimate, bootstrap
from alignzoo.contract.evaluation import honest, interval
from alignzoo.leaderboard import fold, render_csv, render_markdown, render_text
from alignzoo.stages.evaluation.columns import summarise

Z = 1.959964


def wilson(wins, n):
    """The textbook's formula, Wilson (1927), equation for p from its share and n."""
    p = wins / n
    centre = (p + Z**2 / (2 * n)) / (1 + Z**2 / n)
    half = Z / (1 + Z**2 / n) * math.sqrt(p * (1 - p) / n + Z**2 / (4 * n**2))
    return pytest.approx((centre - half, centre + half), abs=1e-12)


@pytest.mark.parametrize("n", [1, 3, 10, 805])
def test_a_proportion_at_0_or_1_has_wilsons_interval(n):
    assert honest(1.0, 1.0, 1.0, n, whole=1) == wilson(n, n)
    assert honest(0.0, 0.0, 0.0, n, whole=1) == wilson(0, n)
    low, high = honest(100.0, 100.0, 100.0, n, whole=100)
    assert (low / 100, high / 100) == wilson(n, n)


def test_ten_wins_of_ten_are_not_certain():
    cell = summarise(Column((1.0,) * 10, "won", better=1, whole=1), None)
    assert (cell["mean"], cell["high"]) == (1.0, 1.0)
    assert cell["low"] == pytest.approx(0.722, abs=5e-4)


def test_a_bootstrap_of_constants_says_so_and_has_no_interval():
    grades = [9.0] * 8
    ends = bootstrap(8, lambda rows: sum(grades[i] for i in rows) / len(rows))
    cell = summarise(Column(tuple(grades), "mean grade", 1, Estimate(9.0, *ends, 0.0)), None)
    assert (cell["low"], cell["high"], cell["error"], cell["alike"]) == (None, None, None, 8)
    share = Column((100.0,) * 8, "won", 1, Estimate(100.0, 100.0, 100.0), whole=100)
    assert summarise(share, None)["low"] == pytest.approx(67.559, abs=1e-3)


@pytest.mark.parametrize("value", [0.5, 1.0, 0.0, 12.0])
def test_a_figure_that_is_no_share_has_no_interval_without_spread(value):
    cell = summarise(Column((value,) * 3, "characters"), None)
    assert (cell["mean"], cell["low"], cell["high"], cell["alike"]) == (value, None, None, 3)


def test_what_varies_keeps_the_interval_it_had():
    values = (1.0, 0.5, 1.0, 0.0)
    cell = summarise(Column(values, "won", whole=1), None)
    assert (cell["mean"], cell["low"], cell["high"]) == interval(values)
    assert "alike" not in cell


def test_a_baseline_s_share_against_itself_is_exact_by_definition():
    cell = summarise(Column((0.5,) * 4, "won", 1, whole=1), None, by_definition=True)
    assert (cell["low"], cell["high"]) == (0.5, 0.5)


# --- shown ------------------------------------------------------------------------------------


def shown(*models, **columns):
    cells = {name: summarise(column, (0.5,) * 10) for name, column in columns.items()}
    row = {
        "benchmark": "duel", "options": {}, "baseline": "base", "section": "s",
        "is_baseline": False, "prompts": 10, "samples": 1, "result": "r", "columns": cells,
    }  # fmt: skip
    return fold([("run", row | {"model": model}) for model in models or ("ours",)])


def test_an_interval_that_is_not_symmetric_is_written_out():
    sections = shown(win_rate=Column((1.0,) * 10, "won", better=1, whole=1))
    assert "1.000 [0.722, 1.000]" in render_text(sections)
    assert "| ours | 1.000 [0.722, 1.000] |" in render_markdown(sections)
    assert "win_rate,1.0,0.7224" in render_csv(sections)
    assert "±" not in render_text(sections)


def test_a_symmetric_interval_is_half_its_width():
    sections = shown(win_rate=Column((1.0, 0.0) * 5, "won", better=1, whole=1))
    half = Z * math.sqrt(10 / 4 / 9 / 10)
    assert f"0.500 ±{half:.3f}" in render_text(sections)


def test_a_figure_without_an_interval_says_why():
    sections = shown(
        grade=Column((9.0,) * 10, "mean grade", better=1), length=Column((3.0,) * 10, "words")
    )
    for text in (render_text(sections), render_markdown(sections)):
        assert "9.000" in text and "9.000 ±" not in text and "9.000 [" not in text
        assert "ours: no interval for grade and length, each the same on all 10 prompts" in text
    assert ",grade,9.0,,,,10" in render_csv(sections)


def test_models_without_an_interval_for_one_reason_share_a_line():
    sections = shown("first", "second", length=Column((3.0,) * 10, "words"))
    assert "first, second: no interval for length, the same on all 10 prompts" in render_text(
        sections
    )


def test_a_column_without_a_figure_says_why():
    sections = shown(lc=Column((None,) * 10, "win rate", better=1, note="no figure: too few"))
    for text in (render_text(sections), render_markdown(sections)):
        assert "ours, lc: no figure: too few" in text


def test_a_constant_difference_to_the_baseline_has_no_interval():
    ((row,),) = (section.rows for section in shown(win_rate=Column((1.0,) * 10, "won", whole=1)))
    assert row.cells["win_rate"].diff == (0.5, None, None)
