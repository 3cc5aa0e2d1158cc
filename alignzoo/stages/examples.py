"""The `log_samples:` block of a train stage, resolved: which prompts, what is kept of answers."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Sequence
from hashlib import blake2b
from itertools import islice
from typing import Any

from alignzoo.contract.rollout import Completion
from alignzoo.data.tokens import decode_answer
from alignzoo.engine.train.examples import Examples
from alignzoo.recipe.blocks import EngineSpec, SamplingSpec, TrainSpec
from alignzoo.recipe.roles import main_role
from alignzoo.stages.context import StageContext
from alignzoo.stages.engines import engine_of
from alignzoo.stages.learner import Learner
from alignzoo.stages.sampling import resolve

POOL = 10_000  # of so many prompts of the data some are chosen


def examples_of(
    spec: TrainSpec, learner: Learner, prompts: Sequence[tuple[int, ...]], context: StageContext
) -> Examples | None:
    """What the main role answers now and then; None for one with a scalar head, or without prompts
    that leave room for an answer.
    """
    block, cls = spec.log_samples, context.registry.find("algorithm", spec.algorithm)
    role = main_role(cls)
    if not block.prompts or cls.roles[role].head == "scalar":
        return None
    wanted = spec.rollout.sampling if spec.rollout else SamplingSpec()
    most = (
        min(block.max_new_tokens, wanted.max_new_tokens) if spec.rollout else block.max_new_tokens
    )
    limits = {"max_new_tokens": most, "min_new_tokens": min(most, wanted.min_new_tokens)}
    sampling = resolve(wanted.model_copy(update=limits), learner.tokenizer, learner.ends)
    room = None if learner.context is None else learner.context - most
    fitting = (p for p in prompts if p and (room is None or len(p) <= room))
    chosen = some_of(fitting, block.prompts)
    if not chosen:
        context.note("log_samples: no prompt leaves room for an answer, so none is logged")
        return None
    reader = learner.reader(spec.data.sources[0])

    def row(number: int, done: Completion) -> dict[str, Any]:
        prompt = chosen[number]
        answer = decode_answer(prompt, done.ids, reader, sampling.stop_ids, ended=done.ended)
        return {
            "prompt": number,
            "asked": reader.tokenizer.decode(list(prompt)),
            "answer": answer.text,
            "tokens": len(done.ids),
            "ended": done.ended,
        }

    engine = engine_of(EngineSpec(), len(chosen), context.registry)
    return Examples(role, chosen, block.at, engine, sampling, row)


def some_of(prompts: Iterable[tuple[int, ...]], n: int) -> list[tuple[int, ...]]:
    """Some of the different prompts: the same whatever their order, and in every run over them."""
    different = dict.fromkeys(islice(prompts, POOL))
    return sorted(different, key=lambda ids: blake2b(array("q", ids).tobytes()).digest())[:n]
