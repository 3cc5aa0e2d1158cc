"""The benchmark: two games a question against the baseline, win rate and style control."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from alignzoo import (
    Answer,
    Column,
    DataError,
    Decoding,
    JudgedBenchmark,
    PromptSample,
    Question,
    Reply,
    Response,
    Verdict,
    file_digest,
    locate,
    option,
)
from alignzoo_arena_hard.control import Entrant
from alignzoo_arena_hard.estimates import CONTROLS, controlled, scored
from alignzoo_arena_hard.files import (
    ANSWERS,
    BASELINE,
    CONFIG,
    QUESTIONS,
    read_answers,
    read_judge_config,
    read_questions,
)
from alignzoo_arena_hard.games import Duel, Game, Record, per_question, record
from alignzoo_arena_hard.pool import Judged, others, pool_identity, read_pool
from alignzoo_arena_hard.revisions import REVISIONS, Revision
from alignzoo_arena_hard.style import (
    RECORDED,
    WORDS,
    Style,
    style_of,
    table,
    token_count,
    vocabulary_digest,
)

FOLLOW_UP = "continue your judgment and finish by outputting a final verdict label"


@dataclass(frozen=True)
class ArenaHard(JudgedBenchmark):
    """Win rate against gpt-4-0314 on 500 questions, each judged in both orders.

    score = 100 * sum w v / sum w over games, v = 1 for a win, .5 for a tie, 0 for a loss, and
    w = `weight` for a strong verdict (A>>B), else 1. style_controlled is the win rate of
    `style_control`. Intervals resample questions with everything that belongs to them.
    Source: arXiv:2406.11939 and the programs of lmarena/arena-hard-auto.
    """

    name = "arena_hard"
    files = (QUESTIONS, ANSWERS, CONFIG)
    file_options = ("data", "pool")

    revision: Literal["2024", "2025"] = option(
        "2024", "whose reading of replies and verdicts: that of v0.1, or of the later program"
    )
    weight: int = option(3, "how often a strong verdict (A>>B) counts", ge=1)
    games: int = option(2, "2: both orders; 1: only the baseline shown first", ge=1, le=2)
    tokenizer: str = option(
        RECORDED,
        "how length is counted for style control: recorded (tokens on file, or of the model that "
        "wrote; words on both sides for a file without), words, or a tokenizer's folder or hub "
        "name, the same for everybody",
    )
    pool: str | None = option(
        None, "folder of other models' model_answer/ and model_judgment/ that share the style fit"
    )
    data: str | None = option(None, "folder with question.jsonl, model_answer/, judge_config.yaml")

    # --- what is asked -------------------------------------------------------------------------

    def prompts(self, seed: int) -> Iterable[PromptSample]:
        """The questions, in the file's order."""
        for asked in read_questions(self._path(QUESTIONS)):
            yield PromptSample(
                ({"role": "user", "content": asked.text},),
                {"id": asked.id, "cluster": asked.cluster},
            )

    def sampling(self, prompt: PromptSample) -> Mapping[str, Any]:
        """Greedy, at most 4,096 tokens."""
        return {"temperature": 0.0, "max_new_tokens": 4096}

    def baseline_answers(self, prompts: Sequence[PromptSample]) -> Sequence[Answer]:
        """What gpt-4-0314 answered.

        Raises DataError when an answer is missing.
        """
        path = self._path(ANSWERS)
        found = read_answers(path)
        missing = [p.meta["id"] for p in prompts if p.meta["id"] not in found]
        if missing:
            raise DataError(
                f"{path}: no answer of {BASELINE} to question {missing[0]} and {len(missing) - 1} "
                f"others of question.jsonl; get both files from one place: {ANSWERS.get}"
            )
        given = [(p, found[p.meta["id"]]) for p in prompts]
        return [
            Answer(p, Response(a.text), len(a.text.split()) if a.n_tokens is None else a.n_tokens)
            for p, a in given
        ]

    def questions(
        self, answers: Sequence[Answer], baseline: Sequence[Answer] | None
    ) -> Iterator[Question]:
        """Two games a question: first the baseline is A, then the candidate is."""
        if baseline is None:
            return
        self._check_pool(baseline)
        config = read_judge_config(self._path(CONFIG))
        decoding = Decoding(config.max_tokens, config.temperature)
        for index, (own, other) in enumerate(zip(answers, baseline, strict=True)):
            for game, shown in enumerate([(other, own), (own, other)][: self.games], 1):
                texts = [answer.response.text for answer in shown]
                user = config.render(_question(own), *texts)
                messages = (
                    {"role": "system", "content": config.system_prompt},
                    {"role": "user", "content": user},
                )
                place = 1 if game == 1 else 0
                yield Question(f"{index}/{game}", index, shown, messages, decoding, place)

    def verdict(self, question: Question, reply: Reply) -> Verdict | Question | None:
        """One label is a verdict; without any, the program of 2024 asks the judge to finish."""
        revision = self._revision
        labels = revision.labels(reply.text)
        asked = sum(message["role"] == "user" for message in question.messages)
        if not labels and asked < revision.attempts:
            more = ({"role": "assistant", "content": reply.text},
                    {"role": "user", "content": FOLLOW_UP})  # fmt: skip
            return replace(question, messages=(*question.messages, *more))
        label = labels[0] if len(labels) == 1 else None
        game = revision.game(label, question.candidate, self.weight)
        return Verdict(game.value, game.weight, label or "") if game else None

    def settings(self) -> Mapping[str, Any]:
        """Digests of the files, of the pool, and of the tokenizer when there is one."""
        files = {file.names[0]: file_digest(self._path(file)) for file in self.files}
        found: dict[str, Any] = {"files": files, "parser": f"{self.revision}.1"}
        if self.pool is not None:
            found["pool"] = pool_identity(Path(self.pool))
        if self.tokenizer not in (RECORDED, WORDS):
            found["vocabulary"] = vocabulary_digest(self.tokenizer)
        return found

    # --- what comes out ------------------------------------------------------------------------

    def columns(
        self,
        answers: Sequence[Answer],
        baseline: Sequence[Answer] | None,
        verdicts: Mapping[str, Verdict],
    ) -> Mapping[str, Column]:
        """Win rate, the controlled win rates, and length."""
        unit = self._unit(answers)
        count = token_count(unit)
        lengths = tuple(float(count(a.response.text, a.n_tokens)) for a in answers)
        note = "" if unit == self.tokenizer else "in words: its file has no counts of tokens"
        columns = {"tokens": Column(lengths, f"tokens of the answer ({self.tokenizer})", note=note)}
        if baseline is None:
            return columns
        duels = [self._duel(index, verdicts) for index in range(len(answers))]
        own = record(duels, self._revision.counting)
        values = per_question(own)
        doc = "win rate against the baseline in percent, strong verdicts weighted"
        found = {"score": Column(values, doc, better=1, estimate=scored(own), whole=100)}
        entrants = self._entrants(answers, baseline, own)
        for name, estimate in controlled(entrants, self._revision.style).items():
            doc = f"win rate in percent, {CONTROLS[name][0]}; by question: before control"
            found[name] = Column(values, doc, better=1, estimate=estimate)
        return {**found, **columns}

    def _duel(self, index: int, verdicts: Mapping[str, Verdict]) -> Duel:
        found = [verdicts.get(f"{index}/{game}") for game in range(1, self.games + 1)]
        return [Game(verdict.value, verdict.weight) if verdict else None for verdict in found]

    def _entrants(
        self, answers: Sequence[Answer], baseline: Sequence[Answer], own: Record
    ) -> list[Entrant]:
        """The candidate, then the models of the pool."""
        count = token_count(self._unit(answers))
        theirs = table([_style(answer, count) for answer in baseline])
        first = Entrant(own, table([_style(answer, count) for answer in answers]), theirs)
        if self.pool is None:
            return [first]
        texts = {str(a.sample.meta["id"]): a.response.text for a in answers}
        pool = others(read_pool(Path(self.pool)), texts)
        return [first, *(self._from_pool(model, list(texts), theirs, count) for model in pool)]

    def _unit(self, answers: Sequence[Answer]) -> str:
        """How length is counted on both sides. A file without counts of tokens comes with words,
        which held against a baseline's tokens would make every answer look short.
        """
        in_words = all(a.n_tokens == len(a.response.text.split()) for a in answers)
        return WORDS if self.tokenizer == RECORDED and in_words else self.tokenizer

    def _check_pool(self, baseline: Sequence[Answer]) -> None:
        """The pool's models met the benchmark's own baseline, so the candidate must too."""
        if self.pool is None:
            return
        theirs = self.baseline_answers([answer.sample for answer in baseline])
        if [a.response.text for a in theirs] != [a.response.text for a in baseline]:
            raise DataError(
                f"{self.name}: with.pool: its judgments are against {BASELINE} and the baseline "
                "here is another; leave out the pool or name no baseline"
            )

    def _from_pool(
        self, model: Judged, ids: Sequence[str], theirs: Any, count: Callable[..., int]
    ) -> Entrant:
        """A model on record; a question it has no answer to does not count."""
        revision = self._revision
        nothing = (None,) * self.games
        duels = [
            [
                revision.game(label, 1 - game, self.weight)
                for game, label in enumerate(model.labels.get(id, nothing)[: self.games])
            ]
            if id in model.answers
            else nothing
            for id in ids
        ]
        found = [model.answers.get(id) for id in ids]
        styles = [style_of(a.text, count(a.text, a.n_tokens)) if a else NO_STYLE for a in found]
        return Entrant(record(duels, revision.counting), table(styles), theirs)

    @property
    def _revision(self) -> Revision:
        return REVISIONS[self.revision]

    def _path(self, file: Any) -> Path:
        return locate(file, self.name, self.data)


NO_STYLE = Style(0, 0, 0, 0)


def _question(answer: Answer) -> str:
    """The question as upstream's template shows it: the text of the first turn."""
    prompt = answer.prompt
    return prompt if isinstance(prompt, str) else prompt[-1]["content"]


def _style(answer: Answer, count: Callable[[str, int | None], int]) -> Style:
    return style_of(answer.response.text, count(answer.response.text, answer.n_tokens))
