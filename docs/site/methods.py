"""A page for every method: what its class declares, what was measured, and the plug-in's README."""

from __future__ import annotations

import inspect
import json
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from drawing import bar, curve
from markup import code, table

from alignzoo.contract.algorithm import Algorithm
from alignzoo.contract.types import RolloutBatch, Signal
from alignzoo.recipe.options import option_table, try_options
from alignzoo.recipe.registry import load_plugins

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "benchmarks" / "results"
SAID = ("Metrics", "Options")  # sections of a README that the class says too
sys.path.insert(0, str(ROOT / "tests" / "helpers"))

from parity_ledger import LEDGER  # noqa: E402  (the tests exercise the same entries)

Method = type[Algorithm[Any]]


@cache
def registered() -> Mapping[str, Method]:
    """Methods that come with alignzoo, by name."""
    own = {path.parent.name for path in (ROOT / "plugins").glob("*/README.md")}
    found = load_plugins().algorithms
    return {n: cls for n, cls in sorted(found.items()) if cls.__module__.split(".")[0] in own}


def by_package() -> dict[str, list[str]]:
    """Package -> its methods; the one the package is named after comes first."""
    found: dict[str, list[str]] = {}
    for name, cls in registered().items():
        found.setdefault(cls.__module__.split(".")[0], []).append(name)
    return {
        package: sorted(names, key=lambda name: name != package.removeprefix("alignzoo_"))
        for package, names in found.items()
    }


