"""What asking may cost: it ends before the limit is passed, and goes on with a higher one."""

import pytest
from judging_parts import QUICK, USAGE, Grades, Teacher, questions, values

from alignzoo import JudgeBusy, JudgeError, Reply, Usage
from alignzoo.judging import open_journal
from alignzoo.judging.ask import put
from alignzoo.judging.purse import Purse, dearest
from alignzoo.judging.work import Task

EACH = 0.02  # USAGE's two words at a hundredth


class Priced(Teacher):
    """A teacher whose replies are known to have three words at most."""

    def largest_usage(self, question):
        return Usage(10, 3)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("ALIGNZOO_CACHE", str(tmp_path / "cache"))


def spend(judge, n, purse):
    with open_journal(judge) as journal:
        task = Task(Grades(), judge, questions(n), journal, False, lambda s: None, purse=purse)
        put(task, QUICK)


def test_asking_ends_before_the_limit_is_passed_however_many_are_under_way():
    judge, purse = Priced(seconds=0.005), Purse(limit=0.055)
    with pytest.raises(JudgeError, match=r"stopped before max_cost = 0.055 is passed: 0.04 are"):
        spend(judge, 20, purse)
    assert len(judge.asked) == 2  # four may be under way, but a third reply could bring .07
    assert purse.paid == pytest.approx(2 * EACH) and purse.held == []


def test_a_higher_limit_goes_on_and_pays_nothing_twice():
    judge = Priced()
    with pytest.raises(JudgeError, match="raise max_cost"):
        spend(judge, 8, Purse(limit=0.05))
    spend(judge, 8, Purse(limit=1.0))
    assert sorted(judge.asked) == sorted({f"grade {n}" for n in range(8)})
    assert values(judge, questions(8)) == [5.0] * 8


def test_a_limit_that_is_never_reached_changes_nothing():
    judge, purse = Priced(), Purse(limit=0.21)
    spend(judge, 10, purse)
    assert len(judge.asked) == 10 and purse.paid == pytest.approx(10 * EACH)


def test_a_lost_reply_that_was_paid_for_counts():
    busy = JudgeBusy("broke off", usage=Usage(10, 3))
    judge, purse = Priced(script={"grade 0": [busy, "[[5]]"]}, concurrency=1), Purse(limit=0.08)
    with pytest.raises(JudgeError, match=r"0\.07 are spent"):
        spend(judge, 5, purse)
    assert judge.asked == ["grade 0", "grade 0", "grade 1"]


def test_a_reply_that_does_not_say_what_it_took_counts_with_the_most():
    judge = Priced(script={"grade 0": Reply("[[5]]", finish="stop")}, concurrency=1)
    purse = Purse(limit=1.0)
    spend(judge, 2, purse)
    assert purse.paid == pytest.approx(0.03 + EACH)


def test_the_most_that_a_reply_can_take_is_more_than_it_takes():
    """Every byte of the prompt could be a token, and the reply as long as it may be."""
    (question,) = questions(1)()
    text = question.messages[0]["content"]
    most = Teacher().largest_usage(question)
    assert most.prompt_tokens > len(text.encode()) and most.completion_tokens == 2048
    assert dearest(Teacher(), question) == pytest.approx(20.48) and USAGE.completion_tokens < 2048
