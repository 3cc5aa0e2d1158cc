"""Bad outputs, files, options, judges and results of evaluations: one sentence, never a traceback.

All cases run in one process; the judge is a function, so that nothing waits for a network.
"""

import json
import re
import shutil

import pytest
from cli_process import Call, run_calls

pytestmark = pytest.mark.slow  # a process that imports torch

N = 4
DEEP = b"[" * 100_000


def lines(*rows):
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


OURS = [{"prompt": f"question {i}", "output": f"answer {i}"} for i in range(N)]
THEIRS = [{"prompt": f"question {i}", "output": f"another answer {i}"} for i in range(N)]
PROMPTS = [{"prompt": f"question {i}"} for i in range(N)]

OUTPUTS = {  # what -> (bytes of the file, what a user must read; None: it is judged)
    "a count too large for a mean": (lines({**OURS[0], "n_tokens": 10**400}, *OURS[1:]), None),
    "half a character in a reply": (
        lines(*({"question_id": i + 1, "choices": [{"turns": [f"\ud800{i}"]}]} for i in range(N))),
        "half a character",
    ),
    "nested too deep": (DEEP, ":1: not JSON"),
    "two answers to one prompt": (lines(*OURS, OURS[0]), "answers the same prompt as"),
    "answers that are no texts": (lines({**OURS[0], "output": 3}), "output is a number"),
    "no answer at all": (b"", "has no answers"),
}
PROMPT_FILES = {
    "later turns that are no list": (lines({**PROMPTS[0], "meta": {"turns": 5}}), None),
    "half a character in the meta": (lines({**PROMPTS[0], "category": "\ud800"}), None),
}
FUNCTIONS = {
    "that ends the process": ("import sys\ndef score(p, a): sys.exit(0)", "in score: SystemExit"),
    "that ends it on import": ("raise SystemExit(0)", "on import: SystemExit"),
    "too large for a float": ("def score(p, a): return 10**400", "score returned '1000"),
}
OPTIONS = {
    "a seed below 0": (["--seed", "-1"], "Invalid value for '--seed'"),
    "a limit beyond all counts": (["--limit", "9" * 21], "--set limit: must be less than"),
    "a baseline twice": (["--set", "baseline=x"], "--set baseline: give this as --baseline"),
    "models twice": (["--set", "models=[]"], "--set models: give this as targets"),
    "a value of brackets": (["--set", "with.template=" + "[" * 5000], "no readable template"),
    "sampling of files": (["--set", "sampling.top_p=0.5"], "every target is a file of outputs"),
    "bytes that are no text": (["--set", "with.orders=\udce9"], "half a character"),
    "a judge that holds itself": (["--judge", "{name: &a [*a]}"], "holds itself"),
    "a judge with an impossible date": (["--judge", "{name: 2020-13-45}"], "--judge .* not YAML"),
    "options for one of two judges": (
        ["--judge", "function", "--judge", "function", "--set", "judge.with.path=x.py:f"],
        "'judge' is there several times; write each as --judge",
    ),
    "a key where its variable belongs": (
        ["--judge", "{name: openai, with: {model: m, key_variable: sk-SECRET}}"],
        "the NAME of an environment variable",
    ),
    "a port that is none": (
        ["--judge", "{name: openai, with: {model: m, url: 'http://h:99999/v1'}}"],
        "is no address such as",
    ),
}
HAS_A_JUDGE = {what for what, (words, _) in OPTIONS.items() if "--judge" in words}


