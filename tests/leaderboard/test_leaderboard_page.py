"""The page: everything is on it without JavaScript, nothing on it can run or load."""

import base64
import hashlib
import json
import re
from html.parser import HTMLParser

import pytest
from board_runs import HOSTILE, GradedRun, JudgedRun, answer

from alignzoo.contract.errors import DataError
from alignzoo.leaderboard import read_leaderboard, render_page
from alignzoo.leaderboard.charts import NARROW, WIDE, Point, scatter
from alignzoo.leaderboard.evidence import LONGEST, chosen, cut

MODELS = {"base": 0.5, "dpo": 0.6, "aligndistil": 0.8}


class Reader(HTMLParser):
    """What a browser without JavaScript makes of the page."""

    def __init__(self, page):
        super().__init__()
        self.words, self.elements = [], []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.words.append(data)

    def every(self, tag, **wanted):
        """Attributes of the elements of a kind."""
        found = [attributes for name, attributes in self.elements if name == tag]
        return [a for a in found if wanted.items() <= a.items()]

    @property
    def text(self):
        return " ".join(" ".join(self.words).split())


def page_of(*folders, **options):
    return render_page(read_leaderboard(folders), folders, **options)


@pytest.fixture
def duel(tmp_path):
    return JudgedRun(tmp_path / "duel-run", MODELS).write()


@pytest.fixture
def graded(tmp_path):
    return GradedRun(tmp_path / "graded-run", MODELS, section="t" * 64).write()


def test_every_row_and_figure_is_readable_without_javascript(duel):
    page = Reader(page_of(duel))
    (section,) = read_leaderboard([duel])
    assert len(page.every("tr", **{"data-row": "0"})) == 1
    for row in section.rows:
        cell = row.cells["win_rate"]
        assert f"{cell.mean:.3f}" in page.text
        assert f"{cell.low:.3f} to {cell.high:.3f}" in page.text
    assert "12 / 11 / 1" in page.text  # judged, parsed, failed
    assert "SE 0.031" in page.text
    assert "Judge wise-72b" in page.text


def test_what_cannot_be_compared_is_in_sections_of_its_own(duel, graded):
    page = Reader(page_of(duel, graded))
    assert len(page.every("table", **{"class": "ranking"})) == 2
    assert len(page.every("section", **{"class": "view"})) == 2
    assert "must not be compared" in page.text


def test_prompts_answers_and_verdicts_are_in_the_document(duel):
    page = Reader(page_of(duel))
    assert answer("dpo", 3).strip() in page.text
    assert answer("base", 3).strip() in page.text
    assert "Question 3 <b>& more</b>?" in page.text
    assert "I read both." in page.text
    assert "no verdict by wise-72b" in page.text  # the reply that could not be read
    assert "shown second" in page.text


def test_answers_cannot_run_or_load_anything(duel):
    text = page_of(duel)
    page = Reader(text)
    assert HOSTILE not in text
    assert HOSTILE in "".join(page.words)
    assert len(page.every("script")) == 1
    assert page.every("img") == []
    assert not [a for _, a in page.elements if any(k.startswith("on") or k == "src" for k in a)]


def test_the_page_asks_nobody_for_anything(duel):
    page = Reader(page_of(duel))
    assert {a["href"] for a in page.every("link")} == {"data:,"}
    assert all(a["href"].startswith("#") for a in page.every("a"))


def test_only_the_page_s_own_style_and_script_are_allowed(duel):
    text = page_of(duel)
    (policy,) = [a["content"] for a in Reader(text).every("meta") if "http-equiv" in a]
    assert policy.startswith("default-src 'none'")
    for tag in ("style", "script"):
        content = re.search(rf"<{tag}>(.*?)</{tag}>", text, re.DOTALL)[1]
        digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{digest}'" in policy


def test_tables_have_captions_and_scopes(duel, graded):
    page = Reader(page_of(duel, graded))
    assert len(page.every("caption")) == len(page.every("table"))
    assert all(a.get("scope") in ("col", "row") for a in page.every("th"))


def test_categories_have_a_table_of_their_own(graded):
    page = Reader(page_of(graded))
    assert len(page.every("table", **{"class": "categories"})) == 1
    assert "coding n = 4" in page.text
    values = json.loads(
        (graded / "evaluations/01-duel/dpo/scores.json").read_text(encoding="utf-8")
    )["values"]["average"]
    coding = values[1::3]
    assert f"{sum(coding) / len(coding):.2f}" in page.text


def test_both_turns_of_a_conversation_are_shown(graded):
    text = Reader(page_of(graded)).text
    assert re.search(r"first reply of dpo user And then\? assistant dpo on prompt 2", text)


