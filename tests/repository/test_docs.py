"""Pages that are generated are up to date, and the ledger's readings really differ."""

from __future__ import annotations

import importlib.util

import pytest
from parity_ledger import LEDGER
from source_tree import ROOT

from alignzoo.recipe.options import build_options
from alignzoo.recipe.registry import load_plugins
from alignzoo.testing import gradients, toy_items

REGISTRY = load_plugins()


def generated():
    spec = importlib.util.spec_from_file_location("make_docs", ROOT / "docs" / "make.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.pages()


@pytest.mark.parametrize("name", ["metrics.md", "parity.md", "rooms.svg", "../recipe.schema.json"])
def test_a_generated_page_is_what_the_plugins_declare(name):
    page = (ROOT / "docs" / name).read_text(encoding="utf-8")
    assert page == generated()[name], "run: python docs/make.py"


@pytest.mark.parametrize("entry", LEDGER, ids=lambda e: f"{e.method}: {e.topic}, {e.other}")
def test_both_readings_of_a_ledger_entry_work_and_differ(entry):
    cls = REGISTRY.algorithms[entry.method]
    batch = cls.batch.collate(toy_items(cls.batch, 6), 0)
    paper = gradients(build_options(cls, {**entry.base}), batch)
    code = gradients(build_options(cls, {**entry.base, **entry.other}), batch)
    assert paper.distance(code) > 1e-6


@pytest.mark.parametrize("recipe", sorted((ROOT / "recipes").rglob("*.yaml")), ids=lambda p: p.stem)
def test_an_editor_finds_the_schema_of_every_bundled_recipe(recipe):
    first = recipe.read_text(encoding="utf-8").splitlines()[0]
    schema = first.removeprefix("# yaml-language-server: $schema=")
    assert (recipe.parent / schema).resolve() == ROOT / "recipe.schema.json"
