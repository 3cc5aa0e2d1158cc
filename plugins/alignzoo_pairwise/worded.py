"""What both benchmarks of this package share: prompts of anybody's, and an instruction of ours."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, ClassVar

from alignzoo import JudgedBenchmark, PromptSample, file_digest, option
from alignzoo_pairwise.prompts import BUILT_IN as OWN_PROMPTS
from alignzoo_pairwise.prompts import LATER, check_file, read_prompts
from alignzoo_pairwise.template import read_template


@dataclass(frozen=True)
class Worded(JudgedBenchmark):
    """Prompts from a file, and a template that a judge reads."""

    file_options = ("prompts_file", "template")
    own_template: ClassVar[Path]
    slots: ClassVar[Sequence[str]]  # that a template must have
    parser: ClassVar[int]  # version of the rules that read replies: another makes another result

    prompts_file: str | None = option(
        None, "your prompts: .jsonl, .json (a list) or .txt (one per line); default: 21 of our own"
    )
    size: int | None = option(None, "only the first so many prompts", gt=0)
    template: str | None = option(None, "your instruction to the judge, a file with its slots")
    max_tokens: int = option(1024, "longest reply of the judge, in tokens", gt=0)

    def __post_init__(self) -> None:
        check_file(self._prompts_path)
        self.instruction()

    @property
    def _prompts_path(self) -> Path:
        return Path(self.prompts_file) if self.prompts_file else OWN_PROMPTS

    @property
    def _template_path(self) -> Path:
        return Path(self.template) if self.template else self.own_template

    def instruction(self) -> str:
        """The template; raises DataError where a slot is missing."""
        return read_template(self._template_path, self.slots)

    def settings(self) -> Mapping[str, Any]:
        """Digests of prompts and template, and the version of the rules that read replies."""
        return {
            "prompts": file_digest(self._prompts_path),
            "template": file_digest(self._template_path),
            "parser": self.parser,
        }

    def prompts(self, seed: int) -> Iterator[PromptSample]:
        """The file's prompts in its order, whatever the seed."""
        return islice(read_prompts(self._prompts_path), self.size)

    def sampling(self, prompt: PromptSample) -> Mapping[str, Any]:
        """Room for a whole answer: a judge must not see one that was cut."""
        return {"max_new_tokens": 1024}

    def later_turns(self, prompt: PromptSample) -> Sequence[str]:
        """What a row of `turns` has the user say after the first reply."""
        return tuple(prompt.meta.get(LATER, ()))
