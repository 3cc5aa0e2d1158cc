"""A server that fails in every way it can, and a runner that is killed: nothing is lost.

    python tests/judging/test_judging_faults.py URL N [again]

is the runner: it puts N questions to the server through the `openai` judge.
"""

import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import judge_server
import pytest
from alignzoo_judges.endpoint import Endpoint
from judge_server import KINDS, MODEL, key_of, serving, stats_of
from judging_parts import Grades, question

from alignzoo.judging import Patience, Spent, ask, open_journal, read

CONCURRENCY = 8
KILLS = 5
ROWS = 600
SHARE = 0.3


def endpoint(url):
    """The judge as a user writes it, with a time limit that stalls exceed."""
    return Endpoint(
        model=MODEL, url=url, timeout=3, concurrency=CONCURRENCY, price_in=1.0, price_out=2.0
    )


def some(n):
    """n questions, anew each time."""
    return lambda: (question(i, f"Question {i}. " + "An answer of some length. " * 20)
                    for i in range(n))  # fmt: skip


def put(url, n, again=False):
    """Ask once, quickly; returns the last standing."""
    told = []
    judge = endpoint(url)
    with open_journal(judge) as journal:
        ask(Grades(), judge, some(n), journal, again=again, report=told.append,
            patience=Patience(0.02, 0.1))  # fmt: skip
    return told[-1]


def judged(url, n):
    """Every question's verdict, and what the replies cost."""
    judge, spent = endpoint(url), Spent()
    values = []
    with open_journal(judge) as journal:
        for one in read(Grades(), some(n)(), journal):
            spent = spent.plus(one.replies, judge)
            values.append(one.verdict)
        assert journal.damaged == 0
    return values, spent


def replies_kept(url):
    """How many lines with a reply each question has."""
    with open_journal(endpoint(url)) as journal:
        lines = [line for path in journal.folder.glob("*.jsonl") for line in path.open("rb")]
    assert lines
    return Counter(line[8:72] for line in lines if line.startswith(b'{"key":"'))


@pytest.fixture
def cache(monkeypatch, tmp_path):
    """Take a cache of this name for what follows, also in other processes."""
    return lambda name: monkeypatch.setenv("ALIGNZOO_CACHE", str(tmp_path / name))


def without_faults(cache, n):
    cache("sound")
    with serving() as url:
        assert put(url, n).failed == 0
        return judged(url, n)


@pytest.mark.parametrize(
    "kind", [pytest.param(k, marks=[pytest.mark.slow] * (k == "stall")) for k in KINDS]
)
def test_one_kind_of_failure_changes_nothing(cache, kind):
    expected = without_faults(cache, 40)
    cache(kind)
    with serving("--share", 0.5, "--kinds", kind, "--stall", 5, "--seed", 3) as url:
        first = put(url, 40)
        repaired = put(url, 40, again=True)
        while repaired.failed:  # garbage more than once
            repaired = put(url, 40, again=True)
        stats = stats_of(url)
        assert judged(url, 40) == expected
    assert stats["met"][kind] >= 5
    assert (first.failed > 0) == (kind == "garbage")
    asked = [key_of(q.messages) for q in some(40)()]
    assert all(stats["delivered"][key] == 1 for key in asked)
    assert stats["most_at_once"] <= CONCURRENCY


def delivered(url):
    return sum(stats_of(url)["delivered"].values())


def killed_runner(url, n, after, again=()):
    """Start the runner and kill it once the server has delivered so many replies."""
    paths = filter(None, [str(Path(judge_server.__file__).parent), os.environ.get("PYTHONPATH")])
    env = os.environ | {"PYTHONPATH": os.pathsep.join(paths)}
    process = subprocess.Popen([sys.executable, __file__, url, str(n), *again], env=env)
    while delivered(url) < after and process.poll() is None:
        time.sleep(0.002)
    time.sleep(random.random() / 20)
    process.send_signal(signal.SIGKILL)
    return process.wait()


@pytest.mark.slow
def test_five_kills_and_thirty_percent_of_faults_change_nothing(cache):
    expected = without_faults(cache, ROWS)
    cache("faulty")
    options = ("--share", SHARE, "--stall", 5, "--delay", 0.01, "--seed", 1)
    with serving(*options) as url:
        moments = sorted(random.sample(range(5, int(ROWS * 0.85)), KILLS))
        ended = [killed_runner(url, ROWS, moment) for moment in moments]
        assert ended.count(-signal.SIGKILL) == KILLS
        last = put(url, ROWS)
        assert (last.done, last.total) == (ROWS, ROWS)
        while last.failed:
            last = put(url, ROWS, again=True)
        values, _ = judged(url, ROWS)
        stats, kept = stats_of(url), replies_kept(url)
    assert values == expected[0]
    asked = [q for q in some(ROWS)()]
    repeated = sum(stats["delivered"][key_of(q.messages)] - 1 for q in asked)
    unread = sum(stats["garbage"].values())
    print(f"kills at {moments}: {repeated} replies paid for twice, {unread} unreadable")
    assert 0 <= repeated <= KILLS * CONCURRENCY  # those in flight when it was killed
    assert unread > 0
    assert all(kept[q.digest.encode()] >= 1 for q in asked)
    lost = unread + sum(stats["delivered"].values()) - sum(kept.values())
    assert lost <= KILLS * CONCURRENCY + 2 * (KILLS + 2)  # two probes per process leave no line
    assert {kind: stats["met"][kind] > 5 for kind in KINDS} == dict.fromkeys(KINDS, True)
    assert stats["most_at_once"] <= CONCURRENCY


if __name__ == "__main__":
    put(sys.argv[1], int(sys.argv[2]), again="again" in sys.argv)
