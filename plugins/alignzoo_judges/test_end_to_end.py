"""A real model behind a real HTTP server: question -> HTTP -> model -> reply.

The server is written here and asks transformers itself, so that two ways lead to one model: over
the wire, and through the local judge. `transformers serve` takes its place where its own
requirements are installed.
"""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
import time
from contextlib import contextmanager
from urllib.request import ProxyHandler, build_opener

import pytest
import torch
from shared_data import shared
from transformers import AutoModelForCausalLM, AutoTokenizer

from alignzoo import Answer, Decoding, PromptSample, Question, Response
from alignzoo_judges import Endpoint, LocalModel
from alignzoo_judges.test_server import in_thread, quiet, refusal

pytestmark = pytest.mark.slow

SERVE_PYTHON = os.environ.get("ALIGNZOO_SERVE_PYTHON", sys.executable)
SERVED = "stories"
CONTEXT = 512
TEXTS = (
    "Once upon a time",
    "One day, a little girl named Lily found",
    "Tom and his dog went to the park. They",
    "The cat was sad because",
)


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    quiet(monkeypatch)


@pytest.fixture(scope="module")
def folder():
    return shared("models", "stories260k")


def questions(*decodings):
    answer = Answer(PromptSample("p"), Response("a"), 1)
    return [
        Question(f"{t}/{d}", t, (answer,), ({"role": "user", "content": text},), decoding)
        for t, text in enumerate(TEXTS)
        for d, decoding in enumerate(decodings)
    ]


def ask(judge, asked):
    """(replies, capabilities) with `concurrency` questions under way at once."""

    async def run():
        async with judge.connect() as session:
            waiting = iter(list(enumerate(asked)))
            found = {}

            async def worker():
                for number, question in waiting:
                    (found[number],) = await session.replies([question])

            await asyncio.gather(*(worker() for _ in range(judge.concurrency)))
            return [found[number] for number in range(len(asked))], session.capabilities

    return asyncio.run(run())


class Model:
    """What a chat server does, in as few words as possible."""

    def __init__(self, folder):
        self.tokenizer = AutoTokenizer.from_pretrained(folder)
        self.model = AutoModelForCausalLM.from_pretrained(folder)

    def say(self, path, body, headers):
        if path == "/models":
            return 200, {"object": "list", "data": [{"id": SERVED, "max_model_len": CONTEXT}]}
        if body["model"] != SERVED:
            return 404, refusal(f"The model `{body['model']}` does not exist")
        text = self.tokenizer.apply_chat_template(
            body["messages"], add_generation_prompt=True, tokenize=False
        )
        ids = self.tokenizer(text, add_special_tokens=False, return_tensors="pt")["input_ids"]
        if ids.shape[1] + body["max_tokens"] > CONTEXT:
            return 400, refusal(f"This model's maximum context length is {CONTEXT} tokens")
        return 200, self.complete(ids, body)

    @torch.inference_mode()
    def complete(self, ids, body):
        output = self.model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            do_sample=False,
            max_new_tokens=body["max_tokens"],
            output_logits=True,
            return_dict_in_generate=True,
        )
        new = output.sequences[0, ids.shape[1] :].tolist()
        ended = new[-1] == self.tokenizer.eos_token_id
        text = self.tokenizer.decode(new, skip_special_tokens=True)
        choice = {
            "message": {"role": "assistant", "content": text},
            "finish_reason": "stop" if ended else "length",
        }
        if body.get("logprobs"):
            values, best = output.logits[0][0].log_softmax(-1).topk(body["top_logprobs"])
            pairs = zip(best.tolist(), values.tolist(), strict=True)
            top = [{"token": self.tokenizer.decode([t]), "logprob": x} for t, x in pairs]
            choice["logprobs"] = {"content": [{"token": text, "top_logprobs": top}]}
        usage = {"prompt_tokens": ids.shape[1], "completion_tokens": len(new)}
        return {"model": SERVED, "choices": [choice], "usage": usage}


def test_a_served_model_and_the_same_model_loaded_here_judge_alike(folder):
    asked = questions(Decoding(max_tokens=48), Decoding(max_tokens=1, top_logprobs=5))
    with in_thread(Model(folder).say) as url:
        served, able = ask(Endpoint(model=SERVED, url=url, concurrency=4), asked)
    local, own = ask(LocalModel(model=str(folder)), asked)
    assert (able.context_length, able.top_logprobs) == (own.context_length, 5)
    for there, here in zip(served, local, strict=True):
        assert (there.text, there.usage, there.finish, there.error) == (
            here.text,
            here.usage,
            here.finish,
            None,
        )
        for token in (there.top_logprobs or {}).keys() & (here.top_logprobs or {}).keys():
            # Two tokens that read alike are one alternative here, their likelier one there.
            assert there.top_logprobs[token] <= here.top_logprobs[token] + 1e-4
    assert [reply.top_logprobs is None for reply in served] == [True, False] * len(TEXTS)
    assert len({reply.text for reply in served if not reply.top_logprobs}) == len(TEXTS)


def test_a_question_that_does_not_fit_the_served_model_is_counted_and_the_others_go_on(folder):
    asked = questions(Decoding(max_tokens=8), Decoding(max_tokens=600))
    with in_thread(Model(folder).say) as url:
        served, _ = ask(Endpoint(model=SERVED, url=url), asked)
    assert [reply.error is None for reply in served] == [True, False] * len(TEXTS)
    assert all(reply.error.startswith("context: ") for reply in served[1::2])


@contextmanager
def transformers_serve(log):
    """The address of `transformers serve`, once it answers."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [SERVE_PYTHON, "-m", "transformers.cli.transformers", "serve"]
    options = ["--host", "127.0.0.1", "--port", str(port), "--device", "cpu"]
    opener = build_opener(ProxyHandler({}))
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*command, *options],
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, "HF_HUB_OFFLINE": "1"},
        )
        try:
            deadline = time.monotonic() + 240
            while time.monotonic() < deadline and process.poll() is None:
                try:
                    opener.open(f"http://127.0.0.1:{port}/health", timeout=5).close()
                    break
                except OSError:
                    time.sleep(0.5)
            yield f"http://127.0.0.1:{port}/v1"
        finally:
            process.terminate()
            process.wait(30)


def can_serve():
    command = [SERVE_PYTHON, "-c", "import fastapi, uvicorn, openai, transformers"]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def test_transformers_serve_is_a_judge_like_any_other(folder, tmp_path):
    if not can_serve():
        pytest.skip("needs transformers[serving], here or in ALIGNZOO_SERVE_PYTHON")
    log = tmp_path / "serve.log"
    asked = questions(Decoding(max_tokens=32))
    with transformers_serve(log) as url:
        judge = Endpoint(model=str(folder), url=url, concurrency=2)
        try:
            served, able = ask(judge, asked)
        except Exception as error:
            pytest.fail(f"{error}\n{log.read_text(errors='replace')[-3000:]}")
    assert able.top_logprobs == 0
    local, _ = ask(LocalModel(model=str(folder)), asked)
    assert [reply.text.strip() for reply in served] == [reply.text.strip() for reply in local]
    assert all(reply.usage and reply.error is None for reply in served)
