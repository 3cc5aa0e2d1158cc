"""One model on a judged benchmark: its answers, the judges' verdicts, the columns.

Leaves `answers.jsonl` (with the baseline's answers beside), `judgments.jsonl` (every question with
the raw reply and what was read in it) and `scores.json`.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, is_dataclass, replace
from pathlib import Path
from typing import Any

from alignzoo.contract.errors import PluginError
from alignzoo.contract.evaluation import WIN_RATE, Answer, Column, Judge
from alignzoo.contract.replies import VERSION, note_on_reasoning
from alignzoo.contract.verdicts import (
    AskedJudge,
    Capabilities,
    JudgedBenchmark,
    JudgeError,
    Tally,
    Usage,
    Verdict,
)
from alignzoo.data.rows import row_from_sample
from alignzoo.judging import Judged, Spent, Standing, ask, open_journal, panel, read, score
from alignzoo.judging.ask import PATIENT
from alignzoo.judging.mute import Remedies, quoted
from alignzoo.recipe.blocks import EvaluateSpec
from alignzoo.recipe.options import build_options
from alignzoo.recipe.registry import Registry
from alignzoo.recipe.rewards import numbered
from alignzoo.recipe.spec import JudgeSpec
from alignzoo.stages.context import StageContext
from alignzoo.stages.evaluation.answers import write_answers
from alignzoo.stages.evaluation.columns import check_columns, summarise
from alignzoo.stages.evaluation.contest import Contest, contest_of, remedies_of
from alignzoo.store.files import digest_of_value, read_json, write_json
from alignzoo.store.identity import judge_identities


@dataclass(frozen=True)
class Bench:
    """What one judge came to."""

    name: str
    label: str  # in tables
    verdicts: Mapping[str, Verdict]
    tally: Tally
    capabilities: Capabilities | None


def run_judged(
    spec: EvaluateSpec, model: str, context: StageContext, baseline: Path | None
) -> None:
    """Judge one model; `baseline` is the finished folder of the model it is compared with.

    All ranks sample; rank 0 alone asks the judges, which cost money.

    Raises DataError when there are no prompts or no answers, JudgeError when a judge cannot be
    used or too few of its replies hold a verdict; what was paid for is kept.
    """
    contest = contest_of(spec, model, context, baseline)
    if contest is None:
        return
    _note_reasoning(contest, context)
    names = numbered([judge.name for judge in spec.judge])
    chosen = zip(names, spec.judge, remedies_of(spec, context), strict=True)
    benches = [_judge(contest, Seated(*one), spec, context) for one in chosen]
    for bench in benches:
        _check_parsed(bench, spec, context)
    verdicts, agreement = _agreed(contest, benches, spec)
    columns = contest.benchmark.columns(contest.answers, contest.baseline, verdicts)
    check_columns(spec.benchmark, columns, len(contest.answers))
    write_answers(contest.answers, context.folder, _beside(contest))
    result = _result(spec, model, contest, benches, columns, baseline, context)
    if agreement is not None:
        result["row"]["agreement"] = agreement
    write_json(context.folder / "scores.json", result)
    told = {name: cell["mean"] for name, cell in result["row"]["columns"].items() if cell["better"]}
    context.summary({name: value for name, value in told.items() if value is not None})


def _note_reasoning(contest: Contest, context: StageContext) -> None:
    """Say how many of the answers show the judge what their model thought."""
    theirs = contest.baseline if contest.benchmark.compares else None
    shown = contest.answers if contest.is_baseline else (*contest.answers, *(theirs or ()))
    if words := note_on_reasoning([answer.turns for answer in shown]):
        context.progress.note(f"{context.name}: {words}")


def _beside(contest: Contest) -> list[dict[str, Any]]:
    """What a reader wants to see next to each answer: later turns, and the baseline's answer."""
    later = [list(contest.benchmark.later_turns(prompt)) for prompt in contest.prompts]
    rows: list[dict[str, Any]] = [{"later": turns} if turns else {} for turns in later]
    for row, answer in zip(rows, contest.baseline or (), strict=False):
        row["baseline"] = list(answer.turns)
    return rows


# --- judging ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Seated:
    """A judge of a block."""

    name: str
    chosen: JudgeSpec
    remedies: Remedies

    def judge(self, registry: Registry) -> Judge:
        """With its options."""
        found: Judge = build_options(registry.find("judge", self.chosen.name), self.chosen.with_)
        return found


