"""Every number that the official programs print on the reference data, from our code.

`ALIGNZOO_EVAL_DATA` names another folder of the same form (default: the shared one). An entry of
its `expected.json` that no check has looked at is a failure, so nothing is left out in silence.
"""

import json
import os
from pathlib import Path

import parity_alpaca_eval
import parity_arena_hard
import parity_human_agreement
import parity_mt_bench
import pytest
from shared_data import shared

CHECKS = {
    "alpaca_eval": parity_alpaca_eval.check,
    "arena_hard": parity_arena_hard.check,
    "human_agreement": parity_human_agreement.check,
    "mt_bench": parity_mt_bench.check,
}


def data_folder():
    named = os.environ.get("ALIGNZOO_EVAL_DATA")
    return Path(named) if named else shared("eval")


def expected():
    return json.loads((data_folder() / "expected.json").read_text(encoding="utf-8"))


def leaves(value, path=()):
    """The paths of all numbers, texts and nulls of a nested mapping; a list is one leaf."""
    if isinstance(value, dict) and value:
        return {leaf for key, inner in value.items() for leaf in leaves(inner, (*path, key))}
    return {path}


def test_every_part_of_the_reference_numbers_has_a_check():
    parts = {name for name in expected() if not name.startswith("_")}
    assert parts <= CHECKS.keys()


@pytest.mark.parametrize("part", CHECKS)
def test_the_official_numbers_are_reproduced_and_none_is_left_out(part):
    found = expected().get(part)
    if found is None:
        pytest.skip(f"the folder named by ALIGNZOO_EVAL_DATA has no {part}")
    checked = CHECKS[part](data_folder(), found)
    unchecked = leaves(found, (part,)) - set(checked)
    assert sorted(map(".".join, unchecked)) == []