def test_a_baseline_without_a_row_is_shown_from_the_run(tmp_path):
    run = JudgedRun(tmp_path / "run", {"dpo": 0.6})
    run.baseline = "reference"
    page = Reader(page_of(run.write()))
    assert "reference (baseline)" in page.text
    assert answer("reference", 2).strip() in page.text


def test_prompts_are_limited_and_the_page_says_so(duel):
    page = Reader(page_of(duel, limit=5))
    assert len(page.every("details", **{"class": "prompt"})) == 5
    assert "5 of the 12 prompts" in page.text
    assert "the other 7 are in the runs’ folders" in page.text


def test_the_same_prompts_are_chosen_every_time():
    assert chosen(805, 100) == chosen(805, 100)
    assert len(chosen(805, 100)) == 100
    assert chosen(3, 100) == {0, 1, 2}


def test_a_very_long_text_is_cut_and_says_how_much_is_missing():
    assert cut("x" * LONGEST) == "x" * LONGEST
    assert cut("x" * (LONGEST + 1500)).endswith("[1,500 more characters are not on this page]")


def test_runs_without_kept_answers_still_have_their_table(tmp_path, duel):
    (tmp_path / "old").mkdir()
    (tmp_path / "old/scores.jsonl").write_text((duel / "scores.jsonl").read_text())
    page = Reader(page_of(tmp_path / "old"))
    assert "0.031" in page.text
    assert "no longer hold the answers" in page.text


def test_a_model_without_a_single_verdict_stands_last_without_figures(tmp_path):
    run = JudgedRun(tmp_path / "run", MODELS)
    run.values = lambda name, strength: [None] * 12 if name == "dpo" else [0.4] * 12
    folder = run.write()
    (section,) = read_leaderboard([folder])
    assert [row.model for row in section.rows][-1] == "dpo"
    assert "– no verdict" in Reader(page_of(folder)).text


def test_a_damaged_file_of_an_evaluation_is_a_sentence(duel):
    (duel / "evaluations/01-duel/dpo/judgments.jsonl").write_text('{"id": "1/')
    with pytest.raises(DataError, match=r"judgments\.jsonl: damaged"):
        page_of(duel)


def test_how_to_repeat_a_run_is_on_the_page(duel):
    text = Reader(page_of(duel)).text
    assert "name: synthetic" in text
    assert "alignzoo_duel@1#abc" in text
    assert "s" * 64 in text
    assert "identity of dpo" in text


def test_the_command_writes_the_page_and_says_where(cli, duel, tmp_path):
    status, out, err = cli("leaderboard", duel, "--html", tmp_path / "deep/page.html")
    assert (status, out) == (0, "")
    assert "page.html" in err
    assert (tmp_path / "deep/page.html").read_text().startswith("<!doctype html>")


def test_the_command_prints_csv_for_other_programs(cli, duel):
    status, out, _ = cli("leaderboard", duel, "--csv")
    head, *lines = out.splitlines()
    assert status == 0
    assert head.startswith("section,benchmark,run,model,result,column,mean,low,high,error,prompts")
    assert len(lines) == len(MODELS) * 2
    assert lines[0].split(",")[1:4] == ["duel", "duel-run", "aligndistil"]
    assert lines[0].endswith(",12,12,11,1")


@pytest.mark.parametrize(
    ("words", "complaint"),
    [(("--json", "--csv"), "choose one"), (("--html", "."), "this is a folder")],
)
def test_a_command_that_cannot_be_done_is_a_sentence(cli, duel, words, complaint):
    status, _, err = cli("leaderboard", duel, *words)
    assert status == 2
    assert complaint in err


# --- drawings --------------------------------------------------------------------------------


@pytest.mark.parametrize("frame", [WIDE, NARROW])
def test_names_in_the_scatter_plot_do_not_cover_each_other(frame):
    points = [Point(f"model-{n}", 100 + n / 10, 0.5 + n / 1000, 0.4, 0.6) for n in range(10)]
    marks = scatter(points, "length", "win_rate", frame).marks
    places = [(m.label_x, m.label_y) for m in marks]
    for n, (x, y) in enumerate(places):
        assert not [o for o in places[:n] if abs(o[0] - x) < 47 and abs(o[1] - y) < 13.9]


@pytest.mark.parametrize("frame", [WIDE, NARROW])
def test_a_long_name_in_the_scatter_plot_stays_inside_its_frame(frame):
    points = [Point("m" * 120, 100, 0.5, 0.4, 0.6), Point("kto", 120, 0.7, 0.6, 0.8)]
    (long,) = [m for m in scatter(points, "length", "win_rate", frame).marks if m.label != "kto"]
    assert long.label.endswith("…")
    assert frame.left <= long.label_x <= frame.width - len(long.label) * 6.8
