"""Train the roles of an algorithm: names become models, samples become items, then the engine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from alignzoo.contract.algorithm import Algorithm, Role
from alignzoo.contract.errors import DataError
from alignzoo.contract.evaluation import Answer
from alignzoo.contract.rollout import Completion
from alignzoo.contract.stage import ModelRef
from alignzoo.contract.types import (
    Batch,
    Item,
    PromptSample,
    Response,
    RolloutBatch,
    Sample,
    Tokens,
)
from alignzoo.data.tokens import Encoded, Limits, decode_response, encode_all, prompt_ids
from alignzoo.engine.models.fit import check_end, outside
from alignzoo.engine.models.hooked import Listener, prove_saving
from alignzoo.engine.models.load import load_model, load_tokenizer, pad_id_of, save_model
from alignzoo.engine.models.quiet import switched_off
from alignzoo.engine.parallel.agreement import is_main
from alignzoo.engine.parallel.ranks import start_ranks
from alignzoo.engine.scoring.measure import sequence_values
from alignzoo.engine.train.job import Job, Validation
from alignzoo.engine.train.loop import train
from alignzoo.engine.train.optim import Optim
from alignzoo.engine.train.rails import Rails
from alignzoo.engine.train.sources import Reward, Rollout
from alignzoo.recipe.blocks import DataSpec, RewardSpec, RolloutSpec, TrainSpec
from alignzoo.recipe.options import build_options
from alignzoo.recipe.roles import bound_roles, main_role
from alignzoo.stages.context import StageContext
from alignzoo.stages.ids import Largest, check_ids, check_rows, largest_of, rows_of
from alignzoo.stages.label import judged
from alignzoo.stages.rereading import check_context, rereader_for
from alignzoo.stages.sampling import resolve
from alignzoo.store.code import core_digest
from alignzoo.store.files import cache_folder
from alignzoo.store.identity import model_digest

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


def run_train(spec: TrainSpec, context: StageContext) -> None:
    """Train and leave the policy in `model/`, other trained roles in `model-<role>/`."""
    algorithm = build_options(context.registry.find("algorithm", spec.algorithm), spec.with_)
    main, bound = main_role(type(algorithm)), bound_roles(spec, type(algorithm))
    refs = {role: context.model(name) for role, name in bound.items()}
    hooks, owner = context.registry.hooks, context.registry.owner(type(algorithm))
    tokenizer = load_tokenizer(hooks, refs[main])
    kinds, said = algorithm.roles, set[str]()
    scoring = [role for role, kind in kinds.items() if kind.head == "scalar"]
    check_ids(main, refs, tokenizer, context, scoring)
    ranks = start_ranks(context.recipe.precision)

    def load(role: str) -> PreTrainedModel:
        dtype = torch.float32 if kinds[role].trainable else context.dtype
        plugged = partial(_plugged, refs[role], kinds[role], tokenizer, context)
        model = load_model(hooks, refs[role], kinds[role], dtype, Listener(plugged, context.note))
        _tell_switched_off(model, context, said)
        check_rows(model, tokenizer, refs[role].name, held)
        if role == main and (told := outside(model, tokenizer, refs[role].name)):
            context.progress.note(f"{context.name}: {told}")
        return model

    encoded = None if spec.rollout else _encoded(spec.data, algorithm.batch, tokenizer, context)
    sampled = _rollout(spec, tokenizer, context, ranks.device) if spec.rollout else None
    validation = _validation(spec, algorithm, tokenizer, context)
    held = _largest(encoded, sampled, validation)
    job = Job(
        algorithm=algorithm,
        load=load,
        digests=_digests(bound, context),
        items=encoded.items if encoded else (),
        rollout=sampled,
        validation=validation,
        optim=Optim(**spec.train.model_dump()),
        pad_id=pad_id_of(tokenizer),
        seed=context.seed,
        folder=context.folder,
        cache=cache_folder() / "snapshots",
        ranks=ranks,
        scoring=f"{context.dtype} {core_digest()} {owner.identity}",
        rails=_rails(spec, context),
        on_step=context.step,
        say=lambda text: context.progress.note(f"{context.name}: {text}"),
    )
    trained = train(job)
    if ranks.is_main:
        for role, model in trained.items():
            _save(model, tokenizer, context, role, main)
    ranks.barrier()


def _tell_switched_off(model: PreTrainedModel, context: StageContext, told: set[str]) -> None:
    """Which randomness of plain training is off; the same for several roles is told once."""
    off = ", ".join(f"{name} {rate:g}" for name, rate in switched_off(model).items())
    if off and off not in told:
        told.add(off)
        context.progress.note(
            f"{context.name}: off, so that all roles are one function: {off}; the saved config "
            "keeps it"
        )


def _largest(
    encoded: Encoded | None, rollout: Rollout | None, validation: Validation | None
) -> Largest:
    """The largest id of everything that the models will read beside their own samples."""
    items = rows_of(encoded.items, encoded.places) if encoded else ()
    prompts = zip(rollout.places, rollout.prompts, strict=True) if rollout else ()
    held_out = enumerate(validation.items, 1) if validation else ()
    return largest_of(
        [
            *items,
            *((place, Tokens(ids, ())) for place, ids in prompts),
            *((f"validation item {n}", row) for n, item in held_out for row in item.rows),
        ]
    )


def _plugged(
    ref: ModelRef,
    role: Role,
    tokenizer: PreTrainedTokenizerBase,
    context: StageContext,
    model: PreTrainedModel,
) -> None:
    """Say what a plug-in's model lacks; one that is trained must survive being saved."""
    context.note_unstated(ref)
    if not role.trainable or not is_main():
        return
    hooks = context.registry.hooks

    def save(model: PreTrainedModel, folder: Path) -> None:
        save_model(hooks, model, tokenizer, folder)

    prove_saving(model, ref, save, lambda again: load_model(hooks, again, role))


