"""How the cost of training grows: CPU seconds against one size at a time, and the line through them.

    python benchmarks/scaling.py [--only length vocabulary batch pairs prompts] [--json]

Llama with H = 64 and 2 layers, one thread, a process for each size, in turns. DPO steps on pairs
against the length of an answer, the size of the vocabulary and the pairs of a step; a whole DPO
stage, the reference pass included, against the pairs of its data; GRPO steps against the prompts
that are sampled for, four answers of 16 tokens each. `NAME_fit` is R^2 of the straight line: what
grows faster or slower than its size is below 1. About four minutes of one core.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

from measured import Bar, Line, Spent, in_turns, middle, parser, progress, show, spent

USUAL = {"length": 64, "vocabulary": 4096, "batch": 8, "pairs": 8, "prompts": 0}
SIZES = {
    "length": (64, 128, 192, 256),
    "vocabulary": (4096, 16_384, 28_672, 40_960),
    "batch": (8, 16, 24, 32),
    "pairs": (32, 64, 96, 128),
    "prompts": (4, 8, 12, 16),
}
SMALL = {axis: tuple(n * k for k in (1, 2, 3)) for axis, n in (USUAL | {"prompts": 2}).items()}
WARM, STEPS = 1, 4  # steps that are left out, and that are counted
BARS = {f"{axis}_fit": Bar(0.95, 0.99, at_most=False) for axis in SIZES}


def work(size: dict[str, int]) -> float:
    """CPU seconds of a step, or of the whole stage where its number of pairs is what varies."""
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

    torch.set_num_threads(1)
    draw = torch.Generator().manual_seed(0)

    def words(n: int) -> tuple[int, ...]:
        return tuple(torch.randint(1, size["vocabulary"], (n,), generator=draw).tolist())

    def load(role: str) -> LlamaForCausalLM:
        torch.manual_seed(0)
        config = LlamaConfig(
            vocab_size=size["vocabulary"],
            hidden_size=64,
            intermediate_size=172,
            num_hidden_layers=2,
            num_attention_heads=4,
            max_position_embeddings=2048,
        )
        return LlamaForCausalLM(config)

    def pair() -> Item:
        prompt = words(16)
        return Item((Tokens(prompt, words(size["length"])), Tokens(prompt, words(size["length"]))))

    optim = Optim(batch_size=size["batch"], micro_batch_size=8, lr=1e-6, steps=WARM + STEPS)
    more: dict[str, Any] = {"algorithm": DPO(), "rollout": None, "optim": optim}
    if size["prompts"]:
        sampled = Rollout(
            prompts=[words(16) for _ in range(size["prompts"])],
            reward=lambda numbers, done: [float(sum(one.ids)) for one in done],
            engine=TransformersEngine(),
            sampling=Sampling(max_new_tokens=16, stop_ids=(0,)),
            prompts_per_buffer=size["prompts"],
            samples_per_prompt=4,
        )
        items = 4 * size["prompts"]
        more = {"algorithm": GRPO(), "rollout": sampled, "items": ()}
        more["optim"] = Optim(batch_size=items, micro_batch_size=8, lr=1e-6, steps=WARM + STEPS)
    elif size["pairs"] > USUAL["pairs"]:
        more["optim"] = Optim(batch_size=8, micro_batch_size=8, lr=1e-6)
    more.setdefault("items", [pair() for _ in range(max(size["pairs"], size["batch"]))])
    with tempfile.TemporaryDirectory() as text:
        folder = Path(text)
        digests = dict.fromkeys(more["algorithm"].roles, "0")
        rest = {"validation": None, "pad_id": 0, "seed": 0, "ranks": start_ranks("fp32")}
        train(
            Job(load=load, digests=digests, folder=folder, cache=folder / "cache", **rest, **more)
        )
        log = (folder / "timing.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in log]
    if size["pairs"] > USUAL["pairs"]:
        return float(rows[-1]["cpu_seconds"])
    return sum(row["cpu_seconds"] for row in rows if row.get("step", 0) > WARM) / STEPS


def measured(size: dict[str, int]) -> Spent:
    """In a process of its own."""
    found = spent([sys.executable, __file__, "--work", json.dumps(size)])
    return Spent(found.said["cpu"], found.peak)


def main() -> None:
    """Measure, fit, show."""
    own = parser(__doc__)
    own.add_argument("--only", nargs="+", choices=SIZES, default=list(SIZES), metavar="AXIS")
    own.add_argument("--work", type=json.loads, help="for the processes that this starts")
    asked = own.parse_args()
    if asked.work:
        print("\n" + json.dumps({"cpu": work(asked.work)}))
        return
    rows, figures = [], {}
    for axis in asked.only:
        sizes = (SMALL if asked.small else SIZES)[axis]
        works = {n: partial(measured, USUAL | {axis: n}) for n in sizes}
        found = {n: middle(some) for n, some in in_turns(works, asked.rounds).items()}
        line = Line.through(list(found), [x.cpu for x in found.values()])
        figures |= {f"{axis}_slope": line.slope, f"{axis}_fit": line.fit}
        rows += [
            {"axis": axis, "size": n, "CPU s": x.cpu, "line": line.start + line.slope * n}
            for n, x in found.items()
        ]
        progress(f"{axis}: {line}")
    show(asked, rows, figures, BARS)


if __name__ == "__main__":
    os.chdir(Path(__file__).resolve().parent)
    main()
