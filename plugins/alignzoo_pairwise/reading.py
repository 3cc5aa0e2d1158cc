"""What a judge's reply says: FIRST, SECOND or TIE."""

from __future__ import annotations

import re

VERSION = 1  # of the rules below; another version makes another result
SHARES = {"first": 1.0, "second": 0.0, "tie": 0.5}  # how far the first answer is preferred

_WORD = r"(first|second|tie)\b"
_BETWEEN = r"[ \t,;/|*_`'\"\[\]]*"  # in a list of words, however it is written
_STATEMENT = re.compile(
    rf"\bverdict\b\W*(?:is\W+)?(?:the\W+)?\b{_WORD}(?:{_BETWEEN}(?:(?:or|and)\b{_BETWEEN})?{_WORD})?",
    re.IGNORECASE,
)
_ALONE = re.compile(rf"\W*{_WORD}\W*", re.IGNORECASE)


def preferred(reply: str) -> str | None:
    """The verdict's word in lower case, or None when there is none.

    The last "Verdict: ..." counts, however it is capitalised or emphasised; without one, a last
    line that is nothing but the word. A statement with two different words is an echo of the
    instruction, and what stands before the end of a reasoning block is no verdict yet.
    """
    text = _said(reply)
    statements = list(_STATEMENT.finditer(text))
    if statements:
        word, other = statements[-1].groups()
        return word.lower() if other is None or other.lower() == word.lower() else None
    lines = text.strip().splitlines()
    alone = _ALONE.fullmatch(lines[-1]) if lines else None
    return alone.group(1).lower() if alone else None


def _said(reply: str) -> str:
    """The reply without the thoughts before it; nothing when it stops within them."""
    before, end, after = reply.rpartition("</think>")
    if end:
        return after
    return "" if "<think>" in before + after else reply
