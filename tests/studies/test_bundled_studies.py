"""The studies that come along, and the page that is made of their committed results."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
from source_tree import ROOT

from alignzoo.cli.doing.reproducing import bundled_studies, list_studies
from alignzoo.cli.terminal.names import bundled_recipes, recipe_folder
from alignzoo.recipe.file import load_recipe
from alignzoo.recipe.registry import load_plugins
from alignzoo.studies.file import load_study


def script():
    spec = importlib.util.spec_from_file_location("paper_page", ROOT / "benchmarks" / "paper.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("path", bundled_studies().values(), ids=lambda p: p.stem)
def test_a_bundled_study_is_sound_and_named_as_its_file(path):
    opened = load_study(path, load_plugins(), recipe_folder())
    assert opened.study.name == path.stem


def test_no_two_recipes_of_bundled_studies_share_a_folder_of_runs():
    registry, files = load_plugins(), {}
    for path in bundled_studies().values():
        opened = load_study(path, registry, recipe_folder())
        for world, recipes in opened.recipes.items():
            for file in recipes:
                name = load_recipe(file, registry).name
                files.setdefault((world, name), set()).add(file.resolve())
    assert [place for place, found in files.items() if len(found) > 1] == []


def test_a_study_is_no_recipe():
    assert not {path.stem for path in bundled_recipes().values()} & set(bundled_studies())


def test_studies_are_listed(capsys):
    list_studies(load_plugins())
    said = capsys.readouterr().out
    assert all(name in said for name in bundled_studies())


def test_the_papers_page_is_that_of_the_committed_results():
    module = script()
    page = Path(module.HERE / "paper.md")
    if not module.RESULTS.is_dir():
        pytest.skip("no result is committed yet")
    assert page.read_text(encoding="utf-8") == module.page()
