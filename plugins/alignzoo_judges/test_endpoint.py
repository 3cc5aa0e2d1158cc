"""The endpoint judge against a real HTTP server: what is sent, and what every answer means."""

from __future__ import annotations

import asyncio
import json
import math
import sys
import time
from email.utils import formatdate

import pytest

from alignzoo import JudgeBusy, JudgeError, Question, QuestionRefused, Usage
from alignzoo_judges.endpoint import Endpoint
from alignzoo_judges.test_server import (
    after_probe,
    answered,
    ask,
    completion,
    question,
    quiet,
    refusal,
    sane,
    serving,
)


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    quiet(monkeypatch)


# --- what is sent and read -------------------------------------------------------------------


def test_a_question_goes_out_as_it_is_and_its_reply_comes_back_with_log_probs_and_usage():
    asked = question("Which?", max_tokens=3, temperature=1.0, top_logprobs=5)
    (reply,), session, server = ask(sane, asked)
    assert (reply.text, reply.finish, reply.error) == ("m", "stop", None)
    assert reply.top_logprobs == {"m": -0.1, "M": -2.5, " m": -9.0}
    assert reply.usage == Usage(7, 2)
    assert server.seen[-1][:2] == (
        "/chat/completions",
        {
            "model": "judge",
            "messages": [dict(m) for m in asked.messages],
            "max_tokens": 3,
            "temperature": 1.0,
            "logprobs": True,
            "top_logprobs": 5,
        },
    )
    assert session.capabilities.context_length == 4096
    assert session.capabilities.top_logprobs == 3
    assert session.capabilities.model == "judge"


@pytest.mark.parametrize(
    "odd",
    [
        {"choice": {"logprobs": {"content": [None]}}},
        {"choice": {"logprobs": {"content": "abc"}}},
        {"choice": {"logprobs": {"content": [{"top_logprobs": [{"token": "m"}]}]}}},
        {"usage": {"prompt_tokens": float("inf"), "completion_tokens": 1}},
        {"usage": {"prompt_tokens": -5, "completion_tokens": 1}},
        {"model": "\ud800"},
    ],
)
def test_a_reply_counts_whatever_stands_beside_it(odd):
    (reply,), _, _ = ask(lambda path, *_: (200, completion("fine", **odd)))
    assert (reply.text, reply.top_logprobs) == ("fine", None)
    assert reply.usage == (None if "usage" in odd else Usage(7, 2))


@pytest.mark.parametrize(
    ("extra", "most"),
    [
        (None, 256),
        ({"seed": 1}, 256),
        ({"max_tokens": 100}, 256),  # the server may want the other field, beside this one
        ({"max_tokens": 5000.5}, 5001),
        ({"max_completion_tokens": 5000, "max_tokens": None}, 5000),
        ({"max_tokens": None}, sys.maxsize),
        ({"max_completion_tokens": None}, sys.maxsize),
        ({"max_tokens": -1}, sys.maxsize),  # no limit, of llama.cpp
        ({"max_tokens": "5000"}, sys.maxsize),
        ({"max_tokens": float("nan")}, sys.maxsize),
    ],
)
def test_the_most_that_a_reply_can_take_is_what_the_request_leaves_it(extra, most):
    asked = question("Which?", max_tokens=256)
    assert Endpoint(model="m", extra=extra).largest_usage(asked).completion_tokens == most


def test_tools_that_go_with_a_question_are_part_of_the_longest_prompt():
    tools = {"tools": [{"name": "x" * 1000}]}
    plain, more = (Endpoint(model="m", extra=e).largest_usage(question("?")) for e in (None, tools))
    assert more.prompt_tokens > plain.prompt_tokens + 1000


@pytest.mark.parametrize("body", [b"[" * 200_000, b" " * (2**26 + 1)])
def test_a_body_without_an_end_is_a_reply_that_did_not_come(body):
    with pytest.raises(JudgeBusy, match="a body of"):
        answered(200, body)


@pytest.mark.parametrize("name", ["sk-secret", "gsk_abc", "A=B"])
def test_a_key_in_the_place_of_its_variable_is_refused_unseen(name):
    with pytest.raises(ValueError, match="the NAME of an environment variable") as caught:
        Endpoint(model="m", key_variable=name)
    assert name not in str(caught.value)


def test_a_server_without_log_probs_is_found_out_at_the_start():
    def say(path, body, headers):
        if path == "/models":
            return 404, b"not here"
        if "logprobs" in body:
            return 400, refusal("logprobs are not supported")
        return 200, completion()

    (reply,), session, server = ask(say, question(top_logprobs=5))
    assert session.capabilities.top_logprobs == 0
    assert session.capabilities.context_length is None
    assert reply.text == "yes"
    assert "logprobs" not in server.seen[-1][1]


