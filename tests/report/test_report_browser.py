"""The report in a real browser: seen without JavaScript, on a telephone, and quick when large."""

import pytest
from chromium import chromium, find_chromium
from report_runs import FullRun

from alignzoo.recipe.registry import load_plugins
from alignzoo.report import fold_report, render_report

pytestmark = pytest.mark.skipif(
    find_chromium() is None, reason="no Chromium on this machine (Debian: apt install chromium)"
)
RUNS, STEPS = 10, 3_400  # of each of three stages


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    with chromium(tmp_path_factory.mktemp("profile")) as started:
        yield started


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    folder = tmp_path_factory.mktemp("report")
    runs = [FullRun(folder / f"seed-{n}", n, section=str(n) * 64).write() for n in (3, 4)]
    file = folder / "report.html"
    file.write_text(render_report(fold_report(runs, load_plugins())), encoding="utf-8")
    return file


def test_the_page_complains_of_nothing_asks_for_nothing_and_runs_no_answer(browser, page):
    tab = browser.page(page)
    assert tab.look("document.querySelectorAll('main > section').length") == 12
    assert tab.look("document.title") == "Report: seed-3, seed-4"
    assert tab.look("document.images.length") == 0
    paths = "[...document.querySelectorAll('.curve path')]"
    assert tab.look(f"{paths}.some(p => p.getTotalLength() > 100)")
    assert tab.complaints() == []
    assert [url for url in tab.requests() if not url.startswith("data:")] == [page.as_uri()]


def test_metrics_can_be_filtered(browser, page):
    tab = browser.page(page)
    tab.click("#curves .find input")
    tab.type("nll")
    seen = "[...document.querySelectorAll('.metric')].filter(m => m.checkVisibility()).length"
    assert tab.look(seen) == 1


@pytest.mark.parametrize("javascript", [True, False])
def test_on_a_telephone_nothing_is_cut_and_letters_keep_their_size(browser, page, javascript):
    tab = browser.page(page, width=400, height=800, javascript=javascript, dark=javascript)
    assert tab.look("document.documentElement.scrollWidth") <= 400
    tab.look("for (const d of document.querySelectorAll('details')) d.open = true")
    assert tab.look("document.documentElement.scrollWidth") <= 400
    texts = "[...document.querySelectorAll('.frame text')].map(t => t.getBBox().height)"
    assert min(tab.look(texts)) >= 12
    edges = "[...document.querySelectorAll('caption')].map(c => c.getBoundingClientRect().right)"
    assert max(tab.look(edges)) <= 400
    assert tab.complaints() == []


@pytest.mark.slow
def test_ten_runs_of_ten_thousand_steps_open_in_two_seconds_and_five_megabytes(browser, tmp_path):
    runs = [FullRun(tmp_path / f"run-{n}", n, steps=STEPS).write() for n in range(RUNS)]
    file = tmp_path / "report.html"
    file.write_text(render_report(fold_report(runs, load_plugins())), encoding="utf-8")
    assert file.stat().st_size <= 5e6
    tab = browser.page(file)
    timing = "performance.getEntriesByType('navigation')[0]"
    assert tab.look(f"{timing}.loadEventEnd - {timing}.startTime") <= 2000
