"""How long a row may be that a model reads alike whatever stands beside it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

LONG = ("longrope", "su")  # `su` is its older name


def reach_of(stated: int | None, of: Callable[[str], Any]) -> int | None:
    """Tokens up to which a row is read alike; None: any number.

    LongRoPE (arXiv:2402.13753) and dynamic NTK scaling turn tokens by angles that depend on the
    length of the text, and transformers takes one set for a whole pass, that of its longest row
    (`modeling_rope_utils.dynamic_rope_update`). So beyond the length that the model was first made
    for, log-probs would depend on the rows beside, and a cache would hold keys of both kinds.

    `stated` is the context of a config and `of` gives what the config says of a name, or None.
    """
    given = of("rope_parameters") or of("rope_scaling") or {}
    ropes = [given, *(rope for rope in given.values() if isinstance(rope, Mapping))]
    kinds = [str(rope.get("rope_type", rope.get("type"))) for rope in ropes]
    long = [rope for rope, kind in zip(ropes, kinds, strict=True) if kind in LONG]
    if not long:
        return stated if any("dynamic" in kind for kind in kinds) else None
    first = "original_max_position_embeddings"
    known = [stated, of(first), *(rope.get(first) for rope in long)]
    return min((n for n in known if isinstance(n, int)), default=None)


def context_and_why(stated: int | None, of: Callable[[str], Any]) -> tuple[int | None, str]:
    """The longest sequence of a model, and why it is not the stated one, for a message; ''."""
    reach = reach_of(stated, of)
    if reach is None or (stated is not None and reach >= stated):
        return stated, ""
    beyond = "" if stated is None else f"of {stated}; "
    return reach, f" ({beyond}LongRoPE would read a row otherwise beside a longer one)"
