"""`alignzoo new algorithm` writes a package that installs, runs and passes its tests as it is."""

import importlib
import os
import subprocess
import sys

import pytest

from alignzoo.recipe.file import load_recipe
from alignzoo.recipe.registry import load_plugins


def texts(folder):
    """The files of a package; importing it leaves compiled ones beside them."""
    return [path for path in folder.rglob("*.*") if path.is_file() and path.suffix != ".pyc"]


def importing(folder):
    """The environment of a process that finds the package, and what this one finds."""
    paths = [str(folder), *filter(None, [os.environ.get("PYTHONPATH")])]
    return os.environ | {"PYTHONPATH": os.pathsep.join(paths)}


@pytest.fixture
def package(cli, tmp_path):
    folder = tmp_path / "package"
    status, out, _ = cli("new", "algorithm", "my_margin", "--output", folder)
    assert status == 0
    assert f"pip install -e {folder}" in out
    return folder


def test_a_new_algorithm_is_a_package_whose_recipe_is_valid(package, monkeypatch):
    monkeypatch.syspath_prepend(package)
    registry = load_plugins([importlib.import_module("alignzoo_my_margin")])
    recipe = load_recipe(package / "recipe.yaml", registry)
    assert recipe.stages[-1].algorithm == "my_margin"
    assert 'alignzoo_my_margin = "alignzoo_my_margin"' in (package / "pyproject.toml").read_text()
    assert not [p for p in texts(package) if "$" in p.name + p.read_text()]


@pytest.mark.slow
def test_a_new_algorithm_passes_its_own_tests(package):
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "."]
    env = importing(package)
    done = subprocess.run(
        command, check=False, cwd=package, env=env, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout
    assert "2 passed" in done.stdout


@pytest.mark.parametrize("kind", ["judge", "benchmark", "dataset", "stage", "engine"])
def test_a_new_plugin_of_another_kind_is_checked_run_and_tested_as_it_is(cli, tmp_path, kind):
    folder = tmp_path / "package"
    assert cli("new", kind, "my_own", "--output", folder)[0] == 0
    assert not [p for p in texts(folder) if "$" in p.name + p.read_text()]
    env = importing(folder)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "."]
    done = subprocess.run(command, check=False, cwd=folder, env=env, capture_output=True, text=True)
    assert "2 passed" in done.stdout, done.stdout
    sys.path.insert(0, str(folder))
    try:
        registry = load_plugins([importlib.import_module("alignzoo_my_own")])
        assert load_recipe(folder / "recipe.yaml", registry).name == "my-own"
        checked = cli("check", folder)
        assert checked[0] == 0, checked[1]
        assert f"{kind} my_own" in checked[1] and "not tried" not in checked[1]
    finally:
        sys.path.remove(str(folder))
        del sys.modules["alignzoo_my_own"]


@pytest.mark.parametrize("name", ["MyMargin", "2fast", "a-b", "class", ""])
def test_a_name_that_python_cannot_import_is_refused(cli, tmp_path, name):
    status, _, err = cli("new", "algorithm", name, "--output", tmp_path / "x")
    assert status == 2
    assert "cannot name a plug-in" in err
    assert not (tmp_path / "x").exists()


def test_a_new_algorithm_never_overwrites(cli, package):
    status, _, err = cli("new", "algorithm", "other", "--output", package)
    assert status == 2
    assert "not empty" in err
