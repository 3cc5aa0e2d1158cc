"""One bad question holds nothing up, whoever answers is known, and all that was paid is counted."""

import asyncio
import json
import time
from dataclasses import dataclass, field, replace

import pytest
from alignzoo_judges.replay import Replay
from judging_parts import QUICK, USAGE, Desk, Grades, Teacher, put, questions, said, values

from alignzoo.contract.errors import PluginError
from alignzoo.contract.verdicts import (
    Capabilities,
    JudgeBusy,
    JudgeError,
    Question,
    QuestionRefused,
    Reply,
    Usage,
)
from alignzoo.judging import Patience, Spent, ask, journal_folder, open_journal, read
from alignzoo.judging.work import GIVE_UP, MUTE

FLAGGED = "refused (403: flagged by the provider)"
NAMED = Capabilities("teacher-1", served="teacher-1-0101")


@pytest.fixture(autouse=True)
def own_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("ALIGNZOO_CACHE", str(tmp_path / "cache"))


def judged(judge, some, benchmark=None):
    with open_journal(judge) as journal:
        return list(read(benchmark or Grades(), some(), journal))


def spent(judge, some, benchmark=None):
    total = Spent()
    for one in judged(judge, some, benchmark):
        total = total.plus(one.billed, judge)
    return total


def by(model, text="[[5]]", **more):
    return Reply(text, usage=USAGE, finish="stop", model=model, **more)


# --- one bad question ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (QuestionRefused(FLAGGED), FLAGGED),
        (JudgeBusy("a completion without choices"), "no reply in 3 attempts: a completion without"),
    ],
)
def test_one_bad_question_fails_with_its_words_and_the_others_are_judged(fault, words):
    judge = Teacher({"grade 1": fault})
    told = []
    with open_journal(judge) as journal:
        ask(Grades(), judge, questions(30), journal, again=False, report=told.append,
            patience=QUICK)  # fmt: skip
        found = list(read(Grades(), questions(30)(), journal))
    assert (told[-1].done, told[-1].failed) == (30, 1)
    assert [n for n, one in enumerate(found) if one.verdict is None] == [1]
    assert words in found[1].reply.error
    assert found[1].billed == ()


def test_one_bad_question_in_a_batch_fails_alone():
    judge = Teacher({"grade 5": QuestionRefused(FLAGGED)}, batch_size=32)
    assert put(judge, questions(40)).failed == 1
    assert values(judge, questions(40)) == [5] * 5 + ["missing"] + [5] * 34


def test_a_bad_question_that_is_asked_again_in_vain_keeps_what_it_said_before():
    put(Teacher({"grade 1": "the weather"}), questions(3))
    judge = Teacher({"grade 1": QuestionRefused(FLAGGED)})
    assert put(judge, questions(3), again=True).failed == 1
    assert judged(judge, questions(3))[1].reply.text == "the weather"


def test_refusals_in_a_row_stop_the_asking_and_those_questions_are_open_next_time():
    script = {f"grade {n}": QuestionRefused("refused (401: revoked)") for n in range(10, 500)}
    judge = Teacher(script)
    with pytest.raises(JudgeError, match=r"490 of 500 questions got no reply \(last: .*revoked"):
        put(judge, questions(500))
    assert len(judge.asked) <= 10 + GIVE_UP + judge.concurrency
    later = Teacher()
    assert put(later, questions(500)).failed == 0
    assert len(later.asked) == 490


@pytest.mark.parametrize("there", [True, False])
def test_last_questions_without_reply_have_failed_only_if_the_judge_is_still_there(there):
    gone = [None, None if there else JudgeError("connection refused")]
    judge = Teacher({"grade 9": JudgeBusy("dropped"), "connect": gone}, concurrency=1)
    if there:
        assert put(judge, questions(10)).failed == 1
    else:
        with pytest.raises(JudgeError, match="connection refused"):
            put(judge, questions(10))
    assert judge.most["connected"] == 2
    assert values(judge, questions(10)) == [5] * 9 + ["missing"]


@dataclass(frozen=True)
class Slow(Teacher):
    """A question takes as many seconds as `times` says."""

    times: dict = field(default_factory=dict)


@dataclass(frozen=True)
class Lenient(Teacher):
    """Counts what others say as failed."""

    other_models: str = "fail"


@pytest.fixture
def slow_desk(monkeypatch):
    usual = Desk.replies

    async def replies(self, asked):
        await asyncio.sleep(getattr(self.teacher, "times", {}).get(said(asked[0]), 0))
        return await usual(self, asked)

    monkeypatch.setattr(Desk, "replies", replies)


