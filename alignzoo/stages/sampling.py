"""Answers to prompts from a model, for the generate stage and for benchmarks."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from alignzoo.contract.algorithm import Role
from alignzoo.contract.rollout import Completion, RolloutSession, Sampling, sample_key
from alignzoo.contract.stage import ModelRef
from alignzoo.contract.types import PromptSample, Response
from alignzoo.data.tokens import decode_response, prompt_ids, stop_ids
from alignzoo.engine.models.load import load_model, load_tokenizer
from alignzoo.recipe.blocks import EvaluateSpec, GenerateSpec, SamplingSpec
from alignzoo.stages.context import StageContext

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

BATCHES_PER_CALL = 4  # a call may sort this many batches by length; progress comes between calls


@dataclass(frozen=True)
class Speaker:
    """A loaded model with its tokenizer."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase


def load_speaker(ref: ModelRef, context: StageContext) -> Speaker:
    """Load a model for sampling or measuring, on the accelerator if there is one."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model = load_model(context.registry.hooks, ref, Role(), context.dtype)
    model.to(device)  # type: ignore[arg-type]
    model.eval()
    return Speaker(model, load_tokenizer(context.registry.hooks, ref))


def sample_answers(
    prompts: Sequence[PromptSample],
    spec: GenerateSpec | EvaluateSpec,
    speaker: Speaker,
    context: StageContext,
) -> list[tuple[Response, ...]]:
    """`spec.samples` answers to every prompt.

    An answer depends on the seed, its prompt's number and its own number alone; models that
    answer the same prompts share their noise, which narrows paired differences.
    """
    ids = [prompt_ids(prompt, speaker.tokenizer) for prompt in prompts]
    jobs = [(p, k) for p in range(len(prompts)) for k in range(spec.samples)]
    wanted = spec.sampling if isinstance(spec, GenerateSpec) else spec.sampling.over({})
    sampling = resolve(wanted, speaker.tokenizer)
    engine = context.engine(spec.engine, {}, spec.batch_size)
    done: list[Completion] = []
    with closing(engine.start(speaker.model)) as session:
        for start in range(0, len(jobs), spec.batch_size * BATCHES_PER_CALL):
            some = jobs[start : start + spec.batch_size * BATCHES_PER_CALL]
            done += _complete(session, ids, some, sampling, context.seed)
            context.progress.step(context.name, len(done), len(jobs), {}, {})
    answers = [
        _response(ids[p], completion, speaker.tokenizer, sampling)
        for (p, _), completion in zip(jobs, done, strict=True)
    ]
    n = spec.samples
    return [tuple(answers[p * n : (p + 1) * n]) for p in range(len(prompts))]


def resolve(spec: SamplingSpec, tokenizer: PreTrainedTokenizerBase) -> Sampling:
    """The recipe's sampling settings with stop tokens as ids."""
    return Sampling(
        max_new_tokens=spec.max_new_tokens,
        temperature=spec.temperature,
        top_p=spec.top_p,
        top_k=spec.top_k,
        min_new_tokens=spec.min_new_tokens,
        stop_ids=stop_ids(tokenizer, spec.stop),
    )


def _complete(
    session: RolloutSession,
    ids: Sequence[Sequence[int]],
    jobs: Sequence[tuple[int, int]],
    sampling: Sampling,
    seed: int,
) -> list[Completion]:
    keys = [sample_key(seed, "answer", prompt, sample) for prompt, sample in jobs]
    return session.generate([ids[prompt] for prompt, _ in jobs], sampling, keys)


def _response(
    prompt: Sequence[int],
    completion: Completion,
    tokenizer: PreTrainedTokenizerBase,
    sampling: Sampling,
) -> Response:
    text = decode_response(prompt, completion.ids, tokenizer, sampling.stop_ids)
    return Response(text, completion.ids, completion.ended)
