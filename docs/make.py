"""Write what is generated: metrics.md, parity.md, plugins.md, rooms.svg, ../recipe.schema.json.

python docs/make.py
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

from alignzoo.cli.authoring.index import read_index
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


def plugins_page(registry: Registry) -> Iterator[str]:
    """Packages by others from plugins.yaml, and what ships with alignzoo."""
    yield "# Plug-ins\n"
    yield "Written by `python docs/make.py` from `docs/plugins.yaml` and what is registered.\n"
    yield "## Packages by others\n"
    packages = read_index(HERE / "plugins.yaml").packages
    yield "A package joins with one entry of"
    yield "[plugins.yaml](plugins.yaml), whose first lines show the fields:"
    yield "its name for pip, its entry point, what it offers by kind, a line on what it is for,"
    yield "the address of its source, its licence. Nobody reviews what a package does: read it"
    yield "before you install it, for a plug-in runs with all your rights.\n"
    yield "<!-- tested by: tests/cli/test_index.py -->\n"
    yield "    alignzoo check docs/plugins.yaml --index\n"
    yield "says what is wrong with an entry, line by line, and compares packages that are"
    yield "installed with what they register. `alignzoo check NAME` then tries each thing.\n"
    if packages:
        yield from _table(("package", "offers", "for", "licence"))
    else:
        yield "There is none yet."
    for one in packages:
        offers = (f"{kind} `{name}`" for kind, names in one.offers.items() for name in names)
        cells = (f"[{one.package}]({one.url})", ", ".join(offers), one.summary, one.licence)
        yield f"| {' | '.join(map(_cell, cells))} |"
    yield "\n## Those that come with alignzoo\n"
    yield from _table(("package", "offers"))
    for folder in sorted(path.parent for path in (HERE.parent / "plugins").glob("*/README.md")):
        offers = (
            f"{kind} `{name}`"
            for kind, classes in registry.kinds.items()
            for name, cls in sorted(classes.items())
            if registry.owner(cls).module == folder.name
        )
        yield f"| [{folder.name}](../plugins/{folder.name}/README.md) | {', '.join(offers)} |"


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
        "plugins.md": "\n".join(plugins_page(registry)) + "\n",
        "rooms.svg": "\n".join(picture()) + "\n",
        "../recipe.schema.json": json.dumps(recipe_schema(registry), indent=1) + "\n",
    }


if __name__ == "__main__":
    for name, text in pages().items():
        (HERE / name).write_text(text, encoding="utf-8")