def _rails(spec: TrainSpec, context: StageContext) -> Rails:
    block = spec.rails
    tolerance = {"fp32": 2e-3, "bf16": 5e-2}[context.recipe.precision]
    return Rails(
        stop=block.on_breach == "stop",
        max_kl=block.max_kl,
        max_truncated=block.max_truncated,
        tolerance=tolerance,
        say=lambda text: context.progress.note(f"{context.name}: {text}"),
    )


def _digests(bound: Mapping[str, str | None], context: StageContext) -> dict[str, str]:
    return {
        role: model_digest(name or "initial", context.recipe, context.registry, context.outputs)
        for role, name in bound.items()
    }


def _save(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    context: StageContext,
    role: str,
    main: str,
) -> None:
    folder = context.folder / ("model" if role == main else f"model-{role}")
    kept = model.to(context.dtype)  # type: ignore[arg-type]
    save_model(context.registry.hooks, kept, tokenizer, folder)


def _items(
    spec: DataSpec,
    kind: type[Batch],
    tokenizer: PreTrainedTokenizerBase,
    context: StageContext,
) -> Sequence[Item]:
    return _encoded(spec, kind, tokenizer, context).items


def _encoded(
    spec: DataSpec,
    kind: type[Batch],
    tokenizer: PreTrainedTokenizerBase,
    context: StageContext,
) -> Encoded:
    loaded = context.load(spec)
    limits = Limits(spec.max_length, spec.max_prompt_length, spec.too_long)
    encoded = encode_all(loaded.samples, kind, tokenizer, limits, loaded.places)
    report = encoded.report
    lengths = ", ".join(f"{name} {x:.1f}" for name, x in report.response_lengths.items())
    context.progress.note(
        f"{context.name}: {report.items} items of {spec.name}; mean tokens: "
        f"prompt {report.prompt_length:.1f}, {lengths}"
    )
    if report.truncated or report.dropped:
        where = "".join(f"\n  {place}" for place in report.dropped_at)
        context.progress.note(
            f"{context.name}: longer than max_length {spec.max_length}: {report.truncated} "
            f"truncated, {report.dropped} dropped{where}"
        )
    for warning in report.warnings:
        context.progress.note(f"{context.name}: {warning}")
    return encoded


