"""Judges that are asked in words, in training and in labels: through the command line, over HTTP.

The server judges by `judge_server.worth`, which a function judge of a few lines repeats: what is
learnt from both must be the same.
"""

import json
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path

import judge_server
import pytest
from asked_recipes import asked, recipe, rows, write
from cli_process import Call, perform
from judge_server import serving, stats_of, worth
from two_ranks import launched

FUNCTION = """
import sys
sys.path.insert(0, {helpers!r})
from judge_server import worth

def reward(prompt, answer):
    return worth(answer)
"""
BY = ("wins", "score")
LOG = Path("stages") / "01-it" / "metrics.jsonl"
NEW = {"rollout/unjudged", "rollout/judging_cost"}  # of judges that are asked


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    monkeypatch.setenv("ALIGNZOO_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.chdir(tmp_path)
    helpers = str(Path(judge_server.__file__).parent)
    (tmp_path / "own.py").write_text(FUNCTION.format(helpers=helpers))


def own(**more):
    return {"judge": "function", "with": {"path": "own.py:reward"}, **more}


def without(found, names=NEW):
    return [{key: x for key, x in row.items() if key not in names} for row in found]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """What a run that nothing befalls logs, and says, and where its judge's replies are: three
    buffers of win rates among three answers.
    """
    place = tmp_path_factory.mktemp("whole")
    with serving("--chooses") as url, pytest.MonkeyPatch.context() as patch:
        patch.setenv("ALIGNZOO_CACHE", str(place / "cache"))
        patch.chdir(place)
        done = perform(asdict(Call(("run", *write("whole", usual(url))))))
        assert done["status"] == 0, done["err"]
        (journal,) = (place / "cache" / "judgments").iterdir()
        return (place / "whole" / LOG).read_bytes(), done["out"] + done["err"], journal


def usual(url, **more):
    return recipe(asked(url, by="wins", **more), steps=3, samples=3)


def test_what_a_judge_says_over_http_is_learnt_like_the_same_from_a_function(cli, whole):
    status, _, err = cli("run", *write("here", recipe(own(by="wins"), steps=3, samples=3)))
    assert status == 0, err
    log, said, journal = whole
    there = [json.loads(line) for line in log.splitlines()]
    assert without(there) == rows("here")
    assert {row["rollout/unjudged"] for row in there} == {0.0}
    cost = there[-1]["rollout/judging_cost"]
    assert 0 < cost < 0.2 and f"cost {cost:.4g}" in said
    replay = {"judge": "replay", "with": {"path": str(journal)}}
    assert cli("run", *write("again", recipe(replay, steps=3, samples=3)))[0] == 0
    assert rows("again") == without(there, {"rollout/judging_cost"})  # its price is not known


def test_faults_of_the_server_change_nothing_and_unreadable_replies_are_counted(
    cli, whole, monkeypatch
):
    lost = [kind for kind in judge_server.LOST if kind != "stall"]
    with serving("--chooses", "--share", 0.3, "--kinds", *lost) as url:
        assert cli("run", *write("stormy", usual(url)))[0] == 0
        assert sum(stats_of(url)["met"].values()) > 10
    assert (Path("stormy") / LOG).read_bytes() == whole[0]
    monkeypatch.setenv("ALIGNZOO_CACHE", "odd-cache")
    with serving("--chooses", "--share", 0.15, "--kinds", "garbage") as url:
        two = recipe(asked(url, min_parsed=0.5))
        status, out, err = cli("run", *write("odd", two))
        garbage = len(stats_of(url)["garbage"])
    assert status == 0, err
    assert garbage and f"{garbage} of them without a verdict" in out + err
    # Of a prompt with an unreadable reply both answers are unjudged, be it one order or both.
    unjudged = sum(row["rollout/unjudged"] for row in rows("odd")) * 4
    assert garbage / 2 <= unjudged <= garbage and unjudged == int(unjudged)
    assert all(row["rollout/ties"] >= row["rollout/unjudged"] for row in rows("odd"))


def test_too_few_verdicts_stop_the_stage_with_what_came(cli):
    with serving("--chooses", "--share", 1, "--in-a-row", 99, "--kinds", "garbage") as url:
        many = recipe(asked(url), prompts=16)
        many["stages"][0]["train"] |= {"batch_size": 16}
        status, _, err = cli("run", *write("r", many))
    assert status == 1 and "none of the first 20 replies holds a verdict" in err
    assert "--set stages.it.rollout.reward.min_parsed=0" in err


def test_what_an_error_about_verdicts_names_is_there_and_helps(cli):
    """Only garbage, then a judge who is well again: the options of the sentence, typed."""
    few = {**recipe(asked("http://localhost:1/v1"), prompts=1), "name": "few"}
    few["stages"][0]["train"] |= {"batch_size": 1, "micro_batch_size": 1}
    words = write("few", few)

    def at(url, *more):
        return cli("run", *words, "--set", f"stages.it.rollout.reward.with.url={url}", *more)

    with serving("--chooses", "--share", 1, "--in-a-row", 99, "--kinds", "garbage") as url:
        status, _, err = at(url)
        assert status == 1 and "no answer of a whole buffer has a verdict" in err
        named = re.search(r"`--set (stages\S+=0)`", err)[1]
        status, _, err = at(url, "--set", named)
        assert status == 0, err
    found = rows("few")
    assert [(row["rollout/unjudged"], row["rollout/reward"]) for row in found] == [(1, 0.5)] * 2
    with serving("--chooses") as url:
        assert "reused" in at(url, "--set", named)[1]
        assert at(url, "--set", named, "--rejudge-failed")[0] == 0
    assert [row["rollout/unjudged"] for row in rows("few")] == [0, 0]


def test_max_cost_stops_in_time_and_a_higher_one_goes_on_and_pays_nothing_twice(cli, whole):
    """The folder is the same without being named: a limit decides nothing but the end."""
    with serving("--chooses") as url:
        total = json.loads(whole[0].splitlines()[-1])["rollout/judging_cost"]
        write("part", usual(url, max_cost=total * 0.7 + 0.0035))
        status, _, err = cli("run", "part.yaml")
        assert status == 1 and "stopped before max_cost" in err and "raise max_cost" in err
        (folder,) = Path("runs").iterdir()
        assert 1 <= len(rows(folder)) < 3
        status, _, err = cli("run", "part.yaml", "--set", "stages.it.rollout.reward.max_cost=1")
        assert status == 0, err
        assert list(Path("runs").iterdir()) == [folder]
        twice = [n for n in stats_of(url)["delivered"].values() if n > 1]
    assert (folder / LOG).read_bytes() == whole[0]
    assert len(twice) == 1  # the greeting


@pytest.mark.slow  # a process that is killed
def test_a_run_that_is_killed_asks_nothing_again_and_ends_with_the_same_bytes(
    cli, whole, monkeypatch, tmp_path
):
    env = {**os.environ, "ALIGNZOO_CACHE": str(tmp_path / "killed-cache")}
    with serving("--chooses", "--delay", 0.02) as url:
        words = [sys.executable, "-m", "alignzoo", "run"]
        words += write("killed", usual(url))
        process = subprocess.Popen(words, env=env, stdout=subprocess.DEVNULL)
        until = time.monotonic() + 120
        while len(stats_of(url)["delivered"]) < 40 and time.monotonic() < until:
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert not (Path("killed") / "stages" / "01-it" / "model").exists()
        monkeypatch.setenv("ALIGNZOO_CACHE", env["ALIGNZOO_CACHE"])
        status, _, err = cli("run", "killed.yaml", "--output", "killed")
        assert status == 0, err
        often = stats_of(url)["delivered"]
    assert (Path("killed") / LOG).read_bytes() == whole[0]
    twice = [n for n in often.values() if n > 1]  # the greetings, and what was under way
    assert len(often) > 40 and len(twice) <= 1 + 16


@pytest.mark.slow  # two processes
def test_one_of_two_processes_asks_and_both_get_the_same(tmp_path, cli):
    with serving("--chooses") as url:
        content = recipe(asked(url, by="score"), prompts=3)
        content["stages"][0]["train"] |= {"batch_size": 3, "micro_batch_size": 3}
        done = launched(2, "run", *write("two", content), OMP_NUM_THREADS="1")
        assert done.returncode == 0, done.stderr
        calls = stats_of(url)["delivered"]
        assert cli("run", *write("one", content))[0] == 0
        assert stats_of(url)["delivered"] == calls  # everything was kept
    for one, two in zip(rows("one"), rows("two"), strict=True):
        for name in ("loss", "rollout/reward", "rewards/margin", *NEW):
            assert two[name] == pytest.approx(one[name], abs=1e-5), name


# --- several rewards -------------------------------------------------------------------------


def test_a_weighted_sum_logs_every_part_and_one_judge_stays_as_it_is(cli):
    lone = own(by="score")
    both = [{**lone, "weight": 2.0}, {"judge": "facts.oracle", "weight": -0.5}]
    assert cli("run", *write("sum", recipe(both)))[0] == 0
    assert cli("run", *write("lone", recipe(lone)))[0] == 0
    for row in rows("sum"):
        total = 2.0 * row["reward/function"] - 0.5 * row["reward/facts.oracle"]
        assert row["rollout/reward"] == pytest.approx(total, abs=1e-5)
    assert rows("sum")[0]["reward/function"] == rows("lone")[0]["rollout/reward"]
    assert not any(name.startswith("reward/") for name in rows("lone")[0])


# --- labels ----------------------------------------------------------------------------------


def test_a_label_stage_takes_the_answers_that_the_judge_prefers(cli):
    made = {"name": "answers", "stage": "generate", "samples": 3, "sampling": {"max_new_tokens": 5}}
    made["data"] = {"name": "facts.prompts", "with": {"size": 8}}
    with serving("--chooses") as url:
        labels = [
            {"name": by, "stage": "label", "data": "answers", **asked(url, by=by)} for by in BY
        ]
        content = {"name": "r", "model": "facts", "threads": 1, "stages": [made, *labels]}
        status, _, err = cli("run", *write("r", content))
        assert status == 0, err
        calls = sum(stats_of(url)["calls"].values())
        for one in labels:
            one["with"]["price_in"] = 7.0
        assert cli("run", *write("r", content))[1].count("reused") == 3  # a price decides nothing
        assert sum(stats_of(url)["calls"].values()) == calls
    groups = lines("r/stages/01-answers/data.jsonl")
    for number, by in enumerate(BY, 2):
        pairs = lines(f"r/stages/{number:02d}-{by}/data.jsonl")
        expected = [values(group, by) for group in groups]
        expected = [(max(v), min(v)) for v in expected if max(v) > min(v)]
        found = [(p["meta"]["score_chosen"], p["meta"]["score_rejected"]) for p in pairs]
        assert found == [pytest.approx(one) for one in expected] and found
        assert all(worth(text(p["chosen"])) > worth(text(p["rejected"])) for p in pairs)
        (told,) = rows("r", f"{number:02d}-{by}")
        assert told["cost"] > 0 and told["failed"] == 0


def lines(path):
    return [json.loads(line) for line in Path(path).read_text().splitlines()]


def text(response):
    return response["text"] if isinstance(response, dict) else response


def values(group, by):
    """Grades, or shares of the others that are worth less, by hand."""
    texts = [text(response) for response in group["responses"]]
    grades = [worth(one) for one in texts]
    if by == "score":
        return [float(grade) for grade in grades]
    return [
        sum((a > b) + 0.5 * (a == b) for j, b in enumerate(grades) if j != i) / (len(grades) - 1)
        for i, a in enumerate(grades)
    ]
