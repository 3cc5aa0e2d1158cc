"""What AlignDistil gains on the embedded world, over seeds, against DPO tuned and DPO given more.

    python benchmarks/facts_study.py --seeds 0 1 2 --grid        # choose learning rates
    python benchmarks/facts_study.py --seeds 3 4 5 6 7 8 9 10    # the study

Each seed is one `alignzoo run`: a world, a tokenizer, an SFT model and preferences of its own.
Finished stages are reused, so an interrupted study goes on. The figures land beside this file.
"""

from __future__ import annotations

from typing import Any

GENTLE, EPOCHS = 1.2e-4, 2  # of the DPO that is AlignDistil's teacher
MATCHED_EPOCHS = 5  # DPO with at least the forward and backward tokens of the whole pipeline
GRID = {EPOCHS: (1.2e-4, 2e-4, 3e-4, 5e-4), MATCHED_EPOCHS: (1.2e-4, 2e-4, 3e-4)}


# --- the recipe ------------------------------------------------------------------------------


def dpo(name: str, lr: float, epochs: int, *, swap: bool = False) -> dict[str, Any]:
    """A DPO stage on the pairs; everything but the rate and the epochs is common to all."""
    return {
        "name": name,
        "algorithm": "dpo",
        "policy": "sft",
        "with": {"beta": 0.1},
        "data": {"name": "pairs", "swap": swap},
        "train": train(lr, micro_batch_size=32, epochs=epochs),
    }


def train(lr: float, **more: Any) -> dict[str, Any]:
    """A `train:` block."""
    return {"batch_size": 64, "micro_batch_size": 64, "lr": lr, "betas": [0.9, 0.98], **more}


def preferences() -> list[dict[str, Any]]:
    """SFT, its answers, and the pairs made of them."""
    return [
        {
            "name": "sft",
            "algorithm": "sft",
            "data": {"name": "facts.sft", "with": {"size": 10_000}},
            "train": train(3e-3, batch_size=32, micro_batch_size=32, epochs=3),
        },
        {
            "name": "answers",
            "stage": "generate",
            "policy": "sft",
            "data": PROMPTS,
            "samples": 2,
            "sampling": SAMPLING,
        },
        {
            "name": "pairs",
            "stage": "label",
            "data": "answers",
            "judge": "facts.annotator",
            "choose": "bradley_terry",
        },
    ]


def distil(name: str, **source: Any) -> dict[str, Any]:
    """A student of the gentle pair, initialised from SFT."""
    return {
        "name": name,
        "algorithm": "aligndistil",
        "policy": "sft",
        "roles": {"teacher": "dpo", "anchor": "reverse"},
        "with": {"r": 2},
        **source,
        "train": train(1e-3, steps=40),
    }


PROMPTS = {"name": "facts.prompts", "with": {"size": 4000}}
SAMPLING = {"max_new_tokens": 64}


def grid_name(epochs: int, lr: float) -> str:
    """dpo-2x-3e-04."""
    return f"dpo-{epochs}x-{lr:.1e}"


def grid_rows() -> list[dict[str, Any]]:
    """Every learning rate of the grid."""
    return [
        dpo(grid_name(epochs, lr), lr, epochs) for epochs, rates in GRID.items() for lr in rates
    ]


def recipe(seed: int, rows: list[dict[str, Any]], kl_to: list[str]) -> dict[str, Any]:
    """The recipe of one seed; every row that trains is evaluated on 300 x 4 answers."""
    return {
        "name": "facts-study",
        "model": "facts",
        "seed": seed,
        "threads": 1,
        "stages": [*preferences(), *rows],
        "evaluate": [
            {
                "benchmark": "facts",
                "with": {"size": 300},
                "models": ["sft", *(row["name"] for row in rows)],
                "baseline": "sft",
                "samples": 4,
                "sampling": SAMPLING,
                "kl_to": kl_to,
            }
        ],
    }