class Desk:
    """Files of two models and a judge, and command lines about them."""

    def __init__(self, folder):
        self.folder = folder
        self.write("ours.jsonl", lines(*OURS))
        self.write("theirs.jsonl", lines(*THEIRS))
        self.write("prompts.jsonl", lines(*PROMPTS))
        self.write("judge.py", b"def score(prompt, answer):\n    return len(answer)\n")
        self.runs = 0

    def write(self, name, content):
        (self.folder / name).write_bytes(content)
        return str(self.folder / name)

    def call(self, *more, ours="ours.jsonl", prompts="prompts.jsonl", judge="judge.py"):
        self.runs += 1
        path = f"judge.with.path={self.folder}/{judge}:score"
        chosen = ("--judge", "function", "--set", path) if judge else ()
        words = ("eval", self.folder / ours, "--baseline", self.folder / "theirs.jsonl")
        words += ("--benchmark", "pairwise", "--output", self.folder / f"run-{self.runs}")
        words += ("--set", f"with.prompts_file={self.folder / prompts}", *chosen, *more)
        return Call(tuple(map(str, words)), cache=str(self.folder / "cache"))


def cases(desk):
    """(what, command line, what must be read; None: it works)."""
    for n, (what, (content, says)) in enumerate(OUTPUTS.items()):
        desk.write(f"o{n}.jsonl", content)
        yield f"outputs: {what}", desk.call(ours=f"o{n}.jsonl"), says
    for n, (what, (content, says)) in enumerate(PROMPT_FILES.items()):
        desk.write(f"p{n}.jsonl", content)
        yield f"prompts: {what}", desk.call(prompts=f"p{n}.jsonl"), says
    for n, (what, (source, says)) in enumerate(FUNCTIONS.items()):
        desk.write(f"f{n}.py", source.encode())
        yield f"a function {what}", desk.call(judge=f"f{n}.py"), says
    for what, (words, says) in OPTIONS.items():
        yield what, desk.call(*words, judge=None if what in HAS_A_JUDGE else "judge.py"), says
    replies = ({"id": f"{i}/{j}", "scores": [1.0]} for i in range(N) for j in (1, 2))
    path = desk.write("replies.jsonl", lines(*replies))
    replay = f"{{name: replay, with: {{path: '{path}'}}}}"
    yield "one score for two answers", desk.call("--judge", replay, judge=None), "0 of 8 replies"
    yield "a missing file", desk.call(ours="nope.jsonl"), r"nope\.jsonl: no such file"
    yield "a missing file, dry", desk.call("--dry-run", ours="nope.jsonl"), "no such file"


def others(desk):
    """Calls whose outcome has a test of its own, by name."""
    desk.write("loud.py", b"def score(p, a):\n    print('hello')\n    return len(a)\n")
    rows = ({**row, "category": f"c{n % 2}"} for n, row in enumerate(PROMPTS))
    desk.write("sorted.jsonl", lines(*rows))
    arena = ("eval", "x", "--benchmark", "arena_hard", "--set", "with.revision=2025")
    return {
        "loud": desk.call("--json", judge="loud.py"),
        "dry": desk.call("--json", "--dry-run"),
        "sorted": desk.call("--output", str(desk.folder / "finished"), prompts="sorted.jsonl"),
        "arena": Call((*arena, "--judge", "function")),
        "vote": desk.call("--set", "vote=3"),
    }


@pytest.fixture(scope="module")
def everything(tmp_path_factory):
    """(folder, outcome of every case, of every other call), from one process."""
    desk = Desk(tmp_path_factory.mktemp("desk"))
    tried, more = list(cases(desk)), others(desk)
    ended = iter(run_calls([*(call for _, call, _ in tried), *more.values()]))
    found = {what: (says, next(ended)) for what, _, says in tried}
    return desk.folder, found, {name: next(ended) for name in more}


@pytest.fixture
def outcomes(everything):
    """What -> (what must be read, outcome)."""
    return everything[1]


def test_bad_input_is_a_sentence_that_names_it(outcomes):
    wrong = {
        what: (end.status, end.err[-300:])
        for what, (says, end) in outcomes.items()
        if says and (end.status == 0 or not re.search(says, end.err))
    }
    assert wrong == {}


def test_odd_input_that_can_be_judged_is_judged(outcomes):
    wrong = {
        what: end.err[-300:] for what, (says, end) in outcomes.items() if not says and end.status
    }
    assert wrong == {}


def test_nothing_is_unexpected_and_no_key_is_printed(outcomes):
    for what, (_, end) in outcomes.items():
        said = end.out + end.err
        assert not re.search("unexpected|Traceback|sk-SECRET", said), what


