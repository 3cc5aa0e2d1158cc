"""Values of answers to the same prompts, by a judge or panel and a benchmark that words questions.

A benchmark that compares: every pair of answers is shown in both orders, P(i better than j) is the
mean of both, and an answer's value is its mean against the others. One that grades: its grade.
What lacks a verdict has no value: one order alone would bring in the judge's love of a position.
Of a panel, the judges that lack none vote on it.
"""

from __future__ import annotations

import math
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from alignzoo.contract.evaluation import Answer, Judge
from alignzoo.contract.verdicts import AskedJudge, JudgedBenchmark, Question, Usage, Verdict
from alignzoo.judging.ask import PATIENT, Patience, put
from alignzoo.judging.journal import Journal
from alignzoo.judging.mute import EVALUATING, Remedies, quoted
from alignzoo.judging.purse import Purse, Used, price_of, used_of
from alignzoo.judging.ranking import duels, win_rates
from alignzoo.judging.read import Judged, blaming, by_another, read, score
from alignzoo.judging.vote import panel
from alignzoo.judging.work import Standing, Task

Groups = Sequence[Sequence[Answer]]
Values = list[list[float | None]]
Vote = Literal["mean", "majority"]


@dataclass(frozen=True)
class Seat:
    """A judge of a panel, and where its replies are kept; one that scores keeps nothing."""

    name: str
    judge: Judge
    journal: Journal | None = None
    remedies: Remedies = EVALUATING

    @property
    def account(self) -> str:
        """What tells the judge from others in bills: what decides its replies."""
        return "" if self.journal is None else self.journal.folder.name


@dataclass(frozen=True)
class Heard:
    """What the judges said of some answers."""

    values: Values  # of each group's answers
    judged: int  # questions, of all judges
    parsed: int  # of them: with a verdict
    unread: str = ""  # the first reply without one
    bill: Mapping[str, Used] = field(default_factory=dict)  # question -> what its replies took
    strangers: list[str] = field(default_factory=list)  # seats in whose place another model replied


