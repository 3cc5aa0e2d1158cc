"""What tokens of a rollout may be drawn from, and what is refused before anything loads."""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema
import pytest
import yaml
from alignzoo_ppo import PPO as PPOMethod
from extra_methods import Hinted
from test_role_heads import HEAD, loaded, problems

from alignzoo import Algorithm, Role
from alignzoo.plan.steps import plan_recipe
from alignzoo.recipe.file import load_recipe
from alignzoo.recipe.registry import load_plugins
from alignzoo.recipe.sampler_faults import sampler_faults
from alignzoo.recipe.training import off_policy, off_policy_note

GKD = (
    "{name: a, algorithm: gkd, roles: {teacher: sft}, data: facts.prompts, rollout: {sampler: %s}}"
)
PPO = "{name: a, algorithm: ppo, data: facts.prompts, rollout: {reward: {model: rm}, sampler: %s}}"
TAUGHT = "{mix: {policy: 0.8, teacher: 0.2}}"


def refused(tmp_path, stage, sampler):
    found = problems(tmp_path, f"  - {stage % sampler}\n")
    return [text.removeprefix("stages.2.rollout.sampler") for text in found]


@pytest.mark.parametrize("sampler", [TAUGHT, "{geometric: {policy: 0.9, teacher: 0.1}}"])
def test_a_recipe_names_the_roles_and_their_weights(tmp_path, sampler):
    rollout = loaded(tmp_path, f"  - {GKD % sampler}\n").stages[-1].rollout
    assert rollout.sampler.mixes and sum(rollout.sampler.weights.values()) == pytest.approx(1)


@pytest.mark.parametrize(
    ("sampler", "what"),
    [
        ("{mix: {policy: 1, teacher: 0.2}}", ": the weights of a sampler make 1.2 together"),
        ("{mix: {policy: 1}, geometric: {policy: 1}}", ": a sampler needs exactly one of"),
        ("{}", ": a sampler needs exactly one of 'mix' and 'geometric'"),
        ("{mix: {policy: 0.8, techer: 0.2}}", ".mix.techer: unknown role; did you mean 'teacher'?"),
    ],
)
def test_weights_that_make_no_mixture_are_refused(tmp_path, sampler, what):
    (found,) = refused(tmp_path, GKD, sampler)
    assert found.startswith(what)


@pytest.mark.parametrize(
    ("stage", "what"),
    [
        (
            PPO % "{mix: {policy: 0.5, critic: 0.5}}",
            ".mix.critic: 'critic' has no vocabulary to draw tokens from; mix roles that are "
            "language models",
        ),
        (
            "{name: a, algorithm: tr_dpo, data: facts.prompts, rollout: {samples_per_prompt: 2, "
            "reward: {model: rm}, sampler: {geometric: {policy: 0.5, reference: 0.5}}}}",
            ".geometric.reference: 'reference' moves with the policy; mix the policy with frozen "
            "roles",
        ),
    ],
)
def test_a_role_that_cannot_be_mixed_in_is_refused_with_the_reason(tmp_path, stage, what):
    found = problems(tmp_path, f"  - {stage}\n")
    assert f"stages.2.rollout.sampler{what}" in found


def test_another_role_that_learns_is_refused(tmp_path):
    class Both(Algorithm):
        """Two language models that learn."""

        name = "both"
        roles = {"policy": Role(trainable=True), "teacher": Role(trainable=True)}

    spec = loaded(tmp_path, f"  - {GKD % TAUGHT}\n").stages[-1]
    (found,) = sampler_faults(spec, Both, load_plugins())
    assert found.what == "'teacher' learns too; mix the policy with frozen roles"


def test_a_role_that_reads_another_prompt_is_refused(tmp_path):
    spec = loaded(tmp_path, f"  - {GKD % TAUGHT}\n").stages[-1]
    (found,) = sampler_faults(spec, Hinted, load_plugins())
    assert found.path == ("rollout", "sampler", "mix", "teacher")
    assert found.what.startswith("'teacher' reads other prompts than the policy")


@pytest.mark.parametrize(
    ("sampler", "told"),
    [
        (TAUGHT, "0.8 policy + 0.2 teacher"),
        ("{geometric: {policy: 0.875, teacher: 0.125}}", "policy^0.875 x teacher^0.125"),
    ],
)
def test_a_plan_shows_what_tokens_are_drawn_from(tmp_path, sampler, told):
    path = tmp_path / "recipe.yaml"
    sft = "  - {name: sft, algorithm: sft, data: facts.sft}\n"
    path.write_text(f"name: x\nmodel: facts\nstages:\n{sft}  - {GKD % sampler}\n")
    registry = load_plugins()
    plan = plan_recipe(load_recipe(path, registry, ()), registry, tmp_path / "run")
    assert plan.stages[-1].models["sampler"] == told


def test_another_engine_says_that_it_cannot_mix(tmp_path):
    stage = GKD.replace("{sampler: %s}", f"{{engine: vllm, sampler: {TAUGHT}}}")
    (found,) = problems(tmp_path, f"  - {stage}\n")
    assert found == (
        "stages.2.rollout.sampler: 'vllm' samples from the policy alone and cannot mix it with "
        "other roles; take the engine transformers"
    )
    alone = stage.replace(TAUGHT, "{mix: {policy: 1}}")
    assert loaded(tmp_path, f"  - {alone}\n")


def test_a_method_that_takes_answers_for_the_policys_says_so_or_refuses(tmp_path):
    mixed = PPO.replace("%s", "{mix: {policy: 0.5, reference: 0.5}}")
    spec = loaded(tmp_path, f"  - {mixed}\n").stages[-1]
    note = off_policy_note(off_policy(spec, PPOMethod), PPOMethod)
    assert "with a sampler of several roles they are samples of another distribution" in note
    assert note.endswith("and from the policy alone")
    strict = mixed.replace("data:", "rails: {on_breach: stop}, data:")
    (found,) = problems(tmp_path, f"  - {strict}\n")
    assert found.startswith("stages.2.rollout.sampler: ") and "a sampler of several roles" in found
    shared = strict.replace("sampler: {mix: {policy: 0.5, reference: 0.5}}", "share: 0.5")
    (found,) = (x for x in problems(tmp_path, f"  - {shared}\n") if "gradient is biased" in x)
    assert found.startswith("stages.2.rollout.share: ") and "(rollout.share 1)" in found


@pytest.mark.parametrize("alone", ["{mix: {policy: 1}}", "{geometric: {policy: 1.0}}", "null"])
def test_a_sampler_of_the_policy_alone_is_the_same_work_as_none(tmp_path, alone):
    recipe = loaded(tmp_path, f"  - {GKD % alone}\n")
    usual = loaded(tmp_path, f"  - {GKD.replace('sampler: %s', '')}\n")
    assert recipe == usual and recipe.stages[-1].rollout.sampler is None


def test_the_schema_knows_a_sampler():
    schema = json.loads((Path(__file__).parents[2] / "recipe.schema.json").read_text())
    recipe = yaml.safe_load(HEAD + f"  - {GKD % TAUGHT}\n")
    validator = jsonschema.Draft202012Validator(schema)
    assert validator.is_valid(recipe)
    recipe["stages"][2]["rollout"]["sampler"] = {"mix": {"policy": 2}}
    assert not validator.is_valid(recipe)
