"""Judge scores to pairs: who is chosen, how often, and what the user is told."""

import json
import types
from dataclasses import dataclass

import pytest

from alignzoo import Judge, Score, hookimpl, option
from alignzoo.contract.errors import DataError, PluginError
from alignzoo.contract.progress import Silent
from alignzoo.recipe.blocks import Recipe
from alignzoo.recipe.registry import Plugin, build_registry
from alignzoo.stages.context import StageContext
from alignzoo.stages.label import run_label


@dataclass(frozen=True)
class Length(Judge):
    """The longer, the better."""

    name = "length"
    broken: bool = option(False, "return too few scores")

    def score(self, answers):
        return [Score(float(a.n_tokens)) for a in answers][: -1 if self.broken else None]


class Notes(Silent):
    def __init__(self):
        self.texts = []

    def note(self, text):
        self.texts.append(text)


def label(tmp_path, groups, **changes):
    """Run the stage on groups of texts; returns the pairs and what was said."""
    module = types.ModuleType("judges")

    def register_judges():
        return [Length]

    module.register_judges = hookimpl(register_judges)
    registry = build_registry([(module, Plugin("judges", "dist", "1", ""))])
    source = tmp_path / "groups.jsonl"
    rows = [{"prompt": "p", "responses": list(texts)} for texts in groups]
    source.write_text("".join(json.dumps(row) + "\n" for row in rows))
    block = {"name": "l", "stage": "label", "data": {"name": str(source)}, "judge": "length"}
    recipe = Recipe.model_validate({"name": "r", "model": "m", "stages": [block | changes]})
    folder = tmp_path / "stage"
    folder.mkdir(exist_ok=True)
    notes = Notes()
    context = StageContext(recipe, registry, tmp_path, folder, "l", 1, 1, {}, notes)
    run_label(recipe.stages[0], context)
    pairs = [json.loads(line) for line in (folder / "data.jsonl").read_text().splitlines()]
    return pairs, notes.texts


def texts(pair):
    values = (pair["chosen"], pair["rejected"])
    return tuple(v["text"] if isinstance(v, dict) else v for v in values)


def test_ties_are_dropped_and_counted(tmp_path):
    pairs, said = label(tmp_path, [("x", "x y"), ("a", "b")])
    assert [texts(pair) for pair in pairs] == [("x y", "x")]
    assert "pairs 1, ties 1, length_chosen 2, length_rejected 1" in said[1]


def test_a_length_gap_of_the_pairs_is_told(tmp_path):
    _, said = label(tmp_path, [("x", "x y")])
    assert any("chosen answers have 2.0 tokens, rejected 1.0" in text for text in said)
    _, said = label(tmp_path, [("x " * 21, "x " * 20)])
    assert len(said) == 2 and not any("chosen answers" in text for text in said)


def test_equal_seeds_give_equal_pairs(tmp_path):
    groups = [("x", "y z"), ("a b", "c")] * 10
    first, _ = label(tmp_path, groups, choose="bradley_terry")
    assert label(tmp_path, groups, choose="bradley_terry")[0] == first
    assert len({texts(pair) for pair in first}) > 2  # drawn, not always the better one


def test_scores_travel_with_the_pair(tmp_path):
    pairs, _ = label(tmp_path, [("x", "x y")])
    assert pairs[0]["meta"] == {"score_chosen": 2.0, "score_rejected": 1.0}


def test_nothing_but_ties_is_an_error(tmp_path):
    with pytest.raises(DataError, match="1 ties and no pair"):
        label(tmp_path, [("a", "b")])


def test_single_answers_are_an_error_that_says_what_to_do(tmp_path):
    with pytest.raises(DataError, match="samples: 2 or more"):
        label(tmp_path, [("a",)])


def test_a_judge_that_miscounts_is_named(tmp_path):
    with pytest.raises(PluginError, match="judge 'length' must return one finite score"):
        label(tmp_path, [("a", "b c")], **{"with": {"broken": True}})
