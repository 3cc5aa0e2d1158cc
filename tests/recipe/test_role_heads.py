"""A model has the head that its role reads; a recipe that says otherwise is refused unread."""

import pytest

from alignzoo.contract.errors import RecipeError
from alignzoo.recipe.file import load_recipe
from alignzoo.recipe.registry import load_plugins
from alignzoo.store.inputs import evaluated_models

HEAD = """name: x
model: facts
stages:
  - {name: sft, algorithm: sft, data: facts.sft}
  - {name: rm, algorithm: reward_model, policy: sft, data: pairs.jsonl}
"""
SCORES = (
    "'rm' trains a model with a scalar head, which scores texts and gives no distribution over "
    "tokens; name a language model"
)
RANDOM = (
    "'sft' trains a language model without a scalar head, and one drawn at random would score "
    "at random; name a stage that trains a reward model"
)
SAMPLE = "data: facts.prompts, rollout: {reward: {model: %s}}"


def loaded(tmp_path, text):
    path = tmp_path / "recipe.yaml"
    path.write_text(HEAD + text)
    return load_recipe(path, load_plugins(), ())


def problems(tmp_path, text):
    with pytest.raises(RecipeError) as error:
        loaded(tmp_path, text)
    return [str(p).partition(": ")[2] for p in error.value.problems]


@pytest.mark.parametrize(
    ("text", "place", "what"),
    [
        ("{name: a, algorithm: dpo, policy: rm, data: p.jsonl}", "stages.2.policy", SCORES),
        (
            "{name: a, algorithm: dpo, roles: {reference: rm}, data: p.jsonl}",
            "stages.2.roles.reference",
            SCORES,
        ),
        ("{name: a, stage: generate, policy: rm, data: facts.prompts}", "stages.2.policy", SCORES),
        (
            f"{{name: a, algorithm: ppo, {SAMPLE % 'sft'}}}",
            "stages.2.rollout.reward.model",
            RANDOM,
        ),
    ],
)
def test_a_stage_of_the_recipe_with_the_wrong_head_is_refused(tmp_path, text, place, what):
    assert problems(tmp_path, f"  - {text}\n") == [f"{place}: {what}"]


@pytest.mark.parametrize(
    ("block", "place"),
    [("models: [rm]", "models.0"), ("baseline: rm", "baseline"), ("kl_to: [rm]", "kl_to.0")],
)
def test_a_scalar_head_is_not_evaluated_as_a_language_model(tmp_path, block, place):
    text = f"evaluate:\n  - {{benchmark: facts, {block}}}\n"
    assert problems(tmp_path, text) == [f"evaluate.0.{place}: {SCORES}"]


def test_a_recipe_that_trains_only_scalar_heads_has_nothing_to_evaluate(tmp_path):
    path = tmp_path / "recipe.yaml"
    head = HEAD.replace("  - {name: sft, algorithm: sft, data: facts.sft}\n", "")
    text = head.replace("policy: sft, ", "") + "evaluate:\n  - {benchmark: facts}\n"
    path.write_text(text)
    with pytest.raises(RecipeError, match="no stage trains a language model"):
        load_recipe(path, load_plugins(), ())


def test_what_is_trained_may_have_a_new_head_and_what_scores_an_old_one(tmp_path):
    critics = [
        f"  - {{name: {name}, algorithm: ppo, roles: {{critic: {name}}}, {SAMPLE % 'rm'}}}\n"
        for name in ("sft", "rm")
    ]
    for number, text in enumerate(critics):
        stage = text.replace("{name: sft", "{name: a").replace("{name: rm", "{name: a")
        assert loaded(tmp_path, stage).stages[2].roles == {"critic": ("sft", "rm")[number]}


def test_by_default_every_language_model_is_evaluated_and_no_reward_model(tmp_path):
    text = f"  - {{name: ppo, algorithm: ppo, {SAMPLE % 'rm'}}}\n"
    recipe = loaded(tmp_path, text + "evaluate:\n  - {benchmark: facts}\n")
    assert evaluated_models(recipe.evaluate[0], recipe, load_plugins()) == ["sft", "ppo"]
