"""What judges are paid: once for a question, whoever asks it, by the prices that the recipe has."""

import shutil

import pytest
from asked_recipes import asked, recipe, rows, write
from judge_server import serving, stats_of

COST = "rollout/judging_cost"


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    monkeypatch.setenv("ALIGNZOO_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.chdir(tmp_path)


def test_a_sum_that_names_a_judge_twice_pays_it_once_and_repeats_itself(cli, tmp_path):
    """A judge that says another thing whenever it is asked would give other sums on a repeat."""
    with serving("--chooses", "--share", 0.2, "--kinds", "garbage") as url:
        halves = [asked(url, by="wins", weight=0.5, min_parsed=0) for _ in range(2)]
        status, _, err = cli("run", *write("sum", recipe(halves)))
        assert status == 0, err
        delivered = dict(stats_of(url)["delivered"])
        twice = [n for n in delivered.values() if n > 1]
        assert len(twice) <= 1 and len(delivered) > 4  # the greeting
        shutil.rmtree(tmp_path / "cache" / "stages")  # only replies are kept
        assert cli("run", *write("again", recipe(halves)))[0] == 0
        assert dict(stats_of(url)["delivered"]) == delivered
        lone = asked(url, by="wins", min_parsed=0)
        assert cli("run", *write("lone", recipe(lone)))[0] == 0
    both, one = rows("sum"), rows("lone")
    assert rows("again") == both
    for row, alone in zip(both, one, strict=True):
        assert row["reward/openai#1"] == row["reward/openai#2"] == alone["rollout/reward"]
        assert row[f"{COST}/openai#1"] == alone[COST] > 0 == row[f"{COST}/openai#2"]


def test_a_price_that_is_corrected_reaches_what_a_stopped_stage_has_paid(cli, monkeypatch):
    with serving("--chooses") as url:
        assert cli("run", *write("whole", recipe(asked(url, by="wins"), steps=3)))[0] == 0
        total = rows("whole")[-1][COST]
        monkeypatch.setenv("ALIGNZOO_CACHE", "other-cache")
        part = recipe(asked(url, by="wins", max_cost=total * 0.7 + 0.0035), steps=3)
        status, _, err = cli("run", *write("part", part))
        assert status == 1 and "stopped before max_cost" in err
        reward = part["stages"][0]["rollout"]["reward"]
        reward["with"] |= {"price_in": 10.0, "price_out": 20.0}
        reward["max_cost"] = 100
        assert cli("run", *write("part", part))[0] == 0
    stopped = rows("part")
    assert stopped[0][COST] == rows("whole")[0][COST]
    assert stopped[-1][COST] == pytest.approx(10 * total)


def test_a_panel_with_one_judge_twice_is_refused_wherever_judges_vote(cli):
    one = {"name": "openai", "with": {"model": "m", "url": "http://localhost:1/v1"}}
    other = {"name": "openai", "with": {"model": "m", "url": "http://localhost:2/v1"}}
    both = {"judge": [one, other], "by": "wins"}
    made = {"name": "a", "stage": "generate", "data": "facts.prompts", "samples": 2}
    label = {"name": "b", "stage": "label", "data": "a", **both}
    train = recipe(both)
    train["evaluate"] = [
        {"benchmark": "pairwise", "baseline": "initial", "judge": [one, other], "models": ["it"]}
    ]
    train["stages"] += [made, label]
    status, _, err = cli("plan", write("r", train)[0])
    assert status == 2 and err.count("is the same judge as number 0") == 3
    other["with"]["revision"] = "b"
    status, out, err = cli("plan", write("r", train)[0])
    assert status == 0, err
    words = " ".join(out.split())
    assert "b: 2 questions for a prompt with 2 answers to each of openai#1 and openai#2;" in words


def test_judges_are_told_apart_by_what_decides_their_replies(cli):
    """Two spellings of one judge, with and without the defaults, are one."""
    one = {"name": "openai", "with": {"model": "m", "revision": None, "attempts": 3}}
    twin = {"name": "openai", "with": {"model": "m"}}
    status, _, err = cli("plan", write("r", recipe({"judge": [one, twin]}))[0])
    assert status == 2 and "rollout.reward.judge.1" in err
