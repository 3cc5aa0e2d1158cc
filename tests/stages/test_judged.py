"""A model, or a file of anybody's outputs, judged: what is asked, kept, counted and compared."""

import json

import pytest
from judged_files import LONG, SHORT, recipe, rows, run
from judged_plugins import ASKED, BROKEN, registry

from alignzoo.contract.errors import DataError
from alignzoo.contract.verdicts import JudgeError
from alignzoo.leaderboard import read_leaderboard


@pytest.fixture(autouse=True)
def _fresh(tmp_path, monkeypatch):
    monkeypatch.setenv("ALIGNZOO_CACHE", str(tmp_path / "cache"))
    ASKED.clear()
    BROKEN.clear()


def test_files_of_outputs_are_judged_and_the_baseline_ties_with_itself_for_nothing(tmp_path):
    run(recipe(tmp_path), tmp_path / "r")
    found = rows(tmp_path / "r")
    assert found["ours.jsonl"]["columns"]["win_rate"]["mean"] == 0.75
    assert found["theirs.jsonl"]["columns"]["win_rate"]["mean"] == 0.5
    assert sorted(ASKED) == ["0", "1", "2", "3"]


def test_every_row_says_who_judged_and_how_many_verdicts_there_are(tmp_path):
    run(recipe(tmp_path, {"name": "clerk", "with": {"price": 0.5}}), tmp_path / "r")
    row = rows(tmp_path / "r")["ours.jsonl"]
    assert row["counts"] == {"judged": 4, "parsed": 4, "failed": 0}
    assert (row["judge"], row["cost"]) == ("clerk-1", 20.0)
    assert row["usage"] == {"prompt_tokens": 40, "completion_tokens": 4}


def test_a_second_run_and_another_folder_ask_nothing_again(tmp_path):
    run(recipe(tmp_path), tmp_path / "a")
    run(recipe(tmp_path), tmp_path / "a")
    run(recipe(tmp_path), tmp_path / "b")
    assert len(ASKED) == 4


def test_another_reading_of_the_same_replies_needs_no_call_and_no_connection(tmp_path):
    run(recipe(tmp_path), tmp_path / "a")
    BROKEN.append("the server is gone")
    run(recipe(tmp_path, limit=2), tmp_path / "b")
    assert len(ASKED) == 4


def test_a_judge_that_scores_compares_without_being_asked(tmp_path):
    run(recipe(tmp_path, "ruler"), tmp_path / "r")
    assert rows(tmp_path / "r")["ours.jsonl"]["columns"]["win_rate"]["mean"] == 0.75
    assert ASKED == []


def test_the_raw_reply_and_what_was_read_in_it_stand_side_by_side(tmp_path):
    run(recipe(tmp_path), tmp_path / "r")
    (folder,) = (tmp_path / "r/evaluations/01-longer").glob("*ours.jsonl")
    judged = list(map(json.loads, (folder / "judgments.jsonl").read_text().splitlines()))
    assert [(one["reply"], one["value"]) for one in judged][2] == ("FIRST", 0.0)
    answers = (folder / "answers.jsonl").read_text().splitlines()
    assert json.loads(answers[0])["baseline"] == ["short"]


def test_too_few_verdicts_are_an_error_that_shows_a_reply_and_loses_nothing(tmp_path):
    mute = {"name": "clerk", "with": {"mood": "mute"}}
    with pytest.raises(JudgeError, match=r"0 of 4 replies.*'hm'.*rejudge-failed"):
        run(recipe(tmp_path, mute), tmp_path / "r")
    with pytest.raises(JudgeError, match="0 of 4"):
        run(recipe(tmp_path, mute), tmp_path / "r")
    assert len(ASKED) == 4
    with pytest.raises(JudgeError, match="0 of 4"):
        run(recipe(tmp_path, mute), tmp_path / "r", again=True)
    assert len(ASKED) == 8


def test_a_panel_takes_the_mean_and_tells_how_often_its_judges_agree(tmp_path):
    contrary = {"name": "clerk", "with": {"mood": "contrary"}}
    run(recipe(tmp_path, ["clerk", contrary, "ruler"]), tmp_path / "r")
    row = rows(tmp_path / "r")["ours.jsonl"]
    assert row["columns"]["win_rate"]["mean"] == pytest.approx((3 * 2 / 3 + 1 / 3) / 4)
    assert row["agreement"] == pytest.approx(1 / 3)
    assert row["counts"]["judged"] == 12


