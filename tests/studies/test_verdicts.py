"""Claims are decided by paired intervals alone, and a claim turned round by the same ones."""

from __future__ import annotations

import math
import random
import statistics

import pytest
from study_results import label, readings

from alignzoo.studies.intervals import over_prompts, over_seeds, t_quantile
from alignzoo.studies.readings import Reading
from alignzoo.studies.spec import ClaimSpec
from alignzoo.studies.verdicts import judge

# 97.5 % quantiles of Student's t as printed in tables (NIST/SEMATECH e-Handbook, 1.3.6.7.2).
PRINTED = {
    1: 12.706,
    2: 4.303,
    3: 3.182,
    4: 2.776,
    5: 2.571,
    7: 2.365,
    9: 2.262,
    30: 2.042,
    100: 1.984,
}


def claim(**form):
    return ClaimSpec(says="so it is", measure="win", **form)


def verdict(rows, **form):
    return judge(claim(**form), {name: readings(xs) for name, xs in rows.items()}, label)


@pytest.mark.parametrize(("freedom", "printed"), PRINTED.items())
def test_the_quantile_of_student_is_the_printed_one(freedom, printed):
    assert t_quantile(freedom) == pytest.approx(printed, abs=6e-4)


def test_a_row_is_held_against_each_row_of_a_list():
    rows = {"a": (0.7, 0.72, 0.71), "b": (0.6, 0.61, 0.62), "c": (0.8, 0.83, 0.81)}
    found = verdict(rows, above={"a": ["b", "c"]})
    assert found.verdict == "in part"
    assert [(one.right, one.state) for one in found.comparisons] == [("b", "holds"), ("c", "fails")]


def test_the_interval_over_seeds_is_that_of_the_paired_differences():
    found = verdict({"a": (0.7, 0.9, 0.8), "b": (0.6, 0.7, 0.65)}, above={"a": "b"})
    (one,) = found.comparisons
    differences = [0.1, 0.2, 0.15]
    half = 4.303 * statistics.stdev(differences) / math.sqrt(3)
    assert (one.n, one.over) == (3, "seeds")
    assert one.estimate == pytest.approx(0.15)
    assert (one.low, one.high) == pytest.approx((0.15 - half, 0.15 + half), abs=1e-4)
    assert found.verdict == "reproduced"


@pytest.mark.parametrize("seed", range(12))
def test_turning_a_comparison_round_turns_holds_into_fails(seed):
    draw = random.Random(seed)
    n = draw.randint(2, 8)
    shift = draw.choice([0.0, 0.05, 0.3, -0.3])
    rows = {
        "a": [draw.random() * 0.2 + shift for _ in range(n)],
        "b": [draw.random() * 0.2 for _ in range(n)],
    }
    (one,) = verdict(rows, above={"a": "b"}).comparisons
    (other,) = verdict(rows, above={"b": "a"}).comparisons
    assert (one.low, one.high) == pytest.approx((-other.high, -other.low))
    assert {"holds": "fails", "fails": "holds", "open": "open"}[one.state] == other.state
    assert (one.state == "holds") == (one.low > 0)
    assert (one.state == "fails") == (one.high < 0)


def test_a_claim_is_reproduced_in_part_or_not():
    rows = {"a": (0.1, 0.11, 0.1), "b": (0.5, 0.51, 0.49), "c": (0.3, 0.3, 0.31)}
    assert verdict(rows, increasing=["a", "c", "b"]).verdict == "reproduced"
    part = verdict(rows, increasing=["a", "b", "c"])
    assert part.verdict == "in part"
    assert part.reason.startswith("fails: c minus b is −0.197 (")
    gone = verdict(rows, increasing=["b", "c", "a"])
    assert (gone.verdict, gone.decided) == ("not", True)


def test_a_claim_that_no_interval_excludes_is_not_reproduced_and_undecided():
    found = verdict({"a": (0.5, 0.7), "b": (0.5, 0.6)}, above={"a": "b"})
    assert (found.verdict, found.decided) == ("not", False)
    assert found.comparisons[0].state == "open"


def test_half_of_the_steps_is_half_of_the_left_side():
    rows = {"slow": (40, 42, 38), "fast": (10, 11, 12)}
    (one,) = verdict(rows, above={"slow": "fast"}, factor=0.5).comparisons
    assert one.seeds == (10, 10, 7)
    assert one.estimate == pytest.approx(9)
    rows["fast"] = (30, 31, 32)
    assert verdict(rows, above={"slow": "fast"}, factor=0.5).verdict == "not"


def test_numbers_that_are_one_per_seed_are_compared_over_seeds():
    slow = [Reading(40.0), Reading(42.0), Reading(38.0)]
    rows = {"slow": slow, "fast": [Reading(10.0), Reading(11.0), Reading(12.0)]}
    found = judge(claim(above={"slow": "fast"}, factor=0.5), rows, label)
    assert found.comparisons[0].seeds == (10, 10, 7)
    assert (found.verdict, found.comparisons[0].over) == ("reproduced", "seeds")


