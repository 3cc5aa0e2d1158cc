"""The engine: its options, a started session of it, and the proof of which weights it holds."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
import tempfile
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from operator import itemgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import torch

from alignzoo import (
    Completion,
    DataError,
    Handover,
    RolloutEngine,
    RolloutSession,
    Sampling,
    check_request,
    option,
)
from alignzoo_vllm.installed import PYTHON, installed
from alignzoo_vllm.server import SOCKET, Server, start

if TYPE_CHECKING:
    from transformers import PreTrainedModel

Row = tuple[Sequence[int], int]  # a prompt and its key
Marked = tuple[Completion, set[str]]  # with the marks of the weights it was sampled from
LIMITS = {"float32": 1e-3, "bfloat16": 0.1}  # mean nats a token, between two programs
PROBE = Sampling(max_new_tokens=8, temperature=0.5, top_k=8)  # log-probs must ignore both
LONGEST_PROBE = 160  # tokens: more than a block of a stale prefix cache


@dataclass(frozen=True)
class VLLM(RolloutEngine):
    """Samples from a vLLM server that is given the trainer's weights, and proves that it has them.

    Source: https://docs.vllm.ai, version 0.32. After every sync the server's log-probs of a few
    probe tokens must be those of a transformers forward with the weights that were handed over.
    Every process of the trainer has a server of its own.
    """

    name: ClassVar[str] = "vllm"
    python: str | None = option(None, "interpreter with vLLM; null: $ALIGNZOO_VLLM_PYTHON, or this")
    address: str | None = option(None, "a running server instead: http://HOST:PORT")
    folder: str | None = option(None, "where weights are handed over; null: shared memory")
    dtype: Literal["float32", "bfloat16"] = option("float32", "what the server computes in")
    max_model_len: int | None = option(None, "longest prompt plus answer; null: the context", gt=0)
    gpu_memory_utilization: float = option(0.3, "the server's share of the memory", gt=0, le=1)
    sleep: bool = option(False, "on a GPU: give its memory back after sampling (never run yet)")
    startup: float = option(600.0, "seconds until the server must be ready", gt=0)
    deadline: float = option(300.0, "seconds until a sync or an answer counts as lost", gt=0)
    concurrency: int = option(64, "requests under way at once", gt=0)
    arguments: str = option("", "further arguments of the server, as on its command line")

    def identity(self) -> Mapping[str, Any]:
        """What the server computes in, how far, and what runs it; not where and how long.

        The versions are those of the interpreter that would start it. One at an address is not
        asked: it may be gone when everything is done.
        """
        options = {name: getattr(self, name) for name in ("dtype", "max_model_len", "arguments")}
        found = None if self.address else installed(self.interpreter).versions
        return {**options, "server": found}

    def check_here(self) -> None:
        """Raise DataError where a server could not be started, or would not serve this run."""
        if self.sleep and not torch.cuda.is_available():
            raise DataError("vllm: a server sleeps only on a GPU; leave `sleep` out")
        if self.address and os.environ.get("WORLD_SIZE", "1") != "1":
            raise DataError("vllm: several processes need a server each; leave `address` out")
        if self.address is None and (fault := installed(self.interpreter).fault):
            raise DataError(f"vllm: {fault}; {PYTHON}")

    @property
    def interpreter(self) -> str:
        """The Python that runs the server."""
        return self.python or os.environ.get("ALIGNZOO_VLLM_PYTHON") or sys.executable

    def start(self, model: PreTrainedModel) -> RolloutSession:
        """A session, whose server is started with the first weights.

        Raises DataError for what can be seen not to work, TrainingError when nobody answers.
        """
        self.check_here()
        return Session(self, model)

    def command(self, model: Path, socket: Path, context: int) -> list[str]:
        """What starts a server of a model's folder that listens on a socket."""
        return [
            self.interpreter, "-m", "vllm.entrypoints.openai.api_server",  # no `vllm` on a CPU
            "--model", str(model), "--uds", str(socket), "--served-model-name", "policy",
            "--skip-tokenizer-init", "--enable-scale-out", "--logprobs-mode", "raw_logprobs",
            "--generation-config", "vllm", "--dtype", self.dtype, "--disable-log-stats",
            "--disable-uvicorn-access-log", "--gpu-memory-utilization",
            str(self.gpu_memory_utilization),
            *(["--max-model-len", str(context)] if context else []),
            *(["--enable-sleep-mode"] if self.sleep else []), *shlex.split(self.arguments),
        ]  # fmt: skip


