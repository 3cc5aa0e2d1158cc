"""Recorded replies, in our own files and in those of others."""

from __future__ import annotations

import asyncio
import json

import pytest

from alignzoo import Answer, Decoding, JudgeError, PromptSample, Question, Reply, Response, Usage
from alignzoo.testing import check_judge
from alignzoo_judges import Replay

ANSWER = Answer(PromptSample("p"), Response("a"), 1)


def question(text, id="0"):
    return Question(id, 0, (ANSWER,), ({"role": "user", "content": text},), Decoding())


def ask(judge, *questions):
    async def run():
        async with judge.connect() as session:
            return await session.replies(questions), session.capabilities

    return asyncio.run(run())


def write(path, *rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def test_a_reply_comes_back_as_it_was_recorded(tmp_path):
    asked = question("good?")
    row = {
        "digest": asked.digest,
        "text": "m",
        "top_logprobs": {"m": -0.1, "M": -2.0},
        "usage": {"prompt_tokens": 3, "completion_tokens": 1, "total_tokens": 4},
        "finish": "stop",
    }
    (reply,), able = ask(Replay(path=write(tmp_path / "said.jsonl", row)), asked)
    assert reply == Reply("m", {"m": -0.1, "M": -2.0}, None, Usage(3, 1), "stop")
    assert (able.model, able.top_logprobs) == ("said.jsonl", 2)


def test_a_row_says_by_either_name_why_its_reply_ended(tmp_path):
    rows = [
        {"id": n, "text": "A", key: "length"} for n, key in enumerate(("finish", "finish_reason"))
    ]
    path = write(tmp_path / "said.jsonl", *rows)
    replies, _ = ask(Replay(path=path), question("x", "0"), question("y", "1"))
    assert [reply.finish for reply in replies] == ["length", "length"]


def test_rows_are_found_by_id_when_they_have_no_digest(tmp_path):
    path = write(tmp_path / "said.jsonl", {"id": "17/1", "text": "A"}, {"id": 18, "text": "B"})
    replies, _ = ask(Replay(path=path), question("x", "18"), question("y", "17/1"))
    assert [reply.text for reply in replies] == ["B", "A"]


def test_a_question_whose_text_has_changed_is_missing_although_its_id_is_there(tmp_path):
    row = {"digest": question("old text", "1").digest, "id": "1", "text": "A"}
    judge = Replay(path=write(tmp_path / "said.jsonl", row))
    assert ask(judge, question("old text", "renamed"))[0][0].text == "A"
    with pytest.raises(JudgeError, match="has no reply to 1;"):
        ask(judge, question("new text", "1"))


def test_missing_replies_stop_the_run_by_name_or_are_counted(tmp_path):
    path = write(tmp_path / "said.jsonl", {"id": "0", "text": "A"})
    questions = [question("x", str(n)) for n in range(9)]
    with pytest.raises(JudgeError, match=r"has no reply to 1, 2, 3, 4, 5, \.\.\.; .*partial: true"):
        ask(Replay(path=path), *questions)
    replies, _ = ask(Replay(path=path, partial=True), *questions)
    assert [reply.error for reply in replies] == [None, *["not recorded"] * 8]


def test_of_several_replies_to_one_question_the_last_counts(tmp_path):
    asked = question("x")
    rows = ({"digest": asked.digest, "text": text} for text in ("first", "last"))
    assert ask(Replay(path=write(tmp_path / "said.jsonl", *rows)), asked)[0][0].text == "last"


def test_two_replies_to_one_id_are_not_guessed_between(tmp_path):
    path = write(tmp_path / "said.jsonl", {"id": "1", "text": "A"}, {"id": "1", "text": "B"})
    with pytest.raises(JudgeError, match=r"said\.jsonl:2: a second reply to id 1"):
        ask(Replay(path=path), question("x", "1"))


def test_a_line_cut_by_a_kill_is_left_out_and_a_damaged_one_is_named(tmp_path):
    path = tmp_path / "said.jsonl"
    path.write_text('{"id": "1", "text": "A"}\n{"id": "2", "te')
    assert ask(Replay(path=str(path)), question("x", "1"))[0][0].text == "A"
    path.write_text('{"id": "1", "text": "A"}\n{"id": "2", "te\n{"id": "3", "text": "B"}\n')
    with pytest.raises(JudgeError, match=r"said\.jsonl:2: is no recorded reply"):
        ask(Replay(path=str(path)), question("x", "1"))


@pytest.mark.parametrize(
    "row", [{"id": "1", "text": 3}, {"id": "1", "text": "a", "top_logprobs": [1]}, [1], 3,
            {"id": "1", "text": "a", "usage": {"prompt_tokens": 1}},
            {"id": "1", "text": "a", "top_logprobs": {"m": 10**400}}, {"capabilities": 5}]
)  # fmt: skip
def test_a_row_that_is_no_reply_is_named(tmp_path, row):
    with pytest.raises(JudgeError, match=r"said\.jsonl:1: is no recorded reply"):
        ask(Replay(path=write(tmp_path / "said.jsonl", row)), question("x", "1"))


def test_scores_and_errors_are_replayed_too(tmp_path):
    path = write(tmp_path / "f.jsonl", {"id": "1", "scores": [1, 2]}, {"id": "2", "error": "no"})
    replies, _ = ask(Replay(path=path), question("x", "1"), question("y", "2"))
    assert (replies[0].scores, replies[1].error) == ((1.0, 2.0), "no")


def test_what_a_finished_evaluation_left_is_read(tmp_path):
    asked, lost = question("x", "1"), question("y", "2")
    folder = tmp_path / "run" / "evaluations" / "01-bench" / "model"
    folder.mkdir(parents=True)
    write(
        folder / "judgments.jsonl",
        {"id": "1", "judge": "openai", "question": asked.digest, "value": 1.0, "reply": "A",
         "usage": {"prompt_tokens": 5, "completion_tokens": 2}},
        {"id": "2", "judge": "openai", "question": lost.digest, "value": None, "label": None},
    )  # fmt: skip
    settings = {"model": "gpt-9", "revision": "r3"}
    scores = {"section": {"judges": [{"name": "openai", "settings": settings}]}}
    (folder / "scores.json").write_text(json.dumps(scores))
    judge = Replay(path=str(tmp_path / "run"), partial=True)
    replies, able = ask(judge, asked, lost)
    assert replies == [Reply("A", usage=Usage(5, 2)), Reply(error="not recorded")]
    assert (able.model, able.revision) == ("gpt-9", "r3")
    assert judge.identity()["judge"] == {"name": "openai", "settings": settings}


def test_of_a_panel_one_judge_is_chosen(tmp_path):
    asked = question("x")
    rows = [{"judge": j, "question": asked.digest, "reply": f"by {j}"} for j in ("one", "two")]
    path = write(tmp_path / "judgments.jsonl", *rows)
    with pytest.raises(JudgeError, match=r"several judges; choose one of one, two"):
        ask(Replay(path=path), asked)
    assert ask(Replay(path=path, judge="one"), asked)[0][0].text == "by one"
    with pytest.raises(JudgeError, match=r"holds no replies by 'three' \(there are: one, two\)"):
        ask(Replay(path=path, judge="three"), asked)


def test_the_journal_of_a_judge_is_read_segment_by_segment(tmp_path):
    first, second = question("x"), question("y")
    (tmp_path / "judge.json").write_text(
        json.dumps({"judge": "openai", "identity": {"model": "g"}})
    )
    able = {"model": "g", "revision": "r", "top_logprobs": 5, "context_length": 99}
    write(tmp_path / "1.jsonl", {"capabilities": able, "time": 0.0},
          {"key": first.digest, "time": 0.0, "reply": {"text": "old"}})  # fmt: skip
    write(tmp_path / "2.jsonl", {"key": first.digest, "reply": {"text": "new", "finish": "stop"}},
          {"key": second.digest, "reply": {}})  # fmt: skip
    judge = Replay(path=str(tmp_path))
    replies, found = ask(judge, second, first)
    assert replies == [Reply(), Reply("new", finish="stop")]
    assert (found.model, found.top_logprobs, found.context_length) == ("g", 5, 99)
    assert judge.identity()["judge"] == {"name": "openai", "settings": {"model": "g"}}


def test_the_identity_follows_the_content_of_the_file(tmp_path):
    one = Replay(path=write(tmp_path / "a.jsonl", {"id": "1", "text": "A"})).identity()
    copy = Replay(path=write(tmp_path / "b.jsonl", {"id": "1", "text": "A"})).identity()
    other = Replay(path=write(tmp_path / "a.jsonl", {"id": "1", "text": "B!"})).identity()
    assert one == copy != other


@pytest.mark.parametrize(
    ("name", "sentence"), [("absent", "no such file or folder"), (".", "no judgments.jsonl in it")]
)
def test_a_missing_recording_is_one_sentence(tmp_path, name, sentence):
    for use in (ask, Replay.identity):
        with pytest.raises(JudgeError, match=sentence):
            use(Replay(path=str(tmp_path / name)))


def test_replay_keeps_the_contract_of_asked_judges(tmp_path):
    rows = [{"id": f"{i}/{n}", "text": f"reply {i} {n}"} for i in range(2) for n in range(4)]
    judge = Replay(path=write(tmp_path / "said.jsonl", *rows))
    check_judge(judge, [PromptSample("Hello?"), PromptSample("Count.")])
