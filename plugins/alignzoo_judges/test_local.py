"""The local judge: a tiny real model, built here or the pretrained one of the shared folder."""

from __future__ import annotations

import asyncio
import math
import shutil
from dataclasses import replace

import pytest
import torch
from shared_data import shared
from transformers import AutoTokenizer

from alignzoo import (
    Answer,
    Decoding,
    JudgeError,
    PromptSample,
    Question,
    Response,
    without_reasoning,
)
from alignzoo.testing import check_judge
from alignzoo_judges import LocalModel
from alignzoo_judges.chat import without_system
from alignzoo_judges.reading import Picker, load

ANSWER = Answer(PromptSample("p"), Response("a"), 1)


@pytest.fixture(scope="module")
def folder():
    return shared("models", "stories260k")


def question(text, id="0", **decoding):
    messages = ({"role": "system", "content": "Once upon"}, {"role": "user", "content": text})
    return Question(id, 0, (ANSWER,), messages, Decoding(**{"max_tokens": 12} | decoding))


def ask(judge, *questions):
    async def run():
        async with judge.connect() as session:
            return await session.replies(questions), session.capabilities

    return asyncio.run(run())


def test_it_says_what_the_model_says_next(folder):
    judge = LocalModel(model=str(folder))
    asked = Question("0", 0, (ANSWER,), ({"role": "user", "content": "Once upon a time"},),
                     Decoding(max_tokens=16))  # fmt: skip
    (reply,), able = ask(judge, asked)
    assert reply.text.strip().startswith(", there was a little girl named Lily")
    assert (reply.usage.completion_tokens, reply.finish, reply.error) == (16, "length", None)
    assert (able.context_length, able.top_logprobs) == (512, 512)


def test_log_probs_are_those_of_the_next_token_distribution(folder):
    (reply,), _ = ask(LocalModel(model=str(folder)), question(" a time", top_logprobs=5))
    reader = load(str(folder), None, "float32")
    ids = reader.chat_ids(question(" a time").messages)
    with torch.no_grad():
        logits = reader.model(torch.tensor([ids])).logits[0, -1]
    exact = logits.double().log_softmax(-1)
    assert len(reply.top_logprobs) == 5
    values = list(reply.top_logprobs.values())
    assert values == sorted(values, reverse=True)
    assert values[0] == pytest.approx(exact.max().item(), abs=1e-5)
    assert sum(map(math.exp, values)) <= 1
    spellings = {}
    for token, value in enumerate(exact.tolist()):
        spellings.setdefault(reader.spelling(token), []).append(value)
    for text, value in reply.top_logprobs.items():
        whole = math.log(sum(map(math.exp, spellings[text])))
        assert value == pytest.approx(whole, abs=1e-3)


def test_nothing_is_remembered_about_the_first_token_unless_it_was_asked_for(folder):
    (reply,), _ = ask(LocalModel(model=str(folder)), question("x"))
    assert reply.top_logprobs is None


def test_a_reply_does_not_depend_on_what_else_is_asked(folder):
    judge = LocalModel(model=str(folder))
    texts = [" a time", " there was a big dog who liked to run.", ""]
    questions = [
        question(text, id=f"{t}/{text}", temperature=t, top_logprobs=3)
        for text in texts
        for t in (0.0, 1.0)
    ]
    together, _ = ask(judge, *questions)
    alone, _ = ask(judge, *reversed(questions))
    assert together == alone[::-1]


def test_a_repeated_question_is_sampled_anew_and_temperature_0_repeats_itself(folder):
    def both(temperature):
        first = question(" a time", temperature=temperature, max_tokens=32)
        again = Question(**vars(first) | {"repeat": 1})
        replies, _ = ask(LocalModel(model=str(folder)), first, again)
        return replies

    one, other = both(1.0)
    assert one.text != other.text
    one, other = both(0.0)
    assert one.text == other.text


@pytest.mark.parametrize("temperature", [1e-29, 1e-31, 1e-40, 1e-320])
def test_a_temperature_too_small_to_divide_by_takes_the_likeliest_token(temperature):
    picker = Picker(Decoding(temperature=temperature), seed=5)
    scores = picker(None, torch.tensor([[1.0, 30.0, 29.0, 2.0]]))
    assert scores.isfinite().all() and scores.argmax() == 1


def test_gumbel_noise_samples_from_the_softmax():
    scores = torch.tensor([[0.0, 1.0, 2.0]])
    picker = Picker(Decoding(temperature=2.0), seed=5)
    drawn = torch.stack([picker(None, scores)[0].argmax() for _ in range(4000)])
    shares = torch.bincount(drawn, minlength=3) / 4000
    assert torch.allclose(shares, (scores[0] / 2).softmax(-1), atol=0.03)


