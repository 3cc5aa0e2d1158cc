"""The journal of replies, group commit, reading, scoring and voting."""

import asyncio
import math
import os
import random
import threading

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from judging_parts import Grades, Teacher, question, questions

from alignzoo.contract.errors import AlignzooError, DataError, PluginError
from alignzoo.contract.evaluation import Judge, Score
from alignzoo.contract.verdicts import Capabilities, Question, Reply, Usage, Verdict
from alignzoo.judging import Journal, Spent, open_journal, panel, read, score
from alignzoo.judging.commit import group_commit
from alignzoo.judging.journal import Answered

KEYS = [question(n).digest for n in range(6)]


def filled(folder, n=6):
    """A journal with n replies, closed."""
    with Journal(folder) as journal:
        journal.append([Answered(key, Reply(f"reply {i}")) for i, key in enumerate(KEYS[:n])])
    return next(folder.glob("*.jsonl"))


def texts(folder):
    """What a fresh process finds."""
    with Journal(folder) as journal:
        replies = [journal.get(key) for key in KEYS]
    return [reply and reply.text for reply in replies]


def test_a_reply_is_found_by_every_later_process(tmp_path):
    filled(tmp_path, 4)
    assert texts(tmp_path) == ["reply 0", "reply 1", "reply 2", "reply 3", None, None]


number = st.floats(allow_nan=False)
reply = st.builds(
    Reply,
    text=st.text(st.characters(codec=None)),
    top_logprobs=st.none() | st.dictionaries(st.text(), number, max_size=3),
    scores=st.none() | st.lists(number, max_size=2).map(tuple),
    usage=st.none() | st.builds(Usage, st.integers(0), st.integers(0)),
    finish=st.none() | st.text(min_size=1),
    error=st.none() | st.text(min_size=1),
)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(reply=reply)
def test_every_reply_comes_back_as_it_was(tmp_path, reply):
    with Journal(tmp_path) as journal:
        journal.append([Answered(KEYS[0], reply)])
        assert journal.get(KEYS[0]) == reply
    assert Journal(tmp_path).get(KEYS[0]) == reply


def test_a_file_cut_at_any_byte_loses_at_most_its_last_reply(tmp_path):
    segment = filled(tmp_path, 3)
    whole = segment.read_bytes()
    for cut in range(len(whole)):
        segment.write_bytes(whole[:cut])
        with Journal(tmp_path) as journal:
            assert journal.damaged == 0
            assert len(journal) == whole[:cut].count(b"\n")


def test_after_a_kill_the_next_process_writes_elsewhere(tmp_path):
    segment = filled(tmp_path, 3)
    segment.write_bytes(segment.read_bytes()[:-9])
    with Journal(tmp_path) as journal:
        journal.append([Answered(KEYS[2], Reply("again"))])
    assert texts(tmp_path)[:4] == ["reply 0", "reply 1", "again", None]
    assert len(list(tmp_path.glob("*.jsonl"))) == 2


@pytest.mark.parametrize(
    "line", [b"\x00\xff\n", b"{}\n", b"[]\n", b"7\n", b'{"key": "zz", "reply": {}}\n', b"\n",
             b'{"key": "00", "reply": {"colour": "red"}}\n', b'{"capabilities": {}}\n']
)  # fmt: skip
def test_a_damaged_line_is_counted_and_hurts_no_other(tmp_path, line):
    segment = filled(tmp_path)
    lines = segment.read_bytes().splitlines(keepends=True)
    segment.write_bytes(b"".join([*lines[:2], line, *lines[2:]]))
    assert Journal(tmp_path).damaged == 1
    assert texts(tmp_path) == [f"reply {n}" for n in range(6)]


def test_of_two_replies_the_later_counts(tmp_path):
    filled(tmp_path)
    with Journal(tmp_path) as journal:
        start = journal.end
        journal.append([Answered(KEYS[1], Reply("newer"))])
        assert journal.since(start, KEYS[1])
        assert not journal.since(start, KEYS[2])
        after = journal.end
        journal.append([Answered(KEYS[1], Reply("newest"))])
        assert journal.since(after, KEYS[1])
    assert texts(tmp_path)[1] == "newest"


def test_capabilities_come_back(tmp_path):
    able = Capabilities("m", "r", 5, 4096)
    with Journal(tmp_path) as journal:
        assert journal.capabilities is None
        journal.append([able])
    assert Journal(tmp_path).capabilities == able


def test_a_segment_that_vanishes_is_a_sentence(tmp_path):
    segment = filled(tmp_path)
    with Journal(tmp_path) as journal:
        segment.write_bytes(segment.read_bytes()[3:])
        with pytest.raises(DataError, match="changed while it was read"):
            journal.get(KEYS[0])
    with Journal(tmp_path) as journal:
        segment.unlink()
        with pytest.raises(DataError, match="changed while it was read"):
            journal.get(KEYS[3])