def test_a_server_that_ignores_log_probs_has_none():
    assert ask(lambda *_: (200, completion()))[1].capabilities.top_logprobs == 0


def test_a_model_that_wants_max_completion_tokens_gets_them():
    def say(path, body, headers):
        if "max_tokens" in (body or {}):
            return 400, refusal("use max_completion_tokens instead", param="max_tokens")
        return sane(path, body, headers)

    _, session, server = ask(say, question(max_tokens=9))
    assert session.capabilities.top_logprobs == 3
    assert server.seen[-1][1]["max_completion_tokens"] == 9
    assert "max_tokens" not in server.seen[-1][1]


def test_extra_fields_are_sent_null_takes_one_out_and_a_repeated_question_has_another_seed():
    extra = {"seed": 3, "reasoning_effort": "low", "temperature": None}
    repeated = Question(**vars(question()) | {"repeat": 2})
    _, _, server = ask(sane, question(), repeated, extra=extra)
    first, second = (body for _, body, _ in server.seen[-2:])
    assert (first["seed"], second["seed"], first["reasoning_effort"]) == (3, 5, "low")
    assert "temperature" not in first


def test_a_model_without_a_system_role_gets_the_system_message_from_the_user():
    _, _, server = ask(sane, system_as_user=True)
    assert server.seen[-1][1]["messages"] == [{"role": "user", "content": "Judge.\n\nIs it good?"}]


def test_text_that_is_no_utf8_is_sent_all_the_same():
    _, _, server = ask(sane, question("half \ud83d a smile, ñ, 漢"))
    assert server.seen[-1][1]["messages"][1]["content"] == "half \ud83d a smile, ñ, 漢"


@pytest.mark.parametrize(
    ("choice", "text"),
    [
        ({"message": {"role": "assistant", "content": None}}, ""),
        ({"message": {"content": [{"type": "text", "text": "a"}, {"text": "b"}]}}, "ab"),
        ({"logprobs": {"content": []}}, "yes"),
        ({"logprobs": {"content": [{"token": "yes"}]}}, "yes"),
        ({"logprobs": "none"}, "yes"),
    ],
)
def test_replies_of_odd_but_legal_forms_are_read(choice, text):
    reply = answered(200, completion(choice=choice))
    assert (reply.text, reply.error, reply.top_logprobs) == (text, None, None)


def test_a_reply_without_usage_has_none_and_one_cut_at_the_limit_says_so():
    reply = answered(200, completion(usage=None, choice={"finish_reason": "length"}))
    assert (reply.usage, reply.finish, reply.error) == (None, "length", None)


def test_log_probs_that_are_no_numbers_are_left_out():
    body = json.dumps(completion(top=(("m", -0.5), ("x", -1.0)))).replace("-1.0", "-Infinity")
    assert answered(200, body.encode()).top_logprobs == {"m": -0.5}


def test_equal_spellings_of_the_first_token_add_up_and_exact_repeats_count_once():
    likely = [("m", math.log(0.3)), ("m", math.log(0.2)), ("M", math.log(0.4))]
    (reply,), _, _ = ask(after_probe(lambda *_: (200, completion("m", top=[*likely, likely[2]]))))
    assert {token: math.exp(x) for token, x in reply.top_logprobs.items()} == pytest.approx(
        {"m": 0.5, "M": 0.4}
    )


def test_a_reply_says_who_wrote_it_and_how_it_ended():
    whole = completion(model="judge-0101", system_fingerprint="fp_1")
    reply = answered(200, whole)
    assert (reply.model, reply.fingerprint, reply.finish) == ("judge-0101", "fp_1", "stop")
    silent = answered(200, {**completion(model=None), "system_fingerprint": 7})
    assert (silent.model, silent.fingerprint) == (None, None)


@pytest.mark.parametrize("counted", [(0, 0), (0, 2), (7, 0)])
def test_usage_of_zero_is_not_known(counted):
    usage = dict(zip(("prompt_tokens", "completion_tokens"), counted, strict=True))
    assert answered(200, completion(usage=usage)).usage is None


def test_the_model_of_the_greeting_is_who_must_answer_unless_anyone_may():
    _, session, _ = ask(named)
    assert session.capabilities.served == "judge-0101"
    _, session, _ = ask(named, other_models="count")
    assert (session.capabilities.served, session.capabilities.revision) == (None, None)
    one, other = (Endpoint(model="j", other_models=x).identity() for x in ("stop", "fail"))
    assert one == other != Endpoint(model="j", other_models="count").identity()


def named(path, body, headers):
    """A server whose alias answers with a dated name."""
    status, content = sane(path, body, headers)
    return status, {**content, "model": "judge-0101"}


