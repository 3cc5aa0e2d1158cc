"""What became of a source of data, in a few lines: rows, columns, and what is learnt of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from alignzoo.contract.errors import counted
from alignzoo.contract.types import (
    Batch,
    GroupSample,
    LabelledBatch,
    LabelledSample,
    PairBatch,
    PairSample,
    PromptSample,
    RolloutBatch,
    Sample,
    TextSample,
)
from alignzoo.data.reader import Rules
from alignzoo.data.report import Report
from alignzoo.data.samples import Loaded

WIDTH = 9  # of the words before the figures


def table(source: str, loaded: Loaded, lines: Sequence[tuple[str, str]], bad: Path) -> str:
    """The account of a source: its rows and columns, and further (word, text) lines.

    `bad` is the file that lists unusable rows.
    """
    whole = [*_columns(loaded), *lines]
    rest = "".join(f"\n  {word:<{WIDTH}} {text}" for word, text in whole)
    return f"{_rows(source, loaded, bad)}{rest}"


def prompt_lines(samples: Sequence[Sample], report: Report) -> list[tuple[str, str]]:
    """The lines of data whose prompts alone are used."""
    answered = sum(not isinstance(sample, PromptSample) for sample in samples)
    answers = f"; the answers of {counted(answered, 'row')} are not used" if answered else ""
    return [("used", f"prompts alone{answers}"), *_template(report)]


def item_lines(
    samples: Sequence[Sample], kind: type[Batch], report: Report, rules: Rules
) -> list[tuple[str, str]]:
    """The lines of data that is learnt from."""
    if issubclass(kind, RolloutBatch):
        return prompt_lines(samples, report)
    lengths = {"prompt": report.prompt_length, **report.response_lengths}
    return [
        ("items", _items(report)),
        *_empty(report),
        ("learnt", "; ".join(_learnt(samples, kind, rules))),
        *_template(report),
        ("tokens", "mean: " + ", ".join(f"{name} {x:.1f}" for name, x in lengths.items())),
    ]


def _rows(source: str, loaded: Loaded, bad: Path) -> str:
    left_out = [
        *([f"{len(loaded.bad)} unusable, listed in {bad}"] if loaded.bad else []),
        *([f"{loaded.skipped} skipped (data.skip)"] if loaded.skipped else []),
    ]
    fate = f"left out: {'; '.join(left_out)}" if left_out else "all used"
    return f"{counted(loaded.read, 'row')} of {source}, {fate}"


def _columns(loaded: Loaded) -> Iterator[tuple[str, str]]:
    if loaded.used:
        yield "columns", _named(loaded.used, len(loaded.samples))
    if loaded.ignored:
        yield "ignored", _named(loaded.ignored, len(loaded.samples))


def _named(columns: Mapping[str, int], rows: int) -> str:
    """Columns with the number of rows that fill them, unless all rows do."""
    return ", ".join(
        name if n == rows else f"{name} (in {counted(n, 'row')})" for name, n in columns.items()
    )


def _items(report: Report) -> str:
    left_out = [
        *([f"{report.dropped} too long"] if report.dropped else []),
        *([f"{report.unlearnt} undesirable"] if report.unlearnt else []),
    ]
    equal = f"; {counted(report.equal, 'pair')} of equal answers" if report.equal else ""
    fate = f"; left out: {', '.join(left_out)}" if left_out else ""
    return f"{report.items}{fate}{equal}"


def _empty(report: Report) -> Iterator[tuple[str, str]]:
    if report.n_empty:
        more = ", ..." if report.n_empty > len(report.empty) else ""
        places = ", ".join(report.empty)
        rows = counted(report.n_empty, "row")
        yield "empty", f"the answer of {rows}, learnt as an end at once: {places}{more}"


def _learnt(samples: Sequence[Sample], kind: type[Batch], rules: Rules) -> Iterator[str]:
    if issubclass(kind, PairBatch):
        yield "the chosen answer against the rejected one"
    elif issubclass(kind, LabelledBatch):
        yield "every answer with its label"
    else:
        kinds = dict.fromkeys((type(s), getattr(s, "scores", None) is None) for s in samples)
        yield ", ".join(dict.fromkeys(IMITATED[one] for one in kinds if one in IMITATED))
    earlier = sum(_has_earlier_turns(sample) for sample in samples)
    if earlier and rules.learn == "all":
        yield f"every turn of the assistant, in {counted(earlier, 'row')} several"
    elif earlier:
        yield (
            f"the last turn of the assistant alone, in {counted(earlier, 'row')} others come "
            "before it (data.learn)"
        )


IMITATED = {
    (TextSample, True): "the answer",
    (PairSample, True): "the chosen answer, the rejected one is not used",
    (LabelledSample, True): "desirable answers",
    (GroupSample, True): "every answer of a prompt",
    (GroupSample, False): "the best answer of a prompt by its score",
}


def _has_earlier_turns(sample: Sample) -> bool:
    return not isinstance(sample.prompt, str) and any(
        message["role"] == "assistant" for message in sample.prompt
    )


def _template(report: Report) -> Iterator[tuple[str, str]]:
    if report.left_out:
        told = ", ".join(f"{part} ({counted(n, 'row')})" for part, n in report.left_out.items())
        yield "template", f"leaves out {told}"
    if report.spelt:
        yield "letters", f"control tokens that {counted(report.spelt, 'row')} spell out in text"