def test_a_majority_of_judges_decides(tmp_path):
    contrary = {"name": "clerk", "with": {"mood": "contrary"}}
    run(recipe(tmp_path, ["clerk", contrary, "ruler"], vote="majority"), tmp_path / "r")
    assert rows(tmp_path / "r")["ours.jsonl"]["columns"]["win_rate"]["mean"] == 0.75


def test_a_judge_that_lacks_a_verdict_in_one_order_has_no_vote_on_the_pair(tmp_path):
    """It likes what is shown first, and the answers are equally long for the other judge."""
    half = {"name": "clerk", "with": {"mood": "half"}}
    files = {"ours": ["aaaaa"] * 4, "theirs": SHORT}
    what = recipe(tmp_path, [half, "ruler"], benchmark="longer_twice", min_parsed=0.5, **files)
    run(what, tmp_path / "r")
    row = rows(tmp_path / "r")["ours.jsonl"]
    assert row["columns"]["win_rate"]["mean"] == 0.5
    assert row["counts"] == {"judged": 16, "parsed": 12, "failed": 4}


def test_results_of_different_judges_baselines_or_prompts_never_share_a_table(tmp_path):
    contrary = {"name": "clerk", "with": {"mood": "contrary"}}
    run(recipe(tmp_path), tmp_path / "a")
    run(recipe(tmp_path, contrary), tmp_path / "b")
    run(recipe(tmp_path, limit=2), tmp_path / "c")
    run(recipe(tmp_path, theirs=["other"] * 4), tmp_path / "d")
    sections = read_leaderboard([tmp_path / name for name in "abcd"])
    assert len(sections) == 4


def test_outputs_in_another_file_with_equal_baseline_and_judge_do_share_one(tmp_path):
    run(recipe(tmp_path), tmp_path / "a")
    run(recipe(tmp_path, ours=["better answer"] * 4), tmp_path / "b")
    (section,) = read_leaderboard([tmp_path / "a", tmp_path / "b"])
    assert len(section.rows) == 3


def test_patience_and_price_of_a_judge_do_not_change_what_is_comparable(tmp_path):
    run(recipe(tmp_path), tmp_path / "a")
    run(recipe(tmp_path, {"name": "clerk", "with": {"price": 0.1}}), tmp_path / "b")
    assert len(read_leaderboard([tmp_path / "a", tmp_path / "b"])) == 1


def test_outputs_that_miss_a_prompt_are_refused_with_its_name(tmp_path):
    with pytest.raises(DataError, match="prompt 3"):
        run(recipe(tmp_path, ours=LONG[:3]), tmp_path / "r")


def test_a_flawed_file_of_outputs_is_found_before_the_first_question_is_asked(tmp_path):
    with pytest.raises(DataError, match="prompt 3"):
        run(recipe(tmp_path, theirs=LONG, ours=LONG[:3]), tmp_path / "r")
    assert ASKED == [] and not (tmp_path / "r" / "evaluations").exists()


def test_outputs_that_miss_a_prompt_may_be_judged_on_the_others_in_a_table_of_their_own(tmp_path):
    run(recipe(tmp_path, ours=LONG[:3], partial=True), tmp_path / "a")
    assert rows(tmp_path / "a")["ours.jsonl"]["prompts"] == 3
    assert rows(tmp_path / "a")["ours.jsonl"]["columns"]["win_rate"]["mean"] == pytest.approx(2 / 3)
    run(recipe(tmp_path), tmp_path / "b")
    assert len(read_leaderboard([tmp_path / "a", tmp_path / "b"])) == 2


def test_a_recipe_must_name_a_judge_and_may_not_where_the_benchmark_has_one():
    from alignzoo.recipe.blocks import EvaluateSpec
    from alignzoo.recipe.check import judge_faults

    spec = EvaluateSpec(benchmark="longer", samples=2)
    assert [fault.path for fault in judge_faults(spec, registry())] == [
        ("benchmark",),
        ("samples",),
    ]
