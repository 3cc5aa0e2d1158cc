"""Tokens that the engine samples per CPU second, beside a loop written by hand for the model.

    python benchmarks/rollout.py [--rounds 15] [--json]

The embedded model, 64 and 256 prompts of its world with 48 new tokens each, and a Llama with
V = 32,000, H = 256 and 4 layers, 32 prompts of 20 to 40 tokens with 48 new ones. All prompts are
different and no answer stops, so both do the same work; float32, one thread, one process, in
turns. The loop (hand_written.py) uses the weights directly and knows Llamas alone. Both draw with
the same noise, so their tokens are the same but for rounding; the command stops where they are not.

`NAME` is the engine's tokens per CPU second over the loop's. About two minutes of one core.
"""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from alignzoo_facts.data import HeldOutPrompts
from alignzoo_facts.model import build_model, build_tokenizer
from hand_written import Loop
from measured import Bar, Spent, in_turns, parser, show
from transformers import LlamaConfig, LlamaForCausalLM

from alignzoo import ModelRef
from alignzoo.contract.algorithm import Role
from alignzoo.contract.rollout import Sampling, sample_key
from alignzoo.engine.sampling.generate import TransformersEngine
from alignzoo.engine.sampling.picker import uniform

BARS = dict.fromkeys(("facts_64", "facts_256", "llama_32k"), Bar(0.85, 0.95, at_most=False))
SAME = 0.99  # share of answers that must be the same; a token in 10^4 lies at a boundary
ROUNDS = 15


@dataclass(frozen=True)
class Case:
    """A model and its prompts."""

    model: Any
    prompts: Sequence[Sequence[int]]
    new: int

    @property
    def tokens(self) -> int:
        """Sampled in one turn."""
        return len(self.prompts) * self.new


def facts(n: int, new: int) -> Case:
    """The embedded model, untrained, with prompts of its benchmark."""
    tokenizer = build_tokenizer()
    prompts = [
        tokenizer.apply_chat_template(
            list(sample.prompt), add_generation_prompt=True, tokenize=True, return_dict=False
        )
        for sample in HeldOutPrompts(n).samples(0)
    ]
    return Case(build_model(ModelRef("facts", 0), Role()).eval(), prompts, new)


def llama(n: int, new: int, **size: int) -> Case:
    """Random weights and random prompts."""
    torch.manual_seed(0)
    config = LlamaConfig(
        **size, num_attention_heads=4, num_key_value_heads=4, max_position_embeddings=2048
    )
    noise = random.Random(0)
    prompts = [
        [noise.randrange(config.vocab_size) for _ in range(noise.randint(20, 40))] for _ in range(n)
    ]
    return Case(LlamaForCausalLM(config).eval(), prompts, new)


def cases(*, small: bool) -> dict[str, Case]:
    """By the name of their figure."""
    if small:
        tiny = {"vocab_size": 5000, "hidden_size": 32, "intermediate_size": 64}
        return {"facts_64": facts(8, 6), "llama_32k": llama(6, 5, num_hidden_layers=1, **tiny)}
    size = {"vocab_size": 32_000, "hidden_size": 256, "intermediate_size": 688}
    wide = llama(32, 48, num_hidden_layers=4, **size)
    return {"facts_64": facts(64, 48), "facts_256": facts(256, 48), "llama_32k": wide}


def ways(case: Case) -> dict[str, Callable[[], list[list[int]]]]:
    """How its answers are sampled: ids of each."""
    keys = [sample_key(0, n) for n in range(len(case.prompts))]
    noise = uniform(keys, case.new, torch.device("cpu"))
    session = TransformersEngine(len(keys)).start(case.model)

    def engine() -> list[list[int]]:
        done = session.generate(case.prompts, Sampling(case.new), keys)
        return [list(c.ids) for c in done]

    def by_hand() -> list[list[int]]:
        tokens, log_probs = Loop(case.model, case.prompts, case.new).sample(noise)
        log_probs.tolist()  # as the engine gives them
        return tokens.tolist()

    return {"hand": by_hand, "engine": engine}


def timed(work: Callable[[], Any]) -> Spent:
    """CPU seconds, user and system, of this process."""
    before = time.process_time()
    work()
    return Spent(time.process_time() - before, 0.0)


def measure(name: str, case: Case, rounds: int) -> tuple[dict[str, Any], float]:
    """A row, and the ratio: the median over rounds, whose turns met the same machine."""
    works = ways(case)
    ids = {way: work() for way, work in works.items()}  # and warm both up
    same = statistics.fmean(a == b for a, b in zip(*ids.values(), strict=True))
    if same < SAME:
        raise SystemExit(f"{name}: only {same:.1%} of the answers are those of the loop")
    turns = in_turns({w: lambda work=work: timed(work) for w, work in works.items()}, rounds)
    speed = {way: case.tokens / statistics.median(s.cpu for s in turns[way]) for way in works}
    ratio = statistics.median(
        a.cpu / b.cpu for a, b in zip(turns["hand"], turns["engine"], strict=True)
    )
    return {
        "case": name,
        "rows x new tokens": f"{len(case.prompts)} x {case.new}",
        "engine tokens / CPU s": speed["engine"],
        "by hand": speed["hand"],
        "ratio": ratio,
        "same answers": same,
    }, ratio


def main() -> None:
    """Measure, compare, show."""
    torch.set_num_threads(1)
    own = parser(__doc__)
    own.set_defaults(rounds=ROUNDS)
    asked = own.parse_args()
    rows, figures = [], {}
    for name, case in cases(small=asked.small).items():
        row, figures[name] = measure(name, case, asked.rounds)
        rows.append(row)
    show(asked, rows, figures, BARS)


if __name__ == "__main__":
    main()
