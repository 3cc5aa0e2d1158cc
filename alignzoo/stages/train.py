"""Train the roles of an algorithm: names become models, samples become items, then the engine."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from alignzoo.contract.algorithm import Algorithm, Role
from alignzoo.contract.errors import DataError
from alignzoo.contract.groups import GroupBatch
from alignzoo.contract.moving import moving_of
from alignzoo.contract.stage import ModelRef
from alignzoo.contract.types import (
    RolloutBatch,
    Tokens,
)
from alignzoo.data.tokens import Encoded, Limits
from alignzoo.data.views import Views
from alignzoo.engine.layout.build import check_strategy
from alignzoo.engine.layout.optim import Optim
from alignzoo.engine.models.adapters import is_adapted, merged, save_adapter
from alignzoo.engine.models.fit import outside
from alignzoo.engine.models.hooked import Listener, prove_saving
from alignzoo.engine.models.load import load_model, load_tokenizer, pad_id_of, save_model
from alignzoo.engine.models.quiet import switched_off
from alignzoo.engine.parallel.agreement import is_main
from alignzoo.engine.parallel.ranks import Ranks, start_ranks
from alignzoo.engine.train.job import Job, Validation
from alignzoo.engine.train.loop import train
from alignzoo.engine.train.rails import Rails
from alignzoo.engine.train.sources import Rollout
from alignzoo.recipe.blocks import DataSpec, TrainSpec
from alignzoo.recipe.optimizing import engine_values
from alignzoo.recipe.options import build_options
from alignzoo.recipe.roles import bound_roles, main_role
from alignzoo.recipe.training import off_policy, off_policy_note
from alignzoo.stages.adapting import Models, parts_of
from alignzoo.stages.context import StageContext
from alignzoo.stages.examples import examples_of
from alignzoo.stages.ids import Largest, check_ids, check_rows, largest_of, rows_of
from alignzoo.stages.learner import Learner, learner_of
from alignzoo.stages.reading import mixed, read_items
from alignzoo.stages.rollouts import reads_answers, rollout_of
from alignzoo.store.adapters import ADAPTER
from alignzoo.store.code import core_digest
from alignzoo.store.files import cache_folder
from alignzoo.store.identity import model_digest

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def run_train(spec: TrainSpec, context: StageContext) -> None:
    """Train and leave the policy in `model/`, other trained roles in `model-<role>/`."""
    algorithm = build_options(context.registry.find("algorithm", spec.algorithm), spec.with_)
    _tell_off_policy(spec, algorithm, context)
    main, bound = main_role(type(algorithm)), bound_roles(spec, type(algorithm))
    refs = {role: context.model(name) for role, name in bound.items()}
    hooks = context.registry.hooks
    tokenizer = load_tokenizer(hooks, refs[main])
    kinds, said = algorithm.roles, set[str]()
    learner = learner_of(tokenizer, refs, main, algorithm, hooks)
    check_ids(main, refs, tokenizer, learner.bounds, context, _scalar(kinds))
    ranks = _ranks(context)
    models = Models(kinds, main, refs, _digests(bound, context), moving_of(algorithm))
    parts = parts_of(models, spec, context)

    def load(role: str) -> PreTrainedModel:
        ref = parts.refs[role]
        listener = Listener(
            partial(_plugged, ref, kinds[role], learner, context),
            lambda text: context.note(f"role '{role}', {text}"),
        )
        model = load_model(hooks, ref, kinds[role], listener=listener)
        _tell_switched_off(model, context, said)
        check_rows(model, tokenizer, ref.name, held)
        if role == main:
            _tell_unread(outside(model, tokenizer, ref.name), context)
        return model

    encoded = _mixed(spec.data, algorithm, learner, context) if reads_answers(spec) else None
    sampled = rollout_of(spec, algorithm, learner, context, encoded) if spec.rollout else None
    held_out = _held_out(spec, algorithm, learner, context)
    held = _largest([source for source in (encoded, held_out) if source], sampled)
    job = Job(
        algorithm=algorithm,
        load=load,
        digests=parts.digests,
        adapted=parts.adapted,
        items=encoded.items if encoded else (),
        rollout=sampled,
        validation=_validation(spec, held_out),
        optim=Optim(**engine_values(spec.train)),
        pad_id=pad_id_of(tokenizer),
        seed=context.seed,
        folder=context.folder,
        cache=cache_folder() / "snapshots",
        ranks=ranks,
        strategy=context.recipe.parallel.strategy,
        scoring=_scoring(context),
        plugin=context.registry.owner(type(algorithm)).identity,
        rails=_rails(spec, context, ranks.device),
        examples=examples_of(spec, learner, _prompts(encoded, sampled), context),
        on_step=context.step,
        say=lambda text: context.progress.note(f"{context.name}: {text}"),
    )
    _finish(train(job), main, refs[main], learner, context)
    ranks.barrier()


def _scalar(roles: Mapping[str, Role]) -> list[str]:
    return [role for role, kind in roles.items() if kind.head == "scalar"]


def _tell_off_policy(spec: TrainSpec, algorithm: Algorithm[Any], context: StageContext) -> None:
    if settings := off_policy(spec, type(algorithm)):
        context.progress.note(f"{context.name}: {off_policy_note(settings, type(algorithm))}")


def _ranks(context: StageContext) -> Ranks:
    """Joined after it is known that the recipe's strategy can be had."""
    check_strategy(context.recipe.parallel.strategy)
    return start_ranks(context.recipe.precision)


