"""A server that speaks as vLLM does and samples greedily with transformers: for faults alone.

What vLLM itself does is tried by `plugins/alignzoo_vllm/test_vllm.py`, where it is installed. This
one answers in milliseconds, and does wrong what a test asks for: `say(path, answer)` returns the
answer to give instead, a status with it, or "stall".
"""

import json
import sys
import threading
import time
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import torch
from transformers import AutoModelForCausalLM

CONTEXT = 64


def interpreter(folder, version="0.32.0", dies="no such GPU"):
    """A Python that has a package vllm; its server dies with these words, or is no module."""
    (folder / "vllm").mkdir(parents=True)
    (folder / "vllm" / "__init__.py").touch()
    if dies:
        (folder / "vllm" / "entrypoints.py").write_text(f"raise RuntimeError({dies!r})\n")
    (about := folder / f"vllm-{version}.dist-info").mkdir()
    (about / "METADATA").write_text(f"Name: vllm\nVersion: {version}\n")
    python = folder / "python"
    python.write_text(f'#!/bin/sh\nPYTHONPATH={folder} exec {sys.executable} "$@"\n')
    python.chmod(0o755)
    return str(python)


class Policy:
    """The weights that were handed over, and what a client called them."""

    def __init__(self, say):
        self.say, self.model, self.version, self.asked = say, None, "default", []

    def answer(self, path, body):
        self.asked.append((path, body))
        if path == "/v1/models":
            return {"data": [{"id": "served", "max_model_len": CONTEXT}]}
        if path == "/collective_rpc":
            place = body["kwargs"]["weights_path"]
            self.model = AutoModelForCausalLM.from_pretrained(place).eval()
        if path == "/update_weight_version":
            self.version = body["new_version"]
        if path == "/inference/v1/generate":
            return self.sampled(body["token_ids"], body["sampling_params"])
        return {"success": True}

    @torch.no_grad()
    def sampled(self, prompt, wanted):
        ids, content = list(prompt), []
        for _ in range(wanted["max_tokens"]):
            logits = self.model(torch.tensor([ids])).logits[0, -1].log_softmax(-1)
            ids.append(int(logits.argmax()))
            content.append({"logprob": logits[ids[-1]].item()})
            if ids[-1] in wanted["stop_token_ids"]:
                break
        spans = [{"version": self.version, "start": 0, "end": len(content)}]
        choice = {"token_ids": ids[len(prompt) :], "weight_versions": spans}
        return {"choices": [choice | {"logprobs": {"content": content}}]}


@contextmanager
def stand_in(say=lambda path, answer: answer):
    """The policy and the address."""
    policy = Policy(say)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            length = int(self.headers.get("Content-Length", 0))
            body = json.loads(self.rfile.read(length)) if length else None
            answer, status = policy.say(self.path, policy.answer(self.path, body)), 200
            if isinstance(answer, tuple):
                status, answer = answer
            if answer == "stall":
                time.sleep(3)
            raw = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(raw)))
            self.end_headers()
            self.wfile.write(raw)

        do_POST = do_GET

        def log_message(self, *args):
            """Nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield policy, f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
