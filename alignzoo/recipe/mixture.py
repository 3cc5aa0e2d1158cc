"""`data: [a, {name: b, weight: 2}]`: several sources of one stage, and lists like it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from alignzoo.recipe.spec import short

Path = tuple[str | int, ...]
LISTS = ("data", "reward")  # keys whose block may be a list of its parts


def mixture(parts: Sequence[Any]) -> dict[str, Any]:
    """The block that a list of data stands for; its name is for messages alone."""
    if not parts:
        raise ValueError("names no data; give one source at least")
    if any(isinstance(part, list) for part in parts):
        raise ValueError("a list inside a list; write one list of sources")
    named = (short(part) for part in parts)
    names = (str(part.get("name")) if isinstance(part, Mapping) else "?" for part in named)
    return {"name": " + ".join(names), "parts": tuple(parts)}


def written(value: Any) -> Any:
    """The values of a recipe with every mixture as the list that it was."""
    if isinstance(value, dict):
        return {key: written(_listed(x) if key in LISTS else x) for key, x in value.items()}
    return [written(x) for x in value] if isinstance(value, list) else value


def _listed(data: Any) -> Any:
    return data.get("parts", data) if isinstance(data, dict) else data


def spoken(path: Path) -> Path:
    """A path as it was written: such a list has no key `parts`."""
    return tuple(
        step
        for at, step in enumerate(path)
        if not (step == "parts" and at and path[at - 1] in LISTS)
    )
