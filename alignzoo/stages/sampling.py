"""Answers to prompts from a model, for the generate stage and for benchmarks."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import torch

from alignzoo.contract.algorithm import Role
from alignzoo.contract.errors import DataError
from alignzoo.contract.rollout import Completion, RolloutSession, Sampling, sample_key
from alignzoo.contract.stage import ModelRef
from alignzoo.contract.types import PromptSample, Response, Sample
from alignzoo.data.ends import end_ids, stop_ids
from alignzoo.data.reader import USUAL, Embedding, Reader, Rules
from alignzoo.data.rows import row_from_sample
from alignzoo.data.tokens import decode_answer, prompt_ids
from alignzoo.engine.models.bounds import bounds_of
from alignzoo.engine.models.fit import check_end, embedding_rows
from alignzoo.engine.models.hooked import Listener
from alignzoo.engine.models.load import load_model, load_tokenizer
from alignzoo.recipe.blocks import EvaluateSpec, GenerateSpec, SamplingSpec
from alignzoo.stages.compared import start_compared
from alignzoo.stages.context import StageContext
from alignzoo.stages.sharing import shared_out
from alignzoo.store.records import STATE

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

BATCHES_PER_WINDOW = 4  # prompts of so many batches are sorted by length


@dataclass(frozen=True)
class Speaker:
    """A loaded model with its tokenizer and the ids that end its answers."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    ends: tuple[int, ...]
    rules: Rules = USUAL
    name: str = ""

    @cached_property
    def reader(self) -> Reader:
        """How it reads prompts, and how its answers become text."""
        embedding = Embedding(self.name, embedding_rows(self.model))
        return Reader(self.tokenizer, self.rules, self.ends, embedding)


def load_speaker(ref: ModelRef, context: StageContext, rules: Rules = USUAL) -> Speaker:
    """Load a model for sampling or measuring, on the accelerator if there is one."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    listener = Listener(lambda model: context.note_unstated(ref), context.note)
    model = load_model(context.registry.hooks, ref, Role(), listener=listener)
    model.to(device)  # type: ignore[arg-type]
    model.eval()
    tokenizer = load_tokenizer(context.registry.hooks, ref)
    check_end(model, tokenizer, ref.name)
    return Speaker(model, tokenizer, end_ids(tokenizer, bounds_of(model).ends), rules, ref.name)


def sample_answers(
    prompts: Sequence[PromptSample],
    spec: GenerateSpec | EvaluateSpec,
    speaker: Speaker,
    context: StageContext,
) -> list[tuple[Response, ...]]:
    """`spec.samples` answers to every prompt; all ranks sample, and each gets all answers.

    An answer depends on the seed, its prompt's number and its own number alone; models that
    answer the same prompts share their noise, which narrows paired differences.
    """
    check_writable(prompts)
    ids = [prompt_ids(p, speaker.reader, f"prompt {n}") for n, p in enumerate(prompts, 1)]
    jobs = [(p, k) for p in range(len(prompts)) for k in range(spec.samples)]
    wanted = spec.sampling if isinstance(spec, GenerateSpec) else spec.sampling.over({})
    sampling = resolve(wanted, speaker.tokenizer, speaker.ends)
    engine = context.engine(spec.engine, spec.batch_size)
    batches = _batches(jobs, ids, spec.batch_size)
    answers: dict[tuple[int, int], Response] = {}
    with closing(start_compared(engine, speaker.model, context.note)) as session:

        def complete(batch: Sequence[tuple[int, int]]) -> list[tuple[Sequence[int], bool]]:
            with context.arithmetic():
                done = _complete(session, ids, batch, sampling, context.seed)
            return [(c.ids, c.ended) for c in done]

        kept = shared_out(context.folder / STATE / "answers.jsonl", batches, complete)
        for batch, rows in zip(batches, kept, strict=True):
            for job, (tokens, ended) in zip(batch, rows, strict=True):
                answers[job] = decode_answer(
                    ids[job[0]], tokens, speaker.reader, sampling.stop_ids, ended=ended
                )
            context.progress.step(context.name, len(answers), len(jobs), {}, {})
    return [tuple(answers[p, k] for k in range(spec.samples)) for p in range(len(prompts))]


def check_writable(samples: Sequence[Sample]) -> None:
    """Raise DataError for what could not be written afterwards, before the work is done."""
    for number, sample in enumerate(samples, 1):
        try:
            json.dumps(row_from_sample(sample))
        except (TypeError, ValueError) as error:
            raise DataError(
                f"sample {number}: {error}, so it could not be written to data.jsonl; leave that "
                "column out of the data, or make it text or numbers"
            ) from error


def _batches(
    jobs: Sequence[tuple[int, int]], ids: Sequence[Sequence[int]], size: int
) -> list[list[tuple[int, int]]]:
    """Jobs of similar prompt length together, near their order: what is kept on the way is a batch.

    Within a window the longest come first, to fail early on memory.
    """
    window = size * BATCHES_PER_WINDOW
    windows = [jobs[start : start + window] for start in range(0, len(jobs), window)]
    ordered = (sorted(some, key=lambda job: -len(ids[job[0]])) for some in windows)
    return [some[start : start + size] for some in ordered for start in range(0, len(some), size)]


def resolve(
    spec: SamplingSpec, tokenizer: PreTrainedTokenizerBase, ends: Sequence[int]
) -> Sampling:
    """The recipe's sampling settings with stop tokens as ids; `ends` are the model's own."""
    return Sampling(
        max_new_tokens=spec.max_new_tokens,
        temperature=spec.temperature,
        top_p=spec.top_p,
        top_k=spec.top_k,
        min_new_tokens=spec.min_new_tokens,
        stop_ids=stop_ids(tokenizer, spec.stop, ends),
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
