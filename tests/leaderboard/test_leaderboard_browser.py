"""The page in a real browser: a headless Chromium clicks, types and looks."""

import os
from pathlib import Path

import pytest
from board_runs import GradedRun, JudgedRun
from chromium import chromium, find_chromium

from alignzoo.leaderboard import read_leaderboard, render_page

pytestmark = pytest.mark.skipif(
    find_chromium() is None, reason="no Chromium on this machine (Debian: apt install chromium)"
)
MODELS = {"base": 0.5, "dpo": 0.6, "aligndistil": 0.8, "kto": 0.3}
NAMES = "[...document.querySelectorAll('#s1 .ranking tbody tr')].filter(r => !r.hidden)"
ROWS = f"{NAMES}.map(r => r.cells[0].textContent.trim())"
SORTS = "[...document.querySelectorAll('#s1 .ranking thead th')].map(h => h.ariaSort)"
ENTRIES = "document.querySelectorAll('dialog .list li').length"
PANE = "document.querySelector('dialog .pane').innerText"


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    with chromium(tmp_path_factory.mktemp("profile")) as started:
        yield started


@pytest.fixture(scope="module")
def board(tmp_path_factory):
    """Two sections on one page."""
    folder = tmp_path_factory.mktemp("board")
    runs = [
        JudgedRun(folder / "duel-run", MODELS).write(),
        GradedRun(folder / "graded-run", MODELS, section="t" * 64).write(),
    ]
    page = folder / "page.html"
    page.write_text(render_page(read_leaderboard(runs), runs), encoding="utf-8")
    return page


@pytest.fixture
def tab(browser, board):
    """The page, which must neither complain nor load anything."""
    opened = browser.page(board)
    yield opened
    assert opened.complaints() == []
    assert [url for url in opened.requests() if not url.startswith("data:")] == [board.as_uri()]
    assert opened.look("document.title").startswith("Leaderboard")


def pictures(tmp_path):
    """Where screenshots stay for people to look at."""
    return Path(os.environ.get("ALIGNZOO_SCREENSHOTS", tmp_path))


def test_every_row_is_seen(tab, tmp_path):
    assert tab.look(ROWS) == ["aligndistil", "dpo", "base (baseline)", "kto"]
    assert tab.look(f"{NAMES}.every(r => r.checkVisibility() && r.offsetHeight > 0)")
    bars = "[...document.querySelectorAll('.bar .span')].filter(b => b.getBBox().width > 1).length"
    assert tab.look(bars) > 8
    tab.screenshot(pictures(tmp_path) / "leaderboard.png")


def test_a_click_on_a_header_sorts_by_it(tab):
    tab.click("#s1 .ranking th:nth-child(2) button")
    assert tab.look(ROWS) == ["kto", "base (baseline)", "dpo", "aligndistil"]
    assert tab.look(SORTS)[:2] == [None, "ascending"]
    tab.click("#s1 .ranking th:nth-child(1) button")
    assert tab.look(ROWS) == ["aligndistil", "base (baseline)", "dpo", "kto"]
    assert tab.look(SORTS)[:2] == ["ascending", None]


def test_the_filter_leaves_the_models_that_match(tab):
    tab.click("#s1 .find input")
    tab.type("al")
    assert tab.look(ROWS) == ["aligndistil"]


def test_a_click_on_a_row_opens_prompt_answers_and_verdict_side_by_side(tab, tmp_path):
    tab.click("#s1 .ranking tbody tr:nth-child(2) .mean")
    assert tab.look("document.querySelector('dialog').open")
    assert tab.look("document.querySelector('#compare-title').textContent") == (
        "dpo beside base (baseline)"
    )
    seen = tab.look(PANE)
    for part in ("Question 0", "dpo on prompt 0", "base on prompt 0", "I read both."):
        assert part in seen
    tops = "[...document.querySelectorAll('dialog .said')].map(a => a.getBoundingClientRect().top)"
    assert len(set(tab.look(tops))) == 1
    tab.screenshot(pictures(tmp_path) / "comparison.png")
    tab.press("Escape")
    assert not tab.look("document.querySelector('dialog').open")


