"""Answers to prompts that have none, and the rewards of responses, as a stage would get them."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass

from alignzoo.contract.algorithm import Role
from alignzoo.contract.errors import DataError, UsageError
from alignzoo.contract.evaluation import Answer
from alignzoo.contract.rollout import sample_key
from alignzoo.contract.types import GroupSample, PromptSample, RolloutBatch, Sample
from alignzoo.data.ends import end_ids
from alignzoo.data.reader import USUAL, Embedding, Reader
from alignzoo.data.tokens import decode_answer, prompt_ids
from alignzoo.data.vocabulary import difference, vocabulary_of
from alignzoo.engine.models.load import load_model, load_tokenizer, pad_id_of
from alignzoo.engine.parallel.ranks import arithmetic
from alignzoo.engine.scoring.measure import sequence_values
from alignzoo.lens.methods import Loaded, Method
from alignzoo.lens.responses import Answered
from alignzoo.recipe.blocks import EngineSpec, SamplingSpec
from alignzoo.recipe.judges import by_of, is_worded
from alignzoo.recipe.options import build_options
from alignzoo.recipe.registry import Registry
from alignzoo.recipe.rewards import RewardSpec
from alignzoo.stages.compared import start_compared
from alignzoo.stages.engines import engine_of
from alignzoo.stages.label import judged
from alignzoo.stages.sampling import resolve

BATCH = 64  # answers that are sampled side by side


@dataclass(frozen=True)
class Decoding:
    """How prompts without a response are answered."""

    max_new_tokens: int = 256  # less where the context ends
    temperature: float = 1.0
    seed: int = 0


def reader_of(loaded: Loaded) -> Reader:
    """How the main model reads texts."""
    ends = end_ids(loaded.tokenizer, loaded.ends)
    name = loaded.method.refs[loaded.method.main].name
    return Reader(loaded.tokenizer, USUAL, ends, Embedding(name, loaded.rows))


def sample_answers(
    loaded: Loaded, samples: Sequence[tuple[str, Sample]], how: Decoding, registry: Registry
) -> list[tuple[str, Sample]]:
    """One answer of the main model to each prompt; it depends on the seed and its number alone.

    Raises UsageError for a model that answers nothing, DataError for a prompt that fills the
    context.
    """
    method, reader = loaded.method, reader_of(loaded)
    if method.main not in method.language_models:
        raise UsageError(
            f"{method.label}: its model has a scalar head, which answers nothing; give responses"
        )
    prompts = [(place, PromptSample(s.prompt, s.meta)) for place, s in samples]
    ids = [prompt_ids(prompt, reader, place) for place, prompt in prompts]
    room = _room(prompts[0][0], ids, how, min(loaded.contexts.values(), default=None))
    spec = SamplingSpec(max_new_tokens=room, temperature=how.temperature)
    sampling = resolve(spec, loaded.tokenizer, reader.ends)
    model = loaded.module.by_role[method.main]
    engine = engine_of(EngineSpec(), BATCH, registry)
    keys = [sample_key(how.seed, "answer", p, 0) for p in range(len(ids))]
    with (
        closing(start_compared(engine, model)) as session,
        arithmetic(method.precision, model.device.type),
    ):
        done = session.generate(ids, sampling, keys)
    answers = [
        decode_answer(own, c.ids, reader, sampling.stop_ids, ended=c.ended)
        for own, c in zip(ids, done, strict=True)
    ]
    return [
        (place, GroupSample(prompt.prompt, (answer,), meta=prompt.meta))
        for (place, prompt), answer in zip(prompts, answers, strict=True)
    ]


def _room(place: str, ids: Sequence[Sequence[int]], how: Decoding, context: int | None) -> int:
    """Tokens of an answer: those asked for, or what the context leaves."""
    longest = max(map(len, ids), default=0)
    room = how.max_new_tokens if context is None else min(how.max_new_tokens, context - longest)
    if room < 1:
        raise DataError(
            f"{place.partition(':')[0]}: a prompt has {longest} tokens, which leaves no room for "
            f"an answer within the models' context of {context}; shorten it"
        )
    return room


def rewards_of(
    loaded: Loaded, rows: Sequence[Answered], registry: Registry
) -> tuple[list[float] | None, str]:
    """What the stage's rollouts would earn with these responses, or why that is not known."""
    method = loaded.method
    if not issubclass(method.algorithm.batch, RolloutBatch):
        return None, ""
    if method.rollout is None:
        return None, f"{method.label}: no rollout block says what a response earns"
    block = method.rollout.reward
    if block is None:
        return [0.0] * len(rows), ""  # as in training
    if why := _unread(block, registry):
        return None, f"{method.label}: {why}"
    (spec,) = block.sources
    if spec.model is not None:
        return _from_model(loaded, method, rows, registry)
    judge = build_options(registry.find("judge", spec.judges[0].name), spec.judges[0].with_)
    answers = [
        Answer(row.prompt, row.response, len(row.tokens.response) - row.response.ended)
        for row in rows
    ]
    return judged(judge, answers), ""


def _unread(block: RewardSpec, registry: Registry) -> str:
    """Why a reward is not known from single answers alone, or an empty string."""
    spec, *more = block.sources
    if more or spec.weight != 1:
        return "its reward is a sum of several, which is not read here"
    names = ", ".join(f"'{judge.name}'" for judge in spec.judges)
    if is_worded(spec, registry):
        return f"judge {names} would have to be asked, and is not"
    if spec.judges and by_of(spec, registry) == "wins":
        return "its reward is a win rate among the answers to a prompt"
    return ""


def _from_model(
    loaded: Loaded, method: Method, rows: Sequence[Answered], registry: Registry
) -> tuple[list[float] | None, str]:
    ref = method.reward_ref
    if ref is None:
        return None, f"{method.label}: its reward model is not known"
    other = load_tokenizer(registry.hooks, ref)
    if difference(vocabulary_of(loaded.tokenizer), vocabulary_of(other)):
        return None, f"{method.label}: its reward model reads other tokens"
    model = load_model(registry.hooks, ref, Role(head="scalar"))
    device = next(loaded.module.parameters()).device
    model.to(device)  # type: ignore[arg-type]
    with arithmetic(method.precision, device.type):
        return sequence_values(model, [row.tokens for row in rows], pad_id_of(other)), ""
