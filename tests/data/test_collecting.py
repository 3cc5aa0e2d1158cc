"""Rows are read without the garbage collector, which is on again afterwards whatever happened."""

import gc

import pytest

from alignzoo.contract.errors import DataError
from alignzoo.data import samples
from alignzoo.data.samples import DataSource, load_samples


def test_rows_are_read_without_it(tmp_path, monkeypatch):
    seen, read = [], samples.read_row
    monkeypatch.setattr(samples, "read_row", lambda row: seen.append(gc.isenabled()) or read(row))
    file = tmp_path / "d.jsonl"
    file.write_text('{"prompt": "a", "response": "b"}\n')
    assert len(load_samples(DataSource(str(file))).samples) == 1
    assert seen == [False]
    assert gc.isenabled()


def test_it_is_on_again_after_an_error_and_stays_off_where_it_was(tmp_path):
    with pytest.raises(DataError):
        load_samples(DataSource(str(tmp_path / "none.jsonl")))
    assert gc.isenabled()
    gc.disable()
    try:
        with pytest.raises(DataError):
            load_samples(DataSource(str(tmp_path / "none.jsonl")))
        assert not gc.isenabled()
    finally:
        gc.enable()
