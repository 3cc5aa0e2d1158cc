"""What a person sees of a run: a live line per stage on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import TextIO

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn
from rich.progress import Progress as Bars

from alignzoo.contract.progress import Progress

SECONDS_BETWEEN_LINES = 5.0
SHOWN = {  # what a person looks for: the names it may have, best first
    "loss": ("loss",),
    "reward": ("reward", "rollout/reward", "rewards/margin"),
    "kl": ("kl",),
    "cost": ("cost",),
    "cost_left": ("cost_left",),
    "unread": ("unread",),
}


def figures(metrics: Mapping[str, float]) -> str:
    """Loss, reward and KL of a step, as far as the method reports them: "loss 0.512, ..."."""
    picked = (_pick(word, metrics) for word in SHOWN)
    return ", ".join(f"{name} {metrics[name]:.3g}" for name in picked if name)


def _pick(word: str, metrics: Mapping[str, float]) -> str | None:
    """The metric with the best name, else one that has the word as a part: "kl_full/teacher"."""
    known = (name for name in SHOWN[word] if name in metrics)
    parts = (name for name in metrics if word in name.replace("/", "_").split("_"))
    return next(known, next(parts, None))


def duration(seconds: float) -> str:
    """Seconds as a reader says them: 8 s, 2 min 05 s, 3 h 20 min."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    return (
        f"{minutes} min {rest:02d} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"
    )


@dataclass
class Pace:
    """How fast a stage goes. The clock starts at its first step: loading tells nothing."""

    clock: Callable[[], float] = time.monotonic
    began: float = 0.0  # of the stage
    first: tuple[int, float] | None = None  # first step seen, and when
    last: int = 0

    def start(self) -> None:
        """A stage begins."""
        self.began, self.first, self.last = self.clock(), None, 0

    def at(self, step: int) -> None:
        """Take note of a finished step."""
        self.first = self.first or (step, self.clock())
        self.last = step

    def taken(self) -> float:
        """Seconds since the stage began."""
        return self.clock() - self.began

    def left(self, total: int) -> float | None:
        """Seconds to go; None while that cannot be known."""
        if total <= self.last or self.first is None or self.last == self.first[0]:
            return None
        step, when = self.first
        return (self.clock() - when) / (self.last - step) * (total - self.last)


def speed_text(timing: Mapping[str, float]) -> str:
    """Tokens per second, if the stage counts tokens."""
    speed = timing.get("tokens_per_second")
    return f"{speed:,.0f} tokens/s" if speed else ""


def describe(
    pace: Pace, total: int, metrics: Mapping[str, float], timing: Mapping[str, float]
) -> str:
    """Figures, speed and time left of one step, as one line."""
    left = pace.left(total)
    time_left = f"{duration(left)} left" if left is not None else ""
    return ", ".join(filter(None, (figures(metrics), speed_text(timing), time_left)))


@dataclass
class Lines:
    """Progress as plain lines, every few seconds and at the end of a stage."""

    write: Callable[[str], None]
    pace: Pace = field(default_factory=Pace)
    written: float = 0.0

    def stage_started(self, name: str, index: int, total: int) -> None:
        """One line."""
        self.pace.start()
        self.written = self.pace.began
        self.write(f"[{index}/{total}] {name}")

    def stage_reused(self, name: str, index: int, total: int) -> None:
        """One line."""
        self.write(f"[{index}/{total}] {name}: reused")

    def step(
        self,
        stage: str,
        step: int,
        total: int,
        metrics: Mapping[str, float],
        timing: Mapping[str, float],
    ) -> None:
        """A line now and then."""
        self.pace.at(step)
        now = self.pace.clock()
        if step != total and now - self.written < SECONDS_BETWEEN_LINES:
            return
        self.written = now
        of = f"/{total}" if total else ""
        line = f"{stage}: {step}{of}, {describe(self.pace, total, metrics, timing)}"
        self.write(line.rstrip(", "))

    def stage_finished(self, name: str) -> None:
        """One line with the time taken."""
        self.write(f"{name}: done in {duration(self.pace.taken())}")

    def note(self, text: str) -> None:
        """The sentence."""
        self.write(text)


@dataclass
class Live:
    """Progress as bars that a terminal redraws."""

    bars: Bars
    pace: Pace = field(default_factory=Pace)
    tasks: dict[str, TaskID] = field(default_factory=dict)
    figures: str = ""  # of the last step

    def stage_started(self, name: str, index: int, total: int) -> None:
        """A new bar."""
        self.pace.start()
        self.figures = ""
        self.tasks[name] = self.bars.add_task(f"[{index}/{total}] {name}", total=None, text="")

    def stage_reused(self, name: str, index: int, total: int) -> None:
        """A bar that is full at once."""
        self.bars.add_task(f"[{index}/{total}] {name}", total=1, completed=1, text="reused")

    def step(
        self,
        stage: str,
        step: int,
        total: int,
        metrics: Mapping[str, float],
        timing: Mapping[str, float],
    ) -> None:
        """Move the bar."""
        if stage in self.tasks:
            self.pace.at(step)
            self.figures = figures(metrics)
            text = describe(self.pace, total, metrics, timing)
            self.bars.update(self.tasks[stage], completed=step, total=total or None, text=text)

    def stage_finished(self, name: str) -> None:
        """Fill the bar and leave its figures in place."""
        task = next(t for t in self.bars.tasks if t.id == self.tasks[name])
        full = task.total or 1
        text = ", ".join(filter(None, (self.figures, duration(self.pace.taken()))))
        self.bars.update(task.id, total=full, completed=full, text=text)

    def note(self, text: str) -> None:
        """Above the bars."""
        self.bars.console.print(text, markup=False, highlight=False)


def watch(out: TextIO | None = None) -> tuple[Progress, AbstractContextManager[object]]:
    """The progress that fits the output, and the context in which it may be used."""
    out = out or sys.stdout
    if not out.isatty():
        return Lines(lambda text: print(text, file=out, flush=True)), nullcontext()
    bars = Bars(
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TextColumn("{task.fields[text]}", markup=False),
        console=Console(file=out),
    )
    return Live(bars), bars
