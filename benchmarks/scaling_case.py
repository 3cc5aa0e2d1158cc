"""A small training stage of a given size in this process: what scaling.py starts."""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from alignzoo_dpo.algorithm import DPO
from alignzoo_grpo.algorithm import GRPO
from transformers import LlamaConfig, LlamaForCausalLM

from alignzoo.contract.rollout import Sampling
from alignzoo.contract.types import Item, Tokens
from alignzoo.engine.layout.optim import Optim
from alignzoo.engine.parallel.ranks import start_ranks
from alignzoo.engine.sampling.generate import TransformersEngine
from alignzoo.engine.train.job import Job
from alignzoo.engine.train.loop import train
from alignzoo.engine.train.sources import Rollout

WARM, STEPS = 1, 4  # steps that are left out, and that are counted
MICRO = 8
DRAW = torch.Generator().manual_seed(0)
Size = dict[str, int]


def words(n: int, size: Size) -> tuple[int, ...]:
    """Random ids but 0, which ends an answer."""
    return tuple(torch.randint(1, size["vocabulary"], (n,), generator=DRAW).tolist())


def model(vocabulary: int) -> LlamaForCausalLM:
    """The same random weights for every role."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=64,
        intermediate_size=172,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=2048,
    )
    return LlamaForCausalLM(config)


def pair(size: Size) -> Item:
    """Two answers to one prompt."""
    prompt, n = words(16, size), size["length"]
    return Item((Tokens(prompt, words(n, size)), Tokens(prompt, words(n, size))))


def offline(size: Size, *, whole: bool) -> dict[str, Any]:
    """DPO: some steps, or one pass over all pairs."""
    count = size["pairs"] if whole else size["batch"]
    steps = {} if whole else {"steps": WARM + STEPS}
    optim = Optim(batch_size=size["batch"], micro_batch_size=MICRO, lr=1e-6, **steps)
    items = [pair(size) for _ in range(count)]
    return {"algorithm": DPO(), "rollout": None, "items": items, "optim": optim}


def online(size: Size) -> dict[str, Any]:
    """GRPO: some steps."""
    rollout = Rollout(
        prompts=[words(16, size) for _ in range(size["prompts"])],
        reward=lambda numbers, done: [float(sum(one.ids)) for one in done],
        engine=TransformersEngine(),
        sampling=Sampling(max_new_tokens=16, stop_ids=(0,)),
        prompts_per_buffer=size["prompts"],
        samples_per_prompt=4,
    )
    items = 4 * size["prompts"]
    optim = Optim(batch_size=items, micro_batch_size=MICRO, lr=1e-6, steps=WARM + STEPS)
    return {"algorithm": GRPO(), "rollout": rollout, "items": (), "optim": optim}


def main(axis: str, size: Size) -> float:
    """CPU seconds of a step, or of the whole stage where its number of pairs is what varies."""
    whole = axis == "pairs"
    kind = online(size) if axis == "prompts" else offline(size, whole=whole)
    with tempfile.TemporaryDirectory() as text:
        folder = Path(text)
        job = Job(
            load=lambda role: model(size["vocabulary"]),
            digests=dict.fromkeys(kind["algorithm"].roles, "0"),
            validation=None,
            pad_id=0,
            seed=0,
            folder=folder,
            cache=folder / "cache",
            ranks=start_ranks("fp32"),
            **kind,
        )
        train(job)
        log = (folder / "timing.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in log]
    if whole:
        return float(rows[-1]["cpu_seconds"])
    return sum(row["cpu_seconds"] for row in rows if row.get("step", 0) > WARM) / STEPS


if __name__ == "__main__":
    torch.set_num_threads(1)
    print("\n" + json.dumps({"cpu": main(sys.argv[1], json.loads(sys.argv[2]))}))