def test_a_question_longer_than_the_context_is_a_counted_failure(folder):
    (long, tight, fits), _ = ask(
        LocalModel(model=str(folder)),
        question("word " * 2000),
        question("x", max_tokens=512),
        question("x"),
    )
    assert long.error.startswith("context: ")
    assert "the model holds 512" in tight.error
    assert fits.error is None


def test_a_model_without_a_template_is_refused_unless_plain_text_is_wanted(folder, tmp_path):
    bare = tmp_path / "bare"
    shutil.copytree(folder, bare, ignore=shutil.ignore_patterns("chat_template.jinja"))
    with pytest.raises(JudgeError, match=r"no chat template.*plain: true"):
        ask(LocalModel(model=str(bare)), question("x"))
    (reply,), _ = ask(LocalModel(model=str(bare), plain=True), question(" a time"))
    assert reply.text


def test_a_template_without_a_system_role_is_told_how_to_go_on(folder, tmp_path):
    strict = tmp_path / "strict"
    shutil.copytree(folder, strict)
    (strict / "chat_template.jinja").chmod(0o644)
    (strict / "chat_template.jinja").write_text(
        "{% for m in messages %}{% if m['role'] == 'system' %}"
        "{{ raise_exception('System role not supported') }}{% endif %}"
        "{{ m['content'] }}{% endfor %}"
    )
    with pytest.raises(JudgeError, match=r"System role not supported.*system_as_user: true"):
        ask(LocalModel(model=str(strict)), question("x"))
    (reply,), _ = ask(LocalModel(model=str(strict), system_as_user=True), question("x"))
    assert reply.error is None


def test_special_tokens_that_mark_reasoning_stay_in_the_reply_and_others_do_not(folder):
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_special_tokens({"additional_special_tokens": ["[THINK]", "[/THINK]", "<|x|>"]})
    reader = replace(load(str(folder), None, "float32"), tokenizer=tokenizer)
    ids = tokenizer("[THINK]one[/THINK]two<|x|>", add_special_tokens=False)["input_ids"]
    said = reader.words([*ids, reader.stops[0]])
    assert without_reasoning(said).startswith("two") and "one" not in without_reasoning(said)
    plain = tokenizer("two<|x|>", add_special_tokens=False)["input_ids"]
    assert reader.words([*plain, reader.stops[0]]).strip() == "two"


@pytest.mark.parametrize(("end", "thinking"), [("<think>\n", True), ("<think></think>", False)])
def test_reasoning_that_the_template_opens_is_told_from_the_reply(folder, tmp_path, end, thinking):
    opens = tmp_path / "opens"
    shutil.copytree(folder, opens)
    (opens / "chat_template.jinja").chmod(0o644)
    (opens / "chat_template.jinja").write_text(
        "{% for m in messages %}{{ m['content'] }} {% endfor %}" + end.replace("\n", "{{ '\\n' }}")
    )
    (reply,), _ = ask(LocalModel(model=str(opens)), question(" a time"))
    assert (without_reasoning(reply.text) is None) == thinking, "cut inside, or never begun"
    assert reply.text.startswith("<think>") == thinking


@pytest.mark.parametrize("name", ["nowhere/at-all", "."])
def test_a_model_that_cannot_be_loaded_is_one_sentence(name):
    with pytest.raises(JudgeError, match="cannot load") as caught:
        ask(LocalModel(model=name), question("x"))
    assert "\n" not in str(caught.value)


def test_odd_text_is_a_question_like_any_other(folder):
    replies, _ = ask(LocalModel(model=str(folder)), *map(question, ("", "\ud83d", "漢 \u202e ñ")))
    assert [reply.error for reply in replies] == [None] * 3


def test_the_identity_follows_the_content_of_a_folder_and_not_its_place(folder, tmp_path):
    copy = tmp_path / folder.name
    shutil.copytree(folder, copy)
    same = LocalModel(model=str(copy)).identity()
    assert same == LocalModel(model=str(folder)).identity()
    (copy / "config.json").chmod(0o644)
    (copy / "config.json").write_text("{}")
    assert LocalModel(model=str(copy)).identity() != same
    assert LocalModel(model="org/name").identity()["model"] == "org/name"


def test_system_messages_go_before_the_next_user_message():
    def told(*pairs):
        messages = [{"role": role, "content": content} for role, content in pairs]
        return [(m["role"], m["content"]) for m in without_system(messages)]

    assert told(("system", "a"), ("user", "b")) == [("user", "a\n\nb")]
    assert told(("user", "b"), ("assistant", "c")) == [("user", "b"), ("assistant", "c")]
    assert told(("system", "a")) == [("user", "a")]


@pytest.mark.slow
def test_the_local_judge_keeps_the_contract_of_asked_judges(folder):
    check_judge(LocalModel(model=str(folder)), [PromptSample("Hello?"), PromptSample("Count.")])
