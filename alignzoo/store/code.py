"""Which files of the core can change a result, and their digest.

Every file counts unless it stands in `APART`, so that a new one is never overlooked. What stands
there only shows, plans, tests or reports; an edit to it must not make anybody train again.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Iterator
from pathlib import Path

import alignzoo

CORE = Path(alignzoo.__file__).parent
APART = (
    "__main__.py",
    "cli",  # says what the core found
    "contract/logged.py",  # what metrics mean
    "contract/progress.py",  # what a run tells whoever watches
    "contract/tracker.py",  # who copies metrics elsewhere
    "engine/memory",  # `plan --memory` alone; it trains nothing
    "judging/quality",  # `eval-judge` alone; no result of a run comes through it
    "launch",  # starts and watches processes; results do not depend on their number
    "leaderboard",  # folds results that are there
    "lens",  # shows what finished models say
    "pages",  # how pages look
    "plan",  # says what would be done
    "recipe/observers.py",  # telling whoever watches
    "recipes",  # of an installed package; a recipe enters by its options
    "report",  # folds what runs kept
    "store/runs.py",  # run.json and the lock
    "studies",  # folds what runs measured, draws what they logged
    "testing",  # the kit for plug-ins
)


def deciding_files(core: Path = CORE) -> Iterator[Path]:
    """The files that can change a result, relative to the core, sorted."""
    for path in sorted(core.rglob("*.py")):
        name = path.relative_to(core)
        if not any(name.is_relative_to(part) for part in APART):
            yield name


@functools.cache
def core_digest(core: Path = CORE) -> str:
    """Hash (hex, 16 digits) of the names and bytes of the files that can change a result."""
    digest = hashlib.blake2b(digest_size=8)
    for name in deciding_files(core):
        digest.update(name.as_posix().encode() + (core / name).read_bytes())
    return digest.hexdigest()
