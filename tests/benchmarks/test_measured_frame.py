"""What the measuring commands stand on: known loads give known figures."""

import importlib
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
BURN = "import time,sys\nwhile time.process_time() < float(sys.argv[1]): pass"
CHILD = (
    "import os,sys,time\npid = os.fork()\nwhile time.process_time() < .2: pass\npid and os.wait()"
)
FILL = "x = bytearray(200 * 10**6)\nfor i in range(0, len(x), 4096): x[i] = 1"


@pytest.fixture
def frame(monkeypatch):
    monkeypatch.syspath_prepend(BENCHMARKS)
    return importlib.import_module("measured")


def ran(frame, code, *words):
    return frame.spent([sys.executable, "-c", code, *words])


def test_the_start_of_a_process_is_taken_off_and_the_rest_is_its_work(frame):
    long, short = ran(frame, BURN, "0.7"), ran(frame, BURN, "0.2")
    assert long.cpu == pytest.approx(0.7, abs=0.1)
    assert frame.beyond(long, short).cpu == pytest.approx(0.5, abs=0.1)


def test_what_a_process_starts_counts_as_its_own(frame):
    assert ran(frame, CHILD).cpu == pytest.approx(0.4, abs=0.15)


def test_a_peak_is_that_of_the_process_and_not_of_who_measures(frame):
    held = bytearray(300 * 10**6)
    held[::4096] = b"1" * len(held[::4096])
    full, empty = ran(frame, FILL).peak, ran(frame, "pass").peak
    assert full - empty == pytest.approx(200, rel=0.03)


def test_the_last_line_of_a_process_is_what_it_says(frame):
    assert ran(frame, "print('a'); print('{\"b\": 1}')").said == {"b": 1}
    assert ran(frame, "print('[1]')").said == {}


def test_a_process_that_fails_is_no_figure(frame):
    with pytest.raises(RuntimeError, match="no good"):
        frame.spent([sys.executable, "-c", "raise SystemExit('no good')"])


def test_a_difference_that_is_lost_in_the_start_is_refused(frame):
    with pytest.raises(RuntimeError, match="take more of it"):
        frame.beyond(frame.Spent(1.0, 1.0), frame.Spent(1.1, 1.0))


def test_works_take_turns_in_both_orders(frame):
    seen = []
    works = {name: lambda name=name: seen.append(name) or frame.Spent(1, 1) for name in "ab"}
    found = frame.in_turns(works, 3)
    assert "".join(seen) == "abbaab"
    assert {name: len(some) for name, some in found.items()} == {"a": 3, "b": 3}


def test_the_middle_is_no_outlier(frame):
    found = frame.middle([frame.Spent(x, 10 - x, {"x": x}) for x in (1.0, 9.0, 2.0)])
    assert found == frame.Spent(2.0, 8.0, {"x": 2.0})


def test_a_line_says_how_well_it_fits(frame):
    exact = frame.Line.through([1, 2, 3], [5.0, 7.0, 9.0])
    assert (exact.slope, exact.start, exact.fit) == pytest.approx((2, 3, 1))
    # y = 0, 1, 0 over x = 0, 1, 2: the best line is flat and explains nothing.
    assert frame.Line.through([0, 1, 2], [0.0, 1.0, 0.0]).fit == pytest.approx(0)


@pytest.mark.parametrize(
    ("value", "at_most", "said"),
    [
        (0.4, True, "goal"),
        (0.6, True, "kept"),
        (0.7, True, "**missed**"),
        (0.4, False, "**missed**"),
    ],
)
def test_a_figure_is_told_beside_its_bar(frame, value, at_most, said):
    goal = 0.5 if at_most else 0.8
    assert frame.Bar(0.65, goal, at_most).told(value).endswith(f"({goal:g}) | {said}")
