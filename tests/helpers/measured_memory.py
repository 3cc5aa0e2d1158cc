"""The peak of live tensors in real training, and what the planner predicts for the same stage."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import torch
from accelerate.state import AcceleratorState
from alignzoo_aligndistil import AlignDistil
from alignzoo_dpo import DPO
from alignzoo_grpo import GRPO
from alignzoo_kto import KTO
from alignzoo_ppo import PPO
from alignzoo_sft import SFT
from alignzoo_tdpo import TDPO2
from torch.profiler import ProfilerActivity, profile
from transformers import (
    Gemma3TextConfig,
    GPT2Config,
    LlamaConfig,
    MistralConfig,
    PreTrainedConfig,
    Qwen2Config,
    Qwen3Config,
)

from alignzoo.contract.algorithm import Algorithm
from alignzoo.contract.rollout import Sampling
from alignzoo.contract.stage import ModelRef
from alignzoo.contract.types import Batch, Item, Tokens
from alignzoo.engine.layout.optim import Optim
from alignzoo.engine.memory.fakes import fake_mode, fake_model
from alignzoo.engine.memory.live import Live, Peak
from alignzoo.engine.memory.sampling import Decoding
from alignzoo.engine.memory.walk import Alone, Stage, peaks
from alignzoo.engine.models.adapters import Adapted, Lora
from alignzoo.engine.models.families import class_for
from alignzoo.engine.parallel.ranks import Ranks, start_ranks
from alignzoo.engine.sampling.generate import TransformersEngine
from alignzoo.engine.train.job import Job
from alignzoo.engine.train.loop import train
from alignzoo.engine.train.rails import Rails
from alignzoo.engine.train.sources import Rollout

KNOWN: dict[str, Any] = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
SMALL: dict[str, Any] = {**KNOWN, "hidden_size": 128, "intermediate_size": 320} | {
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "num_hidden_layers": 3,
}


@dataclass(frozen=True)
class Case:
    """A stage: `prompt` and `response` tokens in every row; `rows` are sampled at once."""

    name: str
    algorithm: Algorithm[Any]
    config: Callable[[], PreTrainedConfig]
    optim: Optim
    prompt: int
    response: int
    precision: str = "fp32"
    rows: int = 0  # none: offline
    top_p: float = 1.0
    adapted: Mapping[str, Adapted] = field(default_factory=dict)

    @property
    def rollout(self) -> Rollout | None:
        """One update per buffer; no stop token, so every answer is as long as it may be."""
        if not self.rows:
            return None
        torch.manual_seed(0)
        ids = torch.randint(3, self.config().vocab_size, (2 * self.rows, self.prompt)).tolist()
        group = max(self.algorithm.least_samples, 1)
        return Rollout(
            prompts=[tuple(row) for row in ids],
            reward=lambda numbers, done: [float(k % 2) for k in range(len(done))],
            engine=TransformersEngine(batch_size=self.rows),
            sampling=Sampling(max_new_tokens=self.response, top_p=self.top_p),
            prompts_per_buffer=self.rows // group,
            samples_per_prompt=group,
        )


def _items(case: Case) -> list[Item]:
    kind = case.algorithm.batch
    extra = {f.name for f in fields(kind)} - {f.name for f in fields(Batch)}
    ids = torch.arange(case.prompt + case.response) % (case.config().vocab_size - 3) + 3
    row = Tokens(tuple(ids[: case.prompt].tolist()), tuple(ids[case.prompt :].tolist()))
    rows = (row,) * kind.rows_per_item
    return [
        Item(rows, dict.fromkeys(extra, float(n % 2))) for n in range(2 * case.optim.batch_size)
    ]


def _job(case: Case, load: Callable[[str], Any], ranks: Ranks, folder: Path) -> Job:
    return Job(
        algorithm=case.algorithm,
        adapted=case.adapted,
        load=load,
        digests={role: role for role in case.algorithm.roles},
        items=() if case.rows else _items(case),
        rollout=case.rollout,
        validation=None,
        optim=replace(case.optim, steps=2),
        pad_id=0,
        seed=0,
        folder=folder,
        cache=folder / "cache",
        ranks=ranks,
        rails=Rails(say=lambda text: None),
    )


def measured(case: Case, folder: Path) -> tuple[float, float]:
    """(live storages, what the allocator had given out) at the peak of two real steps, in bytes.

    The allocator's own events know nothing of the planner; they include what kernels take inside.
    """
    AcceleratorState._reset_state()  # a process has one precision, but cases share a process
    roles = case.algorithm.roles

    def load(role: str) -> Any:
        torch.manual_seed(0)
        config = copy.deepcopy(case.config())
        config.num_labels = 1 if roles[role].head == "scalar" else 2
        return class_for(config, roles[role], role).from_config(config, dtype=torch.float32)

    live = Live()
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as watched, live:
        train(_job(case, load, start_ranks(case.precision), folder))
    AcceleratorState._reset_state()
    events = [e for e in watched.profiler.kineto_results.events() if e.name() == "[memory]"]
    now = given_out = 0
    for event in sorted(events, key=lambda e: e.start_ns()):
        now += event.nbytes()
        given_out = max(given_out, now)
    return live.peaks["all"].total, float(given_out)


def predicted(case: Case, gpu: bool = False) -> Peak:
    """The same stage on tensors without data, for the CPU or a GPU."""
    mode, roles = fake_mode(), case.algorithm.roles

    def load(role: str) -> Any:
        return fake_model(case.config(), roles[role], ModelRef(role), mode)

    ranks = Ranks(Alone("bf16" if case.precision == "bf16" else "no"))
    rollout, decoding = case.rollout, None
    if rollout is not None:
        decoding = Decoding(case.rows, case.prompt, rollout.sampling)
    job = _job(case, load, ranks, Path())
    return peaks(Stage(job, mode, case.prompt, case.response, case.prompt, gpu, decoding))["ddp"]


def optim(**changes: Any) -> Optim:
    """Four micro-batches of two items, and small chunks."""
    return Optim(**{"batch_size": 8, "micro_batch_size": 2, "chunk_mb": 4, **changes})


def qwen2() -> PreTrainedConfig:
    return Qwen2Config(vocab_size=2000, tie_word_embeddings=True, **SMALL)


def llama(layers: int = 3) -> PreTrainedConfig:
    shape = {**SMALL, "num_hidden_layers": layers}
    return LlamaConfig(vocab_size=1500, tie_word_embeddings=False, **shape)


def gpt2() -> PreTrainedConfig:
    return GPT2Config(vocab_size=1500, n_embd=128, n_layer=2, n_head=4, n_positions=256, **KNOWN)


def gemma3() -> PreTrainedConfig:
    more = {"sliding_window": 32, "final_logit_softcapping": 30.0, "head_dim": 32}
    return Gemma3TextConfig(vocab_size=1500, **SMALL, **more)


def qwen3() -> PreTrainedConfig:
    return Qwen3Config(vocab_size=1200, head_dim=32, **SMALL)


def mistral() -> PreTrainedConfig:
    return MistralConfig(vocab_size=700, sliding_window=None, **{**SMALL, "num_hidden_layers": 6})


ONE_BASE = {
    "policy": Adapted("base", new=Lora(8)),
    "teacher": Adapted("base", new=Lora(8)),
    "anchor": Adapted("base"),
}
CASES = (
    Case("DPO, Llama, checkpointing", DPO(), llama, optim(gradient_checkpointing=True), 30, 60),
    Case("AlignDistil, Qwen2, bf16", AlignDistil(r=2.0), qwen2, optim(), 20, 70, "bf16"),
    Case("KTO, GPT-2, wide batch", KTO(), gpt2, optim(micro_batch_size=4), 10, 80),
    Case("SFT, Gemma 3, dense scorer", SFT(), gemma3, optim(scorer="dense"), 20, 80),
    Case("TDPO2, Qwen2, 1 MB chunks", TDPO2(), qwen2, optim(chunk_mb=1), 8, 100),
    Case("PPO, Qwen3, bf16, two learn", PPO(), qwen3, optim(), 16, 24, "bf16", rows=8),
    Case("GRPO, Llama, top-p", GRPO(), llama, optim(), 24, 30, rows=8, top_p=0.9),
    Case(
        "AlignDistil, Mistral, much sampled",
        AlignDistil(r=2.0),
        mistral,
        optim(batch_size=48, micro_batch_size=1, gradient_checkpointing=True),
        20,
        60,
        rows=48,
    ),
    Case(
        "AlignDistil, Qwen3, adapters of one base",
        AlignDistil(r=2.0),
        qwen3,
        optim(),
        16,
        60,
        adapted=ONE_BASE,
    ),
)

ADAPTED = Case(
    "AlignDistil, Qwen2, three adapters",
    AlignDistil(r=2.0),
    qwen2,
    optim(),
    20,
    30,
    rows=8,
    adapted={role: Adapted("base", new=Lora(r=8)) for role in ("policy", "teacher", "anchor")},
)
