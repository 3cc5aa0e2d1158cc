"""Judges that are asked in words, as the value of answers to the same prompts."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from itertools import accumulate

from alignzoo.contract.errors import counted
from alignzoo.contract.evaluation import Answer, Judge, mean
from alignzoo.contract.verdicts import AskedJudge, JudgeError
from alignzoo.judging import Patience, meet, open_journal
from alignzoo.judging.journal import Journal, journal_folder
from alignzoo.judging.mute import Remedies, spoken
from alignzoo.judging.purse import Purse
from alignzoo.judging.ranking import EQUAL
from alignzoo.judging.referee import Groups, Referee, Seat, Values
from alignzoo.judging.work import MUTE
from alignzoo.recipe.judges import asked_of, by_of, placed_values, questions_of
from alignzoo.recipe.options import build_options
from alignzoo.recipe.rewards import ValuedSpec, numbered
from alignzoo.stages.context import StageContext
from alignzoo.stages.ledger import Entry, Ledger, Total
from alignzoo.store.files import digest_of_value
from alignzoo.store.records import STATE
from alignzoo.store.verdicts import JUDGES, Said, keep_verdicts


@dataclass(frozen=True)
class Valued:
    """The values of each group's answers, None where there is no verdict, and the stage so far."""

    values: Values
    total: Total
    wins: bool = False  # whether they are win rates
    usual: float | None = None  # what all earn where nothing has a verdict; None: that is an error
    bar: str = ""  # what lets it be none


@dataclass
class Valuer:
    """A block's judges at work in a stage, on the one process that asks."""

    spec: ValuedSpec
    referee: Referee
    ledger: Ledger
    context: StageContext
    held: ExitStack  # journals
    beside: Sequence[Valuer] = ()  # of all blocks of the stage, who may have paid
    number: int = 0  # of the call that comes: of a rollout's buffer, or counted

    def __call__(self, groups: Groups) -> Valued:
        """Ask what nobody has said yet.

        Raises JudgeError when judges cannot be used, too few replies hold a verdict, or the next
        one could pass max_cost; everything that came is kept.
        """
        key = self._key(groups)
        entry = self.ledger.entries.get(key)
        if entry is None or self._is_open(entry):
            entry = self._heard(key, groups)
        total = self.ledger.until(self.number)
        self.number += 1
        usual = self._usual(entry) if self.spec.min_parsed == 0 else None
        return Valued(entry.values, self._priced(total), self.wins, usual, self.bar)

    @property
    def total(self) -> Total:
        """What the stage's whole ledger came to."""
        return self._priced(self.ledger.total)

    def _priced(self, total: Total) -> Total:
        return total if self.referee.priced else replace(total, cost=None)

    @property
    def bar(self) -> str:
        """How a recipe takes any number of replies without a verdict."""
        return self.referee.seats[0].remedies.bar

    @property
    def wins(self) -> bool:
        """Whether values are win rates."""
        return by_of(self.spec, self.context.registry) == "wins"

    def _usual(self, entry: Entry) -> float:
        """Of win rates 1/2, of grades the mean of those before, so that they speak for nobody."""
        if self.wins:
            return EQUAL
        earlier = (x for x in self.ledger.entries.values() if x.number < entry.number)
        known = [x for call in earlier for group in call.values for x in group if x is not None]
        return mean(known) if known else 0.0

    def _is_open(self, entry: Entry) -> bool:
        """Whether what was said is to be asked once more."""
        failed = self.referee.again and not entry.is_whole
        return failed or not self.referee.takes(entry.strangers)

    def _heard(self, key: str, groups: Groups) -> Entry:
        ledgers = [self.ledger, *(other.ledger for other in self.beside)]
        billed = {question for ledger in ledgers for question in ledger.bill}
        limit = math.inf if self.spec.max_cost is None else self.spec.max_cost
        heard = self.referee.hear(groups, billed, Purse(limit, self.ledger.paid))
        before = self.ledger.entries.get(key)
        own, first = (set(before.bill), before.number) if before else (set(), self.number)
        bill = {q: used for q, used in heard.bill.items() if q in own or q not in billed}
        said = (heard.values, heard.judged, heard.parsed)
        entry = Entry(key, *said, bill, first, heard.strangers)
        self._check_parsed(entry, heard.unread)
        self.ledger.add(entry)
        return entry

    def _key(self, groups: Groups) -> str:
        """Of the answers and everything that the judges are shown."""
        shown = [question.digest for _, question in self.referee.questions(groups)]
        return digest_of_value([shown, [[answer.turns for answer in group] for group in groups]])

    def _check_parsed(self, entry: Entry, unread: str) -> None:
        """As in an evaluation: of all questions of the stage so far, once there are some."""
        calls = [x for x in self.ledger.entries.values() if x.key != entry.key]
        judged = sum(x.judged for x in calls) + entry.judged
        parsed = sum(x.parsed for x in calls) + entry.parsed
        if judged >= MUTE and parsed / judged < self.spec.min_parsed:
            raise JudgeError(
                f"{self.context.name}: {parsed} of {judged} replies of the judges hold a verdict, "
                f"fewer than min_parsed = {self.spec.min_parsed:g}; the last without: {unread}; "
                "every reply is kept, `alignzoo run --rejudge-failed` asks those again, and "
                f"`{self.bar}` takes any number"
            )

    def close(self) -> None:
        """Say what it came to, keep it with the work, and let go of the journals."""
        self.held.close()
        keep_verdicts(self.context.folder, self.ledger.place, self._said())
        total, names = self.total, ", ".join(f"'{seat.name}'" for seat in self.referee.seats)
        if total.judged:
            open_ = total.judged - total.parsed
            failed = f", {open_} of them without a verdict" if open_ else ""
            cost = "cost unknown" if total.cost is None else f"cost {total.cost:.4g}"
            asked = counted(total.judged, "question")
            self.context.note(f"{asked} to judge {names}{failed}; {cost}")

    def _said(self) -> Said:
        calls = sorted(self.ledger.entries.values(), key=lambda call: call.number)
        shares = [1.0]
        judged = list(accumulate(call.judged for call in calls))
        parsed = list(accumulate(call.parsed for call in calls))
        shares += [own / n for own, n in zip(parsed, judged, strict=True) if n >= MUTE]
        strangers = sorted({name for call in calls for name in call.strangers})
        return Said(sum(judged[-1:]), sum(parsed[-1:]), min(shares), tuple(strangers))