def _judge(contest: Contest, seat: Seated, spec: EvaluateSpec, context: StageContext) -> Bench:
    """Put every question to one judge and keep what it said."""
    judge = seat.judge(context.registry)
    if not isinstance(judge, AskedJudge):
        found = score(contest.benchmark, judge, contest.questions())
        return _bench(contest, seat, found, None, context)

    def report(standing: Standing) -> None:
        if standing.done and not standing.settled:
            kept = f"{standing.done} of {standing.total} replies kept from before"
            context.progress.note(f"{context.name}: {kept}, nobody is asked for them again")
        told = {"cost": standing.cost, "cost_left": standing.cost_left, "unread": standing.failed}
        known = {name: x for name, x in told.items() if x}
        context.progress.step(context.name, standing.done, standing.total, known, {})

    with open_journal(judge) as journal:
        if journal.damaged:
            context.progress.note(f"{journal.folder}: {journal.damaged} damaged lines left out")
        patience = replace(PATIENT, mute=spec.min_parsed == 0)
        able = ask(contest.benchmark, judge, contest.questions, journal,
                   again=context.again, report=report, patience=patience,
                   remedies=seat.remedies)  # fmt: skip
        found = read(contest.benchmark, contest.questions(), journal)
        return _bench(contest, seat, found, able, context)


def _bench(
    contest: Contest,
    seat: Seated,
    found: Iterable[Judged],
    able: Capabilities | None,
    context: StageContext,
) -> Bench:
    name, judge = seat.name, seat.judge(context.registry)
    verdicts: dict[str, Verdict] = {}
    judged = 0
    spent = Spent()
    unread: list[str] = []
    who: Counter[str] = Counter()  # replies by the model that wrote them
    counted: set[str] = set()  # models whose replies are this judge's
    path = context.folder / "judgments.jsonl"
    # A reply may hold half a character; in JSON its escape is the same text.
    with path.open("a", encoding="utf-8", errors="backslashreplace") as file:
        for one in found:
            judged += 1
            if one.verdict is not None:
                verdicts[one.question.id] = one.verdict
            else:
                unread.append(f"{one.question.id}: {_said(contest.benchmark, one, seat.remedies)}")
            if isinstance(judge, AskedJudge):
                spent = spent.plus(one.billed, judge)
            who.update(reply.model for reply in one.replies if reply.model)
            counted |= {r.model for r in one.replies if r.model and r.error is None}
            file.writelines(json.dumps(x, ensure_ascii=False) + "\n" for x in _rows(name, one))
    parsed = judged - len(unread)
    if len(verdicts) < parsed:
        raise PluginError(f"benchmark '{contest.benchmark.name}': two `questions` have one id")
    tally = Tally(judged, parsed, len(unread), spent.usage, spent.cost, tuple(unread[:3]))
    label = " + ".join(sorted(counted)) if len(counted) > 1 else able.model if able else judge.label
    _tell(context, tally, who)
    return Bench(name, label, contest.ties() | verdicts, tally, able)


def _tell(context: StageContext, tally: Tally, who: Counter[str]) -> None:
    """What a reader of the table would not expect."""
    if len(who) > 1:
        shares = ", ".join(f"{model} {n}" for model, n in who.most_common())
        context.progress.note(f"{context.name}: several models answered as this judge: {shares}")
    if tally.usage is None:
        context.progress.note(
            f"{context.name}: not every reply says how many tokens it took, so that what judging "
            "cost is unknown"
        )


def _said(benchmark: JudgedBenchmark, one: Judged, remedies: Remedies) -> str:
    return "no reply" if one.reply is None else quoted(benchmark, one.reply, remedies)


def _rows(judge: str, one: Judged) -> Iterator[dict[str, Any]]:
    """Rows of `judgments.jsonl`: one per reply, and in the last of them what was read."""
    for place, question in enumerate(one.asked, 1):
        last = place == len(one.asked)
        verdict = one.verdict if last else None
        row = {
            "id": question.id,
            "index": question.index,
            "candidate": question.candidate,
            "judge": judge,
            "question": question.digest,
            **(asdict(verdict) if verdict else dict.fromkeys(("value", "label", "weight"))),
        }
        reply = asdict(one.replies[place - 1]) if place <= len(one.replies) else {}
        said = {"reply": reply.pop("text", None), **reply, "followed": None if last else True}
        yield row | {key: x for key, x in said.items() if x is not None}


def _check_parsed(bench: Bench, spec: EvaluateSpec, context: StageContext) -> None:
    tally = bench.tally
    if tally.judged and tally.parsed < spec.min_parsed * tally.judged:
        raise JudgeError(
            f"{context.name}: {tally.parsed} of {tally.judged} replies of judge '{bench.name}' "
            f"hold a verdict, fewer than {context.keys}min_parsed = {spec.min_parsed:g}; the first "
            f"without: {tally.unread[0]}; every reply is kept, and --rejudge-failed asks those "
            "again"
        )


