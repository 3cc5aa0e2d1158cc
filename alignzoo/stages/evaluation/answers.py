"""One answer to every prompt of a benchmark: sampled turn by turn, or read from a file.

Sampled answers are a piece of work of their own beside the verdicts about them, so that another
judge, baseline or parser never samples again. They are written batch by batch and go on after a
stop.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from alignzoo.contract.errors import PluginError
from alignzoo.contract.evaluation import Answer, Benchmark
from alignzoo.contract.rollout import RolloutSession, sample_key
from alignzoo.contract.types import GroupSample, PromptSample, Response
from alignzoo.data.rows import n_tokens, row_from_sample, sample_from_row
from alignzoo.data.tokens import decode_answer, prompt_ids
from alignzoo.engine.parallel.exchange import everyone
from alignzoo.recipe.blocks import EvaluateSpec, SamplingSpec
from alignzoo.stages.compared import start_compared
from alignzoo.stages.context import StageContext
from alignzoo.stages.sampling import Speaker, load_speaker, resolve
from alignzoo.stages.sharing import shared_out
from alignzoo.store.files import write_text
from alignzoo.store.identity import answers_identity
from alignzoo.store.records import (
    STATE,
    Identity,
    adopt,
    begin,
    clear_state,
    find,
    finish,
    publish,
    resumable,
)

FILE = "answers.jsonl"


@dataclass(frozen=True)
class Asked:
    """A prompt with the settings its answer is sampled with."""

    prompt: PromptSample
    later: tuple[str, ...]  # the user's next turns
    sampling: SamplingSpec

    @property
    def row(self) -> dict[str, Any]:
        """Everything that decides the answer, JSON-able."""
        sampling = self.sampling.model_dump(mode="json")
        return row_from_sample(self.prompt) | {"later": list(self.later), "sampling": sampling}


def asked(prompts: Iterable[PromptSample], spec: EvaluateSpec, benchmark: Benchmark) -> list[Asked]:
    """The prompts with the benchmark's settings, below those of the recipe.

    Raises PluginError when the benchmark prescribes settings that do not exist.
    """
    try:
        return [
            Asked(p, tuple(benchmark.later_turns(p)), spec.sampling.over(benchmark.sampling(p)))
            for p in prompts
        ]
    except ValueError as error:
        raise PluginError(
            f"benchmark '{benchmark.name}': its sampling settings: {error}"
        ) from error


def decoding(questions: Sequence[Asked]) -> str:
    """The settings in words, each combination once: "temperature 0.7, ...; temperature 0, ..."."""
    shown = ("temperature", "top_p", "top_k", "max_new_tokens")
    found = dict.fromkeys(
        ", ".join(f"{name} {getattr(question.sampling, name):g}" for name in shown)
        for question in questions
    )
    return "sampled: " + "; ".join(found)


def is_outputs(model: str, context: StageContext) -> bool:
    """Whether a name stands for a file of recorded outputs."""
    return model not in context.outputs and Path(model).is_file()


def sampled(
    model: str,
    questions: Sequence[Asked],
    spec: EvaluateSpec,
    context: StageContext,
    first: Callable[[], None] = lambda: None,
) -> Path:
    """The finished folder with a model's answers, taken over or sampled now by all ranks.

    Rank 0 calls `first` before anything is sampled, and only then.
    """
    folder = context.run / "answers" / context.folder.parent.name / context.folder.name
    rows = [question.row for question in questions]
    identity = answers_identity(
        spec, model, rows, context.recipe, context.registry, context.outputs
    )
    crew = everyone()
    if crew.from_main(lambda: _taken_over(folder, identity, first)):
        return folder
    answers = _sample(model, questions, spec, context, folder)
    if crew.is_main:
        write_answers(answers, folder)
        finish(folder, identity)
    return folder


def _taken_over(folder: Path, identity: Identity, first: Callable[[], None]) -> bool:
    """Whether the answers are there or in another run; else the folder is made ready for them."""
    found = find(folder, identity)
    if found == folder or (found and adopt(found, folder, identity)):
        clear_state(folder)
        publish(folder, identity)
        return True
    first()
    begin(folder, identity, {STATE} if resumable(folder, identity) else ())
    return False


def write_answers(
    answers: Sequence[Answer], folder: Path, more: Sequence[Mapping[str, Any]] = ()
) -> None:
    """Write answers as rows that `read_answers` and every reader of groups understand.

    `more` has additional keys for each row.
    """
    extras = more or [{}] * len(answers)
    rows = (_row(answer) | dict(extra) for answer, extra in zip(answers, extras, strict=True))
    lines = (json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    write_text(folder / FILE, "".join(lines))


def read_answers(folder: Path) -> list[Answer]:
    """The answers that an earlier piece of work kept."""
    with (folder / FILE).open(encoding="utf-8") as file:
        return [_answer(json.loads(line)) for line in file]


def _row(answer: Answer) -> dict[str, Any]:
    group = GroupSample(answer.prompt, (answer.response,), meta=answer.sample.meta)
    turns = {"turns": [list(answer.turns[:-1])]} if answer.earlier else {}
    return row_from_sample(group) | turns | {"n_tokens": answer.n_tokens}


def _answer(row: Mapping[str, Any]) -> Answer:
    group = sample_from_row(row)
    if not isinstance(group, GroupSample):
        raise TypeError(f"{FILE} holds {type(group).__name__}, not groups")
    (earlier,) = row.get("turns", [[]])
    return Answer(
        PromptSample(group.prompt, group.meta),
        group.responses[0],
        row["n_tokens"],
        tuple(Response(text) for text in earlier),
    )


# --- sampling --------------------------------------------------------------------------------


@dataclass(frozen=True)
class Talk:
    """A model in conversation about the prompts of a benchmark."""

    questions: Sequence[Asked]
    speaker: Speaker
    session: RolloutSession
    batch_size: int
    context: StageContext

    def turn(
        self, number: int, given: Sequence[Sequence[Response]], file: Path
    ) -> Iterator[tuple[int, Response]]:
        """The replies of one turn, counted from 0, by prompt; every batch is kept in the file.

        All ranks reply to a part of the prompts, and get all replies.
        """
        todo = [n for n, question in enumerate(self.questions) if len(question.later) >= number]
        batches = [
            (sampling, alike[start : start + self.batch_size])
            for sampling, alike in _alike(self.questions, todo).items()
            for start in range(0, len(alike), self.batch_size)
        ]

        def answered(batch: tuple[SamplingSpec, Sequence[int]]) -> list[tuple[Any, ...]]:
            sampling, some = batch
            prompts = [_conversation(self.questions[n], given[n]) for n in some]
            seed, later = self.context.seed, _later(number)
            keys = [sample_key(seed, "answer", n, 0, *later) for n in some]
            return self._replies(prompts, sampling, keys, some)

        replies = shared_out(file, batches, answered)
        for (_, some), rows in zip(batches, replies, strict=True):
            for n, (text, ids, ended, plain) in zip(some, rows, strict=True):
                yield n, Response(text, tuple(ids), ended, plain)

    def _replies(
        self,
        prompts: Sequence[PromptSample],
        sampling: SamplingSpec,
        keys: Sequence[int],
        numbers: Sequence[int],
    ) -> list[tuple[Any, ...]]:
        """The fields of each reply."""
        reader = self.speaker.reader
        wanted = resolve(sampling, reader.tokenizer, reader.ends)
        numbered = zip(numbers, prompts, strict=True)
        ids = [prompt_ids(prompt, reader, f"prompt {n + 1}") for n, prompt in numbered]
        with self.context.arithmetic():
            done = self.session.generate(ids, wanted, keys)
        replies = [
            decode_answer(start, c.ids, reader, wanted.stop_ids, ended=c.ended)
            for start, c in zip(ids, done, strict=True)
        ]
        return [(r.text, r.ids, r.ended, r.plain) for r in replies]


def _later(turn: int) -> list[int]:
    """The turn's part of the noise key; the first has none, as everywhere else."""
    return [turn] if turn else []


