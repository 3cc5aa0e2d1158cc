"""Calls to judges are found again, with the totals that they had."""

from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from types import SimpleNamespace

from alignzoo.judging.referee import Heard, Seat
from alignzoo.stages.ledger import Entry, Ledger, Total
from alignzoo.stages.valuing import Valuer


def price(question, used):
    """A hundredth of every token."""
    return None if used is None else sum(map(sum, used)) / 100


def taken(cost):
    """Tokens of one reply with this price."""
    return None if cost is None else [[0, round(100 * cost)]]


def entry(key, cost, judged=4, parsed=4, values=((1.0, 0.0),)):
    made = Entry(key, [list(group) for group in values], judged, parsed, {f"q{key}": taken(cost)})
    return replace(made, number="abcde".index(key))


def filled(path):
    ledger = Ledger(path, price)
    for key, cost in (("a", 0.25), ("b", 0.5), ("c", 1.0)):
        ledger.add(entry(key, cost))
    return ledger


def test_a_call_that_comes_again_has_the_totals_of_its_time(tmp_path):
    """A stage that goes on from a checkpoint repeats calls that the ledger has gone past."""
    filled(tmp_path / "x")
    again = Ledger(tmp_path / "x", price)
    assert again.until(0) == Total(4, 4, 0.25)
    assert again.until(1) == Total(8, 8, 0.75)
    assert again.until(2) == Total(12, 12, 1.75)
    assert again.entries["b"] == entry("b", 0.5)
    assert again.bill == {"qa": taken(0.25), "qb": taken(0.5), "qc": taken(1.0)}
    assert again.total == again.until(3) == Total(12, 12, 1.75)


def test_a_call_that_is_asked_anew_keeps_its_place(tmp_path):
    ledger = filled(tmp_path / "x")
    ledger.add(entry("a", 0.3, parsed=3, values=((None, 0.5),)))
    again = Ledger(tmp_path / "x", price)
    assert again.until(0) == Total(4, 3, 0.3) and not again.entries["a"].is_whole
    assert again.until(1) == Total(8, 7, 0.8)
    assert again.entries["a"].values == [[None, 0.5]]


def test_one_price_that_nobody_knows_makes_the_sum_unknown(tmp_path):
    ledger = filled(tmp_path / "x")
    ledger.add(entry("d", None))
    assert ledger.until(2).cost == 1.75 and ledger.until(3).cost is None


def test_a_price_that_is_corrected_counts_for_what_was_paid_before(tmp_path):
    filled(tmp_path / "x")
    again = Ledger(tmp_path / "x", lambda question, used: 10 * price(question, used))
    assert again.until(1).cost == 7.5 and again.total.cost == again.paid == 17.5


def test_a_line_that_a_kill_has_cut_is_no_call(tmp_path):
    path = tmp_path / "x"
    filled(path)
    path.write_bytes(path.read_bytes()[:-20])
    again = Ledger(path, price)
    assert list(again.entries) == ["a", "b"]
    again.add(entry("e", 2.0))
    assert Ledger(path, price).until(4) == Total(12, 12, 2.75)


@dataclass
class Referee:
    """Every question costs 2.5; those in `open` have no verdict."""

    again: bool = False
    open: frozenset[str] = frozenset()
    heard: list = field(default_factory=list)
    priced, seats = True, (Seat("judge", None),)

    def questions(self, groups):
        return [(None, SimpleNamespace(digest=str(a.turns))) for g in groups for a in g]

    def hear(self, groups, billed, purse):
        asked = [str(group[0].turns) for group in groups]
        self.heard += asked
        values = [[None if turns in self.open else 1.0] for turns in asked]
        parsed = len(asked) - len(self.open.intersection(asked))
        return Heard(values, len(asked), parsed, bill={turns: taken(2.5) for turns in asked})

    def takes(self, strangers):
        return not strangers


def valuer(folder, notes=None, **referee):
    notes = [] if notes is None else notes
    context = SimpleNamespace(name="it", note=notes.append, folder=folder, registry=None)
    spec = SimpleNamespace(max_cost=None, min_parsed=0, by="score")
    return Valuer(
        spec, Referee(**referee), Ledger(folder / "judges.jsonl", price), context, ExitStack()
    )


def buffers(judges, start=0):
    """What it has cost after each buffer; the answers of the first come again in the fourth."""
    costs = []
    for number, answers in list(enumerate(("b1", "b2", "b3", "b1", "b4")))[start:]:
        judges.number = number
        costs.append(judges([[SimpleNamespace(turns=answers)]]).total.cost)
    return costs


def test_what_was_paid_never_goes_back_when_the_same_answers_come_again(tmp_path):
    notes = []
    judges = valuer(tmp_path, notes)
    assert buffers(judges) == [2.5, 5.0, 7.5, 7.5, 10.0]
    judges.close()
    assert notes == ["4 questions to judge 'judge'; cost 10"]


def test_a_stage_that_goes_on_at_any_buffer_says_the_costs_of_one_that_never_stopped(tmp_path):
    whole = buffers(valuer(tmp_path, []))
    for start in range(5):
        notes = []
        again = valuer(tmp_path, notes)
        assert buffers(again, start) == whole[start:]
        again.close()
        assert notes == ["4 questions to judge 'judge'; cost 10"]


def answers(*names):
    return [[SimpleNamespace(turns=name)] for name in names]


def test_a_question_that_an_earlier_call_paid_is_paid_once(tmp_path):
    judges = valuer(tmp_path)
    assert judges(answers("b1", "b2")).total.cost == 5.0
    assert judges(answers("b2", "b3")).total.cost == 7.5
    assert valuer(tmp_path)(answers("b1", "b2")).total.cost == 5.0


def test_a_stage_that_goes_on_asks_again_what_has_no_verdict_if_that_is_wanted(tmp_path):
    """It stopped after a call that a checkpoint does not know; its place and price stay."""
    first = valuer(tmp_path, open=frozenset({"b1"}))
    assert first(answers("b1")).values == [[None]] and first(answers("b2")).values == [[1.0]]
    kept = valuer(tmp_path)
    assert kept(answers("b1")).values == [[None]] and kept.referee.heard == []
    again = valuer(tmp_path, again=True)
    again.number = 1
    assert again(answers("b2")).values == [[1.0]] and again.referee.heard == []
    found = again(answers("b1"))
    assert found.values == [[1.0]] and again.referee.heard == ["b1"]
    assert again.ledger.until(0) == Total(1, 1, 2.5) and found.total == Total(2, 2, 5.0)
