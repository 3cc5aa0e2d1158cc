"""A server that forbids, forgets, falls back, overcharges or thinks too long: the whole command.

One server plays them all: the name of the model says how. The right figures are counted by hand:
our answer to every prompt is better, so each verdict that the named judge gives is a win.
"""

import json
import math
import re
import shlex

import pytest
from alignzoo_judges.test_server import completion, in_thread, refusal
from cli_process import Call, run_calls

pytestmark = pytest.mark.slow  # processes that import torch

WORDS = ("metal", "gas", "salt", "tree", "bird", "fish", "city", "poet", "star", "game")
NAMED, FALLBACK = "judge-70b-0101", "tiny-1b"
FLAGGED = "This input was flagged by the provider"
ODD = ("poet", "star", "game", "city", "fish")  # what the fallback answers
UNREADABLE = ("fish", "bird", "tree")  # at first
ROOM = 4096  # tokens that the thinking judge needs


def usage(prompt, reply):
    return {"prompt_tokens": prompt, "completion_tokens": reply}


class Play:
    """Says FIRST or SECOND honestly, except for what the model's name says."""

    def __init__(self):
        self.asked = []  # (model, text) of every question
        self.times = {}

    def __call__(self, path, body, headers):
        if path.startswith("/old"):
            if not path.startswith("/old/v1"):
                return 404, b"<html>nothing here</html>"
            path = path.removeprefix("/old/v1")
        if path == "/models":
            return 200, {"data": [{"id": "any"}]}
        text = body["messages"][-1]["content"]
        if text == "Answer with yes.":
            model = NAMED if body["model"] == "fallback" else body["model"]
            return 200, completion("yes", model=model, usage=usage(1, 1))
        self.asked.append((body["model"], text))
        return getattr(self, body["model"], self.honest)(text, body)

    def honest(self, text, body, **more):
        first = text.split("<first_answer>")[1].split("</first_answer>")[0]
        said = "Verdict: FIRST" if "GOOD" in first else "Verdict: SECOND"
        return 200, completion(said, **{"model": body["model"]} | more)

    def empty(self, text, body):
        status, whole = self.honest(text, body)
        return status, {**whole, "choices": []} if "poet" in text else whole

    def moderated(self, text, body):
        if "poet" in text:
            return 403, {"error": {"code": 403, "message": FLAGGED, "metadata": {"x": "P"}}}
        return self.honest(text, body)

    def fallback(self, text, body):
        if any(word in text for word in ODD):
            return 200, completion("Verdict: FIRST", model=FALLBACK, system_fingerprint="fp_2")
        return self.honest(text, body, model=NAMED, system_fingerprint="fp_1")

    def costly(self, text, body):
        self.times[text] = self.times.get(text, 0) + 1
        billed = usage(1000, 100)
        if any(word in text for word in UNREADABLE) and self.times[text] == 1:
            return 200, completion("I would rather not say.", model=body["model"], usage=billed)
        return self.honest(text, body, usage=billed)

    def free(self, text, body):
        return self.honest(text, body, usage=usage(0, 0))

    def thinking(self, text, body):
        if body["max_tokens"] >= ROOM:
            return self.honest(text, body)
        cut = {"finish_reason": "length"}
        return 200, completion("<think> Let me see.", model=body["model"], choice=cut)

    def picky(self, text, body):
        if "temperature" in body:
            return 400, refusal("Unsupported value: 0", param="temperature")
        return self.honest(text, body)


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


