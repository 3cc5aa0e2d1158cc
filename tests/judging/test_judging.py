"""Asking loses nothing, asks nothing twice, and says what it could not do."""

import asyncio
import json
import os
import signal
import threading

import pytest
from judging_parts import Grades, Teacher, put, question, questions, values

from alignzoo.contract.errors import AlignzooError, PluginError
from alignzoo.contract.verdicts import Capabilities, JudgeBusy, JudgeError, Reply, Usage
from alignzoo.judging import Journal, ask, journal_folder, open_journal, read
from alignzoo.judging.ask import Patience
from alignzoo.judging.work import GIVE_UP


@pytest.fixture(autouse=True)
def own_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("ALIGNZOO_CACHE", str(tmp_path / "cache"))


def test_every_question_gets_its_verdict_in_order():
    judge = Teacher({f"grade {n}": f"[[{n}]]" for n in range(9)}, batch_size=2)
    standing = put(judge, questions(9))
    assert values(judge, questions(9)) == list(range(9))
    assert (standing.done, standing.total, standing.failed, standing.settled) == (9, 9, 0, 9)
    assert standing.spent.usage == Usage(90, 18)
    assert standing.cost == pytest.approx(0.18)
    assert standing.cost_left == 0


def test_a_restart_asks_only_for_what_is_missing():
    put(Teacher(), questions(5))
    later = Teacher()
    standing = put(later, questions(8))
    assert sorted(later.asked) == ["grade 5", "grade 6", "grade 7"]
    assert (standing.done, standing.settled) == (8, 3)


def test_a_complete_journal_needs_no_judge():
    put(Teacher(able=Capabilities("teacher-1", top_logprobs=5)), questions(5))
    gone = Teacher({"connect": JudgeError("gone")})
    with open_journal(gone) as journal:
        found = ask(Grades(), gone, questions(5), journal, again=False, report=print)
    assert found == Capabilities("teacher-1", top_logprobs=5)
    assert gone.most["connected"] == 0


def test_another_identity_has_another_journal(monkeypatch):
    here = journal_folder(Teacher())
    monkeypatch.setattr(Teacher, "identity", lambda self: {"model": "teacher-2"})
    assert journal_folder(Teacher()) != here
    with open_journal(Teacher()) as journal:
        described = json.loads((journal.folder / "judge.json").read_text())
    assert described == {"judge": "teacher", "identity": {"model": "teacher-2"}}


def test_no_more_is_under_way_than_the_judge_allows():
    judge = Teacher(concurrency=3, seconds=0.002)
    put(judge, questions(30))
    assert judge.most["at once"] == 3


def test_questions_are_made_only_when_there_is_room_for_them():
    judge, made = Teacher(concurrency=2, batch_size=3), []

    def some():
        for n in range(60):
            made.append(n)
            assert made.count(n) < 2 or n - len(judge.asked) <= 6
            yield question(n)

    put(judge, some)
    assert len(made) == 120  # counted first, then asked


def test_equal_questions_are_asked_once_and_each_gets_the_verdict():
    judge = Teacher({"same": "[[8]]"}, seconds=0.002)
    standing = put(judge, lambda: (question(n, "same") for n in range(12)))
    assert judge.asked == ["same"]
    assert (standing.done, standing.total) == (12, 12)
    assert values(judge, lambda: (question(n, "same") for n in range(12))) == [8] * 12


def test_equal_questions_with_different_numbers_are_asked_anew():
    judge = Teacher()
    put(judge, lambda: (question(n, "same", repeat=n) for n in range(3)))
    assert judge.asked == ["same"] * 3


def test_follow_ups_are_asked_in_turn_and_resumed():
    script = {"grade 0": "hm", "grade 0!": "hm", "grade 0!!": "[[3]]"}
    judge = Teacher(script)
    assert put(judge, questions(2)).done == 2
    assert values(judge, questions(2)) == [3, 5]
    broken = Teacher({"grade 7": "hm", "grade 7!": JudgeError("stop")})
    with pytest.raises(JudgeError, match="stop"):
        put(broken, lambda: iter([question(7)]))
    later = Teacher()
    put(later, lambda: iter([question(7)]))
    assert later.asked == ["grade 7!"]


