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
        pytest.param(s, id=s.name, marks=() if s.name in ALWAYS else pytest.mark.grid)
        for s in SETUPS
    ]


@pytest.mark.parametrize("setup", cases())
def test_a_run_ends_by_itself_with_a_sentence(setup, tmp_path):
    assert setup.wrong(outcome_of(setup, tmp_path)) == []


STOPS = {  # what stops the first try, and how that ends
    "Ctrl-C": (send(signal.SIGINT), 130),
    "a lost worker": (send(signal.SIGKILL, rank=1), 1),
}


@pytest.mark.grid
def test_a_run_of_two_processes_that_was_stopped_ends_with_the_numbers_of_one_that_was_not(
    tmp_path,
):
    setup = Setup("", "", OFFLINE.replace("steps: 6", "steps: 20"))
    logs = {}
    for name in ("nothing", *STOPS):
        place = tmp_path / name.replace(" ", "-")
        place.mkdir()
        if name in STOPS:
            disturb, status = STOPS[name]
            first = start(setup, place, setup.words)
            when_training(disturb)([first], place)
            ended(first, 60)
            assert first.returncode == status
        last = start(setup, place, setup.words)
        ended(last, 60)
        assert last.returncode == 0
        logs[name] = next(place.glob("run/stages/*/metrics.jsonl")).read_bytes()
    assert set(logs.values()) == {logs["nothing"]}


@pytest.mark.grid
def test_several_seeds_are_trained_by_the_same_workers(tmp_path):
    measured = "evaluate:\n  - {benchmark: facts, with: {size: 4}, sampling: {max_new_tokens: 4}}\n"
    setup = Setup("", "", OFFLINE.replace("steps: 6", "steps: 2") + measured)
    process = start(setup, tmp_path, [*setup.words, "--seeds", "2"])
    _, said = ended(process, 120)
    assert process.returncode == 0, said
    for seed in (0, 1):
        assert (tmp_path / "run" / f"seed-{seed}" / "stages" / "01-sft" / "model").is_dir()
    assert (tmp_path / "run" / "seeds.md").exists()