class Desk:
    """Files of two models, and command lines about them."""

    def __init__(self, folder, url):
        self.folder, self.url = folder, url
        asked = {"": WORDS, "more-": [f"thing {n}" for n in range(12)]}
        for prefix, words in asked.items():
            for name, answers in (("ours", "GOOD {}"), ("theirs", "none")):
                rows = [{"prompt": f"Name a {w}.", "output": answers.format(w)} for w in words]
                write(folder / f"{prefix}{name}.jsonl", rows)
        for name, answer in (("same-ours", "GOOD iron"), ("same-theirs", "none")):
            rows = [{"id": f"a{n}", "prompt": "Name a metal.", "output": answer} for n in range(5)]
            write(folder / f"{name}.jsonl", rows)
        pairs = [{"instruction": f"Name a {word}.", "output_1": "none", "output_2": f"GOOD {word}",
                  "annotator": person, "preference": 2}
                 for word in WORDS for person in (1, 2, 3)]  # fmt: skip
        (folder / "pairs.json").write_text(json.dumps(pairs))

    def judge(self, model, url):
        return ("--judge", "openai", "--set", f"judge.with.model={model}", "--set",
                f"judge.with.url={url or self.url}", "--json")  # fmt: skip

    def call(self, model, *more, files="", run=None, url=None):
        ours, theirs = (self.folder / f"{files}{name}.jsonl" for name in ("ours", "theirs"))
        words = ("eval", ours, "--baseline", theirs, "--benchmark", "pairwise")
        words += ("--set", f"with.prompts_file={ours}", *self.judge(model, url), *more)
        words += ("--output", self.folder / (run or f"run-{model}"))
        return Call(tuple(map(str, words)), cache=str(self.folder / "cache"))

    def examine(self, model, *more):
        words = ("eval-judge", self.folder / "pairs.json", *self.judge(model, None), *more)
        return Call(tuple(map(str, words)), cache=str(self.folder / "cache"))

    def judgments(self, run):
        (file,) = self.folder.glob(f"{run}/evaluations/01-pairwise/*ours.jsonl/judgments.jsonl")
        return [json.loads(line) for line in file.read_text().splitlines()]


PRICES = ("--set", "judge.with.price_in=1", "--set", "judge.with.price_out=10")
HALF = ("--set", "min_parsed=0.5")
FEW_TRIES = ("--set", "judge.with.attempts=2")


def first_calls(desk):
    """By name; none depends on what another prints."""
    return {
        "empty": desk.call("empty", *HALF, *FEW_TRIES, *PRICES),
        "empty, later": desk.call("empty", *HALF, *FEW_TRIES, *PRICES),
        "moderated": desk.call("moderated", *HALF),
        "fallback": desk.call("fallback"),
        "fallback, fail": desk.call("fallback", *HALF, "--set", "judge.with.other_models=fail"),
        "fallback, count": desk.call("fallback", "--set", "judge.with.other_models=count",
                                     run="counted"),
        "costly": desk.call("costly", *HALF, *PRICES),
        "costly, again": desk.call("costly", *HALF, *PRICES, "--rejudge-failed"),
        "shared": desk.call("costly", *PRICES, files="same-", run="run-shared"),
        "examined": desk.examine("costly", *PRICES),
        "free": desk.call("free", *PRICES),
        "free, examined": desk.examine("free", *PRICES),
        "thinking": desk.call("thinking", files="more-"),
        "thinking, allowed": desk.call("thinking", "--set", "min_parsed=0", files="more-",
                                       run="allowed"),
        "picky": desk.call("picky"),
        "no /v1": desk.call("good", url=desk.url.replace("/v1", "/old")),
        "limit": desk.call("good", "--set", "limit=3", run="limit-a"),
        "limit, flag": desk.call("good", "--limit", "3", run="limit-b"),
        "examined, limit": desk.examine("good", "--set", "limit=3"),
        "examined, flag": desk.examine("good", "--limit", "3"),
        "examined, vote": desk.examine("good", "--set", "vote=mean"),
        "examined, thinking": desk.examine("thinking", "--set", "min_parsed=0.5"),
        "thinking, few": desk.call("thinking", "--limit", "4", run="few"),
    }  # fmt: skip


def remedy(outcome):
    """The words after `--set` in an error, as a shell takes them."""
    (words,) = re.findall(r"--set ('[^']*'|[^\s`)]+)", outcome.err.replace("\n", " "))[:1]
    return ("--set", *shlex.split(words))


