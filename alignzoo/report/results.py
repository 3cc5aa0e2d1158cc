"""Results read as a careful person reads them: the best model beside its strongest rivals, length
and truncation beside every figure, the extremes, and where judges do not agree.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence

from alignzoo.contract.evaluation import honest, interval, mean, standard_error
from alignzoo.leaderboard.evidence import Evidence, Judgment, Reply
from alignzoo.leaderboard.fold import Row, Section
from alignzoo.leaderboard.seeds import over_seeds
from alignzoo.leaderboard.text import labels
from alignzoo.report.facts import (
    Comparison,
    Disagreement,
    Outcome,
    OverSeed,
    Result,
    Scored,
)

LENGTHS = ("length", "avg_length", "tokens")  # columns that say how long answers are
CUT = ("unfinished", "truncated")  # columns that say how many were cut at the limit
SHOWN = 3  # answers at either end
KL = "kl("  # how columns of distances begin
Found = Mapping[str, Evidence]  # result -> what its evaluation kept
Method = Callable[[Row], str]  # a model -> what trained it; "" where that is not known


def result_of(section: Section, found: Found, method: Method) -> Result:
    """A section with everything to be read beside its leading column."""
    lead, length = section.lead, next((c for c in LENGTHS if c in section.docs), None)
    every = list(zip(labels(section), section.rows, strict=True))
    best = next((one for one in every if lead and lead in one[1].cells), None)
    scored = sorted(_scored(best, lead, found), key=lambda one: one.value)
    return Result(
        section=section.id,
        runs=tuple(dict.fromkeys(row.run for row in section.rows)),
        benchmark=section.benchmark,
        lead=lead,
        lead_doc=section.docs.get(lead or "", ""),
        length_doc=section.docs[length] if length else "characters per answer",
        judge=section.judge,
        baseline=section.baseline,
        prompts=section.rows[0].prompts,
        outcomes=tuple(_outcome(label, row, section, found) for label, row in every),
        comparisons=tuple(_comparisons(best, every, lead, found, method)) if best and lead else (),
        measure=_measure(best, lead, found),
        worst=tuple(scored[:SHOWN]),
        luckiest=tuple(scored[: -SHOWN - 1 : -1]) if len(scored) >= 2 * SHOWN else (),
        disagreements=tuple(_disagreements(every, found)),
    )


def _outcome(label: str, row: Row, section: Section, found: Found) -> Outcome:
    cell, evidence = row.cells.get(section.lead or ""), found.get(row.result)
    cut = next((row.cells[c].mean for c in CUT if c in row.cells), None)
    length = next((c for c in LENGTHS if c in section.docs), None)
    return Outcome(
        model=label,
        value=cell.mean if cell else None,
        interval=cell.interval if cell else None,
        difference=cell.diff if cell and not row.is_baseline else None,
        length=_length(row, length, evidence),
        truncated=cut if cut is not None else evidence.truncated if evidence else None,
        kl={n: c.mean for n, c in row.cells.items() if n.startswith(KL)},
        is_baseline=row.is_baseline,
    )


def _length(row: Row, column: str | None, evidence: Evidence | None) -> float | None:
    if column is not None:
        return row.cells[column].mean if column in row.cells else None
    return evidence.characters if evidence else None


# --- the best model and its rivals -----------------------------------------------------------


def _comparisons(
    best: tuple[str, Row],
    every: Sequence[tuple[str, Row]],
    lead: str,
    found: Found,
    method: Method,
) -> Iterator[Comparison]:
    """The next best model, the best of another method, the baseline: paired where values are."""
    others = [(label, row) for label, row in every if lead in row.cells and row is not best[1]]
    rivals = [(label, row) for label, row in others if not row.is_baseline]
    own = method(best[1])
    foreign = [one for one in rivals if own and method(one[1]) not in ("", own)]
    wanted = [("next best", rivals[:1]), ("best of another method", foreign[:1])]
    wanted.append(("baseline", [one for one in others if one[1].is_baseline][:1]))
    seen: set[str] = set()
    for role, candidates in wanted:
        for label, row in candidates:
            if label not in seen:
                seen.add(label)
                yield _compared(role, label, best[1], row, lead, found)


def _compared(role: str, label: str, best: Row, other: Row, lead: str, found: Found) -> Comparison:
    """The difference of the leading column: paired by prompt, or of the figures alone."""
    pairs = _pairs(best, other, lead, found)
    if not pairs:
        return Comparison(role, label, best.cells[lead].mean - other.cells[lead].mean, None, 0)
    centre, low, high = interval([x - y for x, y in pairs])
    known = honest(centre, low, high, len(pairs))
    between = None if known[0] is None or known[1] is None else (known[0], known[1])
    return Comparison(role, label, centre, between, len(pairs))


def _pairs(one: Row, two: Row, lead: str, found: Found) -> list[tuple[float, float]]:
    """The values of both on the prompts that have one of both; none for a figure that is not the
    mean of its prompts, such as a fitted one.
    """
    first, second = _values(one, lead, found), _values(two, lead, found)
    if len(first) != len(second):
        return []
    both = zip(first, second, strict=True)
    return [(x, y) for x, y in both if x is not None and y is not None]


def _values(row: Row, lead: str, found: Found) -> Sequence[float | None]:
    """A value per prompt, where they make the figure."""
    values = found[row.result].values.get(lead, ()) if row.result in found else ()
    known = [x for x in values if x is not None]
    return values if known and math.isclose(mean(known), row.cells[lead].mean, rel_tol=1e-6) else ()


# --- single answers --------------------------------------------------------------------------


def _scored(best: tuple[str, Row] | None, lead: str | None, found: Found) -> Iterator[Scored]:
    """Every answer of the best model with its own score, else with its prompt's value."""
    if best is None or lead is None or best[1].result not in found:
        return
    evidence = found[best[1].result]
    values = evidence.values.get(lead, ())
    for number, exchange in evidence.exchanges.items():
        prompt = exchange.prompt[-1].text if exchange.prompt else ""
        value = values[number] if number < len(values) else None
        for reply in exchange.replies:
            worth = reply.score if reply.score is not None else value
            if worth is not None:
                yield Scored(best[0], worth, prompt, words_of(reply))


