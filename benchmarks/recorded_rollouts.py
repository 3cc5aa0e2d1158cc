"""A rollout engine that gives every run the answers of the first one, and counts what differs.

A plug-in for `ranks.py`, which puts it on the path. Each call samples live; the first run keeps
what it sampled by key, and a later one returns that, having compared it with its own.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from alignzoo import Completion, RolloutEngine, RolloutSession, Sampling, hookimpl, option
from alignzoo.engine.sampling.generate import TransformersEngine


@dataclass(frozen=True)
class Recorded(RolloutEngine):
    """Samples by transformers; answers are those of the run that came first."""

    name: ClassVar[str] = "recorded"
    folder: str = option("recorded", "where answers are kept")
    first: bool = option(False, "this run is the first")

    def start(self, model):
        inner = TransformersEngine().start(model)
        return Session(inner, Path(self.folder), self.first)


class Session(RolloutSession):
    def __init__(self, inner, folder, first) -> None:
        self.inner, self.first = inner, first
        rank = os.environ.get("RANK", "0")
        self.answers = folder / "answers.jsonl"
        self.counts = folder / f"counts-{os.environ['RANKS_LABEL']}-{rank}.jsonl"
        rows = self.answers.read_text().splitlines() if self.answers.exists() else []
        self.known = {row["key"]: row for row in map(json.loads, rows)}

    def sync(self, weights, version):
        self.inner.sync(weights, version)

    def generate(
        self, prompts: Sequence[Sequence[int]], sampling: Sampling, keys: Sequence[int]
    ) -> list[Completion]:
        live = self.inner.generate(prompts, sampling, keys)
        if self.first:
            with self.answers.open("a") as file:
                for key, c in zip(keys, live, strict=True):
                    row = {"key": key, "ids": c.ids, "log_probs": c.log_probs, "ended": c.ended}
                    file.write(json.dumps(row) + "\n")
            return live
        kept = [self.known[key] for key in keys]
        other = sum(tuple(r["ids"]) != c.ids for r, c in zip(kept, live, strict=True))
        with self.counts.open("a") as file:
            file.write(json.dumps([len(live), other]) + "\n")
        return [Completion(tuple(r["ids"]), tuple(r["log_probs"]), r["ended"]) for r in kept]

    def close(self) -> None:
        self.inner.close()


@hookimpl
def register_rollout_engines():
    return [Recorded]