def measured(kind: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """How something was measured, and method -> figures."""
    path = RESULTS / f"{kind}.json"
    if not path.exists():
        return {}, {}
    page = json.loads(path.read_text(encoding="utf-8"))
    return page["about"], page["methods"]


def overview() -> Iterator[str]:
    """All methods in one table."""
    about, costs = measured("costs")
    yield "# Methods\n"
    yield "Each is a plug-in of 20 to 120 lines. Its page says what its class says: equation,"
    yield "options, models, signals and metrics, then what it costs and how it begins.\n"
    rows = []
    for name, cls in registered().items():
        cost = costs.get(name, {}).get("relative")
        shown = bar(cost, largest(costs)) if cost else "not measured"
        rows.append((f"[{name}]({name}.md)", eats(cls), trained(cls), shown))
    yield from table(("method", "learns from", "models", "one step beside DPO's"), rows)
    if about:
        yield f"One step is the forward and backward pass over {about['items']} items on the"
        yield f"embedded model, in CPU seconds: `{about['command']}`."
        yield "A pair is one item of two rows. Sampling is not in it.\n"
    yield "```{toctree}\n:hidden:\n"
    yield from registered()
    yield "```"


def largest(costs: Mapping[str, Any]) -> float:
    """What the longest bar stands for."""
    return max((row["relative"] for row in costs.values()), default=1.0)


def eats(cls: Method) -> str:
    """What a recipe gives the method, in words."""
    words = {
        "RolloutBatch": "its own samples",
        "GroupBatch": "groups of answers",
        "PairBatch": "preference pairs",
        "LabelledBatch": "good and bad answers",
        "TextBatch": "answers, or its own samples",
    }
    return next((words[kind.__name__] for kind in cls.batch.__mro__ if kind.__name__ in words), "")


def trained(cls: Method) -> str:
    """Its models; those that learn stand out."""
    return ", ".join(f"**{n}**" if role.trainable else n for n, role in cls.roles.items())


def page(name: str, readme: str) -> Iterator[str]:
    """The whole page of one method."""
    cls = registered()[name]
    yield f"# {name}\n"
    yield f"{_lead(readme)}\n"
    yield f"```text\n{inspect.cleandoc(cls.__doc__ or '')}\n```\n"
    yield f"`alignzoo show {name}` prints what is declared here in a terminal.\n"
    yield from _declared(cls)
    yield from _ledger(name)
    yield from _cost(name)
    yield from _curves(name)
    yield from _sections(readme)


def _lead(readme: str) -> str:
    """What the README says before its first formula or table."""
    text = readme.partition("\n")[2]
    return re.split(r"^(?:    |\||## )", text, maxsplit=1, flags=re.MULTILINE)[0].strip()


def _declared(cls: Method) -> Iterator[str]:
    yield "## Options\n"
    options = list(option_table(cls))
    rows = [
        (
            code(o.name),
            o.type,
            "required" if o.required else code(json.dumps(o.default).strip('"')),
            o.doc,
        )
        for o in options
    ]
    yield from table(("option", "type", "default", "meaning"), rows)
    yield "" if options else "None.\n"
    yield "## Models\n"
    yield from table(("role", "is", "head", "meaning"), [_role(n, r) for n, r in cls.roles.items()])
    yield "## Data\n"
    about = inspect.cleandoc(cls.batch.__doc__ or "").replace("\n", " ")
    yield f"`{cls.batch.__name__}`: {about}\n"
    if issubclass(cls.batch, RolloutBatch):
        yield "A recipe gives it prompts and a `rollout:` block.\n"
    yield "## Signals\n"
    yield from _signals(cls)
    yield "## Metrics\n"
    yield from table(
        ("metric", "unit", "healthy", "meaning"), [_metric(n, m) for n, m in cls.metrics.items()]
    )


def _role(name: str, role: Any) -> tuple[str, str, str, str]:
    start = f"; by default {role.like}'s start" if role.like else ""
    return code(name), ("trained" if role.trainable else "frozen") + start, role.head, role.doc


def _metric(name: str, metric: Any) -> tuple[str, str, str, str]:
    low = "" if metric.low is None else f">= {metric.low:g}"
    high = "" if metric.high is None else f"<= {metric.high:g}"
    return code(name), metric.unit, " ".join(filter(None, (low, high))), metric.doc


def _signals(cls: Method) -> Iterator[str]:
    method = try_options(cls, {})[0] or try_options(cls, cls.example_options)[0]
    if method is None:
        yield "They depend on options that have no default.\n"
        return
    rows = [*_read(method.signals(), "every micro-batch, with gradient")]
    rows += _read(method.snapshots(), "once per batch or buffer, without gradient")
    yield from table(("signal", "read from", "when"), rows)


def _read(signals: Mapping[str, Signal], when: str) -> Iterator[tuple[str, str, str]]:
    for name, signal in signals.items():
        yield code(name), ", ".join(signal.roles), when


def _ledger(name: str) -> Iterator[str]:
    entries = [entry for entry in LEDGER if entry.method == name]
    if entries:
        yield "## Where paper and released code differ\n"
        yield "The paper is the default, the other reading an option."
        yield "[All of them](../../docs/parity.md).\n"
        yield from table(
            ("topic", "default", "other reading", "option"),
            [(e.topic, e.paper, e.code, code(_setting(e.other))) for e in entries],
        )


def _setting(other: Mapping[str, object]) -> str:
    return ", ".join(f"{key}: {value}" for key, value in other.items())


def _cost(name: str) -> Iterator[str]:
    about, costs = measured("costs")
    yield "## Cost\n"
    row = costs.get(name)
    if row is None:
        yield f"Not measured yet: `python benchmarks/costs.py --only {name}`.\n"
        return
    batch = f"{about['items']} items ({row['rows']} rows, {row['tokens']} tokens)"
    yield f"One step takes **{row['relative']:.2f}** times as long as one of DPO: forward and"
    yield f"backward pass over {batch} on the embedded model take {row['step']:.3f} CPU seconds,"
    yield f"and reading what is frozen {row['frozen']:.3f}."
    yield "Sampling and rewards are not in it.\n"
    yield f"`{about['command']}`, torch {about['torch']}, {about['machine']}.\n"


def _curves(name: str) -> Iterator[str]:
    about, methods = measured("curves")
    yield "## On the embedded world\n"
    row = methods.get(name)
    if row is None:
        yield f"Not run yet: `python benchmarks/curves.py --only {name}`.\n"
        return
    units = {metric: spec.unit for metric, spec in registered()[name].metrics.items()}
    stage = f"the stage `{row['stage']}` of the bundled recipe `{row['recipe']}`"
    seeds = row["seeds"]
    yield f"{about['steps']} steps of {stage}, from parents with their full budget:"
    yield f"`{about['command']}`.\n"
    for key in next(iter(seeds.values()))["curves"]:
        lines = {f"seed {seed}": found["curves"][key] for seed, found in seeds.items()}
        yield curve(key, units.get(key, ""), lines) + "\n"
    yield from _outcome({seed: found["measured"] for seed, found in seeds.items()})


def _outcome(seeds: Mapping[str, Mapping[str, Sequence[float]]]) -> Iterator[str]:
    rows = [
        (seed, _interval(found["win_rate"]), _interval(found["true_reward"]))
        for seed, found in seeds.items()
        if found and found["win_rate"][1] < found["win_rate"][2]  # the baseline itself has none
    ]
    if rows:
        yield from table(("seed", "win rate against SFT", "true reward"), rows)
        yield "After the last step, with 95 % intervals over 200 held-out prompts, 2 answers each."
        yield "No rate was tuned for so few steps and a seed is an anecdote, so these figures rank"
        yield "nothing; [tuned ones](../../benchmarks/paper.md) do.\n"


def _interval(figure: Sequence[float]) -> str:
    mean, low, high = figure
    return f"{mean:.3f} [{low:.3f}, {high:.3f}]"


def _sections(readme: str) -> Iterator[str]:
    """What the plug-in's README says beyond what the class does."""
    for section in re.split(r"^(?=## )", readme, flags=re.MULTILINE)[1:]:
        if section.partition("\n")[0].removeprefix("## ") not in SAID:
            yield section