def second_calls(desk, said):
    """The calls whose errors name a remedy, with the remedy pasted."""
    return {
        "thinking, mended": desk.call("thinking", *remedy(said["thinking"]), files="more-"),
        "picky, mended": desk.call("picky", *remedy(said["picky"])),
        "no /v1, mended": desk.call("good", *remedy(said["no /v1"]),
                                    url=desk.url.replace("/v1", "/old")),
    }  # fmt: skip


@pytest.fixture(scope="module")
def played(tmp_path_factory):
    """(desk, what the server was asked, outcome by name)."""
    folder, play = tmp_path_factory.mktemp("desk"), Play()
    with in_thread(play) as url:
        desk = Desk(folder, url)
        calls = first_calls(desk)
        said = dict(zip(calls, run_calls(list(calls.values())), strict=True))
        calls = second_calls(desk, said)
        said |= dict(zip(calls, run_calls(list(calls.values())), strict=True))
    return desk, play.asked, said


def row_of(outcome):
    """The row of the model that is no baseline."""
    assert outcome.status == 0, outcome.err
    (section,) = json.loads(outcome.out)
    (row,) = [row for row in section["rows"] if not row["is_baseline"]]
    return row


def win_rate(outcome):
    return row_of(outcome)["cells"]["win_rate"]["mean"]


def counts(outcome):
    found = row_of(outcome)["counts"]
    return found["judged"], found["parsed"], found["failed"]


def prompts_with_a_verdict(desk, run):
    rows = [row for row in desk.judgments(run) if row["value"] is not None]
    return len({row["index"] for row in rows})


# --- one bad question ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "tries", "words"),
    [
        ("empty", 2, "no reply in 2 attempts: a completion without choices"),
        ("moderated", 1, f"refused (403: {FLAGGED})"),
    ],
)
def test_one_question_without_reply_fails_in_its_own_words_and_the_rest_is_a_result(
    played, name, tries, words
):
    desk, asked, said = played
    assert win_rate(said[name]) == 1.0
    assert counts(said[name]) == (20, 18, 2)
    assert prompts_with_a_verdict(desk, f"run-{name}") == 9
    failed = [row for row in desk.judgments(f"run-{name}") if row["value"] is None]
    assert len(failed) == 2 and all(words in row["error"] for row in failed)
    assert sum(model == name and "poet" in text for model, text in asked) == 2 * tries
    assert sum(model == name for model, _ in asked) == 18 + 2 * tries, "nothing is asked twice"


def test_a_second_run_shows_the_same_and_asks_nobody(played):
    _, _, said = played
    assert row_of(said["empty, later"]) == row_of(said["empty"])


# --- who answered --------------------------------------------------------------------------------


def test_replies_of_a_fallback_model_stop_the_run_and_both_are_named(played):
    _, _, said = played
    assert said["fallback"].status == 1
    assert f"{FALLBACK} answered a question, and {NAMED} the greeting" in said["fallback"].err
    assert "other_models=fail" in said["fallback"].err


def test_replies_of_a_fallback_model_may_fail_and_the_named_judge_decides_alone(played):
    desk, _, said = played
    assert win_rate(said["fallback, fail"]) == 1.0
    assert counts(said["fallback, fail"]) == (20, 10, 10)
    assert prompts_with_a_verdict(desk, "run-fallback") == 5
    assert "several models answered as this judge" in said["fallback, fail"].err
    rows = desk.judgments("run-fallback")
    who = {(row["model"], row["fingerprint"], row["finish"], row["value"] is None) for row in rows}
    assert who == {(NAMED, "fp_1", "stop", False), (FALLBACK, "fp_2", "stop", True)}


