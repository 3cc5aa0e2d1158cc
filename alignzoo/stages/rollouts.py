"""The `rollout:` block of a train stage, resolved: prompts, engine, and what an answer earns."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from alignzoo.contract.algorithm import Algorithm, Role
from alignzoo.contract.choosing import fields_of_rows, fills_itself
from alignzoo.contract.errors import DataError
from alignzoo.contract.rollout import Completion
from alignzoo.contract.types import (
    Batch,
    PromptSample,
    Tokens,
)
from alignzoo.data.reader import Reader
from alignzoo.data.tokens import Encoded, numbers_of, prompt_ids
from alignzoo.data.views import Views
from alignzoo.engine.models.bounds import bounds_of
from alignzoo.engine.models.fit import check_end
from alignzoo.engine.models.hooked import Listener
from alignzoo.engine.models.load import load_model, pad_id_of
from alignzoo.engine.parallel.ranks import start_ranks
from alignzoo.engine.scoring.measure import sequence_values
from alignzoo.engine.train.sources import Reward, Rollout
from alignzoo.recipe.blocks import RewardSpec, RolloutSpec, TrainSpec
from alignzoo.recipe.buffers import chooser_of
from alignzoo.recipe.options import build_options
from alignzoo.stages.context import StageContext
from alignzoo.stages.label import judged
from alignzoo.stages.learner import Learner
from alignzoo.stages.reading import Prompts, read_all_prompts
from alignzoo.stages.rereading import check_context, rereader_for
from alignzoo.stages.sampling import resolve
from alignzoo.stages.tasks import SampledViews, Task, longest_views


def rollout_of(
    spec: TrainSpec,
    algorithm: Algorithm[Any],
    learner: Learner,
    context: StageContext,
    given: Encoded | None,
) -> Rollout:
    """Prompts, engine, reward and views of an on-policy stage; `given` are the data's own items.

    Raises DataError when no prompt leaves room for an answer, a row lacks a number that the batch
    holds or what a view is made of, or a reward model cannot be used.
    """
    block = spec.rollout or RolloutSpec.model_validate({})
    reader = learner.reader(spec.data.sources[0])  # all are read alike
    read = _of_items(given, reader) if given else read_all_prompts(spec.data, reader, context)
    sampling = resolve(block.sampling, learner.tokenizer, learner.ends)
    every = Task(read.samples, read.ids, read.places, reader, sampling.stop_ids)
    views = Views.of(algorithm)
    seen = longest_views(views, every, block) if views else [0] * len(read.ids)
    kept = _short_enough(read.ids, seen, spec, learner, context)
    task = every.only(kept)
    return Rollout(
        prompts=task.prompts,
        reward=_reward(block.reward, task, context) if block.reward else None,
        engine=context.engine(block.engine, block.batch_size),
        sampling=sampling,
        prompts_per_buffer=block.prompts,
        samples_per_prompt=block.samples_per_prompt,
        epochs=block.epochs,
        max_gap=block.max_gap,
        places=task.places,
        chooser=chooser_of(block),
        values=[
            _numbers(sample, place, algorithm.batch)
            for sample, place in zip(task.samples, task.places, strict=True)
        ],
        views=SampledViews(views, task, learner.context) if views else None,
        share=block.share,
        own=[given.items[n] for n in kept] if given else (),
    )


def reads_answers(spec: TrainSpec) -> bool:
    """Whether a stage learns from answers of the data, be it in a share of its prompts alone."""
    return spec.rollout is None or spec.rollout.share < 1


def _of_items(given: Encoded, reader: Reader) -> Prompts:
    """The prompts of items, as they are sampled for."""
    places = zip(given.samples, given.places, strict=True)
    ids = tuple(prompt_ids(sample, reader, place) for sample, place in places)
    samples = tuple(PromptSample(sample.prompt, sample.meta) for sample in given.samples)
    return Prompts(samples, ids, given.places)


def _numbers(sample: PromptSample, place: str, kind: type[Batch]) -> dict[str, float]:
    """The numbers of a prompt's row; DataError when the method's batch asks for one more."""
    found = numbers_of(sample.meta)
    for name in () if fills_itself(kind) else fields_of_rows(kind):
        if name not in found:
            raise DataError(
                f"{place}: has no number '{name}', which the method's batch {kind.__name__} holds "
                "for every prompt; give the row one"
            )
    return found


def _short_enough(
    prompts: Sequence[tuple[int, ...]],
    seen: Sequence[int],
    spec: TrainSpec,
    learner: Learner,
    context: StageContext,
) -> list[int]:
    """The numbers of the prompts that fit the limits, and the context together with an answer.

    `seen` are the tokens of each prompt's longest view, which must fit the context too.
    """
    answer = (spec.rollout or RolloutSpec()).sampling.max_new_tokens
    data = spec.data.sources[0]
    limit = data.max_prompt_length or learner.max_length(data)
    room = limit if learner.context is None else learner.context - answer
    fits = [n for n, ids in enumerate(prompts) if len(ids) <= min(limit, room)]
    kept = [n for n in fits if learner.context is None or seen[n] <= room]
    if len(kept) < len(prompts):
        said = f"{context.name}: {len(prompts) - len(kept)} of {len(prompts)} prompts "
        said += "or their views " if len(kept) < len(fits) else ""
        said += f"are longer than {min(limit, room)} tokens"
        if room < limit:
            said += f" (context {learner.context}, less max_new_tokens {answer})"
        if data.too_long == "error" or not kept:
            raise DataError(f"{said}; shorten them, or sample fewer tokens")
        context.progress.note(f"{said} and left out")
    return kept


def _reward(spec: RewardSpec, task: Task, context: StageContext) -> Reward:
    """What a sampled response earns: a judge's score of its text, or a scalar head's output."""
    return _from_judge(spec, task, context) if spec.judge else _from_model(spec, task, context)


def _from_judge(spec: RewardSpec, task: Task, context: StageContext) -> Reward:
    judge = build_options(context.registry.find("judge", str(spec.judge)), spec.with_)

    def reward(numbers: Sequence[int], done: Sequence[Completion]) -> Sequence[float]:
        return judged(judge, [task.answer(n, c) for n, c in zip(numbers, done, strict=True)])

    return reward


def _from_model(spec: RewardSpec, task: Task, context: StageContext) -> Reward:
    ref = context.model(spec.model)
    listener = Listener(lambda model: context.note_unstated(ref), context.note)
    model = load_model(context.registry.hooks, ref, Role(head="scalar"), listener=listener)
    model.to(start_ranks(context.recipe.precision).device)  # type: ignore[arg-type]
    own = task.reader.tokenizer
    other = rereader_for(ref, own, task.samples, bounds_of(model), task.reader.rules, context)
    tokenizer = other.tokenizer if other else own
    check_end(model, tokenizer, ref.name)

    def row(number: int, done: Completion) -> Tokens:
        if other is None:
            return Tokens(task.prompts[number], done.ids)
        return other.row(number, task.answer(number, done))

    def reward(numbers: Sequence[int], done: Sequence[Completion]) -> Sequence[float]:
        rows = [row(n, c) for n, c in zip(numbers, done, strict=True)]
        check_context(model, rows, ref.name)
        with context.arithmetic():
            return sequence_values(model, rows, pad_id_of(tokenizer))

    return reward
