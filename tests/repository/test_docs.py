"""Pages that are generated are up to date, and the ledger's readings really differ."""

from __future__ import annotations

import importlib.util
import re

import pytest
from parity_ledger import LEDGER
from source_tree import ROOT

from alignzoo.cli.terminal.names import bundled_recipes
from alignzoo.recipe.blocks import DataSpec
from alignzoo.recipe.options import build_options
from alignzoo.recipe.registry import load_plugins
from alignzoo.testing import gradients, toy_items

REGISTRY = load_plugins()


def generated():
    spec = importlib.util.spec_from_file_location("make_docs", ROOT / "docs" / "make.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.pages()


@pytest.mark.parametrize(
    "name", ["metrics.md", "parity.md", "plugins.md", "rooms.svg", "../recipe.schema.json"]
)
def test_a_generated_page_is_what_the_plugins_declare(name):
    page = (ROOT / "docs" / name).read_text(encoding="utf-8")
    assert page == generated()[name], "run: python docs/make.py"


def test_every_key_of_a_data_block_stands_in_the_page_about_data_with_its_default():
    page = (ROOT / "docs" / "data.md").read_text(encoding="utf-8")
    table = page.partition("## Keys of `data:`")[2].partition("\n## ")[0]
    rows = dict(re.findall(r"^\| `(\w+)` \| ([^|]*?) ?\|", table, re.MULTILINE))
    fields = {field.alias or name: field for name, field in DataSpec.model_fields.items()}
    assert set(rows) == set(fields)
    for name, field in fields.items():
        if name in ("name", "with", "max_length"):
            continue  # no default, or one that depends on the model
        default = field.default
        shown = f"{default:g}" if isinstance(default, float) else str(default).lower()
        assert rows[name] == shown


@pytest.mark.parametrize("entry", LEDGER, ids=lambda e: f"{e.method}: {e.topic}, {e.other}")
def test_both_readings_of_a_ledger_entry_work_and_differ(entry):
    cls = REGISTRY.algorithms[entry.method]
    batch = cls.batch.collate(toy_items(cls.batch, 6), 0)
    paper = gradients(build_options(cls, {**entry.base}), batch)
    code = gradients(build_options(cls, {**entry.base, **entry.other}), batch)
    assert paper.distance(code) > 1e-6


@pytest.mark.parametrize("recipe", sorted(bundled_recipes().values()), ids=lambda p: p.stem)
def test_an_editor_finds_the_schema_of_every_bundled_recipe(recipe):
    first = recipe.read_text(encoding="utf-8").splitlines()[0]
    schema = first.removeprefix("# yaml-language-server: $schema=")
    assert (recipe.parent / schema).resolve() == ROOT / "recipe.schema.json"
