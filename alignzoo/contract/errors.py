"""Errors a user sees: each says where, what, and what to do."""

from __future__ import annotations

import difflib
import inspect
import traceback
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

ALIKE = 0.65  # two letters of three, so that a swap in a short word is found and chance is not


class AlignzooError(Exception):
    """Base of every error alignzoo raises on purpose; the CLI prints it without a traceback."""

    exit_code = 1


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong, at one place."""

    where: str  # "recipe.yaml:5:12: stages.0.with.betta"
    what: str  # "unknown option; did you mean 'beta'?"

    def __str__(self) -> str:
        return f"{self.where}: {self.what}"


class RecipeError(AlignzooError):
    """Every problem of a recipe at once, found before any model is loaded."""

    exit_code = 2

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(str(problem) for problem in self.problems))


class UsageError(AlignzooError):
    """The command line asks for something that does not exist."""

    exit_code = 2


class PluginError(AlignzooError):
    """A plug-in is missing, broken, clashes with another, or breaks its contract."""


class DataError(AlignzooError):
    """Data cannot be used; the message names file and line where there are any."""


class TrainingError(AlignzooError):
    """Training cannot go on: a number stopped being one, or an invariant broke."""


class RankError(AlignzooError):
    """What another process of the group raised, or that it went away; that one says it itself.

    `rank` is the other's number, None where nobody knows it; `exit_code` is that of its error.
    """

    def __init__(self, what: str, rank: int | None = None, exit_code: int = 1) -> None:
        super().__init__(what)
        self.rank = rank
        self.exit_code = exit_code


class Interrupted(KeyboardInterrupt):
    """A signal asked to stop. What was kept so far stays, and the same command goes on from it."""

    def __init__(self, number: int) -> None:
        self.number = number
        super().__init__(f"stopped by signal {number}")

    @property
    def code(self) -> int:
        """The exit status that shells expect: 130 after SIGINT, 143 after SIGTERM."""
        return 128 + self.number


def suggest(word: str, known: Iterable[str]) -> str:
    """Return "; did you mean 'x'?" for the nearest known word, else an empty string."""
    near = difflib.get_close_matches(word, list(known), n=1, cutoff=ALIKE)
    return f"; did you mean '{near[0]}'?" if near else ""


def counted(n: int, what: str) -> str:
    """A number of things in words: "1 row", "2 rows"."""
    return f"{n} {what}" if n == 1 else f"{n} {what}s"


def sized(n: int) -> str:
    """Bytes for people: "1.5 GB" (10^9) or "0.012 MB"."""
    return f"{n / 1e9:,.1f} GB" if n >= 1e9 else f"{n / 1e6:.3f} MB"


def described(error: BaseException) -> str:
    """An error of foreign code on one line, with the file and line where it was raised."""
    text = " ".join(str(error).split())
    frames = traceback.extract_tb(error.__traceback__)
    at = f" ({frames[-1].filename}:{frames[-1].lineno})" if frames else ""
    return f"{type(error).__name__}{': ' if text else ''}{text}{at}"


def place_of(code: Callable[..., Any]) -> str:
    """Where a function or class stands, as file:line; an empty string where there is no file."""
    try:
        return f"{inspect.getsourcefile(code)}:{inspect.getsourcelines(code)[1]}"
    except (OSError, TypeError):  # made in a session, or by type(...)
        return ""
