"""A reproducible installation: the versions that are held, and the container that holds them."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from importlib.machinery import SourceFileLoader

import pytest
from packaging.requirements import Requirement
from packaging.version import Version
from source_tree import ROOT

DOCKERFILE = (ROOT / "Dockerfile").read_text(encoding="utf-8")
CONSTRAINTS = (ROOT / "constraints.txt").read_text(encoding="utf-8")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
LARGE = {"vllm"}  # lives in an environment of its own


def held():
    lines = [line for line in CONSTRAINTS.splitlines() if line and not line.startswith("#")]
    return dict(line.split("==") for line in lines)


def requirements():
    lines = [*PROJECT["dependencies"]]
    lines += [line for extra in PROJECT["optional-dependencies"].values() for line in extra]
    return [one for one in map(Requirement, lines) if one.name != PROJECT["name"]]


def copied():
    """What the container gets of this repository."""
    lines = re.findall(r"^COPY (.+) \S+$", DOCKERFILE, re.MULTILINE)
    return [name for line in lines for name in line.split()]


def test_constraints_are_names_and_versions_and_nothing_of_a_machine():
    for name, version in held().items():
        assert re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", name)
        assert re.fullmatch(r"[0-9][0-9a-z.]*", version), f"{name}: a local part or an address"
    assert not re.search(r"://|@|file:|--", CONSTRAINTS)


def test_every_requirement_has_a_held_version_that_it_takes():
    versions = {name: Version(x) for name, x in held().items()}
    missing, wrong = set(), []
    for one in requirements():
        name = re.sub(r"[-_.]+", "-", one.name).lower()
        if name not in versions:
            missing.add(name)
        elif not one.specifier.contains(versions[name]):
            wrong.append(f"{one} and {name}=={versions[name]}")
    assert wrong == []
    assert missing == LARGE


def test_the_script_writes_what_is_installed_here():
    script = SourceFileLoader("constraints", str(ROOT / ".ci" / "constraints")).load_module()
    found = script.versions()
    assert Version(found["torch"]) == Version(__import__("torch").__version__.partition("+")[0])
    assert {"pluggy", "tokenizers", "numpy"} <= set(found), "needed by others"
    assert PROJECT["name"] not in found


def typed(line):
    return subprocess.run(["sh", "-c", line], cwd=ROOT, capture_output=True, text=True, check=False)


def test_the_container_knows_both_devices_and_refuses_another():
    (run,) = re.findall(r"^RUN (case .*?)(?<!\\)\n", DOCKERFILE, re.MULTILINE | re.DOTALL)
    script = run.replace("\\\n", "\n")
    shown = re.sub(r"\bpip install\b", "echo", script)
    for device, host in (("cpu", "download.pytorch.org"), ("cuda", "pypi.org")):
        line = f"DEVICE={device} EXTRAS=lora; {shown}"
        done = subprocess.run(
            ["sh", "-c", line], cwd=ROOT, capture_output=True, text=True, check=True
        )
        assert host in done.stdout and f"torch=={held()['torch']}" in done.stdout
        assert ".[lora]" in done.stdout
    bad = typed(f"DEVICE=tpu; {shown}")
    assert bad.returncode == 2 and "DEVICE is cpu or cuda, not 'tpu'" in bad.stderr


def test_extras_of_the_container_exist():
    (extras,) = re.findall(r"^ARG EXTRAS=(\S+)", DOCKERFILE, re.MULTILINE)
    assert set(extras.split(",")) <= set(PROJECT["optional-dependencies"])


def test_what_the_container_copies_exists_and_is_not_ignored():
    ignored = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    assert copied() and ignored[0] == "*"
    for name in copied():
        assert (ROOT / name).exists()
        assert f"!{name}" in ignored


@pytest.mark.slow
def test_what_the_container_copies_is_enough_to_build_the_package(tmp_path):
    skip = shutil.ignore_patterns("__pycache__", "test_*.py")
    for name in copied():
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, tmp_path / "src" / name, ignore=skip)
        else:
            (tmp_path / "src").mkdir(exist_ok=True)
            shutil.copy(source, tmp_path / "src" / name)
    pytest.importorskip("hatchling")
    command = [sys.executable, "-m", "pip", "wheel", ".", "--no-deps", "--quiet"]
    command += ["--no-build-isolation", "-w", str(tmp_path)]
    subprocess.run(command, cwd=tmp_path / "src", check=True)
    (path,) = tmp_path.glob("alignzoo-*.whl")
    with zipfile.ZipFile(path) as wheel:
        names = set(wheel.namelist())
    assert {"alignzoo/recipes/dpo.yaml", "alignzoo_dpo/algorithm.py"} <= names


def builder():
    """A program that can build an image here, or None."""
    for name in ("docker", "podman"):
        if shutil.which(name) is None:
            continue
        asked = subprocess.run([name, "info"], capture_output=True, check=False, timeout=60)
        if asked.returncode == 0:
            return name
    return None


@pytest.mark.slow
def test_the_image_is_built_and_answers():
    program = builder()
    if program is None:
        pytest.skip("no docker or podman that can build is running here")
    name = "alignzoo-test"
    subprocess.run([program, "build", "-t", name, "--build-arg", "EXTRAS=plot", "."], cwd=ROOT,
                   check=True)  # fmt: skip
    done = subprocess.run([program, "run", "--rm", name, "list", "algorithms"],
                          capture_output=True, text=True, check=True)  # fmt: skip
    assert "aligndistil" in done.stdout
