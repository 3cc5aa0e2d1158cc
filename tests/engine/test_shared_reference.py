"""What a reference says of a sequence is computed once for all methods on the same pairs."""

from dataclasses import replace
from functools import wraps

import pytest
from alignzoo_dpo import DPO, IPO
from alignzoo_kto import KTO
from engine_jobs import job

from alignzoo import Item, PairBatch, Signal
from alignzoo.engine.train.loop import train
from alignzoo.ops import kl, label_log_prob, log_prob, watched
from alignzoo.testing import toy_items
from alignzoo.testing.toys import tiny_models

PAIRS = toy_items(PairBatch, 8, seed=3)
SEQUENCES = len({row for item in PAIRS for row in item.rows})


def labelled():
    """Both answers of every pair, each with one to another prompt."""
    others = [*PAIRS[1:], PAIRS[0]]
    return [
        Item((row, replace(row, response=other.rows[0].response)), {"desirable": 1.0 - k})
        for item, other in zip(PAIRS, others, strict=True)
        for k, row in enumerate(item.rows)
    ]


def scored(folder, algorithm, items, **changes):
    """How many sequences the reference has scored in a short training; its metrics."""
    models, rows = tiny_models(DPO()), []

    def count(module, given, named):
        rows.append(len(named.get("input_ids", named.get("inputs_embeds"))))

    models["reference"].model.register_forward_pre_hook(count, with_kwargs=True)
    changes = {"cache": folder.parent / "cache", "load": models.__getitem__} | changes
    train(job(folder, algorithm, items=items, steps=2, **changes))
    return sum(rows), (folder / "metrics.jsonl").read_bytes()


def test_sweeps_relatives_and_reversed_pairs_score_nothing_again(tmp_path):
    assert scored(tmp_path / "dpo", DPO(), PAIRS, plugin="dpo")[0] == SEQUENCES
    swapped = [replace(item, rows=item.rows[::-1]) for item in PAIRS]
    assert scored(tmp_path / "beta", DPO(beta=0.5), PAIRS, plugin="dpo")[0] == 0
    assert scored(tmp_path / "reverse", DPO(), swapped, plugin="dpo")[0] == 0
    assert scored(tmp_path / "ipo", IPO(), PAIRS, plugin="another package")[0] == 0


def test_labelled_answers_of_the_same_pairs_score_only_their_mismatched_ones(tmp_path):
    """And to the bit as if nothing had been there."""
    items = labelled()
    mismatched = len({item.rows[1] for item in items})
    alone = scored(tmp_path / "alone", KTO(), items, cache=tmp_path / "its own", plugin="kto")
    assert alone[0] == SEQUENCES + mismatched
    scored(tmp_path / "dpo", DPO(), PAIRS, plugin="dpo")
    shared = scored(tmp_path / "shared", KTO(), items, plugin="kto")
    assert shared == (mismatched, alone[1])
    assert scored(tmp_path / "again", KTO(beta=0.3), items, plugin="kto")[0] == 0


OURS = log_prob("reference")


def own(outputs, labels):
    return label_log_prob(outputs["reference"], labels)


@wraps(OURS.reduce)
def wrapped(outputs, labels):
    return OURS.reduce(outputs, labels).clamp(min=-1.0)


def doubled(outputs, labels, scratch, wanted):
    row, gradients = OURS.closed(outputs, labels, scratch, wanted)
    return 2 * row, gradients


MINE = {
    "written anew": Signal(("reference",), own, key="log_prob"),
    "watched": watched(Signal(("reference",), own, key="log_prob")),
    "another reduce": replace(OURS, reduce=own),
    "one that wraps ours": replace(OURS, reduce=wrapped),
    "another closed form": replace(OURS, closed=doubled),
    "another closed form, watched": watched(replace(OURS, closed=doubled)),
}


@pytest.mark.parametrize("mine", MINE.values(), ids=MINE)
def test_a_computation_of_a_plugin_s_own_is_shared_by_its_package_alone(tmp_path, mine):
    one, two = (job(tmp_path, plugin=name) for name in ("one", "two"))
    assert one.how(mine) != two.how(mine)
    for ours in (OURS, watched(OURS), kl("reference", "reference")):
        assert one.how(ours) == two.how(ours)
    assert replace(one, plugin="", scoring="other").how(mine) != one.how(mine)
