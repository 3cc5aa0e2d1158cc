"""What figures say of claims: `factor * left - right + margin`, its interval, a word, a reason."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from alignzoo.pages import MINUS, decimals
from alignzoo.studies.facts import Comparison, State, Verdict, Word
from alignzoo.studies.intervals import PROMPTS, SEEDS, Spread, over_prompts, over_seeds
from alignzoo.studies.readings import Reading, alike, difference, differences
from alignzoo.studies.spec import ClaimSpec, against

Side: TypeAlias = str | float
BySeed: TypeAlias = Sequence[Reading | None]
LARGE = 1e6
NOISE = "one seed: the noise of training is not in it"


@dataclass(frozen=True)
class Asked:
    """What a claim says of a difference: that it lies inside these limits."""

    left: Side
    right: Side
    factor: float = 1.0
    margin: float = 0.0
    inside: tuple[float | None, float | None] = (0.0, None)


def comparisons(claim: ClaimSpec) -> Iterator[Asked]:
    """A claim as comparisons."""
    for before, after in zip(claim.increasing or (), (claim.increasing or ())[1:], strict=False):
        yield Asked(after, before, margin=claim.margin)
    for row, other in against(claim.above):
        yield Asked(row, other, claim.factor, claim.margin)
    for row, (low, high) in (claim.between or {}).items():
        yield Asked(row, low, margin=claim.margin)
        yield Asked(high, row, margin=claim.margin)
    for row, other in against(claim.close):
        yield Asked(row, other, inside=(-claim.margin, claim.margin))


def judge(
    claim: ClaimSpec, rows: Mapping[str, BySeed], label: Callable[[Side], str], untested: str = ""
) -> Verdict:
    """The verdict on a claim; `rows` are its measure by row and seed, `untested` says why not."""
    found = () if untested else tuple(compare(asked, rows) for asked in comparisons(claim))
    return Verdict(
        says=claim.says,
        by=claim.by,
        paper=claim.paper,
        measure=claim.measure,
        verdict=_word(found),
        decided=bool(found) and any(one.state != "open" for one in found),
        reason=untested or _reason(found, label),
        comparisons=found,
    )


def compare(asked: Asked, rows: Mapping[str, BySeed]) -> Comparison:
    """One comparison over the seeds that have both sides; one of one seed is over its prompts."""
    number = max((len(rows[s]) for s in (asked.left, asked.right) if isinstance(s, str)), default=0)
    sides = [(_side(asked.left, rows, k), _side(asked.right, rows, k)) for k in range(number)]
    both = [(a, b) for a, b in sides if a is not None and b is not None]
    apart = sum(1 for a, b in both if not alike(a, b))
    spread, why = (None, "") if apart else _spread(both, asked)
    if apart:
        why = "the two were measured on other prompts, or otherwise, and cannot be compared"
    elif not both:
        why = "no seed has both"
    low = spread.mean - spread.half if spread and spread.half is not None else None
    high = spread.mean + spread.half if spread and spread.half is not None else None
    return Comparison(
        left=asked.left,
        right=asked.right,
        factor=asked.factor,
        margin=asked.margin,
        inside=asked.inside,
        estimate=spread.mean if spread else None,
        low=low,
        high=high,
        n=spread.n if spread else len(both),
        over=spread.over if spread else SEEDS,
        state=state_of(low, high, asked.inside),
        seeds=() if apart else tuple(_of_seed(pair, asked) for pair in sides),
        reason=why,
    )


def state_of(
    low: float | None, high: float | None, inside: tuple[float | None, float | None]
) -> State:
    """Holds: the interval lies inside; fails: outside; open: neither, or there is none."""
    if low is None or high is None:
        return "open"
    floor, ceiling = inside
    if (floor is None or low > floor) and (ceiling is None or high < ceiling):
        return "holds"
    below = floor is not None and high < floor
    return "fails" if below or (ceiling is not None and low > ceiling) else "open"


Both: TypeAlias = tuple[Reading | float, Reading | float]


def _spread(both: Sequence[Both], asked: Asked) -> tuple[Spread | None, str]:
    if not both:
        return None, ""
    if len(both) > 1:
        found = over_seeds([difference(a, b, asked.factor, asked.margin) for a, b in both])
        return found, "" if found.half is not None else "the same in every seed: no interval"
    left, right = both[0]
    paired = differences(left, right, asked.factor, asked.margin)
    if paired:
        found = over_prompts(paired)
        return found, "" if found.half is not None else "the same on every prompt: no interval"
    value = difference(left, right, asked.factor, asked.margin)
    return Spread(value, None, 1, SEEDS), "one number of one seed has no interval"


def _side(side: Side, rows: Mapping[str, BySeed], seed: int) -> Reading | float | None:
    return rows[side][seed] if isinstance(side, str) else float(side)


def _of_seed(
    pair: tuple[Reading | float | None, Reading | float | None], asked: Asked
) -> float | None:
    left, right = pair
    if left is None or right is None:
        return None
    return difference(left, right, asked.factor, asked.margin)


# --- words -----------------------------------------------------------------------------------


def _word(found: Sequence[Comparison]) -> Word:
    if not found:
        return "not tested here"
    held = sum(one.state == "holds" for one in found)
    return "reproduced" if held == len(found) else "in part" if held else "not"


def _reason(found: Sequence[Comparison], label: Callable[[Side], str]) -> str:
    """The figures of what failed or stayed open; where all held, of the narrowest."""
    told = [one for one in found if one.state != "holds"]
    if not told:
        told = sorted(found, key=_room)[:1]
    words = [sentence(one, label) for one in told]
    alone = [NOISE] if any(one.over == PROMPTS for one in found) else []
    return "; ".join([*words, *alone])


def _room(one: Comparison) -> float:
    """How far an interval that lies inside is from the limits."""
    floor, ceiling = one.inside
    ends = [one.low - floor] if floor is not None and one.low is not None else []
    ends += [ceiling - one.high] if ceiling is not None and one.high is not None else []
    return min(ends, default=0.0)


def sentence(one: Comparison, label: Callable[[Side], str]) -> str:
    """A comparison in words: "fails: A - B is -0.12 (-0.2 to -0.04; 3 seeds)"."""
    words = {"holds": "holds", "fails": "fails", "open": "open"}[one.state]
    what = formula(one, label)
    if one.estimate is None:
        return f"{words}: {what}: {one.reason}"
    shown = (x for x in (one.estimate, one.low, one.high) if x is not None)
    digits = decimals(shown)
    value = signed(one.estimate, digits)
    if one.low is None or one.high is None:
        return f"{words}: {what} is {value} ({one.reason})"
    ends = f"{signed(one.low, digits)} to {signed(one.high, digits)}"
    return f"{words}: {what} is {value} ({ends}; {one.n} {one.over})"


def formula(one: Comparison, label: Callable[[Side], str]) -> str:
    """What is compared: "0.5 x A minus B"."""
    factor = "" if one.factor == 1 else f"{one.factor:g} x "
    margin = f" {'plus' if one.margin > 0 else 'minus'} {abs(one.margin):g}" if one.margin else ""
    return f"{factor}{label(one.left)} minus {label(one.right)}{margin}"


def signed(value: float, digits: int) -> str:
    """A difference with its sign."""
    return f"{'+' if value >= 0 else MINUS}{plain(abs(value), digits)}"


def plain(value: float, digits: int) -> str:
    """A value with so many digits; one of millions as 1.59e11."""
    text = f"{value:.2e}".replace("e+0", "e").replace("e+", "e")
    return (text if abs(value) >= LARGE else f"{value:.{digits}f}").replace("-", MINUS)
