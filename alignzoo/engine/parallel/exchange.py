"""What the ranks tell each other outside the training loop, errors included.

Every exchange gathers one report per rank, and a rank that fails reports its error in place of what
the others wait for. So none waits in vain, whatever it waits for. Alone, torch is not loaded.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

from alignzoo.contract.errors import AlignzooError, RankError, described

T = TypeVar("T")


@dataclass(frozen=True)
class Inability:
    """What a rank reports that cannot go on; `launch` calls the end of a worker a failure."""

    rank: int
    what: str
    exit_code: int

    def error(self) -> RankError:
        """The error as the other ranks raise it."""
        return RankError(f"{self.what} (process {self.rank})", self.rank, self.exit_code)


@dataclass(frozen=True)
class Crew:
    """The ranks that do a piece of work together."""

    rank: int = 0
    size: int = 1

    @property
    def is_main(self) -> bool:
        """Whether this process is the one that writes."""
        return self.rank == 0

    def gathered(self, value: T) -> list[T]:
        """What every rank gives, by rank; each must come here, or fail inside `as_one`.

        Raises RankError when one of them failed instead.
        """
        return [value] if self.size == 1 else _gathered(value)

    def from_main(self, work: Callable[[], T]) -> T:
        """What rank 0 finds, on every rank; the others wait."""
        return self.gathered(work() if self.is_main else None)[0]  # type: ignore[return-value]


ALONE = Crew()


def everyone() -> Crew:
    """All processes that were started together."""
    return Crew(int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1")))


def as_one(work: Callable[[], T]) -> T:
    """Do a piece of work on every rank; when one of them raises, the others raise a RankError.

    Inside, ranks may talk through a Crew alone, and not be `as_one` again: a report must not meet
    another kind of exchange, or come twice.
    """
    if everyone().size == 1:
        return work()
    try:
        found = work()
        _gathered(None)
    except RankError:
        raise
    except Exception as error:
        code = error.exit_code if isinstance(error, AlignzooError) else 1
        what = str(error) if isinstance(error, AlignzooError) else described(error)
        _exchanged(Inability(everyone().rank, what, code))
        raise
    return found


def _gathered(value: Any) -> list[Any]:
    reports = _exchanged(value)
    for report in reports:
        if isinstance(report, Inability):
            raise report.error()
    return reports


def _exchanged(report: Any) -> list[Any]:
    """The report of every rank, by rank."""
    import torch
    from accelerate import PartialState
    from accelerate.utils import gather_object

    # One rank may work for hours while the others wait here.
    state = PartialState(cpu=not torch.cuda.is_available(), timeout=timedelta(days=7))
    if state.num_processes != everyone().size:
        raise RankError(
            f"{everyone().size} processes were started, but Accelerate sees {state.num_processes}; "
            "start them with `alignzoo run RECIPE --processes N`"
        )
    try:
        return list(gather_object([report]))
    except RuntimeError as error:  # what the library says names neither process nor cause
        raise RankError(
            "another process of this run ended while this one waited for it; look for its message, "
            "and run the same command again"
        ) from error
