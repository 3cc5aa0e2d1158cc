"""Views: the same answers behind other prompts, for the roles that see them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from alignzoo.contract.errors import AlignzooError, DataError, PluginError
from alignzoo.contract.types import Item, PromptText, Sample, Tokens
from alignzoo.contract.views import Case, seen_by
from alignzoo.data.reader import Reader
from alignzoo.data.report import SHOWN
from alignzoo.data.sequences import prompt_start, sequence
from alignzoo.data.tokens import SHORTEST_ROOM, Encoded, Limits, cut, responses_of


@dataclass(frozen=True)
class Views:
    """The views that a method's roles see."""

    names: tuple[str, ...]
    make: Callable[[str, Case], PromptText]
    method: str

    @classmethod
    def of(cls, algorithm: Any) -> Views | None:
        """None where every role reads the batch itself."""
        names = tuple(sorted(set(seen_by(algorithm).values())))
        return cls(names, algorithm.view, algorithm.name) if names else None

    def sample(self, name: str, case: Case, place: str) -> Sample:
        """The sample with the view's prompt.

        Raises DataError when the method makes none of this row, PluginError when what it makes is
        no prompt of the same kind.
        """
        try:
            prompt: Any = self.make(name, case)
        except AlignzooError:
            raise
        except Exception as error:  # a stranger's code may raise anything, as where no hint is
            cause = f"{type(error).__name__}: {error}"
            raise DataError(f"{place}: '{self.method}' makes no view '{name}' ({cause})") from error
        prompt = tuple(prompt) if isinstance(prompt, list) else prompt
        own = case.sample.prompt
        if type(prompt) is not type(own):
            kind = "plain text" if isinstance(own, str) else "messages"
            raise PluginError(
                f"'{self.method}' makes the view '{name}' a {type(prompt).__name__}, and the "
                f"prompt is {kind}; a view is of the same kind, so that answers end alike"
            )
        return replace(case.sample, prompt=prompt)

    def prompts(self, case: Case, reader: Reader, place: str) -> dict[str, tuple[int, ...]]:
        """View -> the ids before a sampled answer."""
        return {
            name: prompt_start(self.sample(name, case, place), reader, self._at(name, place)).ids
            for name in self.names
        }

    def rows(self, case: Case, row: Tokens, reader: Reader, place: str) -> dict[str, Tokens]:
        """View -> the row behind its prompt; DataError where the answer has other tokens there."""
        response = responses_of(case.sample)[0][case.answer]
        found = {}
        for name in self.names:
            own, at = self.sample(name, case, place), self._at(name, place)
            made = sequence(own, prompt_start(own, reader, at), response, reader, at).tokens
            if not _begins(made.response, row.response):
                raise DataError(
                    f"{at}: the answer has other tokens than behind the prompt, with whose end "
                    "they merge; let the view end as the prompt does"
                )
            found[name] = replace(row, prompt=made.prompt)
        return found

    def _at(self, name: str, place: str) -> str:
        return f"{place}, view '{name}'"


def with_views(encoded: Encoded, views: Views, reader: Reader, limits: Limits) -> Encoded:
    """The items with every view of their rows; answers are cut so that all fit `max_length`.

    An item whose view leaves no room is left out and told, as one with too long a prompt. Raises
    DataError when none is left, or for such an item if `too_long` is "error".
    """
    reader = replace(reader, ends=limits.ends) if limits.ends else reader
    kept: list[tuple[Item, Sample, str]] = []
    lost: list[str] = []
    shorter = 0
    for item, sample, place in zip(encoded.items, encoded.samples, encoded.places, strict=True):
        cases = [Case(sample, k) for k in range(len(item.rows))]
        rows = [views.rows(c, r, reader, place) for c, r in zip(cases, item.rows, strict=True)]
        made = _fitted(item, sample, rows, limits)
        if isinstance(made, str):
            lost.append(f"{place}: {made}")
            continue
        shorter += made.rows != item.rows
        kept.append((made, sample, place))
    if lost and (limits.too_long == "error" or not kept):
        raise DataError(f"{lost[0]}; shorten it, or raise data.max_length")
    report = encoded.report
    told = _told(lost, shorter, len(encoded.items))
    report = replace(report, items=len(kept), warnings=(*report.warnings, *told))
    items, samples, places = zip(*kept, strict=True)
    return Encoded(tuple(items), tuple(samples), report, tuple(places))


def _begins(whole: tuple[int, ...], answer: tuple[int, ...]) -> bool:
    """Whether an answer is the whole one, or that as it is cut: its first tokens and its end."""
    n = len(answer)
    return whole[:n] == answer or (n < len(whole) and (*whole[: n - 1], whole[-1]) == answer)


def _fitted(
    item: Item, sample: Sample, rows: list[dict[str, Tokens]], limits: Limits
) -> Item | str:
    """The item with its views, or why it does not fit."""
    own = []
    for k, row in enumerate(item.rows):
        longest = max((row, *rows[k].values()), key=lambda tokens: len(tokens.prompt))
        n = len(longest.prompt)
        if n >= limits.max_length - SHORTEST_ROOM:
            return f"a view's prompt has {n} tokens, which leaves no room in {limits.max_length}"
        if limits.too_long != "truncate" and len(longest) > limits.max_length:
            return f"a view has {len(longest)} tokens, max_length is {limits.max_length}"
        answer = cut(longest, responses_of(sample)[0][k], limits).response
        own.append(replace(row, response=answer))
    views: Mapping[str, tuple[Tokens, ...]] = {
        name: tuple(replace(r[name], response=o.response) for r, o in zip(rows, own, strict=True))
        for name in rows[0]
    }
    return Item(tuple(own), item.values, views)


def _told(lost: list[str], shorter: int, total: int) -> list[str]:
    found = []
    if lost:
        more = "; ..." if len(lost) > SHOWN else ""
        found.append(f"{len(lost)} of {total} items left out: {'; '.join(lost[:SHOWN])}{more}")
    if shorter:
        found.append(f"{shorter} of {total} answers cut so that their views fit the length limit")
    return found
