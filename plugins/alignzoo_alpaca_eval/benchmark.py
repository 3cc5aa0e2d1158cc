"""The benchmark: questions to a judge, and columns from its preferences."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from alignzoo import (
    Answer,
    Column,
    DataError,
    DataFile,
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
from alignzoo_alpaca_eval.columns import (
    discrete,
    length_controlled,
    preference,
    question_id,
    rate,
)
from alignzoo_alpaca_eval.files import (
    BASELINE,
    CLASSIFIER,
    DIFFICULTY,
    GAMED,
    RANKING,
    Instructions,
    read_instructions,
    read_text,
)
from alignzoo_alpaca_eval.length_control import Comparison, floats
from alignzoo_alpaca_eval.metrics import win_rate
from alignzoo_alpaca_eval.order import every_place, official_place
from alignzoo_alpaca_eval.parse import ANNOTATORS, Annotator
from alignzoo_alpaca_eval.template import Messages, fill, read_template
from alignzoo_alpaca_eval.variants import ALIGNMENTS, MINIMAL, VARIANTS, LengthData

PLACES: Mapping[str, Callable[[str], tuple[int, ...]]] = {
    "both": every_place,
    "official": official_place,
}
TEMPLATES = {"logprobs": CLASSIFIER, "text": CLASSIFIER, "ranking": RANKING}
MEANINGS = {
    "win_rate": "preference for the model, percent; error: the official standard error",
    "discrete_win_rate": "share of instructions won, draws 1/2, percent",
    "length": "characters of the output",
}


@dataclass(frozen=True)
class AlpacaEval(JudgedBenchmark):
    """AlpacaEval 2: 805 instructions, answers compared with those of GPT-4 Turbo.

    The value of a verdict is P(candidate's output is better), p, or 1 - p when the judge saw it
    second; an instruction's preference is the mean of its verdicts, and there is none when one of
    two is missing. Equal outputs are not asked about and count 1/2. Columns, in percent:
    `lc_win_rate`, `win_rate`, `discrete_win_rate`; and `length` in characters.
    Source: arXiv:2404.04475, alpaca_eval 0.6.6.

    Deviations from the official program: both orders are judged (orders: official asks once),
    templates are filled in one pass, difficulty is aligned by instruction (align: position), and
    fits are exact. Baselines other than the file's keep the official baseline's difficulty and
    gamed rows, as there.
    """

    name = "alpaca_eval"
    files = (BASELINE, CLASSIFIER, GAMED, RANKING, DIFFICULTY)
    file_options = ("data", "template")

    data: str | None = option(None, "folder with the benchmark's files; null: the usual places")
    template: str | None = option(None, "file with the judge's ChatML template; null: the official")
    orders: Literal["both", "official"] = option(
        "both", "both: two questions per pair; official: one, in the official program's order"
    )
    annotator: Literal["logprobs", "text", "ranking"] = option(
        "logprobs",
        "logprobs: probabilities of the tokens m and M; text: the one that the reply decides for, "
        "won or lost; ranking: a list of ranks",
    )
    length_control: Literal["v1", "noreg", "minimal"] = option(
        "v1", "v1: the published model; noreg: no gamed rows; minimal: nor difficulty"
    )
    align: Literal["instruction", "position"] = option(
        "instruction", "what finds an instruction's difficulty; position: the official program's"
    )
    C: float | None = option(
        None,
        "regularisation of length control; null: cross-validated for every model",
        gt=0,
        le=1e6,  # the published ones end at 1e4; with much more the fit takes minutes
    )
    max_tokens: int | None = option(
        None, "longest reply of the judge, in tokens; null: 1, of text 32, of ranking 100", gt=0
    )

    @property
    def top_logprobs(self) -> int:
        """Five for log-probabilities, else none."""
        return self._annotator.decoding.top_logprobs

    def prompts(self, seed: int) -> Iterable[PromptSample]:
        """The instructions in the order of the file; the seed changes nothing."""
        for number, row in enumerate(self._instructions().rows):
            message = {"role": "user", "content": row.text}
            kind = {"category": row.dataset} if row.dataset else {}
            yield PromptSample((message,), {"index": number, **kind})

    def sampling(self, prompt: PromptSample) -> Mapping[str, Any]:
        """Room for a whole output; officially every model has settings of its own."""
        return {"max_new_tokens": 2048}

    def settings(self) -> Mapping[str, Any]:
        """The template, the reading of replies, and what length control knew."""
        known = self._length_data(self._instructions())
        return {
            "template": file_digest(self._template_path()),
            "annotator": self._annotator.version,
            "length_control": known.variant,
            "length_data": known.digest,
        }

    def baseline_answers(self, prompts: Sequence[PromptSample]) -> Sequence[Answer] | None:
        """The outputs that came with the instructions; None if one has none."""
        outputs = {row.text: row.output for row in self._instructions().rows}
        found = [outputs.get(_instruction(prompt)) for prompt in prompts]
        pairs = zip(prompts, found, strict=True)
        answers = [
            Answer(prompt, Response(text), len(text.split()))
            for prompt, text in pairs
            if text is not None
        ]
        return answers if len(answers) == len(prompts) else None

    def questions(
        self, answers: Sequence[Answer], baseline: Sequence[Answer] | None
    ) -> Iterator[Question]:
        """One or two questions per instruction; none where both outputs are equal."""
        template = read_template(*self._template())
        theirs = answers if baseline is None else baseline
        for number, (own, other) in enumerate(zip(answers, theirs, strict=True)):
            if _text(own) == _text(other):
                continue
            for place in PLACES[self.orders](_instruction(own.sample)):
                yield self._question(template, number, own, other, place)

    def verdict(self, question: Question, reply: Reply) -> Verdict | None:
        """The preference for the candidate; None when the reply names neither output."""
        first = self._annotator.read(reply)
        if first is None:
            return None
        better = self._annotator.names[first < 0.5] if first != 0.5 else ""
        return Verdict(first if question.candidate == 0 else 1 - first, label=better)

    def columns(
        self,
        answers: Sequence[Answer],
        baseline: Sequence[Answer] | None,
        verdicts: Mapping[str, Verdict],
    ) -> Mapping[str, Column]:
        """Rates in percent with their intervals, and the length of the candidate's outputs."""
        pairs = list(zip(answers, answers if baseline is None else baseline, strict=True))
        places = [PLACES[self.orders](_instruction(answer.sample)) for answer in answers]
        values = [
            0.5 if _text(own) == _text(other) else preference(number, places[number], verdicts)
            for number, (own, other) in enumerate(pairs)
        ]
        counts = win_rate(values)
        texts = [_instruction(answer.sample) for answer in answers]
        known = self._known(texts)
        longer = floats([len(_text(other)) - len(_text(own)) for own, other in pairs])
        compared = Comparison(floats(values), longer, known.difficulty, known.gamed)
        return {
            "lc_win_rate": length_controlled(compared, known.variant, counts.win_rate, self.C),
            "win_rate": rate(values, MEANINGS["win_rate"], counts.standard_error),
            "discrete_win_rate": rate(list(map(discrete, values)), MEANINGS["discrete_win_rate"]),
            "length": Column(tuple(len(_text(own)) for own in answers), MEANINGS["length"]),
        }

    # --- files ---------------------------------------------------------------------------------

    @property
    def _annotator(self) -> Annotator:
        found = ANNOTATORS[self.annotator]
        if self.max_tokens is None:
            return found
        return replace(found, decoding=replace(found.decoding, max_tokens=self.max_tokens))

    def _located(self, file: DataFile) -> Path:
        return locate(file, self.name, self.data)

    def _instructions(self) -> Instructions:
        return read_instructions(self._located(BASELINE))

    def _template_path(self) -> Path:
        if self.template is None:
            return self._located(TEMPLATES[self.annotator])
        if not Path(self.template).is_file():
            raise DataError(f"{self.name}: with.template: {self.template} is not a file")
        return Path(self.template)

    def _template(self) -> tuple[str, str]:
        path = self._template_path()
        return read_text(path), str(path)

    def _known(self, texts: Sequence[str]) -> LengthData:
        """What length control knows about these instructions."""
        instructions = self._instructions()
        known = self._length_data(instructions)
        return known.on(ALIGNMENTS[self.align](texts, instructions))

    def _length_data(self, instructions: Instructions) -> LengthData:
        """What the chosen variant reads; prompts of one's own have no difficulty."""
        if not instructions.are_official:
            return MINIMAL
        known, wanted = VARIANTS[self.length_control](self._located), len(instructions.rows)
        if known.difficulty is not None and len(known.difficulty) < wanted:
            raise DataError(
                f"{self.name}: the file for length_control: {self.length_control} knows the "
                f"difficulty of {len(known.difficulty)} of {wanted} instructions; download it again"
            )
        return known

    def _question(
        self, template: Messages, number: int, own: Answer, other: Answer, place: int
    ) -> Question:
        shown = (own, other) if place == 0 else (other, own)
        instruction = _instruction(own.sample)
        return Question(
            id=question_id(number, place),
            index=number,
            answers=shown,
            messages=fill(template, instruction, *map(_text, shown)),
            decoding=self._annotator.decoding,
            candidate=place,
        )


def _text(answer: Answer) -> str:
    return answer.response.text


def _instruction(sample: PromptSample) -> str:
    """The text the judge sees; of a conversation, the user's last message."""
    if isinstance(sample.prompt, str):
        return sample.prompt
    return [str(m["content"]) for m in sample.prompt if m["role"] == "user"][-1]
