"""Real runs of several processes: whatever goes wrong, they end together and say why."""

import signal

import pytest
from hang_setups import SETUPS
from hangs import OFFLINE, Setup, ended, outcome_of, send, start, when_training

# Each costs two starts of Python with torch; the others are marked slow.
ALWAYS = {
    "unequal lengths",
    "an error in the loss of one",
    "SIGKILL of one",
    "SIGSTOP of one",
    "two machines, an error on the second",
}


def cases():
    return [
        pytest.param(s, id=s.name, marks=() if s.name in ALWAYS else pytest.mark.slow)
        for s in SETUPS
    ]


@pytest.mark.parametrize("setup", cases())
def test_a_run_ends_by_itself_with_a_sentence(setup, tmp_path):
    assert setup.wrong(outcome_of(setup, tmp_path)) == []


@pytest.mark.slow
def test_a_run_of_two_processes_that_was_interrupted_ends_with_the_numbers_of_one_that_was_not(
    tmp_path,
):
    setup = Setup("", "", OFFLINE.replace("steps: 6", "steps: 12"))
    logs = {}
    for name, disturbed in (("whole", False), ("again", True)):
        place = tmp_path / name
        place.mkdir()
        if disturbed:
            first = start(setup, place, setup.words)
            when_training(send(signal.SIGINT))([first], place)
            ended(first, 60)
            assert first.returncode == 130
        last = start(setup, place, setup.words)
        ended(last, 60)
        assert last.returncode == 0
        logs[name] = next(place.glob("run/stages/*/metrics.jsonl")).read_bytes()
    assert logs["whole"] == logs["again"]
