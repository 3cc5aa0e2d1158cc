"""The leaderboard: what may share a table, in which order, with which uncertainty."""

import json

import pytest

from alignzoo import Column
from alignzoo.contract.errors import DataError, UsageError
from alignzoo.leaderboard import (
    as_json,
    fold,
    read_leaderboard,
    render_csv,
    render_markdown,
    render_text,
)
from alignzoo.stages.evaluation.ruled import summarise


def cell(mean, better=1, doc="what it is"):
    return {"mean": mean, "low": mean - 0.1, "high": mean + 0.1, "better": better, "doc": doc}


def row(model, score, section="s1", **changes):
    return {
        "benchmark": "quiz",
        "options": {"size": 3},
        "model": model,
        "baseline": "base",
        "is_baseline": model == "base",
        "prompts": 3,
        "samples": 2,
        "section": section,
        "result": f"{section}/{model}/{score}",
        "columns": {
            "length": cell(12.0, better=0),
            "score": cell(score),
            "hidden": cell(1.0, better=0, doc=""),
        },
    } | changes


def write(folder, rows):
    folder.mkdir()
    (folder / "scores.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    return folder


def test_the_best_model_comes_first():
    (section,) = fold([("run", row("base", 0.1)), ("run", row("dpo", 0.7)), ("run", row("b", 0.4))])
    assert [r.model for r in section.rows] == ["dpo", "b", "base"]


def test_results_that_cannot_be_compared_never_share_a_table():
    sections = fold([("run", row("a", 1)), ("run", row("a", 2, section="s2"))])
    assert [[r.model for r in s.rows] for s in sections] == [["a"], ["a"]]


def test_tables_of_one_benchmark_say_in_what_they_differ():
    """`prompts` differs too from the third; the nearest table is the one that is named."""
    parts = {"benchmark": "b", "prompts": "p1", "kl_to": "k1"}
    rows = [
        row("a", 1, section="s1" * 8, parts=parts),
        row("a", 1, section="s2" * 8, parts={**parts, "kl_to": "k2"}),
        row("a", 1, section="s3" * 8, parts={**parts, "kl_to": "k3", "prompts": "p3"}),
    ]
    text = render_markdown(fold([("run", one) for one in rows]))
    assert "section s1s1s1s1, not in one table with section s2s2s2s2: other kl_to" in text
    assert "section s3s3s3s3, not in one table with section s1s1s1s1: other prompts, kl_to" in text
    assert "not in one table" not in render_markdown(fold([("run", rows[0])]))


def test_an_equal_result_reached_twice_is_one_row(tmp_path):
    first = write(tmp_path / "first", [row("a", 1), row("b", 2)])
    second = write(tmp_path / "second", [row("a", 1), row("b", 3)])
    (section,) = read_leaderboard([first, second])
    assert [(r.run, r.model) for r in section.rows] == [
        ("second", "b"),
        ("first", "b"),
        ("first", "a"),
    ]


def test_every_number_is_shown_with_its_interval(tmp_path):
    sections = fold([("run", row("dpo", 0.7)), ("run", row("base", 0.1))])
    assert "0.700 ±0.100" in render_text(sections)
    assert "| dpo | 12.000 [11.900, 12.100] | 0.700 [0.600, 0.800] |" in render_markdown(sections)
    assert "base (baseline)" in render_text(sections)
    assert "hidden" not in render_markdown(sections)
    assert as_json(sections)[0]["rows"][0]["cells"]["hidden"]["mean"] == 1.0


def test_a_narrow_terminal_says_which_columns_it_leaves_out():
    columns = {name: cell(1.0) for name in ("a", "b", "c", "d", "kl(dpo)")}
    text = render_text(fold([("run", row("m", 1, columns=columns))]), width=75)
    assert "more in leaderboard.md: d" in text
    assert "more with --csv: d" in render_text(
        fold([("run", row("m", 1, columns=columns))]), 75, "with --csv"
    )
    assert "kl(dpo)" in text.splitlines()[2]


JUDGED = {"judge": "wise-72b", "counts": {"judged": 80, "parsed": 78, "failed": 2}}
NOTHING = {"mean": None, "low": None, "high": None, "better": 1, "doc": "what it is"}


def test_judge_counts_and_official_standard_error_are_shown_where_there_are_any():
    columns = {"score": cell(15.734) | {"error": 1.12}}
    sections = fold([("run", row("dpo", 1, columns=columns, **JUDGED))])
    text = render_text(sections, width=120)
    assert "15.734 ±0.100 (SE 1.120)" in text
    assert "80/78/2" in text
    assert "judged by wise-72b" in text
    assert "| dpo | 15.734 [15.634, 15.834] (SE 1.120) | 80/78/2 |" in render_markdown(sections)
    assert as_json(sections)[0]["rows"][0]["counts"] == JUDGED["counts"]


def test_a_narrow_terminal_keeps_the_counts():
    columns = {name: cell(1.0) for name in ("a", "b", "c", "d", "e")}
    text = render_text(fold([("run", row("m", 1, columns=columns, **JUDGED))]), width=75)
    assert "80/78/2" in text
    assert "more in leaderboard.md: d, e" in text


def test_a_panel_s_agreement_and_the_cost_stand_below_the_table():
    panel = row("dpo", 1, agreement=0.875, cost=1.25, **JUDGED)
    sections = fold([("run", panel), ("run", row("base", 0, cost=0, **JUDGED))])
    line = "dpo: the judges agree on 87.5%, judging cost 1.25"
    assert line in render_text(sections, width=75) and f"* {line}" in render_markdown(sections)
    assert "base" not in render_text(sections, width=75).splitlines()[-1]


def test_a_long_name_is_folded_and_the_figures_stay_whole():
    text = render_text(fold([("run", row("m" * 90, 1, **JUDGED))]), width=75)
    assert "12.000 ±0.100" in text and "80/78/2" in text and "judged/parsed/failed" in text


def test_a_model_without_a_verdict_has_no_figure_and_stands_last():
    rows = [row("lost", 0, columns={"score": NOTHING}, **JUDGED), row("dpo", -5)]
    (section,) = fold([("run", one) for one in rows])
    assert [r.model for r in section.rows] == ["dpo", "lost"]
    assert "| lost | - | - | 80/78/2 |" in render_markdown([section])
    assert ",lost,s1/lost/0,score,,,,,3,80,78,2" in render_csv([section])


def test_nan_in_a_file_is_no_figure():
    columns = {"score": NOTHING | {"mean": float("nan")}}
    (section,) = fold([("run", row("m", 0, columns=columns))])
    assert section.rows[0].cells == {}


def test_csv_has_a_line_per_figure_in_full_precision():
    (section,) = fold([("run", row("dpo", 1 / 3))])
    head, *lines = render_csv([section]).splitlines()
    assert head.split(",")[5:8] == ["column", "mean", "low"]
    assert [line.split(",")[5] for line in lines] == ["length", "score", "hidden"]
    assert float(lines[1].split(",")[6]) == 1 / 3


def test_the_difference_to_the_baseline_is_paired():
    column = Column((1.0, 2.0, 3.0), better=1)
    got = summarise(column, (0.5, 1.5, 2.5))
    assert (got["diff_mean"], got["diff_low"], got["diff_high"]) == (0.5, None, None), "no spread"
    half = 1.959964 * 0.5 / 3**0.5  # of differences .5, 1, 1.5
    got = summarise(column, (0.5, 1.0, 1.5))
    assert (got["diff_mean"], got["diff_high"]) == (1.0, pytest.approx(1.0 + half))
    assert got["high"] - got["mean"] == pytest.approx(1.959964 / 3**0.5)


def test_a_folder_without_results_is_a_sentence(tmp_path):
    with pytest.raises(UsageError, match=r"no scores\.jsonl"):
        read_leaderboard([tmp_path])


def test_a_run_that_has_no_results_yet_is_named_and_left_out(tmp_path, cli):
    done = write(tmp_path / "done", [row("dpo", 1)])
    (tmp_path / "begun").mkdir()
    status, out, error = cli("leaderboard", tmp_path / "begun", done)
    assert status == 0 and "dpo" in out
    assert f"{tmp_path / 'begun'}: left out, it has no results yet" in error


@pytest.mark.parametrize("line", ["{", "[]", '{"section": "x"}'])
def test_a_damaged_file_is_a_sentence(tmp_path, line):
    (tmp_path / "scores.jsonl").write_text(line + "\n")
    with pytest.raises(DataError, match=r"scores\.jsonl: damaged"):
        read_leaderboard([tmp_path])
