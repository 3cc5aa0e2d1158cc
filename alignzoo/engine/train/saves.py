"""When a checkpoint is due: by steps if the recipe says so, else by the clock."""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace

AT_RISK = 600.0  # seconds of work that a kill may cost
SHARE = 0.03  # of the time may go into saving; wins over AT_RISK


@dataclass(frozen=True)
class Saves:
    """What is known of the last checkpoint."""

    every: int | None  # steps; None: by the clock
    step: int | None = None  # of the last checkpoint
    ended: float = field(default_factory=time.monotonic)  # when it was written, or training began
    cost: float = 0.0  # seconds it took

    def due(self, step: int) -> bool:
        """Whether to save now. What comes out of training never depends on it."""
        if self.every is not None:
            return step - (self.step or 0) >= self.every
        return time.monotonic() - self.ended >= self.interval

    @property
    def interval(self) -> float:
        """Seconds between checkpoints by the clock."""
        return max(AT_RISK, self.cost / SHARE)

    def saved(self, step: int, started: float) -> Saves:
        """After a checkpoint that was begun at `started`."""
        now = time.monotonic()
        return replace(self, step=step, ended=now, cost=now - started)

    def resumed(self, step: int) -> Saves:
        """After a checkpoint was loaded."""
        return replace(self, step=step, ended=time.monotonic())

    def told(self) -> str:
        """The interval of the clock in words."""
        often = f"{self.interval / 60:.0f} min"
        return f"checkpoint at step {self.step} in {self.cost:.1f} s; one about every {often}"
