"""A result as Markdown, JSON, figure and page: the same numbers, and nothing that acts."""

from __future__ import annotations

import json
import re
from dataclasses import replace

import pytest
from chromium import chromium, find_chromium
from study_results import HOSTILE, full_result

from alignzoo.contract.errors import DataError, UsageError
from alignzoo.studies.files import read_result, write_result
from alignzoo.studies.paper import paper
from alignzoo.studies.text import markdown
from alignzoo.studies.verdicts import plain, signed

needs_browser = pytest.mark.skipif(
    find_chromium() is None, reason="no Chromium on this machine (Debian: apt install chromium)"
)


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    folder = tmp_path_factory.mktemp("result")
    write_result(full_result(), folder, "full")
    return folder


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    if find_chromium() is None:
        pytest.skip("no Chromium on this machine")
    with chromium(tmp_path_factory.mktemp("profile")) as started:
        yield started


def test_the_json_holds_every_number_and_is_read_back_as_the_same_result(written):
    found = read_result(written / "full.json")
    assert found == full_result()
    assert json.loads((written / "full.json").read_text())["figures"][2]["seeds"] == [
        0.74,
        0.75,
        0.71,
    ]


def test_a_file_that_is_no_result_is_named(tmp_path):
    (tmp_path / "x.json").write_text('{"study": 3}')
    with pytest.raises(DataError, match=r"x\.json: no result of `alignzoo reproduce`"):
        read_result(tmp_path / "x.json")


def test_the_table_has_means_half_intervals_the_papers_figures_and_marked_controls():
    text = markdown(full_result(), "full.svg")
    assert "| row | win rate | paper's win rate | length [tokens] |" in text
    assert "| plain | 0.613 ± 0.038 | 18.40 | – |" in text
    assert "| strong (control) | 0.790 ± 0.025 | 18.40 | – |" in text
    assert "Mean over seeds 3, 4, 5 ± half the 95 % interval over seeds (Student's t)" in text
    assert "The paper's win rate: AlpacaEval 2 LC win rate." in text
    assert "![Means, intervals and curves of table1 on facts](full.svg)" in text


def test_every_verdict_is_told_with_its_reason_and_failures_as_plainly_as_successes():
    text = markdown(full_result())
    assert "## Verdicts: 2 reproduced, 2 in part, 1 not, 1 not tested here" in text
    assert "| Ours beats plain training | 12.9 to 18.4 | **reproduced** | holds: ours minus" in text
    assert "**not** | fails: ours minus strong is −0.057 (−0.085 to −0.028; 3 seeds) |" in text
    assert "It beats a strong control (not tested by the paper)" in text
    assert "* win of ours: win_rate is missing for 3 of 300 prompts (seed 4)" in text


def test_millions_are_short_and_keep_their_sign():
    assert [plain(x, 0) for x in (1.589e11, 123456.0, -2.5e6)] == ["1.59e11", "123456", "−2.50e6"]
    assert [signed(x, 2) for x in (1.589e11, -0.125, 0.0)] == ["+1.59e11", "−0.12", "+0.00"]


def test_the_command_seeds_commit_versions_and_tuning_stand_below():
    text = markdown(full_result())
    for line in (
        "* command: `alignzoo reproduce table1 --on facts --seeds 3 --first-seed 3`",
        "* seeds: 3, 4, 5",
        "* tuned: Learning rates: 1e-4 to 3e-3 on seeds 0 to 2.",
        "* commit: 825e03b",
        "* core: 0.1.0#b3a8f7648bc346be",
        "* CPU seconds: seed 3: 1,234; seed 4: 1,234; seed 5: 1,234",
    ):
        assert line in text


def test_the_page_shows_the_same_figures_as_the_markdown(written):
    page = (written / "full.html").read_text()
    cells = re.findall(r"[+−]?\d\.\d{3}(?: ± \d\.\d{3})?", (written / "full.md").read_text())
    assert len(cells) > 40
    assert [cell for cell in cells if cell not in page] == []


def test_hostile_words_of_a_study_are_text(written):
    for name in ("full.html", "full.svg"):
        text = (written / name).read_text()
        assert "<script>" not in text
        assert "\u202e" not in text
    assert HOSTILE not in (written / "full.html").read_text()


@needs_browser
@pytest.mark.parametrize("dark", [False, True])
def test_the_page_asks_for_nothing_and_fits_a_telephone(browser, written, dark):
    for width in (400, 800, 1400):
        tab = browser.page(written / "full.html", width=width, dark=dark, javascript=False)
        assert tab.look("document.documentElement.scrollWidth") <= width
        assert tab.complaints() == []
        assert tab.requests() == [(written / "full.html").as_uri()]
        texts = "[...document.querySelectorAll('.frame text')].map(t => t.getBBox().height)"
        assert min(tab.look(texts)) >= 12
    background = tab.look("getComputedStyle(document.body).backgroundColor")
    assert (sum(map(int, re.findall(r"\d+", background))) < 150) == dark


@needs_browser
def test_a_curve_and_its_interval_are_drawn_on_the_page_and_in_the_figure(browser, written):
    paths = "[...document.querySelectorAll('.curve path')].filter(p => p.getTotalLength() > 100)"
    for name in ("full.html", "full.svg"):
        tab = browser.page(written / name)
        assert tab.look(f"{paths}.length") == 4  # two curves, two areas
        filled = "getComputedStyle(document.querySelector('.curve .area')).fill"
        assert tab.look(filled) not in ("none", "rgb(0, 0, 0)")
        line = "getComputedStyle(document.querySelectorAll('.curve path')[1])"
        assert tab.look(f"{line}.fill") == "none"
        assert tab.look(f"{line}.stroke") != "none"


@needs_browser
def test_a_bar_lies_where_its_interval_does(browser, written):
    tab = browser.page(written / "full.html", width=1400)
    first = "document.querySelector('.bar')"
    x = "e => e.getBoundingClientRect().x"
    zero, low, at = (
        tab.look(f"({x})({first}.querySelector('{name}'))")
        for name in (".zero", ".range", "circle")
    )
    assert zero < low < at  # 0 < 0.095 < 0.120
    fails = "document.querySelectorAll('.bar')[1]"
    assert tab.look(
        f"({x})({fails}.querySelector('circle')) < ({x})({fails}.querySelector('.zero'))"
    )


# --- several results on one page ---------------------------------------------------------------


def test_the_papers_page_puts_worlds_side_by_side_and_keeps_controls():
    facts = full_result()
    stories = replace(facts, world="stories", verdicts=facts.verdicts[:1], seeds=facts.seeds[:2])
    text = paper([facts, stories])
    assert "| claim | the paper | facts (3 seeds) | stories (2 seeds) |" in text
    row = next(line for line in text.splitlines() if line.startswith("| Ours beats plain"))
    assert row.count("**reproduced**") == 2
    row = next(line for line in text.splitlines() if line.startswith("| Both ways"))
    assert row.endswith("| – |")
    assert text.count("| strong (control) |") == 2
    assert text.count("* command: `alignzoo reproduce table1") == 2


def test_two_results_of_one_study_in_one_world_are_refused():
    with pytest.raises(UsageError, match="table1 on facts: two results; leave one out"):
        paper([full_result(), full_result()])
