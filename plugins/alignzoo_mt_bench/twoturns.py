"""What grading and pairwise comparison share: questions, decoding rules, material for judges."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from alignzoo import (
    Answer,
    DataError,
    Decoding,
    JudgedBenchmark,
    PromptSample,
    Question,
    file_digest,
    option,
)
from alignzoo_mt_bench.files import (
    HOME,
    Template,
    TwoTurns,
    prompts_file,
    questions_file,
    read_questions,
    read_references,
    read_templates,
    references_file,
)
from alignzoo_mt_bench.prompts import (
    GUIDED,
    answer_slots,
    fill,
    question_slots,
    reference_slots,
    template_name,
)

TEMPERATURE: Mapping[str, float] = {
    "writing": 0.7,
    "roleplay": 0.7,
    "extraction": 0.0,
    "math": 0.0,
    "coding": 0.0,
    "reasoning": 0.0,
    "stem": 0.1,
    "humanities": 0.1,
}
OTHER_TEMPERATURE = 0.7
MAX_NEW_TOKENS = 1024
TURNS = (1, 2)


@dataclass(frozen=True)
class Material:
    """Everything a judge is shown beside the answers."""

    questions: Mapping[str, TwoTurns]
    templates: Mapping[str, Template]
    references: Mapping[str, tuple[str, str]]
    max_tokens: int = 2048  # of the judge's reply

    def ask(
        self, id_: str, index: int, turn: int, shown: Sequence[Answer], family: tuple[str, str]
    ) -> Question:
        """The question about one turn; `family` is a template's name and version.

        With two answers the first is shown as A and the second as B. A scoring judge sees the
        replies up to that turn.
        """
        about, reference = self.find(shown[0].sample)
        guided = reference is not None
        template = self.template(template_name(*family, guided=guided, turn=turn))
        slots = question_slots(about.turns, turn) | reference_slots(reference)
        for who, answer in zip(("a", "b") if len(shown) > 1 else ("",), shown, strict=True):
            slots |= answer_slots(two_replies(answer), turn, who)
        return Question(
            id=id_,
            index=index,
            answers=tuple(up_to(answer, turn) for answer in shown),
            messages=fill(template, slots),
            decoding=Decoding(max_tokens=self.max_tokens, temperature=0.0),
        )

    def find(self, prompt: PromptSample) -> tuple[TwoTurns, tuple[str, str] | None]:
        """A prompt's question and, in the categories that have some, the reference answers."""
        about = self.questions[prompt.meta["id"]]
        if about.category not in GUIDED:
            return about, None
        if about.id not in self.references:
            raise DataError(
                f"{HOME}: no reference answer to question {about.id} ({about.category}); "
                "name a complete file with with.references"
            )
        return about, self.references[about.id]

    def template(self, name: str) -> Template:
        """A judge prompt by name."""
        if name not in self.templates:
            raise DataError(f"{HOME}: judge_prompts.jsonl has no '{name}'; download it again")
        return self.templates[name]


@dataclass(frozen=True)
class TwoTurnBenchmark(JudgedBenchmark):
    """The 80 questions of MT-Bench (arXiv:2306.05685), with its decoding rules.

    A model's first reply stays in the conversation when the second turn is asked. Temperature by
    category: writing and roleplay .7, stem and humanities .1, the others 0; 1024 new tokens.
    """

    file_options: ClassVar[tuple[str, ...]] = ("data", "references")
    data: str | None = option(None, "folder with question.jsonl, judge_prompts.jsonl, references")
    references: str = option(
        "gpt-4-1106-preview",
        "who wrote the reference answers (reference_answer/<name>.jsonl), or a path; the "
        "official gpt-4 has errors in 13 of 30",
    )
    max_tokens: int = option(2048, "longest reply of the judge, in tokens; 2048 officially", gt=0)

    def prompts(self, seed: int) -> Iterable[PromptSample]:
        """The first turns, as chats; `meta` has id, category and second_turn.

        What the judge will need is looked for now, before anything is sampled.
        """
        material = self.material()
        prompts = [
            PromptSample(
                ({"role": "user", "content": question.turns[0]},),
                {
                    "id": question.id,
                    "category": question.category,
                    "second_turn": question.turns[1],
                },
            )
            for question in material.questions.values()
        ]
        for prompt in prompts:
            material.find(prompt)
        return prompts

    def later_turns(self, prompt: PromptSample) -> Sequence[str]:
        """The second turn."""
        return (prompt.meta["second_turn"],)

    def sampling(self, prompt: PromptSample) -> Mapping[str, Any]:
        """The temperature of the category, and the length limit."""
        temperature = TEMPERATURE.get(prompt.meta["category"], OTHER_TEMPERATURE)
        return {"temperature": temperature, "max_new_tokens": MAX_NEW_TOKENS}

    def settings(self) -> Mapping[str, Any]:
        """The references' name and the digests of the three files."""
        references = references_file(self.references, self.data)
        return {
            "references": references.stem,
            "questions_sha256": file_digest(questions_file(self.data)),
            "judge_prompts_sha256": file_digest(prompts_file(self.data)),
            "references_sha256": file_digest(references),
        }

    def material(self) -> Material:
        """Read the three files."""
        return Material(
            read_questions(questions_file(self.data)),
            read_templates(prompts_file(self.data)),
            read_references(references_file(self.references, self.data)),
            self.max_tokens,
        )


def two_replies(answer: Answer) -> tuple[str, str]:
    """The text of both replies; raises DataError when there are not two."""
    turns = answer.turns
    if len(turns) != 2:
        raise DataError(
            f"{HOME}: the answer to question {answer.sample.meta['id']} has "
            f"{'one reply' if len(turns) == 1 else f'{len(turns)} replies'}; a reply to each of "
            "the two turns is needed"
        )
    return turns[0], turns[1]


def up_to(answer: Answer, turn: int) -> Answer:
    """The answer as it was after the first or the second turn."""
    if turn == 2:
        return answer
    first = answer.earlier[0]
    n_tokens = len(first.text.split()) if first.ids is None else len(first.ids) - first.ended
    return Answer(answer.sample, first, n_tokens)


def categories(answers: Sequence[Answer]) -> Iterator[tuple[str, list[int]]]:
    """Every category with the numbers of its prompts, in the order of the questions."""
    for name in dict.fromkeys(a.sample.meta["category"] for a in answers):
        yield name, [i for i, a in enumerate(answers) if a.sample.meta["category"] == name]
