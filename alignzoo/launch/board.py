"""What the processes of a run tell each other beside their tensors: who failed first, who waits."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch.distributed import Store  # type: ignore[attr-defined]

PATIENCE = timedelta(seconds=30)  # with an address that answered before
RESUMES = "the same command goes on from what is kept"


@dataclass(frozen=True)
class Failure:
    """Why a worker ended early, as it saw it."""

    rank: int
    text: str  # the sentence that one process alone would print
    what: str  # for run.json: kind and message
    code: int = 1  # exit status; -1 where nobody knows it
    symptom: bool = False  # only the loss of another worker, or a request to stop


class Board:
    """A few keys in the group's store. Every call may raise RuntimeError: the store is gone."""

    def __init__(self, store: Store) -> None:
        self.store = store

    def put(self, key: str, value: Any) -> None:
        """Write a value that JSON can hold."""
        self.store.set(f"alignzoo/{key}", json.dumps(value))

    def get(self, key: str) -> Any:
        """The value, or None while nobody has written it."""
        if not self.store.check([f"alignzoo/{key}"]):
            return None
        return json.loads(self.store.get(f"alignzoo/{key}"))

    def claim(self, key: str, value: Any) -> Any:
        """The value of whoever wrote this key first, on any machine."""
        said = self.store.compare_set(f"alignzoo/{key}", "", json.dumps(value))
        return json.loads(said)

    def tell(self, failure: Failure) -> bool:
        """Leave a worker's end for others to read; whether it is the cause of the run's end."""
        self.put(f"end/{failure.rank}", asdict(failure))
        if failure.symptom:
            return False
        return bool(self.claim("first", asdict(failure)) == asdict(failure))

    def first(self) -> Failure | None:
        """The failure that came before all others."""
        found = self.get("first")
        return Failure(**found) if found else None

    def end(self, rank: int) -> Failure | None:
        """What a worker said of its end."""
        found = self.get(f"end/{rank}")
        return Failure(**found) if found else None