def valuer_of(
    spec: ValuedSpec,
    context: StageContext,
    place: str = JUDGES,
    beside: Sequence[Valuer] = (),
) -> Valuer:
    """The judges of a block; those that nobody has met yet are met now.

    `place` names its ledger. A judge whom the valuers of other blocks know too has one journal, so
    that nothing is asked twice. Raises JudgeError when one cannot be used.
    """
    registry, held = context.registry, ExitStack()
    benchmark = questions_of(spec, registry)
    names = numbered([judge.name for judge in spec.judges])
    patience = Patience(mute=spec.min_parsed == 0)
    seats = []
    for k, (name, chosen) in enumerate(zip(names, spec.judges, strict=True)):
        judge: Judge = build_options(registry.find("judge", chosen.name), chosen.with_)
        if not isinstance(judge, AskedJudge):
            seats.append(Seat(name, judge, remedies=_remedies(spec, k, context)))
            continue
        journal = _journal(judge, beside, held, context)
        seats.append(Seat(name, judge, journal, _remedies(spec, k, context)))
        with spoken(seats[-1].remedies):
            meet(benchmark, judge, journal, patience)
    referee = Referee(benchmark, seats, spec.vote, context.again, patience)
    ledger = Ledger(context.folder / STATE / f"{place}.jsonl", referee.price)
    return Valuer(spec, referee, ledger, context, held, beside)


def _journal(
    judge: AskedJudge, beside: Sequence[Valuer], held: ExitStack, context: StageContext
) -> Journal:
    """The one that is open already, or held open from now on."""
    opened = (seat.journal for valuer in beside for seat in valuer.referee.seats)
    folder = journal_folder(judge)
    for known in opened:
        if known is not None and known.folder == folder:
            return known
    journal = held.enter_context(open_journal(judge))
    if journal.damaged:
        context.note(f"{journal.folder}: {journal.damaged} damaged lines left out")
    return journal


def _remedies(spec: ValuedSpec, seat: int, context: StageContext) -> Remedies:
    """How keys of this block are changed, and options of the judge in a seat."""
    stage = next(stage for stage in context.recipe.stages if stage.name == context.name)
    path = next(path for block, path in placed_values(stage) if block == spec)
    place = ".".join(map(str, ("stages", context.name, *path)))
    judge = "with" if isinstance(spec.judge, str) else f"judge.{seat}.with"
    asked = asked_of(spec, context.registry).name
    room = f"`questions: {{{{name: {asked}, with: {{{{max_tokens: {{room}}}}}}}}}}` in {place}"
    return Remedies(f"--set {place}.min_parsed=0", room, f"{place}.{judge}")


def grouped(answers: Sequence[Answer], size: int) -> list[Sequence[Answer]]:
    """Answers to one prompt side by side, of so many each."""
    return [answers[start : start + size] for start in range(0, len(answers), size)]
