"""What a judge's reply says: FIRST, SECOND or TIE."""

from __future__ import annotations

import re

VERSION = 2  # of the rules below; another version makes another result
SHARES = {"first": 1.0, "second": 0.0, "tie": 0.5}  # how far the first answer is preferred

_WORD = r"(?P<word>first|second|tie)\b"
_BEFORE = r"[^\w>?\"'“‘]*"  # emphasis; not the marks of what is quoted or asked
_AFTER = r"[^\w?]*"
_STATEMENT = re.compile(
    rf"{_BEFORE}(?:(?:so|thus|therefore|hence|my|the|final|overall)\W+)*"
    r"(?:verdict|decision|judge?ment|conclusion|winner|choice)\b"
    rf"[^\w?]*(?:(?:is|it|a|an|the|answer)\W+)*{_WORD}"
    rf"(?:\W+(?:answer|one|wins))?(?:\W*\((?P<remark>[^()]*)\))?{_AFTER}",
    re.IGNORECASE,
)
_ALONE = re.compile(rf"{_BEFORE}{_WORD}(?:\W+wins)?{_AFTER}", re.IGNORECASE)
_ECHO = frozenset({*SHARES, "or", "and"})


def preferred(reply: str) -> str | None:
    """The verdict's word in lower case, or None when there is none.

    A statement is a line that is nothing but "Verdict: WORD" (or decision, winner, ...; "the", "it
    is a" and a remark in brackets may stand there too), or a last line that is nothing but the
    word. The last one counts, however it is capitalised or emphasised. A line of prose is none,
    wherever it has the words, nor is a quotation, a question, or a list of the words.
    """
    lines = [line for line in reply.splitlines() if line.strip()]
    found = [_STATEMENT.fullmatch(line) for line in lines]
    said = [line for line in found if line and not _is_echo(line["remark"])]
    last = _ALONE.fullmatch(lines[-1]) if lines else None
    stated = last or (said[-1] if said else None)
    return stated["word"].lower() if stated else None


def _is_echo(remark: str | None) -> bool:
    """Whether the words in brackets are only the other choices: "FIRST (or SECOND, TIE)"."""
    words = re.findall(r"\w+", (remark or "").lower())
    return bool(words) and _ECHO.issuperset(words)