# --- what goes to the standard output --------------------------------------------------------


def test_json_is_all_that_is_printed_whatever_a_judge_prints(everything):
    loud, dry = everything[2]["loud"], everything[2]["dry"]
    assert json.loads(loud.out)[0]["benchmark"] == "pairwise"
    assert "hello" in loud.err
    assert [m["questions"] for m in json.loads(dry.out)["models"]] == ["8"]


def test_a_number_is_taken_as_text_where_an_option_is_text(everything):
    assert "judge.with.path: is missing" in everything[2]["arena"].err
    assert "revision" not in everything[2]["arena"].err
    assert "vote: must be 'mean' or 'majority'" in everything[2]["vote"].err


# --- damaged results ---------------------------------------------------------------------------


def edited(**changes):
    def edit(text):
        return "".join(json.dumps(json.loads(row) | changes) + "\n" for row in text.splitlines())

    return edit


def cells(**changes):
    def edit(text):
        rows = map(json.loads, text.splitlines())
        for row in (rows := list(rows)):
            row["columns"] = {name: cell | changes for name, cell in row["columns"].items()}
        return "".join(json.dumps(row) + "\n" for row in rows)

    return edit


DAMAGE = {  # what -> (file, edit of its text)
    "no results": ("scores.jsonl", lambda text: ""),
    "a board nested too deep": ("scores.jsonl", lambda text: DEEP.decode()),
    "a model that is a number": ("scores.jsonl", edited(model=5)),
    "prompts that are a text": ("scores.jsonl", edited(prompts="many")),
    "prompts below 0": ("scores.jsonl", edited(prompts=-5)),
    "options that are none": ("scores.jsonl", edited(options=None)),
    "a cost that is a text": ("scores.jsonl", edited(cost="x")),
    "a mean beyond floats": ("scores.jsonl", cells(mean=10**400)),
    "a direction that is none": ("scores.jsonl", cells(better=5)),
    "a meaning that is a number": ("scores.jsonl", cells(doc=5)),
    "answers without one": ("answers.jsonl", edited(responses=[])),
    "answers with odd scores": ("answers.jsonl", edited(scores=["x"])),
    "a verdict beyond floats": ("judgments.jsonl", edited(value=10**400)),
    "values that are no numbers": ("scores.json", edited(values={"win_rate": ["x"] * N})),
    "a section that is a list": ("scores.json", edited(section=[1])),
}


@pytest.fixture
def finished(everything):
    """The folder of a finished evaluation with a category of each prompt."""
    folder, _, more = everything
    assert more["sorted"].status == 0, more["sorted"].err
    return folder / "finished"


def copied(finished, to, file, edit):
    shutil.copytree(finished, to)
    (path,) = [p for p in to.rglob(file) if p.parent == to or "ours" in p.parent.name]
    text = path.read_text(encoding="utf-8")
    path.write_text(edit(json.dumps(json.loads(text)) if path.suffix == ".json" else text))
    return to


def test_a_damaged_run_is_a_sentence_and_a_damaged_record_of_it_no_matter(finished, tmp_path):
    damaged = {
        what: copied(finished, tmp_path / f"run-{n}", file, edit)
        for n, (what, (file, edit)) in enumerate(DAMAGE.items())
    }
    odd = copied(finished, tmp_path / "odd", "run.json", edited(versions=5))
    cut = copied(finished, tmp_path / "cut", "run.json", lambda text: DEEP.decode())
    (cut / "recipe.yaml").write_bytes(b"\xff\xfe")
    page = str(tmp_path / "page.html")
    folders = [*damaged.values(), odd, cut]
    *ended, one, other = run_calls([Call(("leaderboard", str(f), "--html", page)) for f in folders])
    wrong = {
        what: (end.status, end.err)
        for what, end in zip(damaged, ended, strict=True)
        if end.status != 1 or not re.search("damaged|has no results", end.err)
    }
    assert wrong == {}
    assert (one.status, other.status) == (0, 0)
