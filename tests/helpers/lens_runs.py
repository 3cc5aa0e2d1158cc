"""A run of tiny stages whose losses remember the signals that they were given."""

import sys
from dataclasses import dataclass

from alignzoo_aligndistil import AlignDistil
from alignzoo_grpo import GRPO
from extra_methods import Mirrored, Twin
from small_models import run_stages, word_model, write_rows

from alignzoo import Algorithm, Judge, Score, TextBatch, hookimpl
from alignzoo.recipe.registry import load_plugins

HOOKS_VERSION = 1

SEEN = []  # (algorithm, ids [B, S], signals and the mask of responses) of real losses


def remember(algorithm, batch, signals):
    """Keep what a loss was given; the engine's first call has zeros and no mapping of tensors."""
    if isinstance(signals, dict):
        kept = {name: x.detach().clone() for name, x in signals.items()}
        SEEN.append(
            (algorithm.name, batch.ids.clone(), {**kept, "response": batch.response.clone()})
        )


@dataclass(frozen=True)
class Recorded(AlignDistil):
    """AlignDistil that remembers."""

    name = "recorded"

    def loss(self, batch, signals, state):
        remember(self, batch, signals)
        return super().loss(batch, signals, state)


@dataclass(frozen=True)
class RecordedGRPO(GRPO):
    """GRPO that remembers."""

    name = "recorded-grpo"

    def loss(self, batch, signals, state):
        remember(self, batch, signals)
        return super().loss(batch, signals, state)


@dataclass(frozen=True)
class Deaf(Algorithm[TextBatch]):
    """A method that reads nothing from its models."""

    name = "deaf"
    batch = TextBatch


@dataclass(frozen=True)
class Letters(Judge):
    """One point for every letter."""

    name = "letters"

    def score(self, answers):
        return [Score(float(len(a.response.text))) for a in answers]


@hookimpl
def register_algorithms():
    """The methods that remember."""
    return [Recorded, RecordedGRPO, Deaf, Twin, Mirrored]


@hookimpl
def register_judges():
    """The judge of rollouts."""
    return [Letters]


def registry():
    """Everything installed, and what stands here."""
    return load_plugins([sys.modules[__name__]])


PAIRS = [
    {"prompt": "hello how", "chosen": "are you fine", "rejected": "bye the"},
    {"prompt": "the cat", "chosen": "sat on a mat", "rejected": "ran bye"},
    {"prompt": "how are you", "chosen": "fine", "rejected": "the cat sat on a mat"},
]
TEXTS = [{"prompt": r["prompt"], "response": r["chosen"]} for r in PAIRS]
STILL = {
    "steps": 1,
    "batch_size": 3,
    "micro_batch_size": 3,
    "lr": 1e-12,
}  # weights stay as they are
MOVED = {"steps": 4, "batch_size": 3, "micro_batch_size": 3, "lr": 2e-2}


def lens_run(folder):
    """The run's folder: dpo, its reverse, AlignDistil at both positions, GRPO."""
    model = word_model(folder / "model")
    pairs, texts = write_rows(folder / "pairs.jsonl", PAIRS), write_rows(folder / "t.jsonl", TEXTS)
    SEEN.clear()

    def distilled(name, **options):
        return {"name": name, "algorithm": "recorded", "roles": {"teacher": "dpo",
                "anchor": "reverse"}, "with": {"r": 2.0, **options}, "data": {"name": texts},
                "train": STILL}  # fmt: skip

    stages = [
        {"name": "dpo", "algorithm": "dpo", "data": {"name": pairs}, "train": MOVED},
        {"name": "reverse", "algorithm": "dpo", "data": {"name": pairs, "swap": True},
         "train": MOVED},
        distilled("aligned"),
        distilled("official", positions="official"),
        {"name": "grpo", "algorithm": "recorded-grpo", "data": {"name": texts}, "train":
         {**STILL, "batch_size": 6, "micro_batch_size": 6},
         "rollout": {"prompts": 3, "samples_per_prompt": 2, "sampling": {"max_new_tokens": 6},
                     "reward": {"judge": "letters"}}},
    ]  # fmt: skip
    run_stages(model, folder / "run", *stages, registry=registry())
    return folder / "run"