@pytest.mark.usefixtures("slow_desk")
@pytest.mark.parametrize("error", [JudgeError("wrong key"), KeyError("x")])
def test_replies_under_way_are_kept_when_something_ends_the_asking(error):
    judge = Slow({"grade 0": error}, times={f"grade {n}": 0.1 for n in (1, 2, 3)})
    with pytest.raises((JudgeError, PluginError), match=r"wrong key|KeyError"):
        put(judge, questions(50))
    assert sorted(judge.asked) == [f"grade {n}" for n in range(4)]
    assert values(judge, questions(5)) == ["missing", 5, 5, 5, "missing"]


@pytest.mark.usefixtures("slow_desk")
def test_nothing_waits_for_another_attempt_once_the_asking_has_ended():
    judge = Slow({"grade 0": JudgeError("wrong key"), "grade 1": JudgeBusy("429", after=600)},
                 times={"grade 0": 0.1})  # fmt: skip
    began = time.monotonic()
    with open_journal(judge) as journal, pytest.raises(JudgeError, match="wrong key"):
        ask(Grades(), judge, questions(2), journal, again=False, report=lambda _: None,
            patience=Patience(first=600, longest=600))  # fmt: skip
    assert time.monotonic() - began < 5
    assert judge.asked.count("grade 1") == 1


# --- a judge that says nothing -------------------------------------------------------------------


@dataclass(frozen=True)
class Roomy(Grades):
    max_tokens: int | None = 100


def test_a_judge_whose_first_replies_hold_no_verdict_is_stopped_and_quoted():
    judge = Teacher({f"grade {n}": f"the weather {n}" for n in range(500)})
    with pytest.raises(JudgeError) as raised:
        put(judge, questions(500))
    assert "none of the first 20 replies holds a verdict (20 x words without" in str(raised.value)
    assert "for example 'the weather" in str(raised.value)
    assert len(judge.asked) <= MUTE + judge.concurrency
    later = Teacher()
    with pytest.raises(JudgeError, match="none of the first 20 replies"):
        put(later, questions(500))
    assert later.asked == []


@pytest.mark.parametrize(
    ("benchmark", "remedy"),
    [
        (Roomy(), r"--set with\.max_tokens=400`"),
        (Roomy(max_tokens=None), r"--set with\.max_tokens=8192`"),
        (Grades(), "the judge needs more tokens"),
    ],
)
def test_a_judge_that_is_cut_is_given_more_tokens(benchmark, remedy):
    cut = Reply("<think> well", usage=USAGE, finish="length")
    judge = Teacher({f"grade {n}": cut for n in range(500)})
    with pytest.raises(JudgeError, match=rf"20 x finish_reason: length.*think> well'.*{remedy}"):
        put(judge, questions(500), benchmark)


def test_a_judge_that_says_something_readable_now_and_then_goes_on():
    script = {f"grade {n}": "the weather" for n in range(100) if n != 19}
    assert put(Teacher(script, concurrency=1), questions(100)).failed == 99
    few = {f"grade {n}": "the weather" for n in range(100, 120)}
    assert put(Teacher(few), lambda: (q for q in questions(120)() if q.index >= 100)).failed == 20


def test_a_judge_may_stay_mute_where_the_user_says_so():
    judge = Teacher({f"grade {n}": "the weather" for n in range(100)})
    told = []
    with open_journal(judge) as journal:
        ask(Grades(), judge, questions(100), journal, again=False, report=told.append,
            patience=replace(QUICK, mute=True))  # fmt: skip
    assert told[-1].failed == 100


# --- who answered --------------------------------------------------------------------------------


def test_a_reply_of_another_model_ends_the_asking_and_is_asked_again_by_the_same_command():
    script = {f"grade {n}": by("teacher-1-0101") for n in range(9)} | {"grade 3": by("tiny-1b")}
    judge = Teacher(script, able=NAMED, concurrency=1)
    with pytest.raises(JudgeError, match=r"tiny-1b answered.*teacher-1-0101 the greeting.*=fail`"):
        put(judge, questions(9))
    assert len(judge.asked) == 4
    later = Teacher(script | {"grade 3": by("teacher-1-0101", "[[7]]")}, able=NAMED)
    assert put(later, questions(9)).failed == 0
    assert "grade 3" in later.asked and "grade 2" not in later.asked
    assert values(later, questions(9)) == [5, 5, 5, 7, 5, 5, 5, 5, 5]
    assert spent(later, questions(9)).usage == Usage(100, 20), "the stranger was paid too"


