"""What a run left is read as it is, or told to be missing; curves give the numbers by hand."""

from __future__ import annotations

import json
import math

import pytest

from alignzoo.contract.errors import DataError
from alignzoo.recipe.blocks import EvaluateSpec, Recipe
from alignzoo.studies.derived import folded, last_quarter, reached
from alignzoo.studies.places import Place
from alignzoo.studies.plots.curves import Curve
from alignzoo.studies.readings import Reading, alike, read_column

RECIPE = Recipe(name="r", model="facts", stages=(), evaluate=(EvaluateSpec(benchmark="facts"),))


def write(run, model, values, *, mean=None, section=None):
    """A hand-made result of one column."""
    folder = run / "evaluations" / "01-facts" / model
    folder.mkdir(parents=True)
    there = [x for x in values if x is not None]
    cell = {"mean": sum(there) / len(there) if mean is None else mean, "better": 1, "doc": ""}
    content = {
        "row": {"columns": {"win_rate": cell}},
        "values": {"win_rate": values},
        "section": section or {"prompts": "p", "options": {}, "kl_to": {}},
    }
    (folder / "scores.json").write_text(json.dumps(content))


def read(run, model="m", column="win_rate"):
    return read_column(run, RECIPE, Place(0, 0, model), column)


def test_the_values_by_prompt_are_those_of_the_file(tmp_path):
    write(tmp_path, "m", [0.0, 0.5, 1.0, 1.0])
    found = read(tmp_path)
    assert (found.value, found.prompts) == (0.625, (0.0, 0.5, 1.0, 1.0))


def test_percent_can_be_made_shares(tmp_path):
    write(tmp_path, "m", [0.0, 50.0, 100.0])
    found = read_column(tmp_path, RECIPE, Place(0, 0, "m"), "win_rate", 0.01)
    assert (found.value, found.prompts) == (0.5, (0.0, 0.5, 1.0))


def test_a_figure_that_is_no_mean_of_its_prompts_is_not_paired_by_prompt(tmp_path):
    write(tmp_path, "m", [0.0, 1.0], mean=0.7)
    assert read(tmp_path) == Reading(0.7, (), read(tmp_path).kind)


def test_a_share_of_100_is_known_as_percent_unless_it_is_made_a_share_of_1(tmp_path):
    write(tmp_path, "m", [0.0, 50.0])
    file = tmp_path / "evaluations/01-facts/m/scores.json"
    file.write_text(file.read_text().replace('"better": 1', '"better": 1, "whole": 100'))
    assert read(tmp_path).whole == 100
    assert read_column(tmp_path, RECIPE, Place(0, 0, "m"), "win_rate", 0.01).whole == 1


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_values_that_are_no_numbers_are_named(tmp_path, bad):
    write(tmp_path, "m", [0.5, bad, 1.0], mean=0.75)
    assert read(tmp_path) == "win_rate is NaN or infinite for 1 of 3 prompts"


def test_a_missing_column_is_named_with_those_that_are_there(tmp_path):
    write(tmp_path, "m", [0.5, 1.0])
    assert read(tmp_path, column="win_rte") == (
        "no column win_rte; did you mean 'win_rate'? (there are: win_rate)"
    )


def test_prompts_without_a_verdict_are_counted(tmp_path):
    write(tmp_path, "m", [0.5, None, 1.0])
    assert read(tmp_path).note == "win_rate is missing for 1 of 3 prompts"


@pytest.mark.parametrize("text", ["", "{", "[]", '{"row": {"columns": []}, "values": {}}'])
def test_a_damaged_file_is_named(tmp_path, text):
    write(tmp_path, "m", [0.5])
    (tmp_path / "evaluations/01-facts/m/scores.json").write_text(text)
    with pytest.raises(DataError, match=r"scores\.json: damaged"):
        read(tmp_path)


def test_results_of_other_prompts_or_another_baseline_are_unlike(tmp_path):
    base = {"prompts": "p", "baseline": "b", "kl_to": {"dpo": "d"}}
    for name, section in {
        "one": base,
        "same": {**base, "kl_to": {"dpo": "d", "sft": "s"}},
        "prompts": {**base, "prompts": "q"},
        "baseline": {**base, "baseline": "c"},
    }.items():
        write(tmp_path, name, [0.5, 1.0], section=section)
    found = {name: read(tmp_path, name) for name in ("one", "same", "prompts", "baseline")}
    assert alike(found["one"], found["same"])
    assert not alike(found["one"], found["prompts"])
    assert not alike(found["one"], found["baseline"])


def curve(values, first=1):
    steps = tuple(float(first + n) for n in range(len(values)))
    return Curve("run", "stage", steps, steps, tuple(map(float, values)))


def test_the_last_quarter_is_rounded_up():
    assert last_quarter([1, 2, 3, 4, 5, 6, 7, 9]) == 8
    assert last_quarter([1, 2, 3, 4, 6]) == 5
    assert last_quarter([3]) == 3


def test_a_level_is_reached_where_the_mean_of_the_window_first_is():
    values = [0, 0, 4, 0, 2, 2, 2, 2]
    assert reached(curve(values), 2.0, window=1) == Reading(3.0)
    assert reached(curve(values), 2.0, window=4) == Reading(6.0)
    assert reached(curve([9, 0, 9, 9]), 6.0, window=3) == Reading(3.0)  # not the lone first 9


def test_a_curve_that_never_reaches_the_level_says_so_and_counts_as_its_end():
    found = reached(curve([1, 2, 3]), 10.0, window=1)
    assert found.value == 3.0
    assert "never reached 10" in found.note


def test_curves_are_folded_at_the_steps_that_all_seeds_have():
    points = folded([curve([1, 2, 3]), curve([3, 6, math.nan, 9])])
    assert [(x, y) for x, y, _ in points] == [(1.0, 2.0), (2.0, 4.0)]
    half = 12.706 * math.sqrt(((1 - 2) ** 2 + (3 - 2) ** 2) / 1 / 2)
    assert points[0][2] == pytest.approx(half, abs=1e-3)
    assert folded([curve([1, 2])])[0] == (1.0, 1.0, None)
