"""What became of a stage's samples on their way to token ids."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from alignzoo.contract.types import Batch, Item, LabelledBatch, PairBatch, TextBatch

UNEVEN = 1.1  # ratio of mean lengths from which a pair set gets a warning
SHOWN = 3  # places that a report lists


@dataclass(frozen=True)
class Report:
    """What became of the samples."""

    items: int
    truncated: int
    dropped: int
    dropped_at: tuple[str, ...]  # the first places with their causes
    prompt_length: float  # mean, in tokens
    response_lengths: Mapping[str, float]  # column -> mean, in tokens, stop token included
    warnings: tuple[str, ...] = ()
    bad: tuple[str, ...] = ()  # samples that cannot be used, with place and cause
    left_out: Mapping[str, int] = field(default_factory=dict)  # what templates skip -> samples
    spelt: int = 0  # samples in which control tokens are read as letters
    equal: int = 0  # pairs whose two answers became the same tokens
    empty: tuple[str, ...] = ()  # the first places of rows with an answer that is an end alone
    n_empty: int = 0  # such rows
    unlearnt: int = 0  # samples of which a method of this kind learns nothing: undesirable answers


def report_of(
    items: Sequence[Item], kind: type[Batch], truncated: int, dropped: Sequence[str]
) -> Report:
    """The lengths of what is left, and what was cut or left out for its length."""
    lengths = {
        name: sum(len(item.rows[k].response) for item in items) / len(items)
        for k, name in enumerate(_columns(items, kind))
    }
    prompt = sum(len(item.rows[0].prompt) for item in items) / len(items)
    shown = tuple(dropped[:SHOWN])
    warnings = _warnings(len(items), truncated, dropped, lengths)
    return Report(len(items), truncated, len(dropped), shown, prompt, lengths, tuple(warnings))


def _columns(items: Sequence[Item], kind: type[Batch]) -> tuple[str, ...]:
    if issubclass(kind, PairBatch):
        return ("chosen", "rejected")
    if issubclass(kind, LabelledBatch):
        return ("matched", "mismatched")
    return ("response",) if issubclass(kind, TextBatch) and items[0].rows[0].response else ()


def _warnings(
    items: int, truncated: int, dropped: Sequence[str], lengths: Mapping[str, float]
) -> Iterable[str]:
    total = items + len(dropped)
    if dropped:
        more = "; ..." if len(dropped) > SHOWN else ""
        first = "; ".join(dropped[:SHOWN])
        yield f"{len(dropped)} of {total} items left out, too long: {first}{more}"
    if truncated:
        yield f"{truncated} of {total} items cut to the length limit"
    if "chosen" in lengths:
        longer, shorter = sorted(("chosen", "rejected"), key=lambda name: -lengths[name])
        ratio = lengths[longer] / lengths[shorter]
        if ratio > UNEVEN:
            yield (
                f"{longer} answers are {ratio - 1:.0%} longer than {shorter} ones (mean "
                f"{lengths[longer]:.1f} and {lengths[shorter]:.1f} tokens): a model may learn "
                "length instead of preference"
            )
