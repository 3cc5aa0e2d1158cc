"""Parts that several ranks share out: each is worked out once, and all ranks get the same."""

import pytest
from thread_ranks import on_ranks

from alignzoo.store.parts import done_in_parts, keep_part, read_parts


@pytest.mark.parametrize(("size", "parts"), [(2, 6), (2, 5), (3, 2), (3, 1), (2, 0), (1, 4)])
def test_ranks_take_turns_and_all_get_every_value(tmp_path, size, parts):
    file = tmp_path / "state" / "a.jsonl"
    done = [[] for _ in range(size)]

    def work(crew):
        def value(part):
            done[crew.rank].append(part)
            return part / 3

        return list(done_in_parts(file, range(parts), value, crew))

    assert on_ranks(size, work) == [[part / 3 for part in range(parts)]] * size
    assert done == [list(range(rank, parts, size)) for rank in range(size)]
    assert read_parts(file) == {part: part / 3 for part in range(parts)}


@pytest.mark.parametrize(("before", "after"), [(1, 2), (3, 1), (2, 3)])
def test_another_number_of_ranks_goes_on_from_what_is_kept(tmp_path, before, after):
    file = tmp_path / "state" / "a.jsonl"
    worked = []

    def some(crew):
        begun = done_in_parts(file, range(9), lambda part: part * 0.1, crew)
        return [next(begun) for _ in range(4)]

    def rest(crew):
        def value(part):
            worked.append(part)
            return part * 0.1

        return list(done_in_parts(file, range(9), value, crew))

    on_ranks(before, some)
    kept = set(read_parts(file))
    assert 4 <= len(kept) < 9
    assert on_ranks(after, rest) == [[part * 0.1 for part in range(9)]] * after
    assert sorted(worked) == sorted(set(range(9)) - kept)


def test_a_part_that_is_missing_in_the_middle_is_the_only_one_worked_out(tmp_path):
    file = tmp_path / "a.jsonl"
    for part in (0, 1, 3, 4):
        keep_part(file, part, part)
    worked = []

    def work(crew):
        return list(done_in_parts(file, range(5), lambda part: worked.append(part) or part, crew))

    assert on_ranks(3, work) == [[0, 1, 2, 3, 4]] * 3
    assert worked == [2]
