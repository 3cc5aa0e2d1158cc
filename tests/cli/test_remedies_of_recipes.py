"""What an error about a judge says to type is a key of the recipe that was run, and it helps."""

import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from alignzoo_facts.data import HeldOutPrompts
from asked_recipes import asked, recipe, write
from judge_server import MODEL, serving

GARBAGE = ("--chooses", "--share", 1, "--in-a-row", 99, "--kinds", "garbage")


class Nowhere(BaseHTTPRequestHandler):
    """Knows no address."""

    def do_GET(self):
        self.send_error(404)

    do_POST = do_GET

    def log_message(self, *_):
        pass


@pytest.fixture
def nowhere():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Nowhere)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    monkeypatch.setenv("ALIGNZOO_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.chdir(tmp_path)
    samples = list(HeldOutPrompts(12).samples(0))
    for name, rows in (
        ("prompts", [{"prompt": s.prompt} for s in samples]),
        ("theirs", [{"prompt": s.prompt, "output": f"theirs {n}"} for n, s in enumerate(samples)]),
    ):
        Path(f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def compared(judge, **more):
    """A recipe whose second block asks the judge."""
    block = {"benchmark": "pairwise", "with": {"prompts_file": "prompts.jsonl"}, "judge": judge}
    block |= {"models": ["initial"], "baseline": "theirs.jsonl", "sampling": {"max_new_tokens": 4}}
    first = {"benchmark": "facts", "with": {"size": 4}, "models": ["initial"]}
    first |= {"sampling": {"max_new_tokens": 2}}
    return {
        "name": "r",
        "model": "facts",
        "threads": 1,
        "stages": [],
        "evaluate": [first, block | more],
    }


def judge(url, **options):
    return {"name": "openai", "with": {"model": MODEL, "url": url, "attempts": 1, **options}}


def test_the_key_that_takes_any_number_of_verdicts_is_the_recipes_and_helps(cli):
    with serving(*GARBAGE) as url:
        words = write("r", compared(judge(url)))
        status, _, err = cli("run", *words)
        assert status == 1 and "none of the first 20 replies" in err
        named = re.search(r"--set (\S+min_parsed=0)", err)[1]
        assert named == "evaluate.1.min_parsed=0"
        status, _, err = cli("run", *words, "--set", named)
        assert status == 0, err


def test_too_few_verdicts_name_the_block(cli):
    with serving("--chooses", "--share", 0.5, "--kinds", "garbage") as url:
        status, _, err = cli("run", *write("r", compared(judge(url))))
    assert status == 1 and "fewer than evaluate.1.min_parsed = 0.9" in err


def test_a_wrong_address_names_the_judges_own_key(cli, nowhere):
    """In a block of judges, in one of a panel, and in a reward, whose plug-in knows none of it."""
    with serving("--chooses") as url:
        panel = [judge(url), judge(nowhere, revision="b")]
        for judges, key in ((judge(nowhere), "judge.with"), (panel, "judge.1.with")):
            status, _, err = cli("run", *write("r", compared(judges)))
            assert status == 1 and f"(--set evaluate.1.{key}.url={nowhere}/v1)" in err
        named = f"evaluate.1.judge.1.with.url={url}"
        status, _, err = cli("run", *write("r", compared(panel)), "--set", named)
        assert status == 0, err
    status, _, err = cli("run", *write("r", recipe(asked(nowhere, by="wins"))))
    assert status == 1
    assert f"(--set stages.it.rollout.reward.with.url={nowhere}/v1)" in err


def test_a_file_that_leaves_prompts_out_names_the_block(cli):
    rows = Path("theirs.jsonl").read_text().splitlines(keepends=True)
    Path("theirs.jsonl").write_text("".join(rows[1:]))
    with serving("--chooses") as url:
        status, _, err = cli("run", *write("r", compared(judge(url))))
        assert status == 1 and "--set evaluate.1.partial=true" in err
        words = write("r", compared(judge(url)))
        status, _, err = cli("run", *words, "--set", "evaluate.1.partial=true")
        assert status == 0, err
