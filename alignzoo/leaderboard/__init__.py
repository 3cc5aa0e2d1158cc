"""A pure fold over the results of runs. What cannot be compared never shares a table.

A section holds the results that agree in benchmark, options, prompts, decoding, baseline answers,
judge and judging code; only the model differs between its rows.
"""

from alignzoo.leaderboard.csv import render_csv
from alignzoo.leaderboard.fold import Cell, Counts, Row, Section, as_json, fold, read_leaderboard
from alignzoo.leaderboard.page import PROMPTS, render_page
from alignzoo.leaderboard.text import render_markdown, render_text

__all__ = [
    "PROMPTS",
    "Cell",
    "Counts",
    "Row",
    "Section",
    "as_json",
    "fold",
    "read_leaderboard",
    "render_csv",
    "render_markdown",
    "render_page",
    "render_text",
]
