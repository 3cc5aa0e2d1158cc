"""A study on two real processes says what one says, and says it once."""

import json
import resource

import pytest
from study_files import FACTS, STUDY
from two_ranks import launched

from alignzoo.studies.runs import add_seconds, seconds_of

LEAST = {"size: 64": "size: 16", "steps: 6": "steps: 2", "steps: 8, epochs: 8": "steps: 2"}


def of_children():
    """CPU seconds of all processes that were waited for, the launcher's included."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


@pytest.mark.slow  # two processes
def test_two_processes_fold_a_study_once_and_as_one_does(tmp_path, cli, monkeypatch):
    monkeypatch.setenv("ALIGNZOO_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    recipe = FACTS
    for long, short in LEAST.items():
        assert long in recipe
        recipe = recipe.replace(long, short)
    (tmp_path / "world.yaml").write_text(recipe)
    (tmp_path / "study.yaml").write_text(STUDY)
    words = ("reproduce", "study.yaml", "--quick", "--output")
    before = of_children()
    done = launched(2, *words, "two", OMP_NUM_THREADS="1")
    took = of_children() - before
    assert done.returncode == 0, done.stderr
    for line in ("seed 3 (1 of 1)", "DPO beats what it starts from", "small-facts.json"):
        assert done.stdout.count(line) == 1, done.stdout
    clock = json.loads((tmp_path / "two/facts/world/seed-3.cpu.json").read_text())
    monkeypatch.setenv("ALIGNZOO_CACHE", str(tmp_path / "other"))
    status, _, err = cli(*words, "one")
    assert status == 0, err
    one, two = (json.loads((tmp_path / n / "small-facts.json").read_text()) for n in ("one", "two"))
    assert took > clock["cpu_seconds"] == two["seeds"][0]["cpu_seconds"] > 0.2 * took
    for left, right in zip(one["figures"], two["figures"], strict=True):
        assert left == right | {"mean": left["mean"], "half": left["half"], "seeds": left["seeds"]}
        assert right["mean"] == pytest.approx(left["mean"], abs=1e-4)
    verdicts = [[(x["says"], x["verdict"]) for x in found["verdicts"]] for found in (one, two)]
    assert verdicts[0] == verdicts[1] and len(verdicts[0]) == 2
    for key in ("rows", "notes"):
        assert one[key] == two[key]


def test_what_a_sitting_took_is_unknown_for_good_once_it_is_not_known(tmp_path):
    folder = tmp_path / "seed-3"
    add_seconds(folder, 2.0, whole=True)
    add_seconds(folder, 1.5, whole=False)
    assert seconds_of([folder]) == 3.5
    add_seconds(folder, None, whole=False)
    add_seconds(folder, 4.0, whole=False)
    assert seconds_of([folder]) is None
