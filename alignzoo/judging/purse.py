"""What asking may cost: no question is asked whose reply could pass the limit.

A bill keeps tokens and no money, so that a price that is corrected counts for what is paid too.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from alignzoo.contract.verdicts import AskedJudge, JudgeError, Question, Reply, Usage
from alignzoo.judging.read import NOTHING, Judged, taken

# Prompt and completion tokens of every reply to a question; None: nobody knows, nor the most.
Used: TypeAlias = Sequence[Sequence[int]] | None


@dataclass
class Purse:
    """The limit, and what is gone or may be gone once the replies under way are here."""

    limit: float = math.inf  # max_cost
    paid: float = 0.0
    held: list[float] = field(default_factory=list)  # the most that each under way can cost

    def most(self, judge: AskedJudge, questions: Sequence[Question]) -> float:
        """The most that replies can cost; 0 without a limit."""
        return 0.0 if self.limit == math.inf else sum(dearest(judge, q) for q in questions)

    def has_room(self, judge: AskedJudge, most: float) -> bool:
        """Whether so much may be set aside now, or not before replies under way are here.

        Raises JudgeError when none are, and the limit could be passed.
        """
        if self.paid + sum(self.held) + most <= self.limit:
            return True
        if self.held:
            return False
        raise JudgeError(
            f"judge '{judge.name}': stopped before max_cost = {self.limit:g} is passed: "
            f"{self.paid:.4g} are spent, and the next reply may cost {most:.4g}; raise max_cost "
            "and run the same command again: every reply is kept"
        )

    def settle(self, held: float, judge: AskedJudge, replies: Sequence[Reply]) -> None:
        """Give back what was set aside, less what the replies took; one that does not say what it
        took may have taken its share.
        """
        self.held.remove(held)
        for reply in replies:
            price = NOTHING.plus([reply], judge).cost
            self.paid += held / len(replies) if price is None else price


def dearest(judge: AskedJudge, question: Question) -> float:
    """The most that one reply can cost; infinite where nobody knows a price."""
    price = judge.cost(judge.largest_usage(question))
    return math.inf if price is None else price


def used_of(judge: AskedJudge, judged: Judged) -> Used:
    """What all replies to a question took; one that does not say it may have taken the most."""
    largest = [judge.largest_usage(question) for question in judged.asked]
    prompt, completion = (max(getattr(x, key) for x in largest) for key in _PARTS)
    unsaid = None if completion >= sys.maxsize else Usage(prompt, completion)
    found = [usage or unsaid for usage in taken(judged.billed)]
    known = [[usage.prompt_tokens, usage.completion_tokens] for usage in found if usage]
    return known if len(known) == len(found) else None


_PARTS = ("prompt_tokens", "completion_tokens")


def price_of(judge: AskedJudge, used: Used) -> float | None:
    """The price of replies by the judge's prices now; None where one is not known."""
    prices = None if used is None else [judge.cost(Usage(*tokens)) for tokens in used]
    known = [price for price in prices or () if price is not None]
    return None if prices is None or len(known) < len(prices) else sum(known)
