"""Stored values by the number of an item: what a batch of any items is filled with."""

import pytest
import torch

from alignzoo import PairBatch
from alignzoo.contract.errors import TrainingError
from alignzoo.engine.scoring.filed import filed
from alignzoo.engine.scoring.snapshots import Stored, row_key, single
from alignzoo.testing import toy_items

ITEMS = toy_items(PairBatch, 5)


def stored(items):
    """The value at position p of a row is its length and p hundredths."""
    rows = [single(item, k) for item in items for k in range(2)]
    values = {
        row_key(row, ()): len(row.rows[0]) + torch.arange(len(row.rows[0])) / 100 for row in rows
    }
    return Stored(values)


@pytest.mark.parametrize("numbers", [[0, 1, 2, 3, 4], [3, 0], [2]])
def test_rows_of_a_batch_get_their_own_values_and_nothing_behind_their_end(numbers):
    batch = PairBatch.collate([ITEMS[n] for n in numbers], 0)
    found = filed(stored(ITEMS), ITEMS, PairBatch).fill(torch.tensor(numbers), batch)
    column = torch.arange(batch.ids.shape[1])
    lengths = batch.attention.sum(-1, keepdim=True)
    assert torch.equal(found, torch.where(column < lengths, lengths + column / 100, 0.0))


def test_a_row_that_is_not_stored_stops_a_stage_before_it_trains():
    with pytest.raises(TrainingError, match="lacks a sequence; delete the cache folder"):
        filed(stored(ITEMS[:4]), ITEMS, PairBatch)
