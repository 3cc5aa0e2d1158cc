"""What happened in a run: one page and its numbers, folded from what the run kept."""

from alignzoo.report.fold import as_json, fold_report
from alignzoo.report.page import render_report

__all__ = ["as_json", "fold_report", "render_report"]