def test_the_keyboard_opens_a_comparison_too(tab):
    tab.look("document.querySelector('#s1 .ranking tbody a').focus()")
    tab.press("Enter")
    assert tab.look("document.querySelector('dialog').open")


def test_comparisons_can_be_searched_ordered_and_paged(tab):
    tab.click("#s1 .ranking tbody tr:nth-child(2) .mean")
    assert tab.look(ENTRIES) == 12
    values = "[...document.querySelectorAll('dialog .list .told')].map(t => t.textContent)"
    tab.look(
        "(o => { o.value = 'low'; o.dispatchEvent(new Event('change')) })"
        "(document.querySelector('dialog select'))"
    )
    shown = tab.look(values)
    numbers = [float(text.rpartition(" ")[2]) for text in shown[:-1]]
    assert numbers == sorted(numbers)
    assert shown[-1].endswith("no verdict")
    first = tab.look(PANE)
    tab.click("dialog .bar-top button:nth-of-type(2)")
    assert tab.look(PANE) != first
    tab.click("dialog input")
    tab.type("cannot decide")
    assert tab.look(ENTRIES) == 1


def test_the_baseline_is_not_compared_with_itself(tab):
    tab.click("#s1 .ranking tbody tr:nth-child(3) .mean")
    assert tab.look("document.querySelectorAll('dialog .said').length") == 1


def test_hostile_answers_stay_text(tab):
    tab.click("#s1 .ranking tbody tr:nth-child(1) .mean")
    assert "<script>document.title" in tab.look(PANE)
    assert tab.look("document.images.length") == 0


def test_everything_is_readable_without_javascript(browser, board):
    tab = browser.page(board, javascript=False)
    assert tab.look(ROWS) == ["aligndistil", "dpo", "base (baseline)", "kto"]
    assert tab.look("document.querySelectorAll('button, input').length") == 0
    tab.click("#s1 .prompt > summary")
    assert "dpo on prompt 0" in tab.look("document.querySelector('#s1 .prompt').innerText")
    assert tab.complaints() == []


@pytest.mark.parametrize("dark", [False, True])
def test_text_stands_out_in_light_and_in_dark(browser, board, dark):
    tab = browser.page(board, dark=dark)
    colours = "['color', 'backgroundColor'].map(k => getComputedStyle(document.body)[k])"
    ink, paper = (_luminance(text) for text in tab.look(colours))
    assert (max(ink, paper) + 0.05) / (min(ink, paper) + 0.05) > 7
    assert (ink > paper) == dark


def _luminance(colour):
    """Relative luminance of "rgb(1, 2, 3)", as WCAG defines it."""
    parts = [int(x) / 255 for x in colour.removeprefix("rgb(").removesuffix(")").split(",")]
    linear = [x / 12.92 if x <= 0.03928 else ((x + 0.055) / 1.055) ** 2.4 for x in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_a_narrow_screen_never_scrolls_sideways(browser, board):
    tab = browser.page(board, width=400, height=800)
    assert tab.look("document.documentElement.scrollWidth") <= 400


def test_on_a_telephone_captions_are_whole_and_the_plot_s_letters_keep_their_size(browser, board):
    tab = browser.page(board, width=400, height=800)
    seen = "[...document.querySelectorAll('caption')].filter(c => c.checkVisibility())"
    edges = f"{seen}.map(c => c.getBoundingClientRect().right)"
    assert max(tab.look(edges)) <= 400
    wide = "document.querySelector('#s1 .scatter.wide')"
    assert tab.look(f"getComputedStyle({wide}).display") == "none"
    texts = "[...document.querySelectorAll('#s1 .scatter.narrow text')]"
    zoom = "(m => Math.hypot(m.a, m.b))(t.getScreenCTM())"  # of a turned text too
    heights = tab.look(f"{texts}.map(t => t.getBBox().height * {zoom})")
    assert min(heights) >= 12
    ends = tab.look(f"{texts}.map(t => t.getBoundingClientRect()).map(b => [b.left, b.right])")
    assert min(left for left, _ in ends) >= 0
    assert max(right for _, right in ends) <= 400
    assert tab.look("document.querySelectorAll('#s1 .model')[1].offsetWidth") <= 200