def test_replies_of_a_fallback_model_count_only_by_name_in_a_table_of_their_own(played):
    _, _, said = played
    assert win_rate(said["fallback, count"]) == 0.75  # five wins, five ties of FIRST and FIRST
    (section,), (other,) = (json.loads(said[f"fallback, {x}"].out) for x in ("count", "fail"))
    assert section["judge"] == f"{NAMED} + {FALLBACK}"
    assert section["id"] != other["id"]


# --- money ---------------------------------------------------------------------------------------


def test_every_billed_reply_counts_once_with_those_asked_again_and_those_shared(played):
    _, asked, said = played
    price = (1000 * 1 + 100 * 10) / 1e6
    assert row_of(said["costly"])["cost"] == pytest.approx(20 * price)
    empty = (7 * 1 + 2 * 10) / 1e6  # no choices, and billed
    assert row_of(said["empty"])["cost"] == pytest.approx(22 * empty)
    assert row_of(said["costly, again"])["cost"] == pytest.approx(0.052)
    assert row_of(said["shared"])["cost"] == pytest.approx(0.004)
    examined = json.loads(said["examined"].out)
    billed = examined["rows"]["openai"]["Price [$/1000 examples]"] / 1000 * 10
    texts = {text for model, text in asked if model == "costly"}
    again = [w for w in WORDS if w in UNREADABLE]
    assert examined["counts"]["judged"] == 20
    assert sum(model == "costly" for model, _ in asked) == len(texts) + 2 * len(again)
    assert billed == pytest.approx(0.052), "its questions are those of the evaluation"


def test_usage_of_zero_is_an_unknown_price_everywhere(played):
    desk, _, said = played
    assert row_of(said["free"])["cost"] is None
    assert "what judging cost is unknown" in (desk.folder / "run-free/leaderboard.md").read_text()
    assert not any("usage" in row for row in desk.judgments("run-free"))
    assert "cost 0" not in said["free"].err
    rows = json.loads(said["free, examined"].out)["rows"]
    assert rows["openai"]["Price [$/1000 examples]"] is None


# --- what an error says to do --------------------------------------------------------------------


def test_a_judge_that_only_thinks_is_stopped_and_its_remedy_works_when_pasted(played):
    _, _, said = played
    assert said["thinking"].status == 1
    assert re.search(r"none of the first 20.*finish_reason: length.*with\.max_tokens",
                     said["thinking"].err)  # fmt: skip
    assert win_rate(said["thinking, mended"]) == 1.0
    few = said["thinking, few"]
    assert re.search(r"0 of 8 replies.*finish_reason: length.*with\.max_tokens=4096", few.err)
    assert "--set with.max_tokens=4096" in said["examined, thinking"].err
    row = json.loads(said["thinking, allowed"].out)[0]["rows"]
    assert {r["counts"]["failed"] for r in row if not r["is_baseline"]} == {24}


def test_the_remedy_for_a_refused_setting_works_when_pasted(played):
    _, _, said = played
    assert "--set 'judge.with.extra={temperature: null}'" in said["picky"].err
    assert win_rate(said["picky, mended"]) == 1.0


def test_an_address_without_v1_is_told_so_and_the_one_it_names_works(played):
    _, _, said = played
    assert "most servers want /v1 at the end" in said["no /v1"].err
    assert win_rate(said["no /v1, mended"]) == 1.0


# --- limit ---------------------------------------------------------------------------------------


def test_limit_means_the_first_so_many_however_it_is_written_and_wherever(played):
    _, _, said = played
    assert counts(said["limit"]) == counts(said["limit, flag"]) == (6, 6, 0)
    both = [json.loads(said[f"examined, {name}"].out) for name in ("limit", "flag")]
    assert [one["pairs"] for one in both] == [3, 3]
    assert both[0]["counts"] == both[1]["counts"] == {"judged": 6, "parsed": 6, "failed": 0}
    assert "--set vote: eval-judge has no use for it" in said["examined, vote"].err
    assert not any("unexpected" in outcome.err for outcome in said.values())
    assert math.isfinite(row_of(said["limit"])["cells"]["win_rate"]["mean"])
