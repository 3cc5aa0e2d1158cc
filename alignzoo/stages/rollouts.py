"""The `rollout:` block of a train stage, resolved: prompts, engine, and what an answer earns."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from alignzoo.contract.algorithm import Algorithm
from alignzoo.contract.choosing import fields_of_rows, fills_itself
from alignzoo.contract.errors import DataError
from alignzoo.contract.types import (
    Batch,
    PromptSample,
)
from alignzoo.data.reader import Reader
from alignzoo.data.tokens import Encoded, numbers_of, prompt_ids
from alignzoo.data.views import Views
from alignzoo.engine.sampling.mixtures import GeometricMixture, Mixture
from alignzoo.engine.train.sources import Rollout
from alignzoo.recipe.blocks import RolloutSpec, TrainSpec
from alignzoo.recipe.buffers import USUAL_CHOICE
from alignzoo.recipe.judges import choosers_of
from alignzoo.stages.context import StageContext
from alignzoo.stages.earning import earning_of, nothing
from alignzoo.stages.learner import Learner
from alignzoo.stages.reading import Prompts, read_all_prompts
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
    earning = None
    if block.reward is not None:
        earning = earning_of(block.reward, block.samples_per_prompt, task, context)
    return Rollout(
        prompts=task.prompts,
        reward=earning.reward if earning else None,
        engine=context.engine(block.engine, block.batch_size),
        sampling=sampling,
        prompts_per_buffer=block.prompts,
        samples_per_prompt=block.samples_per_prompt,
        epochs=block.epochs,
        max_gap=block.max_gap,
        places=task.places,
        chooser=choosers_of(block.reward, context.registry)[block.choose or USUAL_CHOICE],
        values=[
            _numbers(sample, place, algorithm.batch)
            for sample, place in zip(task.samples, task.places, strict=True)
        ],
        views=SampledViews(views, task, learner.context) if views else None,
        share=block.share,
        mixture=mixture_of(block),
        own=[given.items[n] for n in kept] if given else (),
        begin=earning.begin if earning else nothing,
        close=earning.close if earning else nothing,
    )


def mixture_of(block: RolloutSpec) -> Mixture | None:
    """What the tokens are drawn from; None: the policy alone, in whatever words."""
    if block.sampler is None:
        return None
    kind = GeometricMixture if block.sampler.mix is None else Mixture
    return kind(block.sampler.weights)


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
