"""Write what is generated: metrics.md, parity.md, rooms.svg and ../recipe.schema.json.

python docs/make.py
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

from alignzoo.recipe.file import recipe_schema
from alignzoo.recipe.registry import Registry, load_plugins

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "tests" / "helpers")]

from parity_ledger import LEDGER  # noqa: E402  (the tests exercise the same entries)
from rooms import picture  # noqa: E402

ENGINE = {  # logged for every method: (meaning, unit, healthy)
    "loss": ("the loss over the optimiser batch; `loss/NAME` where it has several terms", "", ""),
    "grad_norm": ("gradient norm before clipping; `grad_norm/ROLE` with several roles", "", ""),
    "lr": ("learning rate of the step", "", ""),
    "response_length": ("mean response length, stop token included", "tokens", ""),
    "padding": ("share of scored columns that are padding", "", "< 0.2"),
    "rollout/length": ("mean length of sampled responses", "tokens", ""),
    "rollout/truncated": ("share of them cut at max_new_tokens", "", "rails.max_truncated"),
    "rollout/reward": ("mean reward of sampled responses", "", ""),
    "rollout/ties": ("pairs made of them by lot, because nothing spoke for either", "share", ""),
    "rollout/logprob_gap": ("mean |log p of trainer - engine|", "nats", "< rollout.max_gap"),
    "kl_full/ROLE": ("KL(policy || frozen start), full vocabulary", "nats", "rails.max_kl"),
    "validation/NAME": ("the metric on held-out data", "", ""),
}


def metrics_page(registry: Registry) -> Iterator[str]:
    """The glossary: engine first, then every method."""
    yield "# Metrics\n"
    yield "Written by `python docs/make.py` from what the engine and the plug-ins declare."
    yield "A method that logs an undeclared metric is stopped. A mean over ten steps outside the"
    yield "healthy range is reported, or stops the run with `rails: {on_breach: stop}`.\n"
    yield "## Every method\n"
    yield from _table(("metric", "meaning", "unit", "healthy"))
    for name, (doc, unit, healthy) in ENGINE.items():
        yield f"| `{name}` | {_cell(doc)} | {unit} | {healthy} |"
    for name, cls in sorted(registry.algorithms.items()):
        yield f"\n## {name}\n"
        yield from _table(("metric", "meaning", "unit", "healthy"))
        for metric, spec in cls.metrics.items():
            low = "" if spec.low is None else f">= {spec.low:g}"
            high = "" if spec.high is None else f"<= {spec.high:g}"
            healthy = " ".join(filter(None, (low, high)))
            yield f"| `{metric}` | {_cell(spec.doc)} | {spec.unit} | {healthy} |"


def parity_page() -> Iterator[str]:
    """Where paper and released code differ, which is the default, and the option for the other."""
    yield "# Parity ledger\n"
    yield "Where a paper and its released code differ, the paper is the default and the other"
    yield "reading an option. Written by `docs/make.py` from `tests/helpers/parity_ledger.py`;"
    yield "a test computes both readings and fails when an option stops making a difference.\n"
    yield from _table(("method", "topic", "default", "other reading", "option"))
    for entry in LEDGER:
        option = ", ".join(f"{key}: {value}" for key, value in entry.other.items())
        cells = (f"`{entry.method}`", entry.topic, entry.paper, entry.code, f"`{option}`")
        yield f"| {' | '.join(map(_cell, cells))} |"


def _table(head: tuple[str, ...]) -> Iterator[str]:
    yield f"| {' | '.join(head)} |"
    yield "|" + "---|" * len(head)


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def pages() -> dict[str, str]:
    """File name, seen from here -> text."""
    registry = load_plugins()
    return {
        "metrics.md": "\n".join(metrics_page(registry)) + "\n",
        "parity.md": "\n".join(parity_page()) + "\n",
        "rooms.svg": "\n".join(picture()) + "\n",
        "../recipe.schema.json": json.dumps(recipe_schema(registry), indent=1) + "\n",
    }


if __name__ == "__main__":
    for name, text in pages().items():
        (HERE / name).write_text(text, encoding="utf-8")
