"""A study on real runs: folded as the files say, begun again where it stopped, never mixed up."""

from __future__ import annotations

import json
import math
import shutil
import statistics
from dataclasses import replace

import pytest
import yaml
from study_files import FACTS, study_text

from alignzoo.cli.doing.reproducing import Wish, reproduce_command
from alignzoo.cli.terminal.names import find_recipe
from alignzoo.contract.errors import AlignzooError, Interrupted, UsageError
from alignzoo.recipe.file import load_recipe
from alignzoo.recipe.registry import load_plugins
from alignzoo.store import identity
from alignzoo.studies.files import read_result
from alignzoo.studies.readings import read_column
from alignzoo.studies.runs import seeded, unfinished

WORLD = "facts/world"


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with a study whose two seeds are finished."""
    folder = tmp_path_factory.mktemp("study")
    (folder / "world.yaml").write_text(FACTS)
    (folder / "study.yaml").write_text(study_text())
    assert reproduce_command(str(folder / "study.yaml"), Wish(output=folder / "runs")) == 0
    return folder


def run(place, *, study="study.yaml", **wish):
    return reproduce_command(str(place / study), Wish(output=place / "runs", **wish))


def result(place, name="small-facts"):
    return read_result(place / "runs" / f"{name}.json")


def scores(place, seed, model):
    file = place / "runs" / WORLD / f"seed-{seed}/evaluations/01-facts" / model / "scores.json"
    return json.loads(file.read_text())["values"]


def test_the_table_holds_what_the_runs_measured(place):
    for measure, column in (("win", "win_rate"), ("kl", "kl(sft)")):
        seeds = [statistics.fmean(scores(place, seed, "dpo")[column]) for seed in (3, 4)]
        figure = result(place).figure("dpo", measure)
        assert figure.seeds == pytest.approx(seeds)
        assert figure.mean == pytest.approx(statistics.fmean(seeds))
        assert figure.half == pytest.approx(
            12.7062 * statistics.stdev(seeds) / math.sqrt(2), rel=1e-4
        )
    assert [row.label for row in result(place).rows] == ["SFT", "DPO"]
    assert result(place).rows[0].control


def test_a_derived_measure_and_a_curve_are_those_of_the_logged_metrics(place):
    logs = [place / "runs" / WORLD / f"seed-{s}/stages/04-dpo/metrics.jsonl" for s in (3, 4)]
    rows = [[json.loads(line) for line in log.read_text().splitlines()] for log in logs]
    reached = []
    for log in rows:
        margins = [row["rewards/margin"] for row in log]
        level = 0.5 * statistics.fmean(margins[-2:])
        means = {n: statistics.fmean(margins[n - 5 : n]) for n in range(5, 9)}
        reached.append(next((n for n, x in means.items() if x >= level), 8))
    assert result(place).figure("dpo", "final").seeds == tuple(map(float, reached))
    (line,) = result(place).pictures[0].lines
    assert [(x, y) for x, y, _ in line.points] == [
        (n + 1, pytest.approx((rows[0][n]["loss"] + rows[1][n]["loss"]) / 2)) for n in range(8)
    ]
    assert line.seeds == (3, 4)
    assert "final of plain: rewards/margin: no stage logged it (seeds 3, 4)" in result(place).notes


def test_a_finished_study_trains_nothing_again_and_writes_the_same(place, capsys):
    before = (place / "runs/small-facts.json").read_text()
    assert run(place) == 0
    said = capsys.readouterr().out
    assert said.count("finished before") == 2
    assert "[1/6]" not in said
    assert (place / "runs/small-facts.json").read_text() == before


def test_one_seed_is_folded_over_its_prompts(place):
    assert run(place, quick=True) == 0
    quick = result(place)
    assert [one.seed for one in quick.seeds] == [3]
    found = quick.verdicts[0].comparisons[0]
    pairs = zip(
        scores(place, 3, "dpo")["win_rate"], scores(place, 3, "sft")["win_rate"], strict=True
    )
    assert (found.over, found.estimate) == (
        "prompts",
        pytest.approx(statistics.fmean(a - b for a, b in pairs)),
    )
    assert run(place) == 0


def test_what_was_made_by_other_code_is_made_again_not_folded(place, monkeypatch):
    recipe = seeded(load_recipe(place / "world.yaml", load_plugins()), 3)
    folder = place / "runs" / WORLD / "seed-3"
    assert unfinished(folder, recipe, load_plugins()) == ""
    monkeypatch.setattr(identity, "core_digest", lambda: "of tomorrow")
    assert unfinished(folder, recipe, load_plugins()) == "stage sft: made with other code than now"


def test_what_was_made_by_another_recipe_is_not_taken_for_this_one(place):
    recipe = seeded(
        load_recipe(place / "world.yaml", load_plugins(), ["stages.dpo.train.lr=2e-3"]), 3
    )
    why = unfinished(place / "runs" / WORLD / "seed-3", recipe, load_plugins())
    assert why == "stage dpo: made with other options than now"
    why = unfinished(place / "runs" / WORLD / "seed-3", seeded(recipe, 4), load_plugins())
    assert why == "stage sft: made with other seed, models, data than now"


def test_a_result_that_was_edited_is_not_folded(place, tmp_path):
    folder = tmp_path / "seed-3"
    shutil.copytree(place / "runs" / WORLD / "seed-3", folder)
    recipe = seeded(load_recipe(place / "world.yaml", load_plugins()), 3)
    file = folder / "evaluations/01-facts/dpo/scores.json"
    file.write_text(file.read_text().replace('"samples": 2', '"samples": 3'))
    assert unfinished(folder, recipe, load_plugins()) == "facts of dpo: its files changed since"


def test_a_changed_recipe_has_runs_and_results_of_its_own(place, capsys):
    before = (place / "runs/small-facts.json").read_text()
    assert run(place, quick=True, changed=("stages.dpo.train.steps=2",)) == 0
    assert (place / "runs/small-facts.json").read_text() == before
    (file,) = [f for f in (place / "runs").glob("small-facts-*.json")]
    changed = read_result(file)
    assert changed.origin.changed == ("stages.dpo.train.steps=2",)
    assert "--set stages.dpo.train.steps=2" in changed.origin.command
    assert changed.origin.recipes != result(place).origin.recipes
    assert "sft: taken from" in capsys.readouterr().out  # shared stages are not trained again


def test_ctrl_c_says_how_to_go_on_and_a_finished_seed_is_kept(place, monkeypatch, capsys):
    from alignzoo.cli.doing import reproducing

    def stopped(asked):
        raise Interrupted(2)

    monkeypatch.setattr(reproducing, "run_command", stopped)
    monkeypatch.setattr("sys.argv", ["alignzoo", "reproduce", "study.yaml", "--seeds", "3"])
    assert run(place, seeds=3) == 130
    captured = capsys.readouterr()
    assert "`alignzoo reproduce study.yaml --seeds 3` again goes on" in captured.err
    assert [one.seed for one in result(place).seeds] == [3, 4]


def test_a_world_that_needs_what_is_not_here_is_checked_and_told_but_not_run(place, capsys):
    study = yaml.safe_load(study_text())
    study["worlds"]["facts"] |= {
        "needs": "the hub",
        "cost": "3 days of a GPU",
        "recipes": ["far.yaml"],
    }
    (place / "far.yaml").write_text(FACTS.replace("model: facts", "model: Nobody/far-model"))
    (place / "far-study.yaml").write_text(yaml.safe_dump(study, sort_keys=False))
    assert run(place, study="far-study.yaml", quick=True) == 0
    said = capsys.readouterr().out
    assert "needs: the hub" in said
    assert "one seed costs: 3 days of a GPU" in said
    assert "Nobody/far-model" in said
    assert "waits for sft" in said
    assert not (place / "runs/facts/far").exists()


def test_a_margin_that_is_read_in_percent_is_told(place, monkeypatch):
    from alignzoo.studies import fold

    text = study_text().replace("above: {dpo: plain}", "close: {dpo: plain}, margin: 0.03")
    (place / "near.yaml").write_text(text.replace("name: small", "name: near"))

    def percent(*words):
        return replace(read_column(*words), whole=100.0)

    assert run(place, study="near.yaml", quick=True) == 0
    assert not [note for note in result(place, "near-facts").notes if "percent" in note]
    monkeypatch.setattr(fold, "read_column", percent)
    assert run(place, study="near.yaml", quick=True) == 0
    (note,) = [text for text in result(place, "near-facts").notes if "percent" in text]
    assert note.startswith("win is in percent here, and so are the margins of its claims")


def test_a_seed_on_which_rates_may_have_been_chosen_is_named(place):
    assert run(place, first_seed=2, seeds=2) == 0
    (note,) = [text for text in result(place).notes if "(seed 2)" in text]
    assert note == "rates may have been chosen there; it measures from 3 on (seed 2)"
    assert run(place) == 0


def test_wishes_that_contradict_or_name_nothing_are_refused(place):
    with pytest.raises(UsageError, match="--quick is one seed, --seeds 3 is not"):
        run(place, quick=True, seeds=3)
    with pytest.raises(
        UsageError, match=r"--on fact: study 'small' has facts; did you mean 'facts'"
    ):
        run(place, worlds=("fact",))
    with pytest.raises(UsageError, match="no study 'smal': neither a file nor a bundled study"):
        reproduce_command("smal", Wish())
    with pytest.raises(UsageError, match="is a study; try `alignzoo reproduce"):
        find_recipe(str(place / "study.yaml"))
    with pytest.raises(UsageError, match="no study"):
        reproduce_command(str(place / "world.yaml"), Wish())


def test_the_command_that_a_result_names_repeats_it(place):
    origin = result(place).origin
    assert origin.command == "alignzoo reproduce study.yaml --on facts --seeds 2 --first-seed 3"
    assert set(origin.recipes) == {"world"}
    assert origin.code.startswith("0.1.0#")


def test_a_fold_of_nothing_is_an_error(place):
    from alignzoo.studies.file import load_study
    from alignzoo.studies.fold import fold_study

    study = load_study(place / "study.yaml", load_plugins(), place).study
    with pytest.raises(AlignzooError, match="no seed is finished"):
        fold_study(study, "facts", [], load_plugins(), result(place).origin)


def test_a_column_that_one_seed_lacks_is_named_and_its_figure_has_no_interval(place, monkeypatch):
    from alignzoo.studies import fold

    def lacking(run, recipe, place, column, times):
        if recipe.seed == 4 and column == "win_rate" and place.model == "dpo":
            return "no column win_rate (there are: length)"
        return read_column(run, recipe, place, column, times)

    monkeypatch.setattr(fold, "read_column", lacking)
    assert run(place) == 0
    found = result(place)
    assert "win of dpo: no column win_rate (there are: length) (seed 4)" in found.notes
    figure = found.figure("dpo", "win")
    assert (figure.seeds[1], figure.half) == (None, None)
    (one,) = found.verdicts[0].comparisons
    assert (one.over, one.n) == ("prompts", 4)
    assert "one seed" in found.verdicts[0].reason
    monkeypatch.undo()
    assert run(place) == 0
