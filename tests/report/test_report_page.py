"""The report's page: every section is in the document, and nothing on it can run or load."""

import re

import pytest
from board_runs import HOSTILE
from report_runs import FullRun

from alignzoo.recipe.registry import load_plugins
from alignzoo.report import fold_report, render_report
from alignzoo.report.page import number, share, signed

SECTIONS = ("verdict", "stages", "results", "trade", "curves", "samples", "lens", "extremes",
            "judges", "alarms", "repeat", "missing")  # fmt: skip


@pytest.fixture(scope="module")
def registry():
    return load_plugins()


@pytest.fixture
def run(tmp_path):
    return FullRun(tmp_path / "one").write()


def page_of(registry, *folders, **how):
    return render_report(fold_report(folders, registry), **how)


def text_of(page):
    return " ".join(re.sub(r"<[^>]*>", " ", page.partition("<body>")[2]).split())


def test_every_section_is_there_and_opens_with_the_verdict(run, registry):
    page = page_of(registry, run)
    assert tuple(re.findall(r'<section id="(\w+)"', page)) == SECTIONS
    text = text_of(page)
    assert "grpo is best on duel: win_rate 0." in text
    assert "Next best: dpo, 0." in text
    assert "95 % interval, paired by prompt" in text


def test_a_table_says_where_the_time_of_every_train_stage_went(run, registry):
    page = page_of(registry, run)
    table = text_of(f"<body>{page.partition('Where the time went')[2].partition('</table>')[0]}")
    head, *rows = ("stage sampling forward rest", "base – 80.0 % 20.0 %", "dpo – 90.0 % 10.0 %")
    assert head in table and all(row in table for row in rows)
    assert "grpo 62.5 % 25.0 % 12.5 %" in table


def test_a_run_whose_stages_did_not_end_has_no_such_table(run, registry):
    for log in run.glob("stages/*/timing.jsonl"):
        log.unlink()
    assert "Where the time went" not in page_of(registry, run)


def test_a_lead_that_may_be_chance_is_not_called_the_best(tmp_path, registry):
    run = FullRun(tmp_path / "one")
    values = {"base": [0.5] * 12, "dpo": [0.6, 0.8] * 6, "grpo": [0.8, 0.61] * 6}
    run.values = lambda name, strength: values[name]
    text = text_of(page_of(registry, run.write()))
    assert "grpo leads, but not clearly, on duel" in text
    assert "That is no clear difference." in text
    assert "is best on duel" not in text


def test_seeds_open_with_their_mean_and_every_verdict_names_its_run(tmp_path, registry):
    for seed in (3, 4):
        run = FullRun(tmp_path / f"seed-{seed}", seed, section=str(seed) * 64, steps=12)
        run.values = lambda name, strength, seed=seed: [strength + seed / 100] * 12
        run.write()
    text = text_of(page_of(registry, tmp_path))
    assert "Over 2 seeds grpo has the best mean on duel: win_rate 0.835 ± 0.005; next dpo" in text
    assert "grpo is best on duel (seed-3): win_rate 0.83" in text
    assert "grpo is best on duel (seed-4): win_rate 0.84" in text


def test_sections_without_content_say_so(tmp_path, registry):
    (tmp_path / "bare").mkdir()
    (tmp_path / "bare/run.json").write_text('{"status": "failed", "error": "DataError: no data"}')
    page = page_of(registry, tmp_path / "bare")
    assert tuple(re.findall(r'<section id="(\w+)"', page)) == SECTIONS
    text = text_of(page)
    for words in (
        "there is no verdict",
        "No results yet",
        "No stage has logged a step",
        "No samples were logged",
        "the run is failed: DataError: no data",
        "recipe.yaml is missing",
    ):
        assert words in text


def test_hostile_text_from_prompts_models_and_recipes_is_shown_and_not_run(tmp_path, registry):
    run = FullRun(tmp_path / "<b>one").write()
    recipe = run / "recipe.yaml"
    hostile = "name: small\ndescription: '<script>x</script>'"
    recipe.write_text(recipe.read_text().replace("name: small", hostile))
    scores = run / "scores.jsonl"
    scores.write_text(scores.read_text().replace('"model": "dpo"', '"model": "<script>y</script>"'))
    page = page_of(registry, run)
    assert HOSTILE not in page
    assert page.count("<script>") == 1
    assert "&lt;script&gt;document.title" in page
    assert "&lt;script&gt;x&lt;/script&gt;" in page
    assert "&lt;script&gt;y&lt;/script&gt;" in page
    assert "&lt;b&gt;one" in page
    assert "[U+001B][2J [U+202E]gnp.exe" in page
    assert "\x1b" not in page
    assert "\u202e" not in page


def test_the_page_asks_nobody_for_anything_unless_it_is_watched(run, registry):
    page = page_of(registry, run)
    assert "connect-src" not in page
    assert not re.findall(r"(?:src|href)=\"(?!#|data:)", page)
    watched = page_of(registry, run, live="abc")
    assert "connect-src &#39;self&#39;" in watched
    assert 'data-version="abc"' in watched


def test_healthy_bands_crossings_and_runs_are_drawn(tmp_path, registry):
    runs = [FullRun(tmp_path / name, seed, rails={"max_truncated": 0.3}).write()
            for name, seed in (("one", 3), ("two", 4))]  # fmt: skip
    page = page_of(registry, *runs)
    metric = re.search(r'data-name="rollout/truncated">(.*?)</figure>', page, re.DOTALL)[1]
    assert metric.count('class="curve') == 2
    assert metric.count('class="band"') == 1
    assert metric.count('class="mark"') == 2
    assert "one: left it once" in text_of(page)
    assert "healthy: at most 0.3" in text_of(page)


def test_numbers_of_the_page_are_those_of_the_fold(run, registry):
    report = fold_report([run], registry)
    text = text_of(render_report(report))
    for one in report.results[0].outcomes:
        assert number(one.value) in text
    for one in report.results[0].worst:
        assert f"win_rate {number(one.value)}" in text


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (number(None), "–"),
        (number(0.12344), "0.1234"),
        (number(-1234567.0), "−1.235e+06"),
        (signed(0.0), "+0"),
        (signed(-0.25), "−0.25"),
        (share(0.0417), "4.2 %"),
    ],
)
def test_numbers_are_told_with_the_digits_that_count(words, told):
    assert words == told
