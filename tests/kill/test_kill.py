"""Killed at any change of the file system, a run comes out as if nothing had happened.

`python benchmarks/kills.py` tries every point of every kind of stage; this is a sample.
"""

import random

import pytest
from kill_points import prepared
from kill_recipes import KINDS, leftovers, results

pytestmark = pytest.mark.slow  # runs that are killed while they write

SAMPLE = 2  # points of each kind


@pytest.fixture(scope="module", params=KINDS, ids=lambda kind: kind.replace(" ", "-"))
def place(request, tmp_path_factory):
    """A recipe of the kind, and what it gives undisturbed."""
    return prepared(request.param, tmp_path_factory.mktemp("kill"))


def test_a_run_that_is_killed_anywhere_ends_with_the_same_bytes(place):
    points = random.Random(place.kind).sample(range(1, place.changes + 1), SAMPLE)
    for point in points:
        assert place.run(f"at-{point}", point)[0] == -9
        assert place.run(f"at-{point}")[0] == 0, point
        assert results(place.folder / f"at-{point}") == place.results, point
        assert leftovers(place.folder / f"at-{point}") == [], point


def test_one_byte_changed_anywhere_is_found_or_changes_nothing(place):
    found = [place.flip(seed) for seed in range(SAMPLE)]
    assert [flip for flip in found if flip.silent] == []


def test_the_harness_sees_a_result_that_is_not_the_same(place, tmp_path):
    assert place.changes > 20
    assert place.results
    name, value = next(iter(place.results.items()))
    assert place.results | {name: value + b" "} != place.results
