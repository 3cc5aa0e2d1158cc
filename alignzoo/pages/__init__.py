"""What every page shares: one self-contained HTML file, its style, its drawings.

A page requests nothing, runs nothing but its own script, and shows hostile text as text.
"""

from alignzoo.pages.axes import MINUS, Axis, Scale, axis, decimals, spanning, ticks
from alignzoo.pages.charts import COLUMNS, Band, Chart, Curve, Series, chart, thinned
from alignzoo.pages.html import PAGES, Source, render
from alignzoo.pages.plain import visible

__all__ = [
    "COLUMNS",
    "MINUS",
    "PAGES",
    "Axis",
    "Band",
    "Chart",
    "Curve",
    "Scale",
    "Series",
    "Source",
    "axis",
    "chart",
    "decimals",
    "render",
    "spanning",
    "thinned",
    "ticks",
    "visible",
]
