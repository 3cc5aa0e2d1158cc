"""A pure fold over the results of runs. What cannot be compared never shares a table.

A section holds the results that agree in benchmark, options, prompts, decoding, baseline answers,
judge and judging code; only the model differs between its rows.
"""

from alignzoo.leaderboard.bundle import Bundle, bundle_text, read_bundle
from alignzoo.leaderboard.csv import render_csv
from alignzoo.leaderboard.fold import Cell, Counts, Row, Section, as_json, fold
from alignzoo.leaderboard.page import PROMPTS, render_page
from alignzoo.leaderboard.sources import read_leaderboard, sections_of
from alignzoo.leaderboard.text import render_markdown, render_text

__all__ = [
    "PROMPTS",
    "Bundle",
    "Cell",
    "Counts",
    "Row",
    "Section",
    "as_json",
    "bundle_text",
    "fold",
    "read_bundle",
    "read_leaderboard",
    "render_csv",
    "render_markdown",
    "render_page",
    "render_text",
    "sections_of",
]
