"""Whether the models of a recipe belong together, as far as their folders tell before loading.

Every id means the same to every model that reads it, and every role is played by a model with the
head that it reads. What is not on this disk is compared when its stage starts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from alignzoo.contract.algorithm import Algorithm, Role
from alignzoo.contract.errors import Problem, RecipeError
from alignzoo.data.vocabulary import Vocabulary, difference, other_tokens
from alignzoo.recipe.blocks import EvaluateSpec, GenerateSpec, Recipe, TrainSpec
from alignzoo.recipe.options import build_options
from alignzoo.recipe.registry import Registry
from alignzoo.recipe.rewards import placed_rewards
from alignzoo.recipe.roles import LM, REWARD, bound_roles, main_role
from alignzoo.store.checkpoints import Checkpoint, checkpoint_in
from alignzoo.store.identity import hub_folder
from alignzoo.store.inputs import INITIAL, evaluated_models, model_ref

TOGETHER = "take models with one tokenizer"


@dataclass(frozen=True)
class Finding:
    """Something about two models, or a model and its role; a note unless it is `refused`."""

    where: str
    what: str
    refused: bool = True


@dataclass(frozen=True)
class Known:
    """What can be known of a recipe's models."""

    recipe: Recipe
    registry: Registry
    finished: Mapping[str, Path]  # stage -> its folder

    def own(self, name: str | None) -> Checkpoint | None:
        """What a model's own folder says; None for one that is not there yet or elsewhere."""
        name = name or INITIAL
        pending = any(stage.name == name for stage in self.recipe.stages)
        if pending and name not in self.finished:
            return None
        ref = model_ref(name, self.recipe, self.finished)
        folder = ref.path if ref.path.is_dir() else hub_folder(ref)
        return checkpoint_in(folder) if folder else None

    def lineage(self, name: str | None) -> Checkpoint | None:
        """The same, or that of the model that a stage starts from: training keeps the tokenizer."""
        stage = next((s for s in self.recipe.stages if s.name == name), None)
        if isinstance(stage, TrainSpec) and stage.name not in self.finished:
            return self.lineage(stage.policy)
        return self.own(name)

    def shown(self, name: str | None) -> str:
        """How a sentence calls a model."""
        return f"'{self.recipe.model if name in (None, INITIAL) else name}'"


def check_models(
    recipe: Recipe, registry: Registry, finished: Mapping[str, Path]
) -> tuple[str, ...]:
    """What is worth saying about a recipe's models; RecipeError with all that cannot be right."""
    known = Known(recipe, registry, finished)
    found = list(dict.fromkeys(_findings(known)))
    if problems := [Problem(f.where, f.what) for f in found if f.refused]:
        raise RecipeError(problems)
    return tuple(f"{f.where}: {f.what}" for f in found)


def _findings(known: Known) -> Iterator[Finding]:
    for stage in known.recipe.stages:
        where = f"stages.{stage.name}"
        if isinstance(stage, TrainSpec) and stage.algorithm in known.registry.algorithms:
            yield from _trained(stage, known.registry.algorithms[stage.algorithm], where, known)
        if isinstance(stage, GenerateSpec):
            yield from _head(stage.policy, LM, f"{where}.policy", known)
    for number, spec in enumerate(known.recipe.evaluate):
        yield from _evaluated(spec, f"evaluate.{number}", known)


def _trained(
    spec: TrainSpec, cls: type[Algorithm[Any]], where: str, known: Known
) -> Iterator[Finding]:
    bound, main = bound_roles(spec, cls), main_role(cls)
    places = {role: f"{where}.{'policy' if role == main else f'roles.{role}'}" for role in bound}
    for role, name in bound.items():
        yield from _head(name, cls.roles[role], places[role], known)
        compare = difference if cls.roles[role].head == "lm" else other_tokens
        yield from _ids(bound.get(main), name, places[role], known, compare)
    if spec.adapter is not None:
        yield from _base(spec.policy, f"{where}.policy", known)
    for part, path in placed_rewards(spec.rollout.reward) if spec.rollout else ():
        if part.model is not None:
            at = ".".join(map(str, (where, *path, "model")))
            yield from _head(part.model, REWARD, at, known)
            yield from _rereads(bound.get(main), part.model, at, known)
    for roles in _compared(spec, cls):
        yield from _widths([(places[role], bound[role]) for role in roles], known)


def _evaluated(spec: EvaluateSpec, where: str, known: Known) -> Iterator[Finding]:
    if spec.rewards:
        yield from _rewards(spec, where, known)
        return
    models = evaluated_models(spec, known.recipe, known.registry)
    for name in models:
        yield from _head(name, LM, f"{where}.models", known)
    for other in spec.kl_to:
        yield from _head(other, LM, f"{where}.kl_to", known)
        for name in models:
            yield from _ids(name, other, f"{where}.kl_to", known)
            yield from _widths([(f"{where}.models", name), (f"{where}.kl_to", other)], known)


