"""Which edits of the core make work be done again: decided per file, whatever room it stands in."""

import shutil

import pytest
from source_tree import CORE

from alignzoo.store.code import APART, core_digest, deciding_files

# Whoever adds a file here says that no edit to it can change a result.
WITHOUT_EFFECT = {
    "__main__.py",
    "contract/logged.py",
    "contract/progress.py",
    "contract/tracker.py",
    "engine/memory/__init__.py",
    "engine/memory/fakes.py",
    "engine/memory/live.py",
    "engine/memory/sampling.py",
    "engine/memory/spread.py",
    "engine/memory/walk.py",
    "judging/quality/__init__.py",
    "judging/quality/crossannotations.py",
    "judging/quality/examine.py",
    "judging/quality/figures.py",
    "recipe/observers.py",
    "store/runs.py",
}
ROOMS_WITHOUT_EFFECT = {"cli", "launch", "leaderboard", "lens", "pages", "plan", "report"} | {
    "studies",
    "testing",
}


@pytest.fixture
def core(tmp_path):
    """A copy of the core that may be edited."""
    shutil.copytree(CORE, tmp_path / "alignzoo", ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path / "alignzoo"


def test_every_file_counts_but_those_that_are_named_here():
    counted = {name.as_posix() for name in deciding_files()}
    every = {path.relative_to(CORE) for path in CORE.rglob("*.py")}
    left = {n.as_posix() for n in every if n.parts[0] not in ROOMS_WITHOUT_EFFECT} - counted
    assert left == WITHOUT_EFFECT
    assert not {name.split("/")[0] for name in counted} & ROOMS_WITHOUT_EFFECT


def test_whatever_is_set_apart_exists():
    inside_a_wheel = {"recipes"}
    assert [name for name in APART if not (CORE / name).exists()] == sorted(inside_a_wheel)


@pytest.mark.parametrize("name", ["ops.py", "engine/train/step.py", "data/tokens.py", "run.py"])
def test_an_edit_that_could_change_a_number_changes_the_digest(core, name):
    before = core_digest(core)
    core_digest.cache_clear()
    (core / name).write_text((core / name).read_text() + "\nX = 1\n")
    assert core_digest(core) != before


@pytest.mark.parametrize("name", ["plan/steps.py", "cli/commands.py", "leaderboard/views.py"])
def test_an_edit_that_only_shows_leaves_the_digest(core, name):
    before = core_digest(core)
    core_digest.cache_clear()
    (core / name).write_text((core / name).read_text() + "\nX = 1\n")
    assert core_digest(core) == before


def test_a_new_file_counts_before_anybody_has_thought_of_it(core):
    before = core_digest(core)
    core_digest.cache_clear()
    (core / "engine" / "new.py").write_text("X = 1\n")
    assert core_digest(core) != before


def test_recipes_inside_an_installed_package_leave_the_digest(core):
    before = core_digest(core)
    core_digest.cache_clear()
    (core / "recipes").mkdir()
    (core / "recipes" / "tool.py").write_text("X = 1\n")
    assert core_digest(core) == before
