"""A package from outside and the built wheel, in an environment of their own, through the CLI."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sysconfig
import venv
from pathlib import Path

import pytest
from source_tree import ROOT

pytestmark = pytest.mark.slow
OUTSIDER = ROOT / "tests" / "third_party"


@pytest.fixture(scope="module")
def outside(tmp_path_factory):
    """An environment with the built wheel; heavy dependencies are borrowed from this one."""
    folder = tmp_path_factory.mktemp("outside")
    venv.create(folder / "venv", with_pip=True)
    python = folder / "venv" / "bin" / "python"
    site = subprocess.check_output(
        [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"], text=True
    ).strip()
    borrowed = sysconfig.get_path("purelib")
    (Path(site) / "zz_borrowed.pth").write_text(borrowed + "\n")
    install(python, ROOT)
    return python


def install(python, source) -> None:
    command = [python, "-m", "pip", "install", "--quiet", "--no-deps", "--ignore-installed"]
    if importlib.util.find_spec("hatchling"):
        command.append("--no-build-isolation")
    subprocess.run([*command, str(source)], check=True, cwd=source)


def alignzoo(python, *words, cwd, cache):
    environment = os.environ | {"ALIGNZOO_CACHE": str(cache), "COLUMNS": "200"}
    environment.pop("PYTHONPATH", None)
    command = [Path(python).with_name("alignzoo"), *words]
    return subprocess.run(
        command, cwd=cwd, env=environment, capture_output=True, text=True, check=False
    )


def test_a_strangers_package_is_listed_checked_and_run_beside_the_wheel(outside, tmp_path):
    install(outside, OUTSIDER)
    listed = alignzoo(outside, "list", "--json", cwd=tmp_path, cache=tmp_path / "cache")
    assert "margin-dpo" in listed.stdout and "politeness" in listed.stdout, listed.stderr
    checked = alignzoo(outside, "check", "margin-dpo", cwd=tmp_path, cache=tmp_path / "cache")
    assert checked.returncode == 0, checked.stdout + checked.stderr
    recipe = OUTSIDER / "recipe.yaml"
    words = ("run", str(recipe), "--output", str(tmp_path / "run"))
    done = alignzoo(outside, *words, cwd=tmp_path, cache=tmp_path / "cache")
    assert done.returncode == 0, done.stdout + done.stderr
    scores = (tmp_path / "run" / "scores.jsonl").read_text().splitlines()
    assert {json.loads(row)["model"] for row in scores} == {"sft", "margin"}
    watched = (tmp_path / "run" / "outsider.jsonl").read_text().splitlines()
    assert sum(json.loads(row)["stage"] == "margin" for row in watched) == 4


def test_an_in_repo_plugin_works_ejected_as_a_package_of_its_own(outside, tmp_path):
    """In-repo equals third-party: the same folder, out of the wheel, gives the same method."""
    ejected = tmp_path / "alignzoo-simple"
    shutil.copytree(ROOT / "plugins" / "alignzoo_dpo", ejected / "alignzoo_ejected")
    for file in (ejected / "alignzoo_ejected").glob("*.py"):
        text = file.read_text().replace("alignzoo_dpo", "alignzoo_ejected")
        renamed = {'name = "dpo"': 'name = "ejected"', 'name = "ipo"': 'name = "ejected-ipo"'}
        for old, new in renamed.items():
            text = text.replace(old, new)
        file.write_text(text.replace('name = "hinge', 'name = "ejected-hinge'))
    project = (OUTSIDER / "pyproject.toml").read_text().replace("outsider", "ejected")
    (ejected / "pyproject.toml").write_text(project)
    install(outside, ejected)
    done = alignzoo(outside, "check", "ejected", cwd=tmp_path, cache=tmp_path / "cache")
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_plugin_for_other_hooks_is_refused_with_a_sentence(outside, tmp_path):
    old = tmp_path / "alignzoo-old"
    shutil.copytree(OUTSIDER, old)
    package = old / "alignzoo_outsider"
    package.rename(old / "alignzoo_old")
    init = old / "alignzoo_old" / "__init__.py"
    init.write_text(init.read_text().replace("HOOKS_VERSION = 1", "HOOKS_VERSION = 7"))
    project = (old / "pyproject.toml").read_text().replace("outsider", "old")
    (old / "pyproject.toml").write_text(project)
    install(outside, old)
    done = alignzoo(outside, "doctor", cwd=tmp_path, cache=tmp_path / "cache")
    assert done.returncode == 1
    assert "written for version 7 of the hooks" in done.stdout
    remove = [outside, "-m", "pip", "uninstall", "--quiet", "--yes", "alignzoo-old"]
    subprocess.run(remove, check=True)


def test_the_package_that_new_writes_installs_passes_and_is_listed(outside, tmp_path):
    made = alignzoo(outside, "new", "algorithm", "my_way", cwd=tmp_path, cache=tmp_path / "cache")
    assert made.returncode == 0, made.stderr
    install(outside, tmp_path / "alignzoo-my-way")
    done = alignzoo(outside, "check", "my_way", cwd=tmp_path, cache=tmp_path / "cache")
    assert done.returncode == 0, done.stdout + done.stderr
