"""The section of a report that shows tokens: what `alignzoo lens` says, drawn from the facts."""

import json
import math
import re
import shutil
from dataclasses import replace

import pytest
from board_runs import HOSTILE
from chromium import chromium, find_chromium
from lens_runs import MOVED, PAIRS, STILL, TEXTS
from report_runs import FullRun
from small_models import run_stages, word_model, write_rows

from alignzoo.recipe.registry import load_plugins
from alignzoo.report import fold_report, render_report
from alignzoo.report.facts import ReadResponse, StageLens, TokenValue


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """DPO, AlignDistil at official positions, a reward model, and a stage whose model is gone."""
    folder = tmp_path_factory.mktemp("report-lens")
    model = word_model(folder / "model")
    pairs, texts = write_rows(folder / "pairs.jsonl", PAIRS), write_rows(folder / "t.jsonl", TEXTS)
    data, swapped = {"name": pairs}, {"name": pairs, "swap": True}
    distilled = {"name": "official", "algorithm": "aligndistil", "data": {"name": texts}, "roles":
                 {"teacher": "dpo", "anchor": "gone"}, "with": {"r": 2.0, "positions": "official"},
                 "train": STILL}  # fmt: skip
    stages = [
        {"name": "dpo", "algorithm": "dpo", "data": data, "train": MOVED},
        {"name": "gone", "algorithm": "dpo", "data": swapped, "train": MOVED},
        distilled,
        {"name": "scores", "algorithm": "reward_model", "data": data, "train": MOVED},
        {"name": "lost", "algorithm": "dpo", "data": data, "train": MOVED},
    ]
    run_stages(model, folder / "run", *stages)
    shutil.rmtree(folder / "run/stages/05-lost/model")
    return folder / "run"


def twin_of(cli, run, folder, *words):
    page, numbers = folder / "page.html", folder / "page.json"
    status, _, complained = cli("report", run, "-o", page, "--json", numbers, *words)
    assert status == 0, complained
    return json.loads(numbers.read_text()), page.read_text()


def told(one):
    """What a person reads at a token."""
    value, unit = one
    return "not defined here" if value is None else f"{value:.3g}{' ' + unit if unit else ''}"


@pytest.mark.parametrize(
    ("stage", "signal", "positions", "late"),
    [
        ("dpo", "reward", "aligned", 0),
        ("official", "distil/kl", "official", 1),
        ("scores", "reward", "aligned", 1),  # a head sits on the token that it values
    ],
)
def test_the_section_has_the_values_of_the_lens(cli, run, tmp_path, stage, signal, positions, late):
    lens = tmp_path / "lens.json"
    assert cli("lens", run / stage, "--limit", 2, "--json", lens)[0] == 0
    known = json.loads(lens.read_text())
    twin, page = twin_of(cli, run, tmp_path, "--lens", 2)
    (one,) = [x for x in twin["lens"] if x["stage"] == stage]
    units = {s["name"]: s["unit"] for s in known["methods"][0]["signals"]}
    assert (one["signal"], one["unit"]) == (signal, units[signal])
    assert one["positions"] == known["methods"][0]["positions"] == positions
    assert known["notes"] and one["notes"][: len(known["notes"])] == known["notes"]
    every = []
    for row in known["responses"]:
        at = row["methods"][0]["values"][signal]
        every.append(list(zip(row["tokens"], at[late : late + len(row["ids"])], strict=True)))
    shown = [
        [("".join(part for part, _ in t["parts"]), t["value"]) for t in said["tokens"]]
        for said in one["responses"]
    ]
    assert len(shown) == 2 and shown == every[:2]
    sizes = sorted(abs(x) for row in every for _, x in row if x is not None)
    assert one["limit"] == sizes[math.ceil(0.99 * len(sizes)) - 1]
    titles = re.findall(r'<span class="\w+" title="([^"]*)">', page)
    for row in shown:
        words = [told((x, one["unit"])) for _, x in row]
        assert any(titles[n : n + len(words)] == words for n in range(len(titles)))


