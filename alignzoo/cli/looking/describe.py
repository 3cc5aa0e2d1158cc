"""`alignzoo show`: everything about one thing, taken from its class."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from pydantic import BaseModel

from alignzoo.cli.looking.catalogue import RECIPE, built_in, built_in_class, entries
from alignzoo.cli.terminal import screen
from alignzoo.cli.terminal.names import bundled_recipes
from alignzoo.contract.algorithm import Algorithm, Metric, Role
from alignzoo.contract.datafiles import DataFile, places_of
from alignzoo.contract.errors import UsageError, suggest
from alignzoo.contract.evaluation import Benchmark, Judge, scores_alone
from alignzoo.contract.moving import Follow
from alignzoo.contract.stage import Stage
from alignzoo.contract.types import Signal
from alignzoo.contract.verdicts import AskedJudge
from alignzoo.recipe.options import OptionDoc, option_table, try_options, type_name
from alignzoo.recipe.reading import names
from alignzoo.recipe.registry import KINDS, Registry, load_plugins


def show_command(name: str) -> None:
    """Print everything of that name, whatever its kind; a recipe's text if nothing else has it."""
    registry = load_plugins()
    registry.refuse_clash(name)
    recipe = bundled_recipes().get(name)
    found = list(_classes(name, registry))
    for kind, cls in found:
        _print_class(kind, name, cls, registry)
    if recipe and not found:
        print(f"{RECIPE} {name} ({recipe})\n\n{recipe.read_text(encoding='utf-8')}")
    elif not found:
        known = [entry.name for entry in entries(registry)]
        broken = "".join(f"; {b.module} is broken, see `alignzoo doctor`" for b in registry.broken)
        hint = suggest(name, known) or "; `alignzoo list` prints what there is"
        raise UsageError(f"nothing is called '{name}'{hint}{broken}")


def _table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    screen.print_table(head, rows)
    print()


def _classes(name: str, registry: Registry) -> Iterator[tuple[str, type]]:
    core = built_in()
    for kind in KINDS:
        if name in core.get(kind, {}):
            yield kind, built_in_class(name)
        if name in registry.kinds[kind]:
            yield kind, registry.kinds[kind][name]


def _print_class(kind: str, name: str, cls: type, registry: Registry) -> None:
    owner = registry.owners.get(cls)
    origin = f"{owner.distribution} {owner.version}" if owner else "the core"
    print(f"{kind} {name}, from {origin}\n")
    print(inspect.cleandoc(cls.__doc__ or "") + "\n")
    _print_options(_options(cls))
    if issubclass(cls, Algorithm):
        _print_algorithm(cls)
    if issubclass(cls, Stage):
        _print_reads(cls)
    if issubclass(cls, Judge):
        print(f"{_able(cls)}\n")
    if issubclass(cls, Benchmark) and cls.files:
        _print_files(name, cls.files)


def _print_reads(cls: type[Stage]) -> None:
    """The models and data that a plug-in's stage declares."""
    roles = [(name, role.head, role.doc) for name, role in (cls.reads_models or {}).items()]
    if roles:
        _table(("model", "head", "meaning"), roles)
    if cls.reads_data:
        print(f"reads {names(cls.reads_data)}\n")
    elif cls.reads_models is None and cls.reads_data is None:
        print("it does not declare what it reads\n")


def _able(cls: type[Judge]) -> str:
    """What a judge can do, and so where a recipe may name it."""
    if issubclass(cls, AskedJudge):
        return (
            "asked in words: a benchmark that leaves the judge open says what (in a reward or a\n"
            "label stage pairwise, for `by: wins`, or pointwise, for `by: score`)"
        )
    order = "" if cls.symmetric else ", in both orders"
    if not scores_alone(cls):
        return f"compares two answers{order}; it scores no single ones (`by: wins`)"
    how = "by their scores" if cls.compare is Judge.compare else "by itself"
    return f"scores single answers, and compares two {how}{order}"


def _print_files(name: str, files: Sequence[DataFile]) -> None:
    """What a benchmark reads; each command on a line of its own, to be copied."""
    _table(("file", "holds"), [(file.names[0], file.what) for file in files])
    print("\n".join(dict.fromkeys(file.get for file in files)))
    print(f"\nWhat pip or hf fetches is found; the rest belongs into {places_of(name, None)[0]}.\n")


def _options(cls: type) -> list[OptionDoc]:
    if not issubclass(cls, BaseModel):
        return option_table(cls)
    return [
        OptionDoc(
            field.alias or name,
            type_name(field.annotation),
            None if field.is_required() else field.get_default(call_default_factory=True),
            field.description or "",
            field.is_required(),
        )
        for name, field in cls.model_fields.items()
    ]


def _print_options(options: Iterable[OptionDoc]) -> None:
    rows = [(o.name, o.type, _default(o), o.doc) for o in options]
    if rows:
        _table(("option", "type", "default", "meaning"), rows)
    else:
        print("no options\n")


def _default(option: OptionDoc) -> str:
    if option.required:
        return "(required)"
    if isinstance(option.default, BaseModel):
        return "(its own defaults)"
    return "null" if option.default is None else str(option.default)


def _print_algorithm(cls: type[Algorithm[Any]]) -> None:
    batch = inspect.cleandoc(cls.batch.__doc__ or "").partition("\n")[0]
    print(f"eats {cls.batch.__name__}: {batch}\n")
    method = _example(cls)
    moving = method.moving() if method else {}
    roles = [(name, *_role(role, moving.get(name)), role.doc) for name, role in cls.roles.items()]
    _table(("role", "is", "head", "by default", "meaning"), roles)
    signals = _signals(cls)
    if signals is None:
        print("its signals depend on options that have no default\n")
    elif signals:
        if cls.example_options:
            words = ", ".join(f"{name} = {x}" for name, x in cls.example_options.items())
            print(f"with {words}:")
        _table(("signal", "read from", "when"), signals)
    metrics = [(name, *_metric(metric)) for name, metric in cls.metrics.items()]
    if metrics:
        _table(("metric", "unit", "healthy", "meaning"), metrics)


def _example(cls: type[Algorithm[Any]]) -> Algorithm[Any] | None:
    """With the default options, else with the example; None where neither makes one."""
    return try_options(cls, {})[0] or try_options(cls, cls.example_options)[0]


def _role(role: Role, rule: Follow | None) -> tuple[str, str, str]:
    start = f"the {role.like}'s start" if role.like and not (rule and rule.shares) else ""
    still = "frozen" if rule is None else rule.told
    sees = f", sees {role.sees}" if role.sees else ""
    return f"{'trained' if role.trainable else still}{sees}", role.head, start


def _metric(metric: Metric) -> tuple[str, str, str]:
    low = "" if metric.low is None else f">= {metric.low:g}"
    high = "" if metric.high is None else f"<= {metric.high:g}"
    return metric.unit, " ".join(filter(None, (low, high))), metric.doc


def _signals(cls: type[Algorithm[Any]]) -> list[tuple[str, str, str]] | None:
    """The signals of an example; None where there is none."""
    method = _example(cls)
    if method is None:
        return None
    return [
        *_signal_rows(method.signals(), "every micro-batch, with gradient"),
        *_signal_rows(method.snapshots(), "once per batch or buffer, without gradient"),
    ]


def _signal_rows(signals: Mapping[str, Signal], when: str) -> Iterator[tuple[str, str, str]]:
    for name, signal in signals.items():
        yield name, ", ".join(signal.roles), when
