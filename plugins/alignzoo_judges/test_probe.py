"""How the endpoint judge starts: wrong keys, addresses and models, secrets, proxies, options."""

from __future__ import annotations

import asyncio
import logging
import sys
import time

import pytest

from alignzoo import JudgeError, PromptSample, QuestionRefused, RecipeError, Usage
from alignzoo.recipe.options import build_options
from alignzoo.testing import check_judge
from alignzoo_judges.endpoint import Endpoint
from alignzoo_judges.line import is_local
from alignzoo_judges.test_server import (
    after_probe,
    answered,
    ask,
    in_thread,
    question,
    quiet,
    refusal,
    sane,
    serving,
)

KEY = "sk-very-secret-0123456789"


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    quiet(monkeypatch)


# --- a wrong start ------------------------------------------------------------------------------


def failure(say, **options):
    with pytest.raises(JudgeError) as caught:
        ask(say, **options)
    sentence = str(caught.value)
    assert "\n" not in sentence
    return sentence


@pytest.mark.parametrize("status", [401, 403])
def test_a_wrong_key_is_one_sentence_that_names_the_variable_and_not_the_key(monkeypatch, status):
    monkeypatch.setenv("MY_KEY", KEY)
    sentence = failure(
        lambda *_: (status, refusal(f"Incorrect API key provided: {KEY}.")), key_variable="MY_KEY"
    )
    assert f"refuses the key in MY_KEY ({status})" in sentence
    assert KEY not in sentence
    assert "***" in sentence


def test_a_server_that_wants_a_key_says_which_variable_to_set():
    assert "set the environment variable OPENAI_API_KEY" in failure(lambda *_: (401, b""))


def test_openai_without_a_key_says_so_before_anything_is_sent(monkeypatch):
    async def run():
        async with Endpoint(model="gpt").connect():
            pass

    with pytest.raises(JudgeError, match=r"OPENAI_API_KEY is not set.*key_variable"):
        asyncio.run(run())
    monkeypatch.setenv("OPENAI_API_KEY", "sk-with\nline")
    with pytest.raises(JudgeError, match="characters that no key has") as caught:
        asyncio.run(run())
    assert "sk-with" not in str(caught.value)


def test_nobody_at_the_address_is_one_sentence_at_once():
    started = time.monotonic()
    sentence = failure(sane, url="http://127.0.0.1:9/v1")
    assert "http://127.0.0.1:9/v1: cannot be reached" in sentence
    assert "is the server running" in sentence
    assert time.monotonic() - started < 2


def test_a_wrong_model_names_those_there_are():
    def say(path, body, headers):
        if path == "/models":
            return 200, {"data": [{"id": f"m{i}"} for i in range(7)]}
        return 404, refusal("The model `judge` does not exist")

    sentence = failure(say)
    assert "knows no model 'judge'" in sentence
    assert "it lists m0, m1, m2, m3, m4 and 2 more" in sentence


@pytest.mark.parametrize(
    ("status", "headers"), [(404, []), (405, []), (301, ["location: https://elsewhere.example/"])]
)
def test_an_address_of_something_else_is_one_sentence(status, headers):
    sentence = failure(lambda *_: (status, b"<html>nothing</html>", headers))
    assert str(status) in sentence
    assert "elsewhere" in sentence or not headers


def test_a_page_instead_of_a_completion_is_one_sentence(monkeypatch):
    monkeypatch.setattr("alignzoo_judges.probe._wait", lambda *_: 0.0)
    sentence = failure(lambda *_: (200, b"<html>welcome</html>"))
    assert "is `url` that of a chat endpoint?" in sentence


def test_an_exhausted_account_stops_the_run_instead_of_waiting_for_ever():
    for status, body in ((402, b"pay"), (429, refusal("no quota", code="insufficient_quota"))):
        assert "exhausted" in failure(lambda path, *_, say=(status, body): say)
        with pytest.raises(QuestionRefused, match=str(status)):
            answered(status, body)


def test_a_setting_the_server_refuses_is_told_in_its_own_words():
    sentence = failure(lambda path, *_: (400, refusal("unknown field: spped")), extra={"spped": 1})
    assert "refuses every form of question to 'judge': unknown field: spped" in sentence


def test_faults_during_the_probe_are_waited_out(monkeypatch):
    monkeypatch.setattr("alignzoo_judges.probe._wait", lambda *_: 0.0)
    faults = iter([(500, b""), "drop", (429, b"")] * 2)
    replies, session, _ = ask(lambda *seen: next(faults, None) or sane(*seen))
    assert replies[0].text == "m"
    assert session.capabilities.top_logprobs == 3


# --- secrets -------------------------------------------------------------------------------------


