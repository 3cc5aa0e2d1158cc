"""Models that only a plug-in or a far hub knew: the last look, before a number is made."""

import pytest

from alignzoo.contract.errors import TrainingError
from alignzoo.contract.types import Item, TextBatch, Tokens
from alignzoo.engine.scoring.fused import Fused
from alignzoo.engine.scoring.rows import dense
from alignzoo.engine.scoring.scorer import ScoringModule
from alignzoo.ops import kl, log_prob
from alignzoo.testing.toys import tiny_model


def read(signal, ids, scorer=dense):
    models = {"policy": tiny_model(vocabulary=13), "other": tiny_model(vocabulary=9)}
    batch = TextBatch.collate([Item((Tokens(ids[:2], ids[2:]),))], 1)
    return ScoringModule(models, frozenset(), scorer)(batch, {"signal": signal})["signal"]


def test_a_row_that_one_of_the_models_cannot_read_is_refused_with_both_numbers():
    assert read(log_prob("policy"), (2, 3, 12, 1)).shape == (1, 4)
    with pytest.raises(TrainingError, match="holds id 12, but the embedding of 'other' has 9 rows"):
        read(log_prob("other"), (2, 3, 12, 1))


@pytest.mark.parametrize("scorer", [dense, Fused()])
def test_distributions_over_two_vocabularies_are_not_compared(scorer):
    assert read(kl("policy", "policy"), (2, 3, 8, 1), scorer).abs().max() == 0
    what = "'policy' has 13 entries and 'other' has 9 entries"
    with pytest.raises(TrainingError, match=what):
        read(kl("policy", "other"), (2, 3, 8, 1), scorer)
