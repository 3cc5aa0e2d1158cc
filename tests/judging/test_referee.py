"""Answers to the same prompts, valued through questions to judges: orders, gaps, panels, calls."""

import re
import sys
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace

import pytest
from alignzoo_pairwise.benchmark import Pairwise
from alignzoo_pairwise.pointwise import Pointwise
from judging_parts import QUICK

from alignzoo import (
    Answer,
    AskedJudge,
    Capabilities,
    Judge,
    PromptSample,
    Reply,
    Response,
    Score,
    Usage,
)
from alignzoo.judging import open_journal
from alignzoo.judging.purse import Purse, price_of
from alignzoo.judging.referee import Referee, Seat

SHOWN = re.compile(r"<\w*answer>\n(.*?)\n</\w*answer>", re.DOTALL)


@dataclass(frozen=True)
class Reader(AskedJudge):
    """Says what `says` makes of the answers it is shown, and remembers them."""

    name = "reader"
    says: object = None
    called: str = "r"
    price: float | None = None
    asked: list = field(default_factory=list, compare=False)

    def identity(self):
        return {"called": self.called}

    def cost(self, usage):
        return self.price and self.price * usage.completion_tokens

    @asynccontextmanager
    async def connect(self):
        yield Desk(self)


@dataclass
class Desk:
    judge: Reader
    capabilities = Capabilities("reader-1")

    async def replies(self, questions):
        return [self.reply(question) for question in questions]

    def reply(self, question):
        shown = tuple(SHOWN.findall(question.messages[-1]["content"]))
        self.judge.asked.append(shown)
        return Reply(self.judge.says(*shown), usage=Usage(5, 1), finish="stop")


class Quiet(Reader):
    """Does not say what its replies took."""

    def connect(self):
        return quiet(super().connect())


@asynccontextmanager
async def quiet(session):
    async with session as desk:
        said = desk.reply
        desk.reply = lambda question: replace(said(question), usage=None)
        yield desk


class Endless(Quiet):
    """And nothing limits them."""

    def largest_usage(self, question):
        return Usage(5, sys.maxsize)


def longer(first, second):
    word = "TIE" if len(first) == len(second) else "FIRST" if len(first) > len(second) else "SECOND"
    return f"Verdict: {word}"


class Letters(Judge):
    """Counts letters."""

    name = "letters"

    def score(self, answers):
        return [Score(float(len(a.response.text))) for a in answers]


@pytest.fixture
def hear(tmp_path, monkeypatch):
    monkeypatch.setenv("ALIGNZOO_CACHE", str(tmp_path / "cache"))

    def ask(judges, *texts, benchmark=None, vote="mean", again=False):
        groups = [
            [Answer(PromptSample(f"p{g}"), Response(t), len(t.split())) for t in group]
            for g, group in enumerate(texts)
        ]
        with ExitStack() as held:
            seats = [
                Seat(f"{n}", judge, held.enter_context(open_journal(judge))
                     if isinstance(judge, AskedJudge) else None)
                for n, judge in enumerate(judges)
            ]  # fmt: skip
            referee = Referee(benchmark or Pairwise(), seats, vote, again, QUICK)
            return referee.hear(groups, (), Purse())

    return ask


@pytest.mark.parametrize("orders", ["both", "one"])
def test_every_pair_is_shown_in_both_orders_once(hear, orders):
    """Whatever the benchmark does of itself: what it asks twice is one question."""
    judge = Reader(longer)
    heard = hear([judge], ["aaa", "b", "cc"], ["x", "yy"], benchmark=Pairwise(orders=orders))
    pairs = [("aaa", "b"), ("aaa", "cc"), ("b", "cc"), ("x", "yy")]
    assert sorted(judge.asked) == sorted([*pairs, *((b, a) for a, b in pairs)])
    assert heard.values == [[1.0, 0.0, 0.5], [0.0, 1.0]]
    assert (heard.judged, heard.parsed) == (8, 8)


@pytest.mark.parametrize("orders", ["both", "one"])
def test_a_judge_that_likes_a_position_prefers_nobody(hear, orders):
    first = Reader(lambda a, b: "Verdict: FIRST")
    heard = hear([first], ["aaa", "b", "cc"], benchmark=Pairwise(orders=orders))
    assert heard.values == [[0.5, 0.5, 0.5]]