def test_every_raw_reply_on_the_way_is_paid_for():
    judge = Teacher({"grade 0": "hm"})
    assert put(judge, questions(1)).spent.usage == Usage(20, 4)
    with open_journal(judge) as journal:
        (one,) = read(Grades(), questions(1)(), journal)
    assert [reply.text for reply in one.replies] == ["hm", "[[5]]"]
    assert one.question == question(0)


def test_unreadable_replies_and_errors_are_kept_counted_and_not_asked_again_unless_wished():
    script = {"grade 1": "the weather", "grade 2": Reply(error="context: too long")}
    first = Teacher(script)
    assert put(first, questions(4)).failed == 2
    assert values(first, questions(4)) == [5, None, None, 5]
    second = Teacher()
    assert put(second, questions(4)).failed == 2
    assert second.asked == []
    third = Teacher({"grade 2": "still the weather"})
    standing = put(third, questions(4), again=True)
    assert sorted(third.asked) == ["grade 1", "grade 2"]
    assert (standing.done, standing.failed) == (4, 1)
    assert values(third, questions(4)) == [5, 5, None, 5]


def test_a_reply_that_stays_unreadable_is_asked_anew_once_per_call():
    judge = Teacher({"same": "the weather"})
    some = lambda: (question(n, "same") for n in range(3))  # noqa: E731
    put(judge, some)
    standing = put(judge, some, again=True)
    assert judge.asked == ["same", "same"]
    assert (standing.done, standing.failed) == (3, 3)


def test_a_busy_judge_is_asked_again():
    busy = [JudgeBusy("429", after=0.001), JudgeBusy("500")]
    judge = Teacher({"grade 1": busy, "connect": [JudgeBusy("503")]})
    assert put(judge, questions(3)).done == 3
    assert judge.asked.count("grade 1") == 3
    assert judge.most["connected"] == 2


def test_a_question_without_reply_has_failed_is_not_cached_and_asked_next_time():
    busy = [JudgeBusy("no reply within 5 s") for _ in range(3)]
    judge = Teacher({"grade 1": busy})
    standing = put(judge, questions(4))
    assert (standing.total, standing.done, standing.failed) == (4, 4, 1)
    assert values(judge, questions(4)) == [5, "missing", 5, 5]
    later = Teacher()
    assert put(later, questions(4)).failed == 0
    assert later.asked == ["grade 1"]


def test_a_judge_that_answers_no_question_is_an_error_with_its_last_words():
    judge = Teacher({f"grade {n}": JudgeBusy("no reply within 5 s") for n in range(4)})
    with pytest.raises(JudgeError) as raised:
        put(judge, questions(4))
    assert str(raised.value) == (
        "judge 'teacher': 4 of 4 questions got no reply (last: no reply within 5 s); "
        "the others are kept; run the same command again"
    )
    assert values(judge, questions(4)) == ["missing"] * 4


def test_a_judge_that_is_gone_is_not_asked_every_question():
    put(Teacher(), questions(10))
    judge = Teacher({f"grade {n}": JudgeBusy("dropped") for n in range(500)}, attempts=2)
    with pytest.raises(JudgeError, match=r"490 of 500 questions got no reply \(last: dropped\)"):
        put(judge, questions(500))
    assert len(set(judge.asked)) <= GIVE_UP + judge.concurrency
    assert values(judge, questions(10)) == [5] * 10


def test_a_judge_that_never_connects_is_one_sentence():
    judge = Teacher({"connect": [JudgeBusy("503") for _ in range(3)]})
    with pytest.raises(JudgeError, match=r"judge 'teacher' does not answer \(503\)"):
        put(judge, questions(1))


def test_what_cannot_be_helped_stops_everything_and_keeps_what_came():
    judge = Teacher({"grade 6": JudgeError("wrong key")}, concurrency=1)
    with pytest.raises(JudgeError, match="wrong key"):
        put(judge, questions(50))
    assert len(judge.asked) == 7
    assert values(judge, questions(7)) == [5] * 6 + ["missing"]


