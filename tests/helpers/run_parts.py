"""A stage that writes what it read, a recipe of two of them, and progress that remembers."""

import json
import types
from dataclasses import dataclass, field

from alignzoo import Stage, hookimpl, option
from alignzoo.recipe.blocks import Recipe
from alignzoo.recipe.registry import Plugin, build_registry

CALLS = []
ENDS = []
FAILURES = []


@dataclass(frozen=True)
class Write(Stage):
    """Writes the prompts it got, and one more."""

    name = "write"
    text: str = option("hello", "the prompt to add")
    silent: bool = option(False, "write nothing")

    def run(self, inputs):
        CALLS.append(self.text)
        if FAILURES:
            (inputs.folder / "half.txt").write_text("half")
            raise FAILURES.pop()
        rows = [{"prompt": s.prompt} for s in inputs.data] + [
            {"prompt": f"{self.text} {inputs.seed}"}
        ]
        inputs.log({"rows": len(rows)})
        if not self.silent:
            lines = "".join(json.dumps(row) + "\n" for row in rows)
            (inputs.folder / "data.jsonl").write_text(lines)


def registry(version="1"):
    module = types.ModuleType("writer")
    module.register_stages = hookimpl(_named("register_stages", lambda: [Write]))
    module.on_run_end = hookimpl(_named("on_run_end", lambda run, error: ENDS.append(error)))
    return build_registry([(module, Plugin("writer", "dist", version, ""))])


def _named(name, function):
    function.__name__ = name
    return function


@dataclass
class Heard:
    """Progress that remembers."""

    events: list = field(default_factory=list)

    def stage_started(self, name, index, total):
        self.events.append(f"run {name}")

    def stage_reused(self, name, index, total):
        self.events.append(f"reuse {name}")

    def step(self, stage, step, total, metrics, timing):
        pass

    def stage_finished(self, name):
        pass

    def note(self, text):
        self.events.append(text)

    @property
    def pieces(self):
        return [e for e in self.events if e.split()[0] in ("run", "reuse")]


def recipe(first=None, second=None, **changes):
    stages = [
        {"name": "one", "stage": "write", "with": first or {}},
        {"name": "two", "stage": "write", "with": second or {}, "data": {"name": "one"}},
    ]
    return Recipe.model_validate({"name": "r", "model": "m", "stages": stages} | changes)