def _rewards(spec: EvaluateSpec, where: str, known: Known) -> Iterator[Finding]:
    """A log-ratio is one of language models with the same ids."""
    for reward, of in spec.rewards.items():
        at = f"{where}.rewards.{reward}"
        for key, name in of.models.items():
            yield from _head(name, LM if of.over else REWARD, f"{at}.{key}", known)
        if of.over:
            yield from _ids(of.model, of.over, f"{at}.over", known)


def _head(name: str | None, role: Role, where: str, known: Known) -> Iterator[Finding]:
    """A model has the head that its role reads; only a role that is trained may get a new one."""
    found, named = known.own(name), known.shown(name)
    if found is None:
        return
    yield from _end(found, named, where)
    if role.head == "lm" and found.head == "scalar":
        scores = f"{named} is a {found.kind}: it scores texts and gives no distribution over tokens"
        yield Finding(where, f"{scores}; name a language model")
    if role.head == "scalar" and not role.trainable and found.head == "lm":
        headless = f"{named} is a {found.kind} without a scalar head, and one drawn at random"
        yield Finding(where, f"{headless} would score at random; name a reward model")
    if role.head == "scalar" and found.outputs not in (None, 1):
        several = f"{named} has a head with {found.outputs} outputs, and a reward is one number"
        yield Finding(where, f"{several}; name a model with num_labels 1")


def _base(name: str | None, where: str, known: Known) -> Iterator[Finding]:
    """An adapter lies over weights in full precision."""
    found = known.own(name)
    if found is not None and found.quantized:
        why = "has quantised weights (quantization_config in its config.json), which an adapter"
        how = "cannot lie over yet; name the model as it was before"
        yield Finding(where, f"{known.shown(name)} {why} {how}")


def _end(found: Checkpoint, named: str, where: str) -> Iterator[Finding]:
    """What ends answers needs a row in the embedding."""
    vocabulary = found.vocabulary
    end = vocabulary.end if vocabulary else None
    if vocabulary and end is not None and found.rows is not None and end >= found.rows:
        token = f"{vocabulary.tokens[end]!r}, id {end}"
        told = f"the tokenizer of {named} knows {len(vocabulary.tokens)} tokens and ends answers"
        why = f"with {token}, but the embedding has {found.rows} rows; resize it"
        yield Finding(where, f"{told} {why}")


def _ids(
    one: str | None,
    other: str | None,
    where: str,
    known: Known,
    compare: Callable[[Vocabulary, Vocabulary, int | None], str] = difference,
) -> Iterator[Finding]:
    """The ids that one model emits must mean the same to another that reads them."""
    ours, theirs = known.lineage(one), known.lineage(other)
    if not (ours and theirs and ours.vocabulary and theirs.vocabulary) or ours is theirs:
        return
    if what := compare(ours.vocabulary, theirs.vocabulary, ours.rows):
        told = f"{known.shown(other)} does not read ids as {known.shown(one)} does: {what}"
        yield Finding(where, f"{told}; {TOGETHER}")
    elif ours.vocabulary.template != theirs.vocabulary.template:
        told = f"{known.shown(other)} has another chat template than {known.shown(one)}: unused"
        yield Finding(where, told, refused=False)


def _rereads(policy: str | None, reward: str, where: str, known: Known) -> Iterator[Finding]:
    """A reward model may have a tokenizer of its own: it is given the text."""
    ours, theirs = known.lineage(policy), known.lineage(reward)
    if not (ours and theirs and ours.vocabulary and theirs.vocabulary) or ours is theirs:
        return
    if difference(ours.vocabulary, theirs.vocabulary, ours.rows):
        told = f"{known.shown(reward)} has another tokenizer than {known.shown(policy)}"
        yield Finding(where, f"{told}: it is given the text", refused=False)


def _compared(spec: TrainSpec, cls: type[Algorithm[Any]]) -> Iterator[Sequence[str]]:
    """The language models whose logits a method reads side by side."""
    try:
        algorithm: Algorithm[Any] = build_options(cls, spec.with_)
        signals = {**algorithm.signals(), **algorithm.snapshots()}
    except Exception:  # a plug-in's code may raise anything; its stage says so
        return
    for signal in signals.values():
        yield [role for role in signal.roles if role in cls.roles and cls.roles[role].head == "lm"]


def _widths(models: Sequence[tuple[str, str | None]], known: Known) -> Iterator[Finding]:
    """Distributions over vocabularies of two sizes cannot be compared."""
    sizes = [(place, name, found.rows) for place, name in models if (found := known.lineage(name))]
    for place, name, rows in sizes[1:]:
        if None not in (rows, sizes[0][2]) and rows != sizes[0][2]:
            told = f"{known.shown(name)} has {rows} entries in its vocabulary"
            first = f"{known.shown(sizes[0][1])} has {sizes[0][2]}"
            why = "their distributions cannot be compared; take models of one vocabulary"
            yield Finding(place, f"{told}, {first}: {why}")
