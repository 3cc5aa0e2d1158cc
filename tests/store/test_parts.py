"""Long work in parts: what is finished stays, what is cut or damaged is done again."""

import pytest

from alignzoo.store.parts import done_in_parts, keep_part, read_parts


def counting(done):
    def work(part):
        done.append(part)
        return {"part": part, "text": "ä\n" * part, "value": part / 3}

    return work


def test_every_part_is_worked_out_once_however_often_one_stops(tmp_path):
    whole = list(done_in_parts(tmp_path / "calm.jsonl", range(5), counting([])))
    done = []
    begun = done_in_parts(tmp_path / "state" / "a.jsonl", range(5), counting(done))
    assert [next(begun), next(begun)] == whole[:2]
    begun.close()
    assert list(done_in_parts(tmp_path / "state" / "a.jsonl", range(5), counting(done))) == whole
    assert done == [0, 1, 2, 3, 4]


def test_a_cut_line_costs_its_part_and_none_after_it(tmp_path):
    file = tmp_path / "a.jsonl"
    keep_part(file, 0, "zero")
    file.write_bytes(file.read_bytes()[:-4])
    keep_part(file, 1, "one")
    assert read_parts(file) == {1: "one"}


@pytest.mark.parametrize("bit", range(8))
def test_a_flipped_bit_is_never_taken_for_a_value(tmp_path, bit):
    file = tmp_path / "a.jsonl"
    values = {0: [0.1, 0.2], 1: "text"}
    for number, value in values.items():
        keep_part(file, number, value)
    clean = file.read_bytes()
    for place in range(len(clean)):
        flipped = bytearray(clean)
        flipped[place] ^= 1 << bit
        file.write_bytes(flipped)
        assert all(values[number] == value for number, value in read_parts(file).items())


def test_a_float_comes_back_to_the_last_bit(tmp_path):
    values = [0.1 + 0.2, 1e-310, -0.0, 2**53 + 1.0]
    keep_part(tmp_path / "a.jsonl", 0, values)
    assert [x.hex() for x in read_parts(tmp_path / "a.jsonl")[0]] == [x.hex() for x in values]
