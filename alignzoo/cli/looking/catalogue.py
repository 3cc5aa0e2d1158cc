"""`alignzoo list` and `alignzoo recipe-schema`: what is installed."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from alignzoo.cli.terminal.names import bundled_recipes
from alignzoo.cli.terminal.screen import print_json, print_table
from alignzoo.contract.errors import UsageError, suggest
from alignzoo.recipe.registry import KINDS, Registry, load_plugins
from alignzoo.store.inputs import BUILT_IN_ENGINE

RECIPE = "recipe"
# What the built-in engine is; its class comes with torch.
ENGINE = "Samples in the trainer's process with a KV cache; finished rows leave the batch."


@dataclass(frozen=True)
class Entry:
    """One thing that a recipe can name."""

    kind: str
    name: str
    summary: str
    origin: str  # the distribution it came with, and its version


def summary_of(cls: type) -> str:
    """First line of the docstring."""
    return (cls.__doc__ or "").strip().partition("\n")[0]


def built_in() -> dict[str, dict[str, str]]:
    """What the core itself provides under the names of plug-in kinds: name -> what it is."""
    stages = {name: summary_of(built_in_class(name)) for name in ("generate", "label")}
    return {"engine": {BUILT_IN_ENGINE: ENGINE}, "stage": stages}


def built_in_class(name: str) -> type:
    """The class of something that the core provides."""
    if name == BUILT_IN_ENGINE:
        from alignzoo.engine.sampling.generate import TransformersEngine

        return TransformersEngine
    from alignzoo.recipe.blocks import GenerateSpec, LabelSpec

    return {"generate": GenerateSpec, "label": LabelSpec}[name]


def entries(registry: Registry) -> list[Entry]:
    """Everything by kind and name, the core's own things first."""
    from alignzoo import __version__

    core = built_in()
    found = []
    for kind in KINDS:
        for name, summary in core.get(kind, {}).items():
            found.append(Entry(kind, name, summary, f"alignzoo {__version__}"))
        for name, cls in sorted(registry.kinds[kind].items()):
            owner = registry.owner(cls)
            origin = f"{owner.distribution} {owner.version}"
            found.append(Entry(kind, name, summary_of(cls), origin))
    return found + [
        Entry(RECIPE, name, _description(path), f"alignzoo {__version__}")
        for name, path in bundled_recipes().items()
    ]


def _description(path: Path) -> str:
    """The `description:` line of a recipe."""
    lines = path.read_text(encoding="utf-8").splitlines()
    found = (line.partition(":")[2].strip() for line in lines if line.startswith("description:"))
    return next(found, "")


def list_command(kind: str | None, *, as_json: bool) -> None:
    """Print what is installed, of one kind or of all."""
    registry = load_plugins()
    found = entries(registry)
    if kind is not None:
        wanted = kind.removesuffix("s")
        if wanted not in (*KINDS, RECIPE):
            kinds = [f"{known}s" for known in (*KINDS, RECIPE)]
            raise UsageError(f"no kind '{kind}'{suggest(kind, kinds)}; kinds: {', '.join(kinds)}")
        found = [entry for entry in found if entry.kind == wanted]
    if as_json:
        print_json([asdict(entry) for entry in found])
    else:
        print_table(
            ("name", "kind", "what it is", "from"),
            [(e.name, e.kind, e.summary, e.origin) for e in found],
        )
        for plugin in registry.broken:
            print(f"broken: {plugin.module} ({plugin.distribution}); see `alignzoo doctor`")
        for clash in registry.clashes.values():
            print(f"clash: {clash}")


def schema_command(output: Path | None) -> None:
    """Print the JSON Schema of recipes, or write it to a file."""
    from alignzoo.recipe.file import recipe_schema

    schema = recipe_schema(load_plugins())
    if output is None:
        print_json(schema)
    else:
        output.write_text(json.dumps(schema, indent=2) + "\n", encoding="utf-8")
