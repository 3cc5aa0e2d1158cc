"""One promise and whether it is kept; the kit is a table of them."""

from __future__ import annotations

import dataclasses
import sys
import traceback
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import yaml

from alignzoo.contract.errors import AlignzooError, PluginError, described, place_of
from alignzoo.recipe.options import build_options


@dataclass(frozen=True)
class Check:
    """A promise of the contract, and what came of trying it."""

    promise: str
    kept: bool
    detail: str = ""
    where: str = ""  # file:line of what breaks it


Trial = Callable[[], str]  # returns a detail; raises when the promise is broken


def try_all(
    trials: Iterable[tuple[str, Trial]], plugin: object, member: str | None = None
) -> list[Check]:
    """Run every trial; an exception of any kind is a broken promise, not the end.

    `member` is what the promises are about, for the place of one that breaks without a traceback
    through the plug-in.
    """
    return [_try(promise, trial, plugin, member) for promise, trial in trials]


def _try(promise: str, trial: Trial, plugin: object, member: str | None) -> Check:
    try:
        return Check(promise, True, trial())
    except Exception as error:  # a stranger's code may raise anything
        known = isinstance(error, AlignzooError)
        what = f"{type(error).__name__}: {error}" if known else described(error)
        return Check(promise, False, what, _where(error, plugin, member))


def _where(error: Exception, plugin: object, member: str | None) -> str:
    """The last line of the plug-in that the error came through, else its member or class."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [f for f in frames if _belongs(Path(f.filename), type(plugin))]
    if own:
        return f"{own[-1].filename}:{own[-1].lineno}"
    at = place_of(getattr(type(plugin), member)) if member else ""
    bases = [] if at else map(place_of, type(plugin).__mro__)  # a class made by type() has no line
    return at or next((place for place in bases if place), "")


def _belongs(file: Path, cls: type) -> bool:
    """Whether a file is part of the package, or the module, of a class."""
    module = sys.modules[cls.__module__]
    top = sys.modules.get(cls.__module__.partition(".")[0], module)
    if top.__name__ == "alignzoo" or Path(str(top.__file__)).name != "__init__.py":
        return file == Path(str(module.__file__))
    return file.is_relative_to(Path(str(top.__file__)).parent)


def require(kept: bool, detail: str) -> None:
    """Break the promise under trial unless it is kept."""
    if not kept:
        raise PluginError(detail)


def documented(plugin: object) -> str:
    """The first line of a plug-in's docstring; without one the promise is broken."""
    text = (type(plugin).__doc__ or "").strip()
    require(bool(text), "no docstring says what it is")
    return text.partition("\n")[0]


def survive_yaml(plugin: Any) -> str:
    """Whether the options are frozen, explained, and come back from a recipe as they were."""
    if not dataclasses.is_dataclass(plugin):
        return "0 options"
    require(cast(Any, type(plugin)).__dataclass_params__.frozen, "the dataclass is not frozen")
    given = {f.name: getattr(plugin, f.name) for f in dataclasses.fields(plugin) if f.init}
    again = build_options(type(plugin), yaml.safe_load(yaml.safe_dump(_plain(given))))
    require(again == plugin, f"{plugin} comes back as {again}")
    return f"{len(given)} options"


def explained(plugin: Any) -> str:
    """Whether every option says what it means."""
    if not dataclasses.is_dataclass(plugin):
        return "0 options"
    bare = [f.name for f in dataclasses.fields(plugin) if f.init and not f.metadata.get("doc")]
    require(not bare, f"no explanation of {', '.join(bare)}")
    return f"{len(dataclasses.fields(plugin))} options"


def _plain(value: Any) -> Any:
    """Lists for tuples, as YAML has it."""
    if isinstance(value, dict):
        return {key: _plain(x) for key, x in value.items()}
    return [_plain(x) for x in value] if isinstance(value, tuple | list) else value


def raise_broken(name: str, checks: Iterable[Check]) -> None:
    """PluginError with every broken promise; silent when there is none."""
    broken = [
        f"  {c.promise}: {c.detail}{f' ({c.where})' if c.where else ''}"
        for c in checks
        if not c.kept
    ]
    if broken:
        raise PluginError("\n".join([f"{name} breaks {len(broken)} promises:", *broken]))