def test_nothing_is_written_after_a_write_that_failed(tmp_path, monkeypatch):
    filled(tmp_path, 2)
    with Journal(tmp_path) as journal:
        journal.append([Answered(KEYS[2], Reply("reply 2"))])
        sync = os.fsync
        monkeypatch.setattr("os.fsync", lambda file: (_ for _ in ()).throw(OSError(5, "I/O error")))
        with pytest.raises(AlignzooError, match=r"cannot be kept \(I/O error\)"):
            journal.append([Answered(KEYS[3], Reply("reply 3"))])
        monkeypatch.setattr("os.fsync", sync)
        assert KEYS[3] not in journal
        with pytest.raises(AlignzooError, match="it is closed"):
            journal.append([Answered(KEYS[4], Reply("reply 4"))])


def test_a_cache_that_cannot_be_written_is_a_sentence(monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("ALIGNZOO_CACHE", str(tmp_path / "file"))
    with pytest.raises(AlignzooError, match="set ALIGNZOO_CACHE"):
        open_journal(Teacher())


# --- group commit --------------------------------------------------------------------------------


def committed(n, write, collect=0.005):
    """Put n entries at once; returns what each `put` came to."""

    async def run():
        async with group_commit(write, collect) as put:
            return await asyncio.gather(*map(put, range(n)), return_exceptions=True)

    return asyncio.run(run())


def test_what_comes_together_is_written_together():
    writes = []
    committed(100, writes.append)
    assert [x for batch in writes for x in batch] == list(range(100))
    assert len(writes) <= 2


def test_put_returns_only_after_its_entry_is_written():
    written = set()

    async def run():
        async with group_commit(written.update, 0.001) as put:

            async def one(n):
                await asyncio.sleep(random.random() / 50)
                await put(n)
                assert n in written

            await asyncio.gather(*map(one, range(50)))

    asyncio.run(run())


def test_what_was_put_is_written_even_when_whoever_put_it_is_cancelled():
    written = []

    async def run():
        async with group_commit(written.extend, 0.05) as put:
            tasks = [asyncio.create_task(put(n)) for n in range(5)]
            await asyncio.sleep(0)
            for task in tasks:
                task.cancel()

    asyncio.run(run())
    assert written == list(range(5))


def test_writing_never_happens_twice_at_once_nor_in_the_loop():
    lock, main = threading.Lock(), threading.get_ident()

    def write(batch):
        assert lock.acquire(blocking=False)
        assert threading.get_ident() != main
        lock.release()

    assert committed(20, write, 0) == [None] * 20


def test_a_failed_write_is_raised_by_every_put_it_concerns():
    def write(batch):
        raise OSError(28, "full")

    assert all(isinstance(found, OSError) for found in committed(5, write))


# --- reading and scoring -------------------------------------------------------------------------


def test_reading_asks_nobody_and_says_what_is_missing(tmp_path):
    with Journal(tmp_path) as journal:
        journal.append([Answered(KEYS[1], Reply("[[4]]")), Answered(KEYS[2], Reply("?"))])
        found = list(read(Grades(), questions(3)(), journal))
    assert [one.question.id for one in found] == ["0", "1", "2"]
    assert [one.reply and one.reply.text for one in found] == [None, "[[4]]", "?"]
    assert [one.verdict for one in found] == [None, Verdict(4, label="4"), None]


def test_a_verdict_that_is_no_number_is_refused(tmp_path):
    class Odd(Grades):
        def verdict(self, question, reply):
            return Verdict(math.nan)

    with Journal(tmp_path) as journal:
        journal.append([Answered(KEYS[0], Reply("x"))])
        with pytest.raises(PluginError, match="the verdict on question 0 is nan"):
            list(read(Odd(), questions(1)(), journal))


def test_follow_ups_come_to_an_end(tmp_path):
    class Endless(Grades):
        def verdict(self, question, reply):
            return question

    with Journal(tmp_path) as journal:
        journal.append([Answered(KEYS[0], Reply("x"))])
        with pytest.raises(PluginError, match="more than 8 follow-ups"):
            list(read(Endless(), questions(1)(), journal))


def test_tokens_and_price_are_unknown_as_soon_as_those_of_one_reply_are():
    judge = Teacher()
    some = [Reply("a", usage=Usage(5, 1)), Reply("b", usage=Usage(7, 2))]
    assert Spent().plus(some, judge) == Spent(Usage(12, 3), pytest.approx(0.03))
    assert Spent().plus([Reply(error="context: too long")], judge).cost == 0
    nothing, half = Usage(0, 0), Usage(5, 0)
    unknown = [Reply("no usage"), Reply("a", usage=nothing), Reply("a", usage=half)]
    unknown += [Reply("", usage=nothing), Reply("", finish="content_filter", error="refused")]
    for reply in unknown:
        assert Spent().plus([reply], judge).plus(some, judge) == Spent(None, None)
    assert Spent().plus([Reply("", usage=half)], judge) == Spent(half, 0)


class Lengths(Judge):
    """Longer is better."""

    name = "lengths"

    def score(self, answers):
        return [Score(float(len(answer.response.text))) for answer in answers]


def test_a_judge_that_scores_is_read_like_one_that_is_asked():
    pair = (question(7).answers[0], question(123).answers[0])
    some = [question(1), Question("p", 1, pair, (), candidate=1), Question("q", 1, pair, ())]
    found = list(score(Grades(), Lengths(), some, batch=2))
    assert [one.verdict.value for one in found] == [8, 1, 0]
    assert found[1].reply.scores == (8.0, 10.0)


@pytest.mark.parametrize(
    ("scores", "words"),
    [
        (lambda answers: [], "0 scores for 2 answers"),
        (lambda answers: [Score(math.nan)] * len(answers), "a score is not finite"),
        (lambda answers: 1 / 0, "ZeroDivisionError"),
    ],
)
def test_a_scoring_judge_that_breaks_its_contract_is_named(monkeypatch, scores, words):
    monkeypatch.setattr(Lengths, "score", lambda self, answers: scores(answers))
    with pytest.raises(PluginError, match=f"judge 'lengths': {words}"):
        list(score(Grades(), Lengths(), questions(2)()))


# --- panels --------------------------------------------------------------------------------------


def verdicts(*values, label=""):
    """Verdicts on questions "0", "1", ...; None is missing."""
    return {str(n): Verdict(v, label=label) for n, v in enumerate(values) if v is not None}


def found(panel_of, how):
    """Values by question, and the agreement."""
    voted, agreement = panel(panel_of, how)
    return {id: verdict.value for id, verdict in voted.items()}, agreement


def test_a_panel_takes_the_mean_over_the_judges_that_have_a_verdict():
    judges = [verdicts(1, 0, None), verdicts(0.5, None, None), verdicts(0, 1, 1)]
    voted, agreement = found(judges, "mean")
    assert voted == {"0": 0.5, "1": 0.5, "2": 1}
    assert agreement == 0  # four pairs judged, none the same side


def test_a_panel_takes_the_majority_and_the_mean_of_a_tie():
    judges = [verdicts(0.9, 1, 0), verdicts(0.7, 0, 1), verdicts(0.2, None, 0.5)]
    voted, agreement = found(judges, "majority")
    assert voted == {"0": pytest.approx(0.8), "1": 0.5, "2": 0.5}
    assert agreement == pytest.approx(1 / 7)  # of 3 + 1 + 3 pairs one agrees


def test_grades_agree_when_they_are_equal():
    judges = [verdicts(7, 8), verdicts(7, 9), verdicts(3, 9)]
    assert found(judges, "majority") == ({"0": 7, "1": 9}, pytest.approx(1 / 3))


def test_a_majority_keeps_label_and_weight():
    strong, weak = Verdict(1, 3, "A>>B"), Verdict(1, 1, "A>B")
    assert panel([{"x": strong}, {"x": strong}, {"x": weak}], "majority") == ({"x": strong}, 1)
    assert panel([{"x": strong}, {"x": weak}], "majority")[0] == {"x": Verdict(1, 2)}


def test_judges_that_share_no_question_have_no_agreement():
    assert found([verdicts(1), verdicts(None, 1)], "mean") == ({"0": 1, "1": 1}, None)


def test_no_flipped_bit_is_read_as_another_reply(tmp_path):
    segment = filled(tmp_path, 2)
    clean = segment.read_bytes()
    for place in range(len(clean)):
        flipped = bytearray(clean)
        flipped[place] ^= 2
        segment.write_bytes(flipped)
        found = texts(tmp_path)
        assert set(found[:2]) <= {"reply 0", "reply 1", None}
        assert found[0] in ("reply 0", None) and found[1] in ("reply 1", None)


def test_replies_kept_before_there_were_checksums_are_read(tmp_path):
    old = f'{{"key":"{KEYS[0]}","time":1.0,"reply":{{"text":"reply 0"}}}}\n'
    (tmp_path / "1-1.jsonl").write_text(old)
    assert texts(tmp_path)[0] == "reply 0"