@dataclass(frozen=True)
class Referee:
    """Who values answers, and how it is asked."""

    benchmark: JudgedBenchmark
    seats: Sequence[Seat]
    vote: Vote = "mean"
    again: bool = False  # ask anew what has no verdict
    patience: Patience = PATIENT

    @property
    def priced(self) -> bool:
        """Whether the price of every judge that is asked is known."""
        asked = [seat.judge for seat in self.seats if isinstance(seat.judge, AskedJudge)]
        return all(judge.cost(Usage(1, 1)) is not None for judge in asked)

    def price(self, question: str, used: Used) -> float | None:
        """What the replies to a question of a bill cost, by the prices that judges have now."""
        account, _, _ = question.partition(" ")
        judge = next((seat.judge for seat in self.seats if seat.account == account), None)
        return price_of(judge, used) if isinstance(judge, AskedJudge) else None

    def takes(self, strangers: Iterable[str]) -> bool:
        """Whether other models may have replied in the place of these seats."""
        own = (seat for seat in self.seats if seat.name in set(strangers))
        return not any(getattr(seat.judge, "other_models", "") == "stop" for seat in own)

    def questions(self, groups: Groups) -> Iterator[tuple[tuple[int, int, int], Question]]:
        """Every question with what it is about: (group, answer, answer), the candidate first.

        The two are the same where single answers are graded.
        """
        places = list(_compared(groups) if self.benchmark.compares else _graded(groups))
        own = [groups[g][i] for g, i, _ in places]
        other = [groups[g][j] for g, _, j in places] if self.benchmark.compares else None
        with blaming(f"benchmark '{self.benchmark.name}'"):
            for question in self.benchmark.questions(own, other):
                yield places[question.index], question

    def hear(self, groups: Groups, billed: Container[str], purse: Purse) -> Heard:
        """Ask every judge what its journal does not know, and read the verdicts.

        `billed` are the questions that are paid for already. Raises JudgeError as `ask` does, and
        before what the purse may hold is passed; everything that came is kept.
        """
        heard = [self._one(seat, groups, billed, purse) for seat in self.seats]
        verdicts = [dict(one.verdicts) for one in heard]
        places = [place for place, _ in self.questions(groups)]
        about = {str(n): (g, *sorted(pair)) for n, (g, *pair) in enumerate(places)}
        voted = verdicts[0] if len(heard) == 1 else panel(verdicts, self.vote, about)[0]
        every = [(place, voted.get(str(n))) for n, place in enumerate(places)]
        return Heard(
            values=self._values(groups, every),
            judged=sum(len(one.asked) for one in heard),
            parsed=sum(len(one.parsed) for one in heard),
            unread=next((one.unread for one in heard if one.unread), ""),
            bill={key: used for one in heard for key, used in one.bill.items()},
            strangers=[s.name for s, x in zip(self.seats, heard, strict=True) if x.strange],
        )

    def _one(self, seat: Seat, groups: Groups, billed: Container[str], purse: Purse) -> _One:
        def questions() -> Iterator[Question]:
            return (question for _, question in self.questions(groups))

        if seat.journal is None or not isinstance(seat.judge, AskedJudge):
            return self._read(seat, score(self.benchmark, seat.judge, questions()))
        if purse.limit < math.inf:
            kept = self._read(seat, read(self.benchmark, questions(), seat.journal)).bill
            new = (self.price(key, used) for key, used in kept.items() if key not in billed)
            purse.paid += sum(price or 0.0 for price in new)
        task = Task(self.benchmark, seat.judge, questions, seat.journal, self.again, _silent,
                    self.patience.mute, purse, seat.remedies)  # fmt: skip
        put(task, self.patience)
        return self._read(seat, read(self.benchmark, questions(), seat.journal))

    def _read(self, seat: Seat, found: Iterator[Judged]) -> _One:
        """A question that several things hang on, as both orders of a pair do, counts once."""
        one = _One()
        for n, judged in enumerate(found):
            one.asked.add(judged.question.digest)
            if seat.journal is not None:
                one.strange |= any(by_another(reply, seat.journal) for reply in judged.replies)
            if judged.verdict is not None:
                one.verdicts[str(n)] = judged.verdict
                one.parsed.add(judged.question.digest)
            elif not one.unread:
                reply = judged.reply
                said = quoted(self.benchmark, reply, seat.remedies) if reply else "no reply"
                one.unread = f"judge '{seat.name}': {said}"
            if judged.billed and isinstance(seat.judge, AskedJudge):
                key = f"{seat.account} {judged.question.digest}"
                one.bill[key] = used_of(seat.judge, judged)
        return one

    def _values(
        self, groups: Groups, every: Sequence[tuple[tuple[int, int, int], Verdict | None]]
    ) -> Values:
        about: dict[tuple[int, int, int], list[Verdict | None]] = {}
        for place, verdict in every:
            about.setdefault(place, []).append(verdict)
        found = {place: _together(verdicts) for place, verdicts in about.items()}
        if not self.benchmark.compares:
            return [
                [found.get((g, i, i)) for i in range(len(group))] for g, group in enumerate(groups)
            ]
        return [
            win_rates(
                group,
                {(i, j): _both(found.get((g, i, j)), found.get((g, j, i)))
                 for i, j in duels(group)},
            )
            for g, group in enumerate(groups)
        ]  # fmt: skip


@dataclass
class _One:
    """What one judge said; questions go by their number."""

    verdicts: dict[str, Verdict] = field(default_factory=dict)
    asked: set[str] = field(default_factory=set)  # digests
    parsed: set[str] = field(default_factory=set)  # of them: with a verdict
    unread: str = ""
    bill: dict[str, Used] = field(default_factory=dict)
    strange: bool = False  # whether another model replied in its place


def _compared(groups: Groups) -> Iterator[tuple[int, int, int]]:
    for g, group in enumerate(groups):
        for i, j in duels(group):
            yield from ((g, i, j), (g, j, i))


def _graded(groups: Groups) -> Iterator[tuple[int, int, int]]:
    return ((g, i, i) for g, group in enumerate(groups) for i in range(len(group)))


def _both(first: float | None, second: float | None) -> float | None:
    """P(i better than j) from both orders; None where one of them has no verdict."""
    return None if first is None or second is None else (first + 1 - second) / 2


def _together(verdicts: Sequence[Verdict | None]) -> float | None:
    """The weighted mean of all verdicts about one thing; None where one is missing."""
    known = [verdict for verdict in verdicts if verdict is not None]
    weight = sum(verdict.weight for verdict in known)
    if len(known) < len(verdicts) or not weight:
        return None
    return math.fsum(verdict.weight * verdict.value for verdict in known) / weight


def _silent(standing: Standing) -> None:
    """Training has progress of its own."""