def test_a_stage_that_cannot_be_read_is_named_with_the_reason(cli, run, tmp_path):
    twin, page = twin_of(cli, run, tmp_path, "--lens", 1)
    assert [one["stage"] for one in twin["lens"]] == ["dpo", "gone", "official", "scores"]
    (why,) = [text for text in twin["missing"] if "token by token" in text]
    assert why.startswith("run/lost: not read token by token: ") and "no trained stage" in why
    assert "run/lost: not read token by token" in page


def test_more_answers_than_were_asked_for_are_told(cli, run, tmp_path):
    twin, _ = twin_of(cli, run, tmp_path, "--lens", 1)
    (dpo,) = [one for one in twin["lens"] if one["stage"] == "dpo"]
    assert "Shown is 1 of the 2 responses that were read." in dpo["notes"]


def test_a_folder_without_its_record_is_never_taken_for_the_name_of_a_model(cli, tmp_path):
    folder = FullRun(tmp_path / "one").write()
    (folder / "run.json").unlink()
    twin, page = twin_of(cli, folder, tmp_path, "--lens", 1)
    assert twin["lens"] == [] and "No stage could be read" in page
    why = [text for text in twin["missing"] if "token by token" in text]
    assert len(why) == 3 and all("run.json is missing" in text for text in why)


def test_without_asking_no_model_is_read_and_the_page_says_what_adds_it(cli, run, tmp_path):
    twin, page = twin_of(cli, run, tmp_path)
    assert (twin["lens"], twin["lens_rows"]) == ([], 0)
    assert f"<code>alignzoo report {run} --lens 4</code> adds it" in page


def test_a_watched_page_reads_no_model(cli, run):
    status, _, err = cli("report", run, "--watch", "--lens", 2)
    assert status == 2
    assert "--watch: a page that follows a run loads no model, and --lens does" in err


# --- drawn -------------------------------------------------------------------------------------

VALUES = (-2.0, -0.5, 0.0, 1.25, 4.0, math.nan)


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """A page whose responses try to break out of it; 60 tokens in a row without a space."""
    folder = tmp_path_factory.mktemp("drawn")
    report = fold_report([FullRun(folder / "one").write()], load_plugins())
    tokens = [TokenValue(((HOSTILE, False), ("·", True)), x) for x in VALUES]
    tokens += [TokenValue((("x" * 20, False),), 1.0)] * 60
    said = ReadResponse(1, f"{HOSTILE}:1", "chosen", HOSTILE, tuple(tokens))
    lens = StageLens("one", "dpo", "reward", "nats", "official", 2.0, (HOSTILE,), (said,))
    file = folder / "page.html"
    file.write_text(render_report(replace(report, lens=(lens,), lens_rows=1)), encoding="utf-8")
    return file


@pytest.mark.skipif(
    find_chromium() is None, reason="no Chromium on this machine (Debian: apt install chromium)"
)
@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", [400, 1400])
def test_tokens_are_coloured_text_without_a_script_on_every_width(page, tmp_path, width, dark):
    with chromium(tmp_path) as browser:
        tab = browser.page(page, width=width, javascript=dark, dark=dark)
        spans = "[...document.querySelectorAll('#lens .toks span')]"
        titles = tab.look(f"{spans}.slice(0, 6).map(s => s.title)")
        assert titles == [*(f"{x:.3g} nats" for x in VALUES[:-1]), "not defined here"]
        colours = tab.look(f"{spans}.slice(0, 6).map(s => getComputedStyle(s).backgroundColor)")
        assert colours[3] != colours[4] and len(set(colours[:5])) == 5
        assert colours[5] == "rgba(0, 0, 0, 0)"
        ends = tab.look("[...document.querySelectorAll('#lens .ends span')].map(s => s.innerText)")
        assert ends == ["-2 nats", "0", "2 nats"]
        assert tab.look(f"{spans}[0].textContent") == f"{HOSTILE}·"
        assert tab.look("document.documentElement.scrollWidth") <= width
        edges = tab.look(f"{spans}.map(s => s.getBoundingClientRect().right)")
        assert max(edges) <= width
        assert tab.look("document.querySelector('#lens').checkVisibility()")
        assert tab.look("document.title") == "Report: one" and tab.complaints() == []
        assert [u for u in tab.requests() if not u.startswith("data:")] == [page.as_uri()]
