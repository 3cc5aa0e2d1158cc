"""Write what is generated: metrics.md, parity.md, rooms.svg and ../recipe.schema.json.

python docs/make.py
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

from alignzoo.contract.algorithm import Metric
from alignzoo.contract.logged import LOGGED
from alignzoo.recipe.file import recipe_schema
from alignzoo.recipe.registry import Registry, load_plugins

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "tests" / "helpers")]

from parity_ledger import LEDGER  # noqa: E402  (the tests exercise the same entries)
from rooms import picture  # noqa: E402

HEALTHY = {  # where the bound is the recipe's
    "rollout/truncated": "rails.max_truncated",
    "rollout/logprob_gap": "< rollout.max_gap",
    "kl_full/ROLE": "rails.max_kl",
}


def metrics_page(registry: Registry) -> Iterator[str]:
    """The glossary: engine first, then every method."""
    yield "# Metrics\n"
    yield "Written by `python docs/make.py` from what the engine and the plug-ins declare."
    yield "A method that logs an undeclared metric is stopped. A mean over ten steps outside the"
    yield "healthy range is reported, or stops the run with `rails: {on_breach: stop}`.\n"
    yield "## Every method\n"
    yield from _table(("metric", "meaning", "unit", "healthy"))
    for name, metric in LOGGED.items():
        yield _row(name, metric, HEALTHY.get(name) or _range(metric))
    for name, cls in sorted(registry.algorithms.items()):
        yield f"\n## {name}\n"
        yield from _table(("metric", "meaning", "unit", "healthy"))
        for metric, spec in cls.metrics.items():
            yield _row(metric, spec, _range(spec))


def _row(name: str, metric: Metric, healthy: str) -> str:
    return f"| `{name}` | {_cell(metric.doc)} | {metric.unit} | {healthy} |"


def _range(metric: Metric) -> str:
    low = "" if metric.low is None else f">= {metric.low:g}"
    high = "" if metric.high is None else f"<= {metric.high:g}"
    return " ".join(filter(None, (low, high)))


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