def test_equal_answers_are_a_tie_that_nobody_is_asked_about(hear):
    judge = Reader(longer)
    assert hear([judge], ["aa", "aa"]).values == [[0.5, 0.5]]
    assert judge.asked == []
    assert hear([judge], ["aa", "aa", "b"]).values == [[0.75, 0.75, 0.0]]
    assert len(judge.asked) == 2  # the third against two equal ones: the same two questions


def test_one_order_without_a_verdict_leaves_the_pair_open(hear):
    def says(first, second):
        return "hm" if (first, second) == ("aaa", "b") else longer(first, second)

    heard = hear([Reader(says)], ["aaa", "b", "cc"], ["aaa", "b"])
    assert heard.values == [[1.0, 0.0, 0.5], [None, None]]
    assert (heard.judged, heard.parsed) == (8, 6)
    assert "judge '0': 'hm'" in heard.unread


def test_grades_are_values_and_what_has_none_has_no_value(hear):
    says = {"a": "Grade: [[3]]", "b": "no idea", "c": "Grade: [[9]]"}
    heard = hear([Reader(says.get)], ["a", "b"], ["c", "a"], benchmark=Pointwise())
    assert heard.values == [[3.0, None], [9.0, 3.0]]


def test_a_panel_votes_on_every_question_and_a_judge_that_scores_may_sit_in_it(hear):
    shorter = Reader(lambda a, b: longer(b, a), called="shorter")
    judges = [Reader(longer), Letters(), shorter]
    texts = ["aaa", "b"]
    assert hear(judges, texts).values == [[pytest.approx(2 / 3), pytest.approx(1 / 3)]]
    assert hear(judges, texts, vote="majority").values == [[1.0, 0.0]]
    assert len(shorter.asked) == 2 and hear(judges, texts).judged == 6


@pytest.mark.parametrize("vote", ["mean", "majority"])
def test_a_judge_of_a_panel_without_a_verdict_in_one_order_has_no_vote_on_the_pair(hear, vote):
    def says(first, second):
        return "Verdict: FIRST" if (first, second) != ("b", "aaa") else "hm"

    halves = [Reader(says, called=name) for name in ("one", "two")]
    even = Reader(lambda a, b: "Verdict: TIE", called="even")
    assert hear([*halves, even], ["aaa", "b"], vote=vote).values == [[0.5, 0.5]]
    heard = hear([*halves, even], ["aaa", "b"], ["cc", "d"], vote="majority")
    assert heard.values == [[0.5, 0.5], [0.5, 0.5]] and heard.parsed == heard.judged - 2


def test_what_was_asked_before_is_not_asked_again_unless_it_failed(hear):
    said = iter(["hm", "Verdict: SECOND"])
    judge = Reader(lambda a, b: next(said))
    assert hear([judge], ["aaa", "b"]).parsed == 1
    assert hear([judge], ["aaa", "b"]).parsed == 1 and len(judge.asked) == 2
    said = iter(["Verdict: FIRST"])
    assert hear([judge], ["aaa", "b"], again=True).values == [[1.0, 0.0]]
    assert len(judge.asked) == 3


def test_the_bill_has_every_question_once(hear):
    judge = Reader(longer, price=0.25)
    heard = hear([judge], ["aaa", "b", "cc"], ["aaa", "b"])
    prices = [price_of(judge, used) for used in heard.bill.values()]
    assert sum(prices) == pytest.approx(0.25 * len(judge.asked)) == 2.0
    free = Reader(longer, called="free")
    found = hear([free], ["aaa", "b"]).bill.values()
    assert {price_of(free, used) for used in found} == {None}


def test_a_reply_that_does_not_say_what_it_took_has_the_most_or_no_price(hear):
    quiet = Quiet(longer, price=1.0)
    (first, second) = hear([quiet], ["aaa", "b"]).bill.values()
    assert first[0][1] == second[0][1] == Pairwise().max_tokens == price_of(quiet, first)
    endless = Endless(longer, called="endless", price=1.0)
    assert set(hear([endless], ["aaa", "b"]).bill.values()) == {None}
