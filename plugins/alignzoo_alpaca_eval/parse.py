"""From a judge's reply to the probability that the output shown first is the better one."""

from __future__ import annotations

import ast
import json
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from alignzoo import Decoding, Reply

NAMES = (FIRST, SECOND) = ("m", "M")  # of the outputs in the default template, in their order
RANKED = ("model_1", "m")  # names of the output shown first in the ranking templates
_MODEL = r"(?i:(?:the|model|output|identifier|response)\W+)*"
_LABEL = (
    r"(?i:(?:so|therefore|thus|hence|overall|my|the|final|better|best|preferred|chosen)\W+)*"
    r"(?i:verdict|answer|decision|choice|winner|preference|output|model|identifier|response|"
    r"better|best)(?i:\W+one)?(?i:\W+(?:is|was|would be))?"
)
_CHOICE = r"(?i:i(?:['’]m|\W+am)?\W+(?:for|choose|pick|prefer|select|vote\W+for))"
_BETTER = r"(?i:\W+is\W+(?:the\W+)?(?:better|best)(?:\W+(?:one|output|model))?|\W+wins)"
DECISION = re.compile(
    rf"[^\w#>?]*(?:(?:{_LABEL}|{_CHOICE})\W+)?{_MODEL}(?P<name>[mM])"
    rf"(?:{_BETTER})?(?:\W+(?i:than|not)\W+{_MODEL}[mM])?[^\w?:]*"
)
FENCE = re.compile(r"```(?:json|python)?(.*?)```", re.DOTALL)


def from_logprobs(top_logprobs: Mapping[str, float] | None) -> float | None:
    """P(m) / (P(m) + P(M)) of the reply's first token; natural log-probabilities in.

    Only the exact tokens "m" and "M" count. One that is not among the alternatives has
    probability 0; without both there is no verdict.
    """
    known = {t: x for t, x in (top_logprobs or {}).items() if t in NAMES and math.isfinite(x)}
    if not known:
        return None
    top = max(known.values())
    weight = {token: math.exp(x - top) for token, x in known.items()}
    return weight.get(FIRST, 0.0) / math.fsum(weight.values())


def from_text(text: str) -> float | None:
    """1 if the reply decides for "m", 0 if for "M"; None without a decision.

    A decision is a line that says nothing else: "m", "Best output: m", "I'm for M.", "m is better
    than M". Lines that disagree are settled by the reply's last one alone. A letter in prose, a
    heading, a quotation or a question decides nothing.
    """
    found = [DECISION.fullmatch(line) for line in text.splitlines() if line.strip()]
    names = {line["name"] for line in found if line}
    if len(names) > 1:
        names = {found[-1]["name"]} if found[-1] else set()
    return float(FIRST in names) if names else None


def from_ranking(text: str) -> float | None:
    """1 if the output shown first has rank 1, 0 if it has rank 2; else None.

    Read are a list of {"model": name, "rank": number} as Python or JSON, such a list under
    "ordered_models", and either between code fences, of which the last count. The first output is
    model_1 or m.
    """
    entries = _value(text)
    if isinstance(entries, dict):
        entries = entries.get("ordered_models")
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        return None
    ranks = [entry.get("rank") for entry in entries if entry.get("model") in RANKED]
    return {1: 1.0, 2: 0.0}.get(ranks[0]) if ranks and _is_number(ranks[0]) else None


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float)


def _value(text: str) -> Any:
    fenced = FENCE.findall(text)
    content = (fenced[-1] if fenced else text).strip()
    for read in (ast.literal_eval, json.loads):
        try:
            return read(content)
        except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError):
            continue
    return None


@dataclass(frozen=True)
class Annotator:
    """How a judge is asked and read."""

    read: Callable[[Reply], float | None]  # P(output shown first is better)
    decoding: Decoding
    names: tuple[str, str]  # of the outputs shown first and second
    version: str  # of the reading: a change of it changes what results may be compared


ANNOTATORS: Mapping[str, Annotator] = {
    "logprobs": Annotator(
        lambda reply: from_logprobs(reply.top_logprobs),
        # Temperature 1 leaves the log-probabilities as they are on every server.
        Decoding(max_tokens=1, temperature=1.0, top_logprobs=5),
        NAMES,
        "logprobs/1",
    ),
    "text": Annotator(
        lambda reply: from_text(reply.text), Decoding(max_tokens=32), NAMES, "text/2"
    ),
    "ranking": Annotator(
        lambda reply: from_ranking(reply.text),
        Decoding(max_tokens=100),
        ("model_1", "model_2"),
        "ranking/2",
    ),
}
