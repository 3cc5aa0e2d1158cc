"""Telling the plug-ins that watch a run what happened; a watcher that fails never ends the run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from alignzoo.contract.errors import described
from alignzoo.recipe.registry import Registry


@dataclass(frozen=True)
class Observers:
    """The observing hooks of a run, and how often each has failed."""

    registry: Registry
    say: Callable[[str], None]
    failures: Counter[str] = field(default_factory=Counter)  # "on_step of alignzoo_x" -> times

    def tell(self, hook: str, **facts: Any) -> None:
        """Call a hook in every plug-in; the first failure of each is said, the others counted."""
        for plugin, call in self.registry.observers(hook):
            own = {k: dict(x) if isinstance(x, Mapping) else x for k, x in facts.items()}
            try:
                call(**own)
            except (Exception, SystemExit) as error:  # a stranger's code may raise anything
                name = f"{hook} of {plugin}"
                self.failures[name] += 1
                if self.failures[name] == 1:
                    self.say(f"warning: {name} failed, the run goes on: {described(error)}")

    def total(self) -> None:
        """Say at the end how often hooks failed."""
        for name, times in self.failures.items():
            self.say(f"warning: {name} failed {times} time{'s' if times > 1 else ''} in this run")