def _agreed(
    contest: Contest, benches: Sequence[Bench], spec: EvaluateSpec
) -> tuple[Mapping[str, Verdict], float | None]:
    if len(benches) == 1:
        return benches[0].verdicts, None
    compared = (q for q in contest.questions() if len(q.answers) > 1)
    about = {q.id: (q.index, frozenset(a.turns for a in q.answers)) for q in compared}
    return panel([bench.verdicts for bench in benches], spec.vote, about)


# --- the result ------------------------------------------------------------------------------


def _result(
    spec: EvaluateSpec,
    model: str,
    contest: Contest,
    benches: Sequence[Bench],
    columns: Mapping[str, Column],
    baseline: Path | None,
    context: StageContext,
) -> dict[str, Any]:
    """The content of `scores.json`; `row` goes to the run's `scores.jsonl`."""
    section = _section(spec, contest, benches, context)
    theirs = read_json(baseline / "scores.json").get("values", {}) if baseline else {}
    matched = {name: [of[place] for place in contest.places] for name, of in theirs.items()}
    answers = [[row_from_sample(a.sample), *_counted(a)] for a in contest.answers]
    said = [{id: asdict(v) for id, v in bench.verdicts.items()} for bench in benches]
    costs = [bench.tally.cost for bench in benches]
    return {
        "row": {
            "benchmark": spec.benchmark,
            "options": _shared(spec.with_, contest.benchmark),
            "prompts": len(contest.answers),
            "samples": 1,
            "section": digest_of_value(section),
            "parts": {part: digest_of_value(x) for part, x in section.items()},
            "result": digest_of_value([section, answers, said]),
            "judge": ", ".join(bench.label for bench in benches),
            "counts": {
                key: sum(getattr(bench.tally, key) for bench in benches)
                for key in ("judged", "parsed", "failed")
            },
            "usage": _usage([bench.tally.usage for bench in benches]),
            "cost": None if None in costs else sum(filter(None, costs)),
            "decoding": contest.decoding,
            "columns": {
                name: summarise(c, matched.get(name), by_definition=_is_tie(name, c, contest))
                for name, c in columns.items()
            },
        },
        "section": section,
        "values": {name: list(column.values) for name, column in columns.items()},
    }


def _is_tie(name: str, column: Column, contest: Contest) -> bool:
    """Whether a figure is a share of what the baseline does against itself."""
    return contest.is_baseline and (name == WIN_RATE or column.whole is not None)


def _usage(used: Sequence[Usage | None]) -> dict[str, int] | None:
    """Tokens of all judges; None when one of them does not say."""
    known = [usage for usage in used if usage is not None]
    if len(known) < len(used):
        return None
    keys = ("prompt_tokens", "completion_tokens")
    return {key: sum(getattr(usage, key) for usage in known) for key in keys}


def _shared(options: Mapping[str, Any], benchmark: JudgedBenchmark) -> dict[str, Any]:
    """The options that mean the same on every machine."""
    return {k: v for k, v in options.items() if k not in benchmark.file_options}


def _all(benchmark: JudgedBenchmark) -> dict[str, Any]:
    """The options with their defaults: written out or left out, they make one table."""
    return asdict(benchmark) if is_dataclass(benchmark) else {}


def _section(
    spec: EvaluateSpec, contest: Contest, benches: Sequence[Bench], context: StageContext
) -> dict[str, Any]:
    """What two results share in one table: all but the outputs and how they were decoded."""
    cls = context.registry.find("benchmark", spec.benchmark)
    theirs = contest.baseline
    return {
        "benchmark": spec.benchmark,
        "options": _shared(_all(contest.benchmark), contest.benchmark),
        "plugin": context.registry.owner(cls).identity,
        "settings": dict(contest.benchmark.settings()),
        "prompts": digest_of_value([row_from_sample(p) for p in contest.prompts]),
        "judges": judge_identities(spec, context.registry),
        "reader": VERSION,
        "served": [
            bench.capabilities and [bench.capabilities.model, bench.capabilities.revision]
            for bench in benches
        ],
        "vote": spec.vote if len(benches) > 1 else None,
        "baseline": theirs and digest_of_value([_counted(a) for a in theirs]),
    }


def _counted(answer: Answer) -> tuple[Any, ...]:
    """What columns may depend on: the texts, and the tokens on record."""
    return (list(answer.turns), answer.n_tokens)