def test_the_key_goes_to_the_server_and_nowhere_else(monkeypatch, caplog, capsys):
    monkeypatch.setenv("OPENAI_API_KEY", f" {KEY}\n")
    caplog.set_level(logging.DEBUG)
    replies, session, server = ask(sane)
    assert {headers["authorization"] for _, _, headers in server.seen} == {f"Bearer {KEY}"}
    judge = session.judge
    shown = [repr(x) for x in (judge, session, session.line, replies, judge.identity())]
    assert KEY not in "".join([*shown, caplog.text, *capsys.readouterr()])


def test_the_key_is_cut_out_of_everything_a_server_says(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    for status in (400, 404, 418, 429, 500):
        echo = after_probe(
            lambda _, __, h, s=status: (s, refusal(f"you sent {h['authorization']}"))
        )
        try:
            said = ask(echo)[0][0].error
        except Exception as error:
            said = f"{error!r} {error.__cause__!r}"
        assert "***" in said
        assert KEY not in said


def test_a_local_server_needs_no_key_and_is_sent_none():
    _, _, server = ask(sane)
    assert all("authorization" not in headers for _, _, headers in server.seen)


# --- proxies ---------------------------------------------------------------------------------


def test_no_proxy_of_the_environment_stands_before_a_local_server(monkeypatch):
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:9")
    assert ask(sane)[0][0].text == "m"


def test_a_server_elsewhere_is_reached_through_the_proxy_of_the_environment(monkeypatch):
    async def run():
        async with serving(lambda path, *rest: sane(path.split("/v1")[-1], *rest)) as proxy:
            monkeypatch.setenv("HTTP_PROXY", proxy.url.removesuffix("/v1"))
            judge = Endpoint(model="judge", url="http://judge.example/v1")
            async with judge.connect() as session:
                return (await session.replies([question()]))[0], proxy.seen

    reply, seen = asyncio.run(run())
    assert reply.text == "m"
    assert seen[-1][0] == "http://judge.example/v1/chat/completions"


def test_a_proxy_that_makes_no_sense_is_one_sentence(monkeypatch):
    monkeypatch.setenv("HTTP_PROXY", "ftp://proxy.example")
    with pytest.raises(JudgeError, match="proxy or certificate settings of the environment"):
        ask(sane, url="http://judge.example/v1")


@pytest.mark.parametrize(
    ("host", "local"),
    [
        ("localhost", True),
        ("127.0.0.1", True),
        ("::1", True),
        ("10.1.2.3", True),
        ("192.168.0.7", True),
        ("api.openai.com", False),
        ("8.8.8.8", False),
        ("localhost.example", False),
    ],
)
def test_hosts_that_no_proxy_leads_to(host, local):
    assert is_local(host) is local


# --- options -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({}, "model"),
        ({"model": "m", "url": "localhost:8000"}, "is no address"),
        ({"model": "m", "url": "https://user:pw@host/v1"}, "no user, key or query"),
        ({"model": "m", "url": "https://host/v1?key=1"}, "no user, key or query"),
        ({"model": "m", "extra": {"messages": [], "n": 2}}, "messages, n cannot be set"),
        ({"model": "m", "concurrency": 0}, "concurrency"),
        ({"model": "m", "timeout": -1.0}, "timeout"),
    ],
)
def test_options_that_cannot_work_are_refused_before_anything_is_asked(options, sentence):
    with pytest.raises(RecipeError, match=sentence):
        build_options(Endpoint, options)


def test_the_price_is_per_million_tokens_and_unknown_is_not_zero():
    usage = Usage(2_000_000, 500_000)
    assert Endpoint(model="m", price_in=0.5, price_out=2.0).cost(usage) == 2.0
    assert Endpoint(model="m", price_in=0.0, price_out=0.0).cost(usage) == 0.0
    assert Endpoint(model="m", price_in=0.5).cost(usage) is None


def test_the_identity_is_what_decides_the_replies_and_not_where_they_come_from():
    here = Endpoint(model="m", revision="r1", extra={"seed": 1})
    there = Endpoint(model="m", url="http://host/v1", revision="r1", extra={"seed": 1}, timeout=1.0)
    assert here.identity() == there.identity()
    assert here.identity() != Endpoint(model="m", revision="r2", extra={"seed": 1}).identity()
    assert here.identity() != Endpoint(model="m", revision="r1").identity()


def test_a_server_that_serves_another_model_than_its_name_says_is_recorded():
    def say(path, body, headers):
        status, content = sane(path, body, headers)
        return status, content | {"model": "judge-2026-01-01"}

    assert ask(say)[1].capabilities.revision == "judge-2026-01-01"
    assert ask(sane)[1].capabilities.revision is None


def test_httpx_is_asked_for_when_it_is_not_installed(monkeypatch):
    monkeypatch.setitem(sys.modules, "httpx", None)
    with pytest.raises(JudgeError, match=r"pip install 'alignzoo\[eval\]'"):
        ask(sane)


def test_the_endpoint_keeps_the_contract_of_asked_judges():
    with in_thread(sane) as url:
        check_judge(Endpoint(model="judge", url=url), [PromptSample("Hello?")])