def _finish(
    trained: Mapping[str, PreTrainedModel],
    main: str,
    start: ModelRef,
    learner: Learner,
    context: StageContext,
) -> None:
    """Rank 0 writes plain models; beside that of a role with an adapter, the adapter."""
    for role, model in trained.items() if is_main() else ():
        folder = context.folder / ("model" if role == main else f"model-{role}")
        plain = model
        if is_adapted(model):
            hub = start.name if start.name.count("/") == 1 and not start.path.exists() else None
            save_adapter(model, context.folder / ADAPTER, hub)
            plain = merged(model)
        save_model(context.registry.hooks, plain, learner.tokenizer, folder, learner.ends)


def _scoring(context: StageContext) -> str:
    """What decides how frozen models are scored, beside them and the data."""
    recipe = context.recipe
    libraries = " ".join(f"{name} {version(name)}" for name in ("torch", "transformers"))
    how = f"{recipe.precision} {recipe.attn_implementation}"
    return f"{how} {core_digest()} {libraries}"


def _tell_switched_off(model: PreTrainedModel, context: StageContext, told: set[str]) -> None:
    """Which randomness of plain training is off; the same for several roles is told once."""
    off = ", ".join(f"{name} {rate:g}" for name, rate in switched_off(model).items())
    if off and off not in told:
        told.add(off)
        context.progress.note(
            f"{context.name}: off, so that all roles are one function: {off}; the saved config "
            "keeps it"
        )


def _largest(sources: Sequence[Encoded], rollout: Rollout | None) -> Largest:
    """The largest id of everything that the models will read beside their own samples."""
    rows = (row for source in sources for row in rows_of(source.items, source.places))
    prompts = zip(rollout.places, rollout.prompts, strict=True) if rollout else ()
    return largest_of([*rows, *((place, Tokens(ids, ())) for place, ids in prompts)])


def _prompts(encoded: Encoded | None, rollout: Rollout | None) -> Sequence[tuple[int, ...]]:
    """Every prompt of the stage's data."""
    if rollout:
        return rollout.prompts
    return [item.rows[0].prompt for item in encoded.items] if encoded else ()


def _tell_unread(tokens: str, context: StageContext) -> None:
    """Which tokens the main model has no row for, if there are any."""
    if tokens:
        context.note(tokens)


def _plugged(
    ref: ModelRef,
    role: Role,
    learner: Learner,
    context: StageContext,
    model: PreTrainedModel,
) -> None:
    """Say what a plug-in's model lacks; one that is trained must survive being saved."""
    context.note_unstated(ref)
    if not role.trainable or not is_main():
        return
    hooks = context.registry.hooks

    def save(model: PreTrainedModel, folder: Path) -> None:
        save_model(hooks, model, learner.tokenizer, folder, learner.ends)

    # A copy: what is saved may be given another padding, and the model is yet to be trained.
    prove_saving(copy.deepcopy(model), ref, save, lambda again: load_model(hooks, again, role))


def _rails(spec: TrainSpec, context: StageContext, device: torch.device) -> Rails:
    block = spec.rails
    # Kernels of an accelerator round bf16 otherwise for other shapes; those used on a CPU do not.
    rough = context.recipe.precision == "bf16" and device.type != "cpu"
    return Rails(
        stop=block.on_breach == "stop",
        max_kl=block.max_kl,
        max_truncated=block.max_truncated,
        tolerance=5e-2 if rough else 2e-3,
        say=lambda text: context.progress.note(f"{context.name}: {text}"),
    )


def _digests(bound: Mapping[str, str | None], context: StageContext) -> dict[str, str]:
    return {
        role: model_digest(name or "initial", context.recipe, context.registry, context.outputs)
        for role, name in bound.items()
    }


def _mixed(
    spec: DataSpec, algorithm: Algorithm[Any], learner: Learner, context: StageContext
) -> Encoded:
    """The items of all sources in a pass; a block without parts is its only source."""
    found = [_encoded(part, algorithm, learner, context) for part in spec.sources]
    if not spec.parts:
        return found[0]
    taken = mixed(spec, [len(encoded.items) for encoded in found], context)
    return replace(
        found[0],
        items=tuple(found[k].items[i] for k, i in taken),
        samples=tuple(found[k].samples[i] for k, i in taken),
        places=tuple(found[k].places[i] for k, i in taken),
    )


def _encoded(
    spec: DataSpec,
    algorithm: Algorithm[Any],
    learner: Learner,
    context: StageContext,
) -> Encoded:
    length = learner.max_length(spec)
    limits = Limits(length, spec.max_prompt_length, spec.too_long, learner.ends)
    reader, views = learner.reader(spec), Views.of(algorithm)
    encoded = read_items(spec, algorithm.batch, reader, limits, context, views)
    report = encoded.report
    if (report.truncated or report.dropped) and spec.max_length is None:
        why = "the model's context" if length == learner.context else "the default"
        text = f"max_length of {spec.name} is {length}, {why}"
        context.note_once(text, f"max_length of {spec.name}")
    for number, warning in enumerate(report.warnings, 1):
        about = f"warning {number} about {spec.name}"
        context.note_once(warning, about, f"{spec.name}: {warning}")
    return encoded


def _held_out(
    spec: TrainSpec,
    algorithm: Algorithm[Any],
    learner: Learner,
    context: StageContext,
) -> Encoded | None:
    """The data of `validation:`."""
    if spec.validation is None:
        return None
    if issubclass(algorithm.batch, RolloutBatch | GroupBatch):
        raise DataError(
            f"{context.name}: '{spec.algorithm}' has no loss on held-out data, it learns from "
            "samples alone; remove `validation:`"
        )
    return _encoded(spec.validation.data, algorithm, learner, context)


def _validation(spec: TrainSpec, held_out: Encoded | None) -> Validation | None:
    chosen = spec.validation
    if chosen is None or held_out is None:
        return None
    better = {"lower": -1, "higher": 1}[chosen.better]
    return Validation(held_out.items, chosen.every, chosen.metric, better, chosen.patience)