# --- questions that cannot be answered -----------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (400, "This model's maximum context length is 4096 tokens. Reduce the length"),
        (400, "'max_tokens' is too large: 2048. This model's maximum context length is 512"),
        (400, "the request exceeds the available context size"),
        (422, "inputs are too long"),
        (413, "Request Entity Too Large"),
    ],
)
def test_a_question_longer_than_the_context_is_a_counted_failure(status, words):
    reply = answered(status, refusal(words, param="max_tokens"))
    assert reply.error.startswith("context: ")
    assert words[:20] in reply.error


def test_a_refused_question_is_a_counted_failure():
    assert answered(400, refusal("flagged by our policy")).error == "refused: flagged by our policy"
    filtered = answered(200, completion("no", choice={"finish_reason": "content_filter"}))
    assert (filtered.error, filtered.usage) == (
        "refused: stopped by the server's content filter",
        Usage(7, 2),
    )
    declined = answered(
        200, completion(choice={"message": {"content": None, "refusal": "I won't"}})
    )
    assert declined.error == "refused: I won't"


def test_a_refused_setting_stops_the_run_because_no_question_would_pass():
    with pytest.raises(
        JudgeError, match=r"refuses the setting 'temperature'.*extra: \{temperature"
    ):
        answered(400, refusal("Unsupported value", param="temperature"))


@pytest.mark.parametrize("status", [401, 402, 403, 404, 405, 418])
def test_what_a_server_refuses_after_it_took_a_greeting_is_refused_to_one_question(status):
    with pytest.raises(QuestionRefused, match=rf"refused \({status}: flagged by the provider\)"):
        answered(status, refusal("flagged by the provider"))
    with pytest.raises(QuestionRefused, match=rf"refused \({status}: flagged"):
        answered(200, {"error": {"message": "flagged", "code": status}})


def test_a_setting_that_was_taken_before_is_refused_to_one_question():
    says = iter([(200, completion("fine")), (400, refusal("too many", param="max_tokens"))])
    replies, _, _ = ask(after_probe(lambda *_: next(says)), question(), question("And this?"))
    assert [reply.error for reply in replies] == [None, "refused: too many"]


# --- come again ------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [408, 409, 425, 429, 500, 502, 503, 504, 529])
def test_a_busy_server_is_to_be_asked_again(status):
    with pytest.raises(JudgeBusy, match=str(status)):
        answered(status, refusal("slow down"))


@pytest.mark.parametrize(
    ("header", "low", "high"),
    [
        ("retry-after: 7", 7, 7),
        ("retry-after-ms: 250", 0.25, 0.25),
        (f"retry-after: {formatdate(time.time() + 90_000, usegmt=True)}", 80_000, 90_000),
        (f"retry-after: {formatdate(time.time() - 3600, usegmt=True)}", 0, 0),
        ("retry-after: -3", 0, 0),
    ],
    ids=["seconds", "milliseconds", "a day to come", "a day gone", "less than nothing"],
)
def test_the_time_a_server_asks_to_wait_is_passed_on(header, low, high):
    with pytest.raises(JudgeBusy) as caught:
        answered(429, refusal("slow down"), [header])
    assert low <= caught.value.after <= high


@pytest.mark.parametrize("header", ["retry-after: soon", "retry-after: nan", "x: y"])
def test_a_waiting_time_that_is_none_is_none(header):
    with pytest.raises(JudgeBusy) as caught:
        answered(503, b"", [header])
    assert caught.value.after is None


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b'{"choices": [{"mess',
        b"\xff\xfe",
        b"[]",
        b"{}",
        {"choices": []},
        {"choices": [None]},
        {"choices": [{"message": {"content": 3}}]},
        {"error": {"message": "overloaded", "code": 503}},
        completion(choice={"finish_reason": "error"}),
    ],
)
def test_a_damaged_body_is_no_reply_and_to_be_asked_for_again(content):
    with pytest.raises(JudgeBusy):
        answered(200, content)


def test_a_dropped_connection_and_a_body_cut_short_are_to_be_asked_again():
    with pytest.raises(JudgeBusy, match="connection"):
        ask(after_probe(lambda *_: "drop"))
    with pytest.raises(JudgeBusy):
        answered(200, completion(), ["content-encoding: gzip"])


def test_a_stalled_reply_ends_at_the_time_limit():
    started = time.monotonic()
    with pytest.raises(JudgeBusy, match=r"no reply within 0\.3 s"):
        ask(after_probe(lambda *_: "stall"), timeout=0.3)
    assert time.monotonic() - started < 5


def test_the_session_goes_on_after_a_failure():
    async def run():
        faults = iter([(500, b""), "drop", (200, completion("fine"))])
        async with (
            serving(after_probe(lambda *_: next(faults))) as server,
            Endpoint(model="judge", url=server.url).connect() as session,
        ):
            for _ in range(2):
                with pytest.raises(JudgeBusy):
                    await session.replies([question()])
            return await session.replies([question()])

    assert asyncio.run(run())[0].text == "fine"