def _measure(best: tuple[str, Row] | None, lead: str | None, found: Found) -> str:
    """What single answers of the best model are sorted by."""
    if best is None or best[1].result not in found:
        return ""
    replies = (r for e in found[best[1].result].exchanges.values() for r in e.replies)
    return "score of the answer" if any(r.score is not None for r in replies) else lead or ""


def words_of(reply: Reply) -> str:
    """What the model itself said, turn by turn."""
    return "\n\n".join(turn.text for turn in reply.turns if turn.role == "assistant")


def _disagreements(every: Sequence[tuple[str, Row]], found: Found) -> list[Disagreement]:
    """Answers on which judges, or one judge asked twice, differ most."""
    far = []
    for label, row in every:
        exchanges = found[row.result].exchanges.values() if row.result in found else ()
        for exchange in exchanges:
            values = tuple(_verdicts(exchange.judgments))
            apart = max((v for _, v in values), default=0.0) - min(
                (v for _, v in values), default=0.0
            )
            if apart > 0 and exchange.replies:
                prompt = exchange.prompt[-1].text if exchange.prompt else ""
                answer = words_of(exchange.replies[0])
                far.append(Disagreement(label, prompt, answer, values, apart))
    return sorted(far, key=lambda one: -one.apart)[:SHOWN]


def _verdicts(judgments: Sequence[Judgment]) -> Iterator[tuple[str, float]]:
    """Who said what: by judge, and by the order in which the answers were shown."""
    for judgment in judgments:
        if judgment.value is not None:
            order = "" if judgment.first else ", shown second"
            yield f"{judgment.judge}{order}", judgment.value


# --- seeds -----------------------------------------------------------------------------------


def seeds_of(by_run: Sequence[Sequence[Section]]) -> Iterator[OverSeed]:
    """Means of the leading columns over runs that differ in their seed alone, best first."""
    shapes = {tuple((s.benchmark, s.lead, len(s.rows)) for s in one) for one in by_run}
    if len(by_run) < 2 or len(shapes) != 1:
        return
    for number, table in enumerate(over_seeds(by_run)):
        column = by_run[0][number].lead
        for model, columns in table.values.items():
            values = columns.get(column or "")
            if column and values:
                error = None if len(set(values)) == 1 else standard_error(values)
                yield OverSeed(table.benchmark, column, model, mean(values), error, values)