def test_replies_of_another_model_may_count_as_failed():
    script = {f"grade {n}": by("tiny-1b" if n % 2 else "teacher-1-0101") for n in range(8)}
    judge = Lenient(script, able=NAMED)
    assert put(judge, questions(8)).failed == 4
    found = judged(judge, questions(8))
    assert [one.verdict is None for one in found] == [False, True] * 4
    assert found[1].reply.error == "answered by tiny-1b, not by teacher-1-0101"
    assert (found[1].reply.model, found[1].reply.text) == ("tiny-1b", "[[5]]")


def test_what_another_model_said_stays_failed_when_it_is_replayed():
    script = {f"grade {n}": by("tiny-1b" if n % 2 else "teacher-1-0101") for n in range(8)}
    judge = Lenient(script, able=NAMED)
    put(judge, questions(8))
    recorded = Replay(path=str(journal_folder(judge)))
    assert put(recorded, questions(8)).failed == 4
    assert values(recorded, questions(8)) == [5, None] * 4


def test_a_judge_that_names_no_one_may_be_answered_by_anyone():
    judge = Teacher({f"grade {n}": by(f"m{n}") for n in range(4)})
    assert put(judge, questions(4)).failed == 0


def test_the_same_name_with_another_model_behind_it_is_refused():
    put(Teacher(able=NAMED), questions(2))
    moved = Teacher(able=replace(NAMED, served="teacher-1-0202"))
    with pytest.raises(JudgeError, match=r"now teacher-1 \(teacher-1-0202\).*\(teacher-1-0101\)"):
        put(moved, questions(3))


def test_journals_written_before_replies_had_a_model_are_read_as_ever():
    judge = Teacher()
    keys = [q.digest for q in questions(3)()]
    folder = journal_folder(judge)
    folder.mkdir(parents=True)
    old = [{"capabilities": {"model": "teacher-1", "revision": None, "top_logprobs": 0,
                             "context_length": None}, "time": 1.0},
           *({"key": key, "time": 1.0, "reply": {"text": f"[[{n}]]", "finish": "stop",
              "usage": {"prompt_tokens": 10, "completion_tokens": 2}}}
             for n, key in enumerate(keys))]  # fmt: skip
    (folder / "1.jsonl").write_text("".join(json.dumps(row) + "\n" for row in old))
    later = Teacher({f"grade {n}": by("teacher-1-0101") for n in range(4)}, able=NAMED)
    put(later, questions(4))
    assert later.asked == ["grade 3"]
    assert values(later, questions(4)) == [0, 1, 2, 5]


# --- what was paid -------------------------------------------------------------------------------


def test_every_billed_reply_counts_once_however_often_it_is_asked_for_or_shared():
    def some():
        return (replace(q, messages=({"role": "user", "content": f"grade {q.index % 2}"},))
                for q in questions(10)())  # fmt: skip

    put(Teacher({"grade 0": "the weather"}), some)
    again = Teacher({"grade 0": "still the weather"})
    put(again, some, again=True)
    assert again.asked == ["grade 0"]
    assert spent(again, some).usage == Usage(30, 6)
    assert spent(again, some).cost == pytest.approx(0.06)
    assert sum(len(one.billed) for one in judged(again, some)) == 3


class Reconsidered(Grades):
    """Follows every reply up whose last word is no grade."""

    def verdict(self, question: Question, reply):
        more = (*question.messages, {"role": "user", "content": reply.text})
        is_new = reply.text in ("why", "how")
        return replace(question, messages=more) if is_new else super().verdict(question, reply)


def test_follow_ups_of_a_reply_that_was_replaced_are_still_paid_for():
    first = Teacher({"grade 0": "why", "why": "the weather"})
    put(first, questions(1), Reconsidered())
    with open_journal(first) as journal:
        ask(Reconsidered(), first, questions(1), journal, again=True, report=lambda _: None)
    other = Teacher({"grade 0": "how", "how": "[[4]]"})
    with open_journal(other) as journal:  # as another process that started at the same time
        from alignzoo.judging.journal import Answered

        journal.append([Answered(next(questions(1)()).digest, by(None, "how"))])
    put(other, questions(1), Reconsidered())
    assert values(other, questions(1), Reconsidered()) == [4]
    # grade 0 twice, why twice (the second a 5), how once
    assert spent(other, questions(1), Reconsidered()).usage == Usage(50, 10)


def test_what_was_paid_without_a_reply_is_counted_here_and_later():
    lost = [JudgeBusy("no choices", usage=Usage(100, 1)), JudgeBusy("429"), "[[5]]"]
    judge = Teacher({"grade 0": lost, "grade 1": JudgeBusy("no choices", usage=Usage(100, 1))})
    standing = put(judge, questions(3))
    assert standing.failed == 1
    paid = Usage(100 + 3 * 100 + 2 * 10, 1 + 3 * 1 + 2 * 2)
    assert standing.spent.usage == spent(judge, questions(3)).usage == paid
