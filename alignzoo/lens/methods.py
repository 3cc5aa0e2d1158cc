"""Which algorithm is looked through, and which models play its roles."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from alignzoo.contract.algorithm import Algorithm, Role
from alignzoo.contract.errors import DataError, UsageError, suggest
from alignzoo.contract.moving import moving_of
from alignzoo.contract.stage import ModelRef
from alignzoo.contract.types import TextBatch
from alignzoo.contract.views import seen_by
from alignzoo.data.vocabulary import difference, vocabulary_of
from alignzoo.engine.models.bounds import bounds_of
from alignzoo.engine.models.load import load_model, load_tokenizer
from alignzoo.engine.scoring.fused import Fused
from alignzoo.engine.scoring.scorer import ScoringModule, Special
from alignzoo.recipe.blocks import Recipe, RolloutSpec, TrainSpec
from alignzoo.recipe.options import build_options
from alignzoo.recipe.registry import Registry
from alignzoo.recipe.roles import bound_roles, main_role, trained_roles
from alignzoo.store.folders import stage_folder
from alignzoo.store.inputs import model_ref
from alignzoo.store.records import check_output

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


@dataclass(frozen=True)
class Model(Algorithm[Any]):
    """A model without a method: what can be read from every language model is all there is."""

    name = "model"
    batch = TextBatch
    roles = {"policy": Role()}


@dataclass(frozen=True)
class Method:
    """An algorithm with its options, and the models that play its roles."""

    label: str
    algorithm: Algorithm[Any]
    refs: Mapping[str, ModelRef]  # role -> its model
    precision: str = "fp32"
    seed: int = 0
    rollout: RolloutSpec | None = None  # of the stage
    reward_ref: ModelRef | None = None  # that scores its rollouts
    notes: tuple[str, ...] = ()  # what differs from the stage

    @property
    def main(self) -> str:
        """The role that learns, or the only one."""
        return main_role(type(self.algorithm))

    @property
    def language_models(self) -> tuple[str, ...]:
        """The roles with a distribution over tokens, the main one first."""
        kinds = self.algorithm.roles
        found = [role for role in self.refs if kinds[role].head == "lm"]
        return tuple(sorted(found, key=lambda role: role != self.main))


def model_alone(label: str, ref: ModelRef, precision: str = "fp32") -> Method:
    """A model that no stage of a run has trained."""
    return Method(label, Model(), {"policy": ref}, precision, ref.seed)


def bound_method(
    cls: type[Algorithm[Any]],
    options: Mapping[str, Any],
    policy: ModelRef,
    roles: Mapping[str, ModelRef],
    label: str,
) -> Method:
    """An algorithm on models that no stage has brought together.

    Raises UsageError for a role that the algorithm does not have, or that has no model.
    """
    main = main_role(cls)
    known = [role for role in cls.roles if role != main]
    if unknown := [role for role in roles if role not in known]:
        raise UsageError(
            f"--role {unknown[0]}: '{cls.name}' has no such role{suggest(unknown[0], known)} (it "
            f"has {', '.join(known) or 'none'} beside {main})"
        )
    if missing := [role for role in known if role not in roles]:
        raise UsageError(f"'{cls.name}' needs a model for its role: --role {missing[0]}=MODEL")
    refs = {role: roles.get(role, policy) for role in cls.roles}
    return Method(label, build_options(cls, options), refs, seed=policy.seed)


def stage_method(run: Path, name: str, label: str, registry: Registry) -> Method:
    """The method of a train stage with the models that it left and those that it read.

    Raises UsageError for a stage that trains nothing or whose method reads nothing from its models,
    DataError when a model is not there or not what its stage wrote.
    """
    recipe = recipe_of(run)
    folders = {s.name: stage_folder(run, i, s.name) for i, s in enumerate(recipe.stages, 1)}
    spec = _train_spec(recipe, name, run)
    cls = registry.find("algorithm", spec.algorithm)
    algorithm = build_options(cls, spec.with_)
    if not {**algorithm.signals(), **algorithm.snapshots()}:
        raise UsageError(
            f"{label}: '{spec.algorithm}' reads no signals from its models, so there is nothing to "
            "show; name a stage of another method, or its model's folder"
        )
    trained, bound = trained_roles(cls), bound_roles(spec, cls)
    refs = {}
    for role in cls.roles:
        ref = model_ref(bound[role], recipe, folders)
        if role in trained:
            part = "model" if role == main_role(cls) else f"model-{role}"
            ref = ModelRef(str(folders[name] / part), ref.seed, None, ref.attn_implementation)
        _check(ref, role, label, folders)
        refs[role] = ref
    reward = spec.rollout.reward.sources[0] if spec.rollout and spec.rollout.reward else None
    scorer = model_ref(reward.model, recipe, folders) if reward and reward.model else None
    notes = _followed(algorithm, refs, label)
    return Method(
        label, algorithm, refs, recipe.precision, recipe.seed, spec.rollout, scorer, notes
    )


def _followed(algorithm: Algorithm[Any], refs: dict[str, ModelRef], label: str) -> tuple[str, ...]:
    """Give roles that are the trained one its model; those that moved apart are told."""
    moving = moving_of(algorithm)
    refs.update({role: refs[rule.of] for role, rule in moving.items() if rule.shares})
    return tuple(
        f"{label}: role '{role}' {rule.told}; a stage does not keep it, so it is read as it started"
        for role, rule in moving.items()
        if not rule.shares
    )


def recipe_of(run: Path) -> Recipe:
    """The recipe that a run keeps, with every default; DataError when it cannot be read."""
    file = run / "recipe.yaml"
    try:
        return Recipe.model_validate(yaml.safe_load(file.read_text(encoding="utf-8")))
    except (OSError, ValueError, yaml.YAMLError) as error:
        why = " ".join(str(error).split())[:200]
        raise DataError(
            f"{file}: cannot be read as a run's recipe ({why}); run the recipe again"
        ) from error


def _train_spec(recipe: Recipe, name: str, run: Path) -> TrainSpec:
    stages = {stage.name: stage for stage in recipe.stages}
    trained = [stage.name for stage in recipe.stages if isinstance(stage, TrainSpec)]
    spec = stages.get(name)
    if not isinstance(spec, TrainSpec):
        what = f"stage '{name}' trains nothing" if spec else f"no stage '{name}'"
        raise UsageError(f"{run}: {what}; name one of {', '.join(trained) or '-'}")
    return spec


def _check(ref: ModelRef, role: str, label: str, folders: Mapping[str, Path]) -> None:
    """A model of the run must be there, and be what its stage wrote."""
    stage = next((name for name, folder in folders.items() if folder == ref.path.parent), None)
    if stage is None:
        return
    if not ref.path.is_dir():
        raise DataError(
            f"{label}: role '{role}' is stage '{stage}', which left no model in {ref.path}; run "
            "the recipe again"
        )
    check_output(ref.path.parent, ref.path.name)


# --- loading -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Loaded:
    """A method ready to be read: its models, their tokenizer, and how long a row may be."""

    method: Method
    module: ScoringModule
    tokenizer: PreTrainedTokenizerBase
    contexts: Mapping[str, int]  # model -> tokens, where it has a limit
    ends: tuple[int, ...]  # that the main model's settings name
    rows: int  # of the main model's vocabulary


def load_method(method: Method, registry: Registry, device: str) -> Loaded:
    """Load every model once, however many roles it plays.

    Raises DataError when two of them have different tokenizers.
    """
    hooks = registry.hooks
    known: dict[tuple[ModelRef, str], PreTrainedModel] = {}
    models: dict[str, PreTrainedModel] = {}
    for role, ref in method.refs.items():
        kind = method.algorithm.roles[role]
        key = (ref, kind.head)
        if key not in known:
            known[key] = load_model(hooks, ref, kind)
        models[role] = known[key]
    module = module_of(method.algorithm, models).to(device)
    bounds = {method.refs[role].name: bounds_of(model) for role, model in models.items()}
    tokenizer = load_tokenizer(hooks, method.refs[method.main])
    own = bounds[method.refs[method.main].name]
    for role in method.language_models:
        other = load_tokenizer(hooks, method.refs[role])
        check_tokenizers(tokenizer, other, method.refs[role].name, method.refs[method.main].name)
    contexts = {name: b.context for name, b in bounds.items() if b.context is not None}
    return Loaded(method, module, tokenizer, contexts, own.ends, own.ids)


def module_of(algorithm: Algorithm[Any], models: Mapping[str, PreTrainedModel]) -> ScoringModule:
    """The models of all roles, each reading the prompt that its role sees."""
    return ScoringModule(models, frozenset(), Fused(), Special(sees=seen_by(algorithm)))


def check_tokenizers(
    own: PreTrainedTokenizerBase, other: PreTrainedTokenizerBase, name: str, first: str
) -> None:
    """Raises DataError when one model would read the other's ids as other tokens."""
    if what := difference(vocabulary_of(own), vocabulary_of(other)):
        raise DataError(
            f"{name}: another tokenizer than that of {first} ({what}), so the two cannot be read "
            "on the same tokens; make a page for each"
        )