def _sample(
    model: str,
    questions: Sequence[Asked],
    spec: EvaluateSpec,
    context: StageContext,
    folder: Path,
) -> list[Answer]:
    speaker = load_speaker(context.model(model), context)
    given: list[tuple[Response, ...]] = [() for _ in questions]
    total = sum(1 + len(question.later) for question in questions)
    done = 0
    engine = context.engine(spec.engine, spec.batch_size)
    with closing(start_compared(engine, speaker.model, context.note)) as session:
        talk = Talk(questions, speaker, session, spec.batch_size, context)
        for turn in range(1 + max(len(question.later) for question in questions)):
            file = folder / "state" / f"turn-{turn + 1}-by-{spec.batch_size}.jsonl"
            for number, response in talk.turn(turn, tuple(given), file):
                given[number] = (*given[number], response)
                done += 1
                context.progress.step(context.name, done, total, {}, {})
    return [_as_answer(q.prompt, g) for q, g in zip(questions, given, strict=True)]


def _as_answer(prompt: PromptSample, given: Sequence[Response]) -> Answer:
    return Answer(prompt, given[-1], n_tokens(given[-1]), tuple(given[:-1]))


def _alike(questions: Sequence[Asked], numbers: Iterable[int]) -> dict[SamplingSpec, list[int]]:
    """Prompts by their sampling settings: one call of an engine has one setting."""
    groups: dict[SamplingSpec, list[int]] = {}
    for number in numbers:
        groups.setdefault(questions[number].sampling, []).append(number)
    return groups


def _conversation(question: Asked, given: Sequence[Response]) -> PromptSample:
    """The prompt of the next turn: everything said so far."""
    if not given:
        return question.prompt
    first = question.prompt.prompt
    messages = [{"role": "user", "content": first}] if isinstance(first, str) else list(first)
    for response, user in zip(given, question.later, strict=False):
        messages += [
            {"role": "assistant", "content": response.text.strip()},
            {"role": "user", "content": user},
        ]
    return replace(question.prompt, prompt=tuple(messages))