class Session(RolloutSession):
    """Samples with the weights of the last sync that was proven, and with no others."""

    def __init__(self, engine: VLLM, model: PreTrainedModel) -> None:
        self.engine, self.model = engine, model
        self.mark: str | None = None  # of the weights that the server has proven; "": of none
        self.handover = Handover.of(model, getattr(torch, engine.dtype))
        self.server = Server(engine.address, engine.deadline) if engine.address else None
        self.served, longest = self.server.model() if self.server else ("policy", None)
        limits = self.handover.context, engine.max_model_len, longest
        self.context = min(filter(None, limits), default=0)  # 0: any length
        shared = "/dev/shm" if Path("/dev/shm").is_dir() else None
        self.folder = Path(tempfile.mkdtemp(prefix="alignzoo-vllm-", dir=engine.folder or shared))

    def sync(self, weights: Iterator[tuple[str, torch.Tensor]], version: int) -> None:
        """Hand over the weights and have the server prove that it samples from them.

        Raises TrainingError when it is lost or does not, or when a weight is not finite.
        """
        self.mark = ""  # until the proof
        self.handover.take(weights, version)
        place = self.handover.write(self.folder)
        if self.server is None:
            command = self.engine.command(place, self.folder / SOCKET, self.context)
            self.server = start(command, self.folder, self.engine.deadline, self.model.device)
            self.server.wait(self.engine.startup)
        else:
            self._sleep("/wake_up")
            call = {"method": "reload_weights", "kwargs": {"weights_path": str(place)}}
            self.server.ask("/collective_rpc", {**call, "timeout": self.engine.deadline})
            if not self.server.read("/reset_prefix_cache", {}, itemgetter("success")):
                raise self.server.fault("is busy with requests of another program")
        mark = f"{uuid.uuid4().hex[:8]}-{version}"  # no other program gives the same
        self.server.ask("/update_weight_version", {"new_version": mark})
        self._prove(self.server)
        self.mark = mark

    def generate(
        self, prompts: Sequence[Sequence[int]], sampling: Sampling, keys: Sequence[int]
    ) -> list[Completion]:
        """One completion per prompt, in order; row i is sampled with the noise of keys[i].

        Raises DataError before sampling if a prompt is empty or does not fit the context, and
        TrainingError if the server is lost, or does not hold the weights of the last sync.
        """
        check_request(prompts, sampling, self.handover.vocabulary, self.context or None)
        if 0 < sampling.temperature < 0.01:  # vLLM would raise it, and only log that
            raise DataError("sampling.temperature: vLLM has 0, or 0.01 and more")
        if not prompts:
            return []
        if self.mark is None:
            self.sync(iter(self.model.named_parameters()), 0)
        if not self.mark or self.server is None:
            raise DataError("vllm: the last sync failed, so there is nothing to sample from")
        self._sleep("/wake_up")
        done = self._sampled(self.server, zip(prompts, keys, strict=True), sampling)
        if any(marks != {self.mark} for _, marks in done):
            raise self.server.fault("was given other weights by another program")
        self._sleep("/sleep?level=1")
        return [completion for completion, _ in done]

    def close(self) -> None:
        """End the server that was started here, and remove the weights."""
        if self.server:
            self.server.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _sleep(self, path: str) -> None:
        if self.engine.sleep and self.server:
            self.server.ask(path, {})

    def _prove(self, server: Server) -> None:
        """Sample a few tokens and compare their log-probs with a plain forward."""
        longest = min(LONGEST_PROBE, (self.context or LONGEST_PROBE) - PROBE.max_new_tokens)
        prompts = [
            [(5 * k + n) % self.handover.vocabulary for k in range(n)] for n in (1, max(1, longest))
        ]
        gaps: list[float] = []
        done = self._sampled(server, zip(prompts, (1, 2), strict=True), PROBE)
        for prompt, (c, _) in zip(prompts, done, strict=True):
            ours = self.handover.log_probs(prompt, c.ids)
            gaps += [abs(a - b) for a, b in zip(ours, c.log_probs, strict=True)]
        if not (gap := sum(gaps) / len(gaps)) <= (limit := LIMITS[self.engine.dtype]):
            raise server.fault(
                f"does not sample from the weights that it was given: its log-probs differ from "
                f"the trainer's by {gap:.3g} nats per token (limit {limit:g})",
                cure="use the transformers engine, or start it as the README of alignzoo_vllm says",
            )

    def _sampled(self, server: Server, rows: Iterable[Row], sampling: Sampling) -> list[Marked]:
        """Completions, and the marks of the weights that each was sampled with."""
        shared = {
            "max_tokens": sampling.max_new_tokens, "min_tokens": sampling.min_new_tokens,
            "temperature": sampling.temperature, "top_p": sampling.top_p, "top_k": sampling.top_k,
            "stop_token_ids": list(sampling.stop_ids), "ignore_eos": True, "logprobs": 0,
            "detokenize": False,
        }  # fmt: skip

        def one(prompt: Sequence[int], key: int) -> Marked:
            chosen = {**shared, "seed": key % 2**63}
            body = {"model": self.served, "token_ids": list(prompt), "sampling_params": chosen}
            found: Marked = server.read("/inference/v1/generate", body, partial(_read, sampling))
            return found

        with ThreadPoolExecutor(self.engine.concurrency) as pool:
            return list(pool.map(lambda row: one(*row), rows))  # asks nothing more after a fault


def _read(sampling: Sampling, answer: Mapping[str, Any]) -> Marked:
    (choice,) = answer["choices"]
    ids = tuple(int(token) for token in choice["token_ids"])
    values = tuple(float(x["logprob"]) for x in choice["logprobs"]["content"])
    ended = ids[-1] in sampling.stop_ids
    if len(ids) != len(values) or not (ended or len(ids) == sampling.max_new_tokens):
        raise ValueError("it is not whole")
    return Completion(ids, values, ended), {span["version"] for span in choice["weight_versions"]}
