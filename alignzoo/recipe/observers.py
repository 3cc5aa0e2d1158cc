"""Telling the plug-ins that watch a run what happened; a watcher that fails never ends the run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import pluggy

from alignzoo.contract.algorithm import Metric
from alignzoo.contract.errors import PluginError, described
from alignzoo.contract.logged import LOGGED
from alignzoo.contract.tracker import Tracker
from alignzoo.recipe.blocks import Recipe, TrainSpec
from alignzoo.recipe.faults import Fault
from alignzoo.recipe.options import build_options, option_faults
from alignzoo.recipe.registry import Registry, hooks_of
from alignzoo.recipe.spec import TrackerSpec


@dataclass(frozen=True)
class Observers:
    """The observing hooks of a run, and how often each has failed."""

    registry: Registry
    say: Callable[[str], None]
    trackers: Mapping[str, pluggy.HookRelay] = field(default_factory=dict)  # the recipe's, by name
    failures: Counter[str] = field(default_factory=Counter)  # "on_step of alignzoo_x" -> times

    def tell(self, hook: str, **facts: Any) -> None:
        """Call a hook in every plug-in; the first failure of each is said, the others counted."""
        trackers = ((name, getattr(own, hook)) for name, own in self.trackers.items())
        for plugin, call in (*self.registry.observers(hook), *trackers):
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


def built_trackers(recipe: Recipe, registry: Registry) -> dict[str, Tracker]:
    """The recipe's trackers by name."""
    return {
        spec.name: build_options(registry.find("tracker", spec.name), spec.with_)
        for spec in recipe.trackers
    }


def observers_for(recipe: Recipe, registry: Registry, say: Callable[[str], None]) -> Observers:
    """All plug-ins that watch, and one watcher for each of the recipe's trackers."""
    built = built_trackers(recipe, registry)
    trackers = {name: hooks_of(name, tracker.watch()) for name, tracker in built.items()}
    return Observers(registry, say, trackers)


def tracker_faults(trackers: Iterable[TrackerSpec | None], registry: Registry) -> Iterator[Fault]:
    """Trackers that nobody offers or that cannot be built, and those named twice."""
    seen = set[str]()
    for index, spec in enumerate(trackers):
        if spec is None:
            continue
        if spec.name in seen:
            yield Fault(("trackers", index), f"'{spec.name}' stands here twice; name it once")
        seen.add(spec.name)
        try:
            found = option_faults(registry.find("tracker", spec.name), spec.with_)
        except PluginError as error:
            yield Fault(("trackers", index), str(error))
            continue
        yield from (fault.under(("trackers", index, "with")) for fault in found)


def declared_metrics(recipe: Recipe, registry: Registry) -> dict[str, dict[str, Metric]]:
    """What each training stage logs: the method's metrics and the engine's."""
    return {
        stage.name: {**LOGGED, **registry.find("algorithm", stage.algorithm).metrics}
        for stage in recipe.stages
        if isinstance(stage, TrainSpec)
    }
