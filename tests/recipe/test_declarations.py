"""What plug-ins declare is held against a recipe before anything is loaded."""

from __future__ import annotations

import json
import types
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import alignzoo_facts
import pytest
import torch

from alignzoo import Algorithm, PairBatch, PairSample, Role, RolloutBatch, Stage, TextBatch
from alignzoo import hookimpl as hook
from alignzoo.contract.errors import DataError, RecipeError
from alignzoo.plan import plan_recipe
from alignzoo.recipe.file import load_recipe
from alignzoo.recipe.registry import Plugin, build_registry
from alignzoo.run import run_recipe
from alignzoo.store.identity import stage_identity


class Merge(Stage):
    """Merges two models by what pairs prefer."""

    name = "merge"
    reads_models: ClassVar = {"left": Role(doc="the first"), "right": Role(doc="the second")}
    reads_data: ClassVar = (PairSample,)

    def run(self, inputs):
        assert set(inputs.models) == {"left", "right"}
        rows = [json.dumps({"prompt": sample.prompt}) for sample in inputs.data]
        (inputs.folder / "data.jsonl").write_text("\n".join(rows) + "\n")


class Dream(Merge):
    """Makes samples from nothing."""

    name = "dream"
    reads_models: ClassVar = {}
    reads_data: ClassVar = ()


class Silent(Merge):
    """A stage of the first days: it declares nothing."""

    name = "silent"
    reads_models: ClassVar = None
    reads_data: ClassVar = None

    def run(self, inputs):
        (inputs.folder / "data.jsonl").write_text('{"prompt": "p"}\n')


@dataclass(frozen=True)
class Marked(RolloutBatch):
    """Rollouts with a mark that only their author can make."""

    mark: torch.Tensor


@dataclass(frozen=True)
class MarkedPairs(PairBatch):
    """Pairs with a mark."""

    mark: torch.Tensor


class OwnBatch(Algorithm):
    """Rollouts of a kind of its own."""

    name = "own_batch"
    batch = Marked


class OwnPairs(Algorithm):
    """Pairs of a kind of its own."""

    name = "own_pairs"
    batch = MarkedPairs


class TextOnly(Algorithm):
    """Text, given or sampled."""

    name = "text_only"
    batch = TextBatch


def registry(*others):
    module = types.ModuleType("declaring")

    def register_stages():
        return [Merge, Dream, Silent]

    def register_algorithms():
        return [OwnBatch, OwnPairs, TextOnly]

    module.register_stages, module.register_algorithms = (
        hook(register_stages),
        hook(register_algorithms),
    )
    return build_registry([(module, Plugin("declaring", "dist", "1", "")), *others])


HEAD = "name: r\nmodel: m\nstages:\n"
SAMPLES = "  - {name: samples, stage: generate, data: org/prompts, samples: 2}\n"


def loaded(tmp_path, *stages):
    file = tmp_path / "recipe.yaml"
    file.write_text(HEAD + SAMPLES + "".join(f"  - {{{text}}}\n" for text in stages))
    return load_recipe(file, registry())


BOTH = "models: {left: org/a, right: org/b}"
WRONG = [
    ("stage: merge, data: org/p, models: {left: org/a}", "merge reads the model 'right'; add"),
    (f"stage: merge, data: org/p, {BOTH[:-1]}, rihgt: org/c}}", "did you mean 'right'?"),
    (f"stage: merge, {BOTH}", "is missing: merge reads PairSample"),
    (f"stage: merge, data: samples, {BOTH}", "that stage makes GroupSample, but merge reads Pair"),
    ("stage: dream, data: org/p", "dream reads no data; remove this"),
    ("stage: dream, models: {left: org/a}", "unknown model (dream reads no models)"),
]


@pytest.mark.parametrize(("text", "sentence"), WRONG)
def test_a_stage_that_gets_other_things_than_it_declares_is_refused_before_loading(
    tmp_path, text, sentence
):
    with pytest.raises(RecipeError) as caught:
        loaded(tmp_path, f"name: x, {text}")
    assert sentence in str(caught.value)


def test_a_stage_that_declares_nothing_takes_what_the_recipe_gives(tmp_path):
    recipe = loaded(tmp_path, "name: x, stage: silent, data: samples, models: {any: org/a}")
    assert recipe.stages[1].models == {"any": "org/a"}


def test_what_a_stage_reads_is_shown_by_the_plan_and_is_part_of_its_identity(tmp_path):
    recipe = loaded(tmp_path, f"name: x, stage: merge, data: org/p, {BOTH}")
    step = plan_recipe(recipe, registry(), tmp_path / "r").stages[1]
    assert step.models == {"left": "org/a", "right": "org/b", "data": "org/p"}
    manifest = stage_identity(recipe.stages[1], recipe, registry(), {}).manifest
    assert manifest["reads"] == {"models": ["left", "right"], "data": ["PairSample"]}
    plain = loaded(tmp_path, "name: x, stage: silent")
    assert "reads" not in stage_identity(plain.stages[1], plain, registry(), {}).manifest


def test_show_prints_what_a_stage_reads(cli, monkeypatch):
    from alignzoo.cli.looking import describe

    monkeypatch.setattr(describe, "load_plugins", registry)
    _, out, _ = cli("show", "merge")
    assert "reads PairSample" in out and "the second" in out
    assert "does not declare what it reads" in cli("show", "silent")[1]


def test_a_sample_of_another_kind_is_refused_by_its_place_before_the_stage_runs(
    tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    for folder in ("org/a", "org/b"):
        Path(folder).mkdir(parents=True)
    data = tmp_path / "data.jsonl"
    pair = {"prompt": "p", "chosen": "a", "rejected": "b"}
    data.write_text(json.dumps(pair) + "\n" + json.dumps({"prompt": "p"}) + "\n")
    recipe = load_recipe(_only(tmp_path, f"stage: merge, data: {data}, {BOTH}"), registry())
    from alignzoo.contract.progress import Silent as Nobody

    with pytest.raises(DataError, match=r"data\.jsonl:2: a PromptSample, but stage 'merge' reads"):
        run_recipe(recipe, "", registry(), tmp_path / "r", Nobody())
    data.write_text(json.dumps(pair) + "\n")
    run_recipe(recipe, "", registry(), tmp_path / "r", Nobody())
    assert (tmp_path / "r/stages/01-x/data.jsonl").read_text() == '{"prompt": "p"}\n'


def _only(tmp_path, text):
    file = tmp_path / "only.yaml"
    file.write_text(f"{HEAD}  - {{name: x, {text}}}\n")
    return file


@pytest.mark.parametrize(
    ("stage", "fields"),
    [
        ("algorithm: own_batch, rollout: {}", {}),
        ("algorithm: own_pairs", {"chosen": " ok .", "rejected": " well ."}),
    ],
)
def test_a_row_without_a_number_that_the_batch_class_holds_is_refused(tmp_path, stage, fields):
    from alignzoo.contract.progress import Silent as Nobody

    data = tmp_path / "data.jsonl"
    rows = [{"prompt": f"p{n}", **fields, "meta": {"mark": n} if n else {}} for n in range(3)]
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    both = registry((alignzoo_facts, Plugin("alignzoo_facts", "dist", "1", "")))
    recipe = load_recipe(_only(tmp_path, f"{stage}, data: {data}, policy: facts"), both)
    with pytest.raises(DataError, match=r"data.jsonl:1: has no number 'mark'.* batch Marked"):
        run_recipe(recipe, "", both, tmp_path / "r", Nobody())
