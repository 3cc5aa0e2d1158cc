"""What a user installs: the wheel holds the plug-ins, their recipes and READMEs, and no tests."""

import importlib.util
import subprocess
import sys
import zipfile

import pytest
from source_tree import ROOT, plugin_folders

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "pip", "wheel", ".", "--no-deps", "--quiet", "-w", str(folder)]
    if importlib.util.find_spec("hatchling"):
        command.append("--no-build-isolation")
    subprocess.run(command, cwd=ROOT, check=True)
    (path,) = folder.glob("alignzoo-*.whl")
    with zipfile.ZipFile(path) as archive:
        yield archive


def test_the_wheel_holds_every_plugin_with_its_readme(wheel):
    names = set(wheel.namelist())
    for folder in plugin_folders():
        assert {f"{folder.name}/__init__.py", f"{folder.name}/README.md"} <= names


def test_the_wheel_holds_every_recipe(wheel):
    recipes = (ROOT / "recipes").rglob("*.yaml")
    expected = {f"alignzoo/recipes/{path.relative_to(ROOT / 'recipes')}" for path in recipes}
    assert expected
    assert expected <= set(wheel.namelist())


def test_the_wheel_names_its_plugins_and_its_command(wheel):
    (entry_points,) = (n for n in wheel.namelist() if n.endswith("dist-info/entry_points.txt"))
    text = wheel.read(entry_points).decode()
    assert "alignzoo = alignzoo.cli:main" in text
    for folder in plugin_folders():
        assert f"{folder.name} = {folder.name}" in text


def test_the_wheel_holds_neither_tests_nor_caches_nor_a_second_source_root(wheel):
    for name in wheel.namelist():
        assert not name.rpartition("/")[2].startswith("test_")
        assert "__pycache__" not in name
        assert not name.startswith(("tests/", "plugins/", "benchmarks/"))


def test_the_wheel_carries_types_and_licence(wheel):
    names = wheel.namelist()
    assert "alignzoo/py.typed" in names
    assert any(name.endswith("licenses/LICENSE") for name in names)
