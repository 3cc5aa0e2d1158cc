"""What one step of every method costs beside one of DPO, on the embedded model.

    python benchmarks/costs.py              # all methods; or --only NAME...

64 items of the facts world (a pair has two rows, a labelled answer two, everything else one; of
methods on groups 16 groups of four) in micro-batches of 32 items or 32 rows of groups, through the
fused scorer on one thread. A teacher that sees a hint reads a writer's answer first. *step* is
the forward and backward pass of what is trained, *frozen* the one pass over what is read without
gradient; both are CPU seconds, the fastest of seven. Sampling, rewards and the optimiser's update
are left out, because they are the same code for every method.

Writes results/costs.json beside this file; methods that are not named keep their figures.
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from random import Random
from typing import Any

import torch
from alignzoo_facts.data import Written
from alignzoo_facts.model import build_model, build_tokenizer

from alignzoo import ModelRef
from alignzoo.contract.algorithm import Algorithm
from alignzoo.contract.choosing import fields_of_rows
from alignzoo.contract.groups import GroupBatch
from alignzoo.contract.types import Batch, Item, RolloutBatch, Tokens
from alignzoo.contract.views import seen_by
from alignzoo.engine.parallel.ranks import start_ranks
from alignzoo.engine.scoring.packing import Packer
from alignzoo.engine.scoring.scorer import SCORERS, ScoringModule
from alignzoo.engine.train.batches import micro_batches
from alignzoo.engine.train.moving import special_of
from alignzoo.engine.train.step import denominators, share_of_loss
from alignzoo.engine.train.world import BufferWorld
from alignzoo.recipe.options import try_options
from alignzoo.recipe.registry import load_plugins

RESULTS = Path(__file__).parent / "results" / "costs.json"
ITEMS, MICRO, GROUP, REPEATS, SEED = 64, 32, 4, 7, 0


def tokens() -> list[Tokens]:
    """Twice as many answers of the world's writers as there are items."""
    tokenizer = build_tokenizer()
    rows = []
    for sample in Written(size=2 * ITEMS).samples(SEED):
        prompt = tokenizer.apply_chat_template(
            list(sample.prompt), add_generation_prompt=True, tokenize=True, return_dict=False
        )
        answer = tokenizer.encode(sample.response.text, add_special_tokens=False)
        rows.append(Tokens(tuple(prompt), (*answer, tokenizer.eos_token_id)))
    return rows


def items(method: Algorithm[Any]) -> list[Item]:
    """The same 64 prompts for every method; further rows of an item are other answers.

    Of groups there are 16, so that they have as many rows.
    """
    rows, random = tokens(), Random(SEED)
    kind, names = kind_of(method), sorted(set(seen_by(method).values()))
    groups = issubclass(kind, GroupBatch)
    made = []
    for n in range(ITEMS // GROUP if groups else ITEMS):
        first, *others = rows[n], *rows[ITEMS + n :: ITEMS // GROUP]
        answers = (first, *(Tokens(first.prompt, other.response) for other in others))
        answers = answers[: kind.rows_per_item]
        values: dict[str, Any] = {name: float(n % 2) for name in fields_of_rows(kind)}
        if issubclass(kind, RolloutBatch):
            values |= {"reward": random.random(), "ended": 1.0, "group": float(n // 4)}
        elif groups:
            values |= {"score": tuple(2 * random.random() for _ in answers)}
            values |= {"ended": (1.0,) * GROUP}
        hint = others[0].response[:-1]
        told = tuple(Tokens((*hint, *x.prompt), x.response) for x in answers)
        made.append(Item(answers, values, dict.fromkeys(names, told)))
    return made


def kind_of(method: Algorithm[Any]) -> type[Batch]:
    """What the method's batch is made as."""
    own = method.batch
    return own.of(GROUP) if issubclass(own, GroupBatch) else own


def models(method: Algorithm[Any]) -> ScoringModule:
    """An untrained model of the world for every role."""
    ref = ModelRef("facts", SEED)
    special = special_of(method)
    roles = {name: role for name, role in method.roles.items() if name not in special.shared}
    built = {name: build_model(ref, role) for name, role in roles.items()}
    trainable = frozenset(name for name, role in roles.items() if role.trainable)
    return ScoringModule(built, trainable, SCORERS["fused"](256 * 2**20), special)


def fastest(work: Callable[[], object]) -> float:
    """CPU seconds."""
    spent = []
    for _ in range(REPEATS):
        started = time.process_time()
        work()
        spent.append(time.process_time() - started)
    return min(spent)


def measure(method: Algorithm[Any]) -> dict[str, float]:
    """{step, frozen: CPU seconds; rows, tokens: of the batch} of one method."""
    module, ranks = models(method), start_ranks("fp32")
    batch = kind_of(method).collate(items(method), 0)
    micro = MICRO // GROUP if isinstance(batch, GroupBatch) else MICRO
    parts = micro_batches(Packer(batch), micro)

    @torch.no_grad()
    def frozen() -> dict[str, torch.Tensor]:
        return module(batch, method.snapshots()) if method.snapshots() else {}

    state = method.init_state()
    given = frozen()
    given |= method.prepare(batch, given, BufferWorld(ranks, batch, state))
    terms = denominators(method.loss, batch, given, state, ranks)

    def step() -> None:
        module.zero_grad()
        for part in parts:
            rows, known = batch.take(part), batch.take_signals(part, given)
            live = module(rows, method.signals())
            share_of_loss(method.loss(rows, {**known, **live}, state), terms).backward()

    seconds = {"step": fastest(step), "frozen": fastest(frozen) if method.snapshots() else 0.0}
    return {**seconds, "rows": batch.ids.shape[0], "tokens": int(batch.attention.sum())}


def main(only: Sequence[str]) -> None:
    """Measure, and keep what was measured before."""
    torch.set_num_threads(1)
    registry = load_plugins()
    # One process and one time: the ratio to DPO is what counts, and machines drift.
    names = sorted(registry.algorithms) if not only else sorted({"dpo", *only})
    found = {}
    for name in names:
        cls = registry.algorithms[name]
        method = try_options(cls, {})[0] or try_options(cls, cls.example_options)[0]
        found[name] = measure(method)
        print(f"{name}: {found[name]['step']:.3f} s, frozen {found[name]['frozen']:.3f} s")
    base = found["dpo"]["step"]
    old = json.loads(RESULTS.read_text(encoding="utf-8"))["methods"] if RESULTS.exists() else {}
    rows = {
        name: {k: round(x, 4) for k, x in row.items()} | {"relative": round(row["step"] / base, 3)}
        for name, row in found.items()
    }
    kept = {name: row for name, row in old.items() if name in registry.algorithms and only}
    machine = f"one core of {platform.machine()}, {platform.system()}"
    about = {
        "command": "python benchmarks/costs.py",
        "machine": machine,
        "torch": torch.__version__,
    }
    about |= {"items": ITEMS, "micro_batch_size": MICRO, "seed": SEED, "repeats": REPEATS}
    page = {"about": about, "methods": dict(sorted({**kept, **rows}.items()))}
    RESULTS.write_text(json.dumps(page, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--only", nargs="*", default=[], metavar="NAME")
    main(parser.parse_args().only)
