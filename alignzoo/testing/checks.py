"""One promise and whether it is kept; the kit is a table of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from alignzoo.contract.errors import PluginError


@dataclass(frozen=True)
class Check:
    """A promise of the contract, and what came of trying it."""

    promise: str
    kept: bool
    detail: str = ""


Trial = Callable[[], str]  # returns a detail; raises when the promise is broken


def try_all(trials: Iterable[tuple[str, Trial]]) -> list[Check]:
    """Run every trial; an exception of any kind is a broken promise, not the end."""
    return [_try(promise, trial) for promise, trial in trials]


def _try(promise: str, trial: Trial) -> Check:
    try:
        return Check(promise, True, trial())
    except Exception as error:  # a stranger's code may raise anything
        return Check(promise, False, f"{type(error).__name__}: {error}")


def require(kept: bool, detail: str) -> None:
    """Break the promise under trial unless it is kept."""
    if not kept:
        raise PluginError(detail)


def documented(plugin: object) -> str:
    """The first line of a plug-in's docstring; without one the promise is broken."""
    text = (type(plugin).__doc__ or "").strip()
    require(bool(text), "no docstring says what is measured")
    return text.partition("\n")[0]


def raise_broken(name: str, checks: Iterable[Check]) -> None:
    """PluginError with every broken promise; silent when there is none."""
    broken = [f"  {check.promise}: {check.detail}" for check in checks if not check.kept]
    if broken:
        raise PluginError("\n".join([f"{name} breaks {len(broken)} promises:", *broken]))
