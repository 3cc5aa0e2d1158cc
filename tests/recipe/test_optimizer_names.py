"""`train.optimizer` names an optimiser of torch; its options are checked before anything loads."""

import pytest
import torch
import yaml

from alignzoo.contract.errors import RecipeError
from alignzoo.engine.layout.optim import Optim, build_optimizer
from alignzoo.recipe.file import load_recipe
from alignzoo.recipe.optimizing import OPTIMIZERS, engine_values, is_usual, refused
from alignzoo.recipe.registry import load_plugins
from alignzoo.recipe.spec import OptimSpec
from alignzoo.store.folders import resolved

RECIPE = """
name: p
model: facts
parallel: {strategy: STRATEGY}
stages:
  - {name: sft, algorithm: sft, data: {name: facts.sft, with: {size: 40}}, train: {TRAIN}}
"""
HELD = """
name: p
model: facts
stages:
  - name: sft
    algorithm: sft
    data: {name: facts.sft, with: {size: 40}}
    validation: {data: {name: facts.sft, with: {size: 8}}, every: 10, patience: 3}
    train: {steps: STEPS}
"""


def load(folder, train, strategy="ddp"):
    file = folder / "recipe.yaml"
    file.write_text(RECIPE.replace("STRATEGY", strategy).replace("TRAIN", train))
    return load_recipe(file, load_plugins())


def built(recipe):
    optim = Optim(**engine_values(recipe.stages[0].train))
    return build_optimizer(optim, {"policy": torch.nn.Linear(2, 2)})


def test_the_default_is_adamw_with_the_numbers_it_had(tmp_path):
    made = built(load(tmp_path, "lr: 1e-3"))
    assert type(made) is torch.optim.AdamW
    group = made.param_groups[0]
    assert group["betas"] == (0.9, 0.95)
    assert (group["eps"], group["weight_decay"], group["lr"]) == (1e-8, 0.0, 1e-3)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_name_builds_its_class_with_torchs_own_defaults(tmp_path, name):
    made = built(load(tmp_path, f"lr: 1e-3, optimizer: {name}"))
    kind = getattr(torch.optim, OPTIMIZERS[name][0])
    assert type(made) is kind
    if name != "adamw":
        plain = kind([torch.nn.Parameter(torch.zeros(1))], lr=1e-3).defaults
        assert {key: made.param_groups[0][key] for key in plain} == plain


def test_options_reach_the_optimiser(tmp_path):
    text = "lr: 1e-3, weight_decay: 0.1, optimizer: {name: sgd, with: {momentum: 0.9}}"
    group = built(load(tmp_path, text)).param_groups[0]
    assert (group["momentum"], group["weight_decay"]) == (0.9, 0.1)
    group = built(load(tmp_path, "optimizer: adam, betas: [0.8, 0.9]")).param_groups[0]
    assert tuple(group["betas"]) == (0.8, 0.9)


@pytest.mark.parametrize(
    ("train", "words"),
    [
        ("optimizer: muon", r"train\.optimizer: must be 'adamw', "),
        ("optimizer: sdg", "did you mean 'sgd'"),
        ("optimizer: {name: sgd, with: {momentm: 0.9}}", "momentm: unknown option; did you mean"),
        ("optimizer: {name: sgd, with: {nesterov: true}}", "sgd refuses its options: Nesterov"),
        ("optimizer: {name: sgd, with: {momentum: much}}", "sgd refuses its options"),
        ("optimizer: {name: sgd, with: {lr: 1}}", r"lr: unknown option; it stands in `train`"),
        ("optimizer: sgd, betas: [0.9, 0.9]", r"train\.betas: sgd takes none; remove it"),
        ("optimizer: adafactor, eps: 1e-3", r"train\.eps: adafactor takes none"),
        ("betas: [0.9, 1.5]", "adamw refuses its options: Invalid beta parameter"),
    ],
)
def test_what_an_optimiser_does_not_take_is_named(tmp_path, train, words):
    with pytest.raises(RecipeError, match=words):
        load(tmp_path, train)


@pytest.mark.parametrize(
    ("train", "strategy", "words"),
    [
        ("optimizer: sgd", "zero2", "sgd is not tried under zero2; take adamw, or ddp"),
        ("optimizer: adafactor", "fsdp2", "adafactor is not tried under fsdp2"),
        ("optimizer: {name: adamw, with: {amsgrad: true}}", "zero3", "options are not tried"),
    ],
)
def test_a_strategy_that_an_optimiser_was_not_tried_under_is_refused(
    tmp_path, train, strategy, words
):
    with pytest.raises(RecipeError, match=words):
        load(tmp_path, train, strategy)


@pytest.mark.parametrize("train", ["lr: 1e-3", "optimizer: sgd", "optimizer: adafactor"])
def test_the_recipe_that_a_run_keeps_can_be_run_again(tmp_path, train):
    recipe = load(tmp_path, train)
    again = tmp_path / "again.yaml"
    again.write_text(yaml.safe_dump(resolved(recipe)))
    assert load_recipe(again, load_plugins()) == recipe


def test_patience_that_outlasts_the_steps_is_refused_with_both_numbers(tmp_path):
    file = tmp_path / "recipe.yaml"
    file.write_text(HELD.replace("STEPS", "40"))
    words = r"validation\.patience: could end training at step 40 at first, and train\.steps is 40"
    with pytest.raises(RecipeError, match=words):
        load_recipe(file, load_plugins())
    file.write_text(HELD.replace("STEPS", "41"))
    assert load_recipe(file, load_plugins()).stages[0].validation.patience == 3


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("more", ["", ", weight_decay: 0", ", betas: [0.0, 0.999]"])
def test_what_is_not_tried_on_torch_is_what_torch_takes(name, more):
    """A block of usual values is checked without importing torch; its ranges must be torch's."""
    given = yaml.safe_load("{optimizer: " + name + more + "}")
    if given.keys() - {"optimizer"} <= set(OPTIMIZERS[name][1]):
        spec = OptimSpec.model_validate(given)
        assert is_usual(spec)
        assert refused(spec) == ""
    assert not is_usual(OptimSpec(optimizer={"name": "adam"}, betas=(0.9, 1.0)))
