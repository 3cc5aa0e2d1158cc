"""Recorded replies of a judge that thinks, through a whole evaluation: counts, figures, notes."""

import json

import pytest
from run_parts import Heard

from alignzoo.contract.verdicts import JudgeError
from alignzoo.leaderboard import read_leaderboard, render_text
from alignzoo.recipe.blocks import Recipe
from alignzoo.recipe.registry import load_plugins
from alignzoo.run import run_recipe
from alignzoo.store.files import read_json

N = 3


@pytest.fixture(autouse=True)
def _fresh(tmp_path, monkeypatch):
    monkeypatch.setenv("ALIGNZOO_CACHE", str(tmp_path / "cache"))


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def outputs(tmp_path, name, text, n=N):
    rows = [{"prompt": f"prompt {i}", "output": f"{text} {i}"} for i in range(n)]
    return write(tmp_path / f"{name}.jsonl", rows)


def evaluated(tmp_path, judge, ours="ours", theirs="theirs", n=N):
    """(what was said, the model's row, folder) of a run of `pairwise`."""
    own, other = outputs(tmp_path, "ours", ours, n), outputs(tmp_path, "theirs", theirs, n)
    evaluate = {
        "benchmark": "pairwise", "models": [own], "baseline": other, "judge": judge,
        "with": {"prompts_file": own},
    }  # fmt: skip
    recipe = Recipe.model_validate(
        {"name": "r", "model": own, "stages": [], "evaluate": [evaluate]}
    )
    heard = Heard()
    run_recipe(recipe, "", load_plugins(), tmp_path / "run", heard)
    rows = map(json.loads, (tmp_path / "run" / "scores.jsonl").read_text().splitlines())
    (row,) = (row for row in rows if not row["is_baseline"])
    return heard, row, tmp_path / "run"


def replay(tmp_path, say, n=N, finish="stop"):
    """A judge whose recorded reply to a game is say("FIRST") or say("SECOND"), for our answer."""
    rows = [
        {"id": f"{i}/{game}", "text": say(word), "finish": finish}
        for i in range(n)
        for game, word in ((1, "FIRST"), (2, "SECOND"))
    ]
    return {"name": "replay", "with": {"path": write(tmp_path / "said.jsonl", rows)}}


OTHER = {"FIRST": "SECOND", "SECOND": "FIRST"}


def test_drafts_in_reasoning_do_not_count_and_the_reader_is_part_of_the_result(tmp_path):
    def say(word):
        return f"<think>\nVerdict: {OTHER[word]}\nNo.\n</think>\nVerdict: {word}"

    _, row, folder = evaluated(tmp_path, replay(tmp_path, say))
    assert row["columns"]["win_rate"]["mean"] == 1.0
    assert row["counts"] == {"judged": 2 * N, "parsed": 2 * N, "failed": 0}
    (place,) = folder.glob("evaluations/*/*ours.jsonl")
    judged = list(map(json.loads, (place / "judgments.jsonl").read_text().splitlines()))
    assert judged[0]["reply"] == say("FIRST"), "the raw reply is kept"
    section = read_json(place / "scores.json")["section"]
    assert (section["reader"], section["settings"]["parser"]) == (1, 2)


def test_replies_cut_inside_reasoning_are_no_verdicts_and_too_few_of_them_stop_the_run(tmp_path):
    def say(word):
        return f"<think>The last line must be\nVerdict: {word}\nNow, looking at"

    with pytest.raises(JudgeError, match=f"0 of {2 * N} replies"):
        evaluated(tmp_path, replay(tmp_path, say, finish="length"))


def test_ten_wins_of_ten_stand_in_the_table_with_wilsons_interval(tmp_path):
    _, row, folder = evaluated(tmp_path, replay(tmp_path, "Verdict: {}".format, 10), n=10)
    for name in ("win_rate", "consistency"):
        cell = row["columns"][name]
        assert (cell["mean"], cell["low"]) == (1.0, pytest.approx(0.7225, abs=1e-4))
    text = render_text(read_leaderboard([folder]), 150)
    assert "1.000 [0.722, 1.000]" in text and "1.000 ±" not in text
    assert "0.500 ±0.000" in text, "the baseline against itself, by definition"


def test_judged_answers_that_hold_reasoning_are_noted_in_one_line_with_their_number(tmp_path):
    judge = replay(tmp_path, "Verdict: {}".format)
    heard, _, _ = evaluated(tmp_path, judge, ours="<think>hm</think> yes", theirs="no")
    (note,) = (line for line in heard.events if "<think>" in line)
    assert f"{N} of {2 * N} judged answers hold reasoning" in note


def test_answers_without_reasoning_are_not_noted(tmp_path):
    heard, _, _ = evaluated(tmp_path, replay(tmp_path, "Verdict: {}".format))
    assert not [line for line in heard.events if "judged answers" in line]