def _validation(
    spec: TrainSpec,
    algorithm: Algorithm[Any],
    tokenizer: PreTrainedTokenizerBase,
    context: StageContext,
) -> Validation | None:
    chosen = spec.validation
    if chosen is None:
        return None
    if issubclass(algorithm.batch, RolloutBatch):
        raise DataError(
            f"{context.name}: '{spec.algorithm}' has no loss on held-out data, it learns from "
            "samples alone; remove `validation:`"
        )
    items = _items(chosen.data, algorithm.batch, tokenizer, context)
    return Validation(items, chosen.every, chosen.metric, {"lower": -1, "higher": 1}[chosen.better])


# --- on-policy ----------------------------------------------------------------------------------


def _rollout(
    spec: TrainSpec,
    tokenizer: PreTrainedTokenizerBase,
    context: StageContext,
    device: torch.device,
) -> Rollout:
    block = spec.rollout or RolloutSpec.model_validate({})
    loaded = context.load(spec.data)
    samples = loaded.samples
    prompts = [prompt_ids(sample, tokenizer) for sample in samples]
    limit = spec.data.max_prompt_length or spec.data.max_length
    kept = [n for n, ids in enumerate(prompts) if len(ids) <= limit]
    if len(kept) < len(prompts):
        said = f"{context.name}: {len(prompts) - len(kept)} prompts are longer than {limit} tokens"
        if spec.data.too_long == "error":
            raise DataError(said)
        context.progress.note(f"{said} and left out")
    ids = [prompts[n] for n in kept]
    sampling = resolve(block.sampling, tokenizer)
    task = _Task([samples[n] for n in kept], ids, tokenizer, sampling.stop_ids, device)
    return Rollout(
        prompts=ids,
        reward=_reward(block.reward, task, context) if block.reward else None,
        engine=context.engine(block.engine, block.with_, block.batch_size),
        sampling=sampling,
        prompts_per_buffer=block.prompts,
        samples_per_prompt=block.samples_per_prompt,
        epochs=block.epochs,
        max_gap=block.max_gap,
        places=[loaded.places[n] for n in kept],
    )


@dataclass(frozen=True)
class _Task:
    """The prompts that are answered, as text and as ids."""

    samples: Sequence[Sample]
    prompts: Sequence[tuple[int, ...]]
    tokenizer: PreTrainedTokenizerBase
    stop: tuple[int, ...]
    device: torch.device

    def answer(self, number: int, done: Completion) -> Answer:
        """A completion as a judge sees it."""
        sample = self.samples[number]
        text = decode_response(self.prompts[number], done.ids, self.tokenizer, self.stop)
        response = Response(text, done.ids, done.ended)
        return Answer(
            PromptSample(sample.prompt, sample.meta), response, len(done.ids) - done.ended
        )


def _reward(spec: RewardSpec, task: _Task, context: StageContext) -> Reward:
    """What a sampled response earns: a judge's score of its text, or a scalar head's output."""
    return _from_judge(spec, task, context) if spec.judge else _from_model(spec, task, context)


def _from_judge(spec: RewardSpec, task: _Task, context: StageContext) -> Reward:
    judge = build_options(context.registry.find("judge", str(spec.judge)), spec.with_)

    def reward(numbers: Sequence[int], done: Sequence[Completion]) -> Sequence[float]:
        return judged(judge, [task.answer(n, c) for n, c in zip(numbers, done, strict=True)])

    return reward


def _from_model(spec: RewardSpec, task: _Task, context: StageContext) -> Reward:
    ref = context.model(spec.model)
    model = load_model(context.registry.hooks, ref, Role(head="scalar"), context.dtype,
                       Listener(note=context.note))  # fmt: skip
    model.to(task.device)  # type: ignore[arg-type]
    other = rereader_for(ref, task.tokenizer, task.samples, context)
    tokenizer = other.tokenizer if other else task.tokenizer
    check_end(model, tokenizer, ref.name)

    def row(number: int, done: Completion) -> Tokens:
        if other is None:
            return Tokens(task.prompts[number], done.ids)
        return other.row(number, task.answer(number, done))

    def reward(numbers: Sequence[int], done: Sequence[Completion]) -> Sequence[float]:
        rows = [row(n, c) for n, c in zip(numbers, done, strict=True)]
        check_context(model, rows, ref.name)
        return sequence_values(model, rows, pad_id_of(tokenizer))

    return reward
