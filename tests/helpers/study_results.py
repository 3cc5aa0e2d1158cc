"""Readings with known means, and a whole result made of them."""

from __future__ import annotations

import math

from alignzoo.studies.facts import Figure, Line, Measure, Origin, Picture, Result, Row, SeedFacts
from alignzoo.studies.intervals import over_seeds
from alignzoo.studies.readings import Reading
from alignzoo.studies.spec import ClaimSpec
from alignzoo.studies.verdicts import judge

SEEDS = (3, 4, 5)
HOSTILE = "<script>alert(1)</script>\u202e"
ROWS = {  # row -> its win rates by seed
    "start": (0.5, 0.5, 0.5),
    "plain": (0.61, 0.63, 0.60),
    "ours": (0.74, 0.75, 0.71),
    "ours-online": (0.745, 0.748, 0.715),
    "strong": (0.79, 0.80, 0.78),
}
CLAIMS = (
    {"says": "Ours beats plain training", "paper": "12.9 to 18.4", "above": {"ours": "plain"}},
    {"says": "It beats a strong control", "above": {"ours": "strong"}, "by": "us"},
    {"says": "Both ways come to the same", "close": {"ours": "ours-online"}, "margin": 0.05},
    {"says": "Each step helps", "increasing": ["start", "plain", "ours", "ours-online"]},
    {"says": f"Hostile {HOSTILE}", "between": {"ours": ["ours-online", "strong"]}},
)


def readings(values, kind="facts"):
    """A reading per seed: two prompts around each value."""
    return [Reading(x, (x - 0.1, x + 0.1), kind) for x in values]


def label(side):
    """A row as it is; a number as it is."""
    return side if isinstance(side, str) else f"{side:g}"


def full_result():
    """Verdicts of every kind, a control, the paper's figures, curves with an area, notes."""
    rows = {name: readings(values) for name, values in ROWS.items()}
    claims = [ClaimSpec(measure="win", **claim) for claim in CLAIMS]
    verdicts = [judge(claim, rows, label) for claim in claims]
    untested = ClaimSpec(says="Longer is better", measure="win", above={"ours": "plain"})
    spreads = {name: over_seeds(values) for name, values in ROWS.items()}
    return Result(
        study="table1",
        title="AlignDistil beside the methods that it is built from",
        source="arXiv:2503.02832, Table 1",
        about="What is claimed, in a sentence.",
        world="facts",
        world_about="The embedded world, its exact oracle, 300 held-out prompts x 4 answers.",
        tuned="Learning rates: 1e-4 to 3e-3 on seeds 0 to 2.",
        measures=(
            Measure("win", "win rate", "", "higher", "win_rate", "AlpacaEval 2 LC win rate"),
            Measure("length", "length", "tokens", None, "length", ""),
        ),
        rows=tuple(
            Row(name, name, name == "strong", f"world/{name}", {"win": "18.40"}) for name in ROWS
        ),
        seeds=tuple(SeedFacts(seed, 1234.5, (f"facts/world/seed-{seed}",)) for seed in SEEDS),
        figures=tuple(
            Figure(name, "win", s.mean, s.half, s.over, ROWS[name]) for name, s in spreads.items()
        ),
        verdicts=(*verdicts, judge(untested, rows, label, "length is not measured here")),
        pictures=(Picture("reward", "step", "token-averaged reward", tuple(_lines())),),
        origin=Origin(
            "alignzoo reproduce table1 --on facts --seeds 3 --first-seed 3",
            "825e03b",
            "0.1.0#b3a8f7648bc346be",
            {"torch": "2.13.0", "transformers": "5.24.0"},
            ("alignzoo_dpo 0.1#1234",),
            {"table1-facts": "0123456789abcdef"},
        ),
        notes=("win of ours: win_rate is missing for 3 of 300 prompts (seed 4)",),
    )


def _lines():
    for number, name in enumerate(("plain", "ours")):
        points = ((n, number + math.log(n), 0.3 if n > 1 else None) for n in range(1, 41))
        yield Line(name, name, tuple((float(x), y, half) for x, y, half in points), SEEDS)
