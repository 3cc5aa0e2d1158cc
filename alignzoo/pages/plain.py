"""Characters that act instead of being seen, made visible."""

from __future__ import annotations

import re

# Controls, marks that turn the direction of the text after them, halves of a pair, what is no
# character at all. A tab and a line's end are text; joiners build letters and faces.
ACTING = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u2069\ud800-\udfff"
    "\ufeff\ufffe\uffff]"
)


def visible(text: str) -> str:
    """The text with every acting character written as its code, such as [U+202E]."""
    return ACTING.sub(lambda found: f"[U+{ord(found[0]):04X}]", text)
