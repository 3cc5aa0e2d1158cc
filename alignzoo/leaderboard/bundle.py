"""Result bundles: the figures of a run in one file that can be sent, and what is refused of one.

A bundle is a single JSON text in one canonical form, so every changed byte shows: either the text
is not canonical any more or the digest of its content is another. It is no archive, so there is
nothing to unpack. A digest proves that a file is whole, not who made it.

    {"format": ..., "digest": sha256 of the content, "content": {run, recipe, scores, ...}}
"""

from __future__ import annotations

import hashlib
import json
import unicodedata
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from alignzoo.contract.errors import DataError
from alignzoo.leaderboard.fold import fold, typed
from alignzoo.store.files import digest_of_value

FORMAT = "alignzoo bundle 1"
MOST = 16 * 2**20  # bytes of a file; a bundle of 100 models has less than one million
LONGEST = 20_000  # characters of one text
BIDI = {"LRE", "RLE", "LRO", "RLO", "LRI", "RLI", "FSI"}  # turn the order of letters around


@dataclass(frozen=True)
class Bundle:
    """The results of one run, without its weights, answers and places."""

    run: str  # the name of its folder
    seed: int
    started: str
    versions: Mapping[str, str]
    plugins: tuple[str, ...]
    recipe: Mapping[str, Any]
    scores: tuple[Mapping[str, Any], ...]  # rows of scores.jsonl
    sections: Mapping[str, Mapping[str, Any]]  # id -> all that its results share
    files: Mapping[str, Mapping[str, str]]  # evaluation -> file -> sha256: answers, judgments


def bundle_text(bundle: Bundle) -> str:
    """The canonical form. Raises DataError for figures that are no numbers."""
    content = vars(bundle)
    try:
        return _canonical({"format": FORMAT, "digest": _digest(content), "content": content})
    except ValueError as error:
        raise DataError(f"{bundle.run}: a figure is no number ({error})") from error


def read_bundle(file: Path) -> Bundle:
    """A bundle that is whole and says of its sections what their ids say.

    Raises DataError, which names the file, for anything else.
    """
    if file.stat().st_size > MOST:
        raise DataError(f"{file}: larger than {MOST >> 20} MiB, so no bundle")
    text = file.read_bytes().decode("ascii", errors="replace")
    try:
        whole = json.loads(text, parse_constant=_no_constant)
        if not isinstance(whole, dict) or whole.get("format") != FORMAT:
            raise ValueError(f'it does not say "format": "{FORMAT}"')
        found = whole["content"]
        if _digest(found) != whole["digest"] or text != _canonical(whole):
            raise ValueError("it was changed after it was written: its digest is another")
        bundle = typed(Bundle(**{**found, "plugins": tuple(found["plugins"]),
                                 "scores": tuple(found["scores"])}))  # fmt: skip
        _check_texts(found)
        _check_rows(bundle)
    except (ValueError, LookupError, TypeError, AttributeError, ArithmeticError,
            RecursionError) as error:  # fmt: skip
        what = "nested too deeply" if isinstance(error, RecursionError) else error
        raise DataError(f"{file}: no sound bundle, {what}; ask for it again") from error
    return bundle


def _canonical(whole: Mapping[str, Any]) -> str:
    return json.dumps(whole, indent=1, allow_nan=False) + "\n"


def _digest(content: Mapping[str, Any]) -> str:
    """Sha256 (hex). The order of keys counts, because the first column of a table ranks."""
    return hashlib.sha256(json.dumps(content, allow_nan=False).encode()).hexdigest()


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number")


def _check_texts(content: Any) -> None:
    """Nothing may steer a terminal or turn the order of letters around."""
    for text in _texts(content):
        if len(text) > LONGEST:
            raise ValueError(f"a text of {len(text):,} characters, at most {LONGEST:,} are taken")
        odd = next((c for c in text if _steers(c)), None)
        if odd is not None:
            raise ValueError(f"a text with the control character U+{ord(odd):04X}")


def _steers(letter: str) -> bool:
    """A control character but line feed and tab, half a character, or one that turns the order."""
    kind = unicodedata.category(letter)
    return (kind in ("Cc", "Cs") and letter not in "\n\t") or unicodedata.bidirectional(
        letter
    ) in BIDI


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for key, x in value.items():
            yield str(key)
            yield from _texts(x)
    elif isinstance(value, list | tuple):
        for x in value:
            yield from _texts(x)


def _check_rows(bundle: Bundle) -> None:
    """A row belongs to the section whose content is in the file, and to no other."""
    if not bundle.scores:
        raise ValueError("it has no results")
    for section in fold([(bundle.run, row) for row in bundle.scores]):
        typed(section)
    for row in bundle.scores:
        shared = bundle.sections[row["section"]]
        parts = {part: digest_of_value(x) for part, x in shared.items()}
        if digest_of_value(shared) != row["section"] or row["parts"] != parts:
            raise ValueError(f"the results of {row['model']!r} are not of the section they name")
        if row["benchmark"] != shared["benchmark"]:
            raise ValueError(f"the results of {row['model']!r} are of another benchmark")