def test_missing_log_probs_stop_the_run_before_anything_is_asked():
    judge = Teacher(able=Capabilities("teacher-1", top_logprobs=2))
    with pytest.raises(JudgeError, match=r"needs the 5 likeliest.*returns at most 2"):
        put(judge, questions(3), Grades(needs=5))
    assert judge.asked == []


def test_a_broken_judge_or_benchmark_is_named():
    with pytest.raises(PluginError, match="judge 'teacher': KeyError: 'x'"):
        put(Teacher({"grade 0": KeyError("x")}), questions(1))

    with pytest.raises(PluginError, match="0 replies to 1 questions"):
        put(Teacher(replies_lost=1), questions(1))

    class Raises(Grades):
        def verdict(self, question, reply):
            raise ValueError("oops")

    with pytest.raises(PluginError, match="'grades': reply to question 0: ValueE"):
        put(Teacher(), questions(1), Raises())
    assert values(Teacher(), questions(1)) == [5]  # the reply was kept before it was read


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_ending_the_process_politely_keeps_what_came(number):
    def end():
        os.kill(os.getpid(), number)
        return "[[9]]"

    if number == signal.SIGINT:  # a shell lets its background jobs ignore it
        signal.signal(number, signal.default_int_handler)
    before = signal.getsignal(number)
    judge = Teacher({"grade 20": end}, seconds=0.001)
    with pytest.raises((SystemExit, KeyboardInterrupt)) as raised:
        put(judge, questions(100))
    assert number == signal.SIGINT or raised.value.code == 128 + number
    assert signal.getsignal(number) == before
    assert values(judge, questions(20)).count("missing") <= judge.concurrency
    later = Teacher()
    assert put(later, questions(100)).done == 100
    assert len(later.asked) + len(judge.asked) <= 100 + judge.concurrency


def test_asking_works_outside_the_main_thread():
    done = []
    thread = threading.Thread(target=lambda: done.append(put(Teacher(), questions(5)).done))
    thread.start()
    thread.join()
    assert done == [5]


def test_a_disk_that_fails_stops_the_run_with_one_sentence(monkeypatch):
    def full(file, data):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("alignzoo.judging.journal._write", full)
    with pytest.raises(AlignzooError, match=r"cannot be kept \(No space left on device\)"):
        put(Teacher(), questions(5))


def test_waits_grow_are_jittered_and_honour_the_server():
    class State:
        def __init__(self, attempt, after):
            self.attempt_number = attempt
            self.outcome = self
            self.exception = lambda: JudgeBusy("", after)

    backoff = Patience(first=1.0, longest=60.0)
    for attempt in range(1, 12):
        longest = min(60.0, 2.0 ** (attempt - 1))
        waits = {backoff(State(attempt, None)) for _ in range(20)}
        assert len(waits) > 1
        assert all(longest / 2 <= wait <= longest for wait in waits)
    assert 7 <= backoff(State(1, 7.0)) <= 8
    assert 60 <= backoff(State(1, 3600.0)) <= 61


def test_capabilities_are_recorded_once():
    put(Teacher(), questions(1))
    put(Teacher(), questions(2))
    with open_journal(Teacher()) as journal:
        lines = [line for path in journal.folder.glob("*.jsonl") for line in path.open()]
    assert sum("capabilities" in line for line in lines) == 1
    assert len(lines) == 3


def test_what_another_process_is_writing_now_disturbs_nobody():
    with open_journal(Teacher()) as first, open_journal(Teacher()) as second:
        for journal in (first, second):
            ask(Grades(), Teacher(), questions(3), journal, again=False, report=lambda _: None)
    folder = journal_folder(Teacher())
    assert len(list(folder.glob("*.jsonl"))) == 2
    assert Journal(folder).damaged == 0
    assert values(Teacher(), questions(3)) == [5] * 3


def test_no_loop_is_left_behind():
    put(Teacher(), questions(1))
    with pytest.raises(RuntimeError):
        asyncio.get_running_loop()