def test_a_fitted_figure_and_a_mean_of_the_same_prompts_are_compared_over_seeds():
    rows = {"a": [Reading(0.7, (), "k"), Reading(0.72, (), "k")], "b": readings((0.5, 0.51), "k")}
    (one,) = judge(claim(above={"a": "b"}), rows, label).comparisons
    assert one.seeds == (pytest.approx(0.2), pytest.approx(0.21))


def test_close_is_one_comparison_with_two_limits():
    near = {"a": (0.50, 0.51, 0.50), "b": (0.505, 0.505, 0.505)}
    assert verdict(near, close={"a": "b"}, margin=0.03).verdict == "reproduced"
    far = {"a": (0.70, 0.71, 0.70), "b": (0.505, 0.505, 0.505)}
    apart = verdict(far, close={"a": "b"}, margin=0.03)
    assert (apart.verdict, len(apart.comparisons)) == ("not", 1)
    assert verdict(near, close={"a": "b"}, margin=0.001).comparisons[0].state == "open"


def test_a_margin_is_added_to_the_difference():
    rows = {"a": (0.50, 0.51, 0.50), "b": (0.52, 0.53, 0.53)}
    assert verdict(rows, above={"a": "b"}).verdict == "not"
    assert verdict(rows, above={"a": "b"}, margin=0.1).verdict == "reproduced"
    assert (
        verdict({"a": (0.6, 0.61), "b": (0.5, 0.512)}, above={"a": "b"}, margin=-0.2).verdict
        == "not"
    )


def test_between_takes_rows_and_numbers():
    rows = {"a": (0.50, 0.51, 0.50), "b": (0.6, 0.61, 0.62)}
    assert verdict(rows, between={"a": [0.4, "b"]}).verdict == "reproduced"
    assert verdict(rows, between={"b": [0.4, "a"]}).verdict == "in part"


def test_one_seed_is_judged_over_its_prompts_and_says_so():
    a, b = (0.9, 0.8, 0.85, 0.95), (0.1, 0.3, 0.2, 0.2)
    rows = {"a": [Reading(0.875, a, "k")], "b": [Reading(0.2, b, "k")]}
    found = judge(claim(above={"a": "b"}), rows, label)
    (one,) = found.comparisons
    differences = [x - y for x, y in zip(a, b, strict=True)]
    half = 1.959964 * statistics.stdev(differences) / 2
    assert (one.n, one.over) == (4, "prompts")
    assert one.low == pytest.approx(statistics.fmean(differences) - half)
    assert found.reason.endswith("one seed: the noise of training is not in it")


def test_a_number_without_prompts_has_no_interval_with_one_seed():
    rows = {"a": [Reading(40.0)], "b": [Reading(10.0)]}
    found = judge(claim(above={"a": "b"}), rows, label)
    assert (found.verdict, found.decided) == ("not", False)
    assert "one number of one seed has no interval" in found.reason


def test_values_of_other_prompts_are_never_paired():
    rows = {
        "a": readings((0.9, 0.9), "these"),
        "b": [*readings((0.1,), "these"), *readings((0.1,), "those")],
    }
    found = judge(claim(above={"a": "b"}), rows, label)
    (one,) = found.comparisons
    assert (one.estimate, one.low, one.state) == (None, None, "open")
    assert "cannot be compared" in found.reason


def test_a_seed_that_lacks_one_side_is_left_out_and_the_number_says_so():
    rows = {"a": readings((0.7, 0.9, 0.8)), "b": [*readings((0.6, 0.7)), None]}
    (one,) = judge(claim(above={"a": "b"}), rows, label).comparisons
    assert (one.n, one.seeds) == (2, (pytest.approx(0.1), pytest.approx(0.2), None))


def test_prompts_that_one_side_lacks_are_left_out_of_the_pairs():
    rows = {"a": [Reading(0.5, (0.4, None, 0.6), "k")], "b": [Reading(0.2, (0.1, 0.3, 0.1), "k")]}
    (one,) = judge(claim(above={"a": "b"}), rows, label).comparisons
    assert (one.n, one.estimate) == (2, pytest.approx(0.4))


def test_seeds_or_prompts_that_are_all_alike_are_no_certainty():
    assert over_seeds([0.3, 0.3, 0.3]).half is None
    assert over_prompts([1.0, 1.0]).half is None
    found = verdict({"a": (0.5, 0.5), "b": (0.25, 0.25)}, above={"a": "b"})
    assert found.comparisons[0].state == "open"
    assert "the same in every seed" in found.reason


def test_a_claim_that_cannot_be_tested_here_says_why():
    found = judge(claim(above={"a": "b"}), {}, label, "no win rate of a here")
    assert (found.verdict, found.reason, found.comparisons) == (
        "not tested here",
        "no win rate of a here",
        (),
    )
