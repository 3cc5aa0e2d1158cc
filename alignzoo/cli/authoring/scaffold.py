"""`alignzoo new KIND`: a small package that installs, runs and passes its tests as it is."""

from __future__ import annotations

import keyword
import re
from pathlib import Path
from string import Template

from alignzoo import __version__
from alignzoo.contract.errors import UsageError
from alignzoo.recipe.registry import load_plugins

TEMPLATE = Path(__file__).with_name("template")
SHARED = {"pyproject.toml": "pyproject.toml.txt"}  # path in the package: file of the template
COMMON = ("README.md", "recipe.yaml")


def files(kind: str) -> dict[str, str]:
    """Path in the new package -> file of the template."""
    own = {name: f"{kind}/{name}.txt" for name in COMMON}
    own |= {"test_$package.py": f"{kind}/test.py.txt"}
    own |= {"$package/__init__.py": f"{kind}/__init__.py.txt"}
    module = TEMPLATE / kind / "algorithm.py.txt"
    extra = {"$package/algorithm.py": f"{kind}/{module.name}"} if module.exists() else {}
    return {**SHARED, **own, **extra}


def new_command(kind: str, name: str, output: Path | None) -> None:
    """Write the package and say what to do with it.

    Raises UsageError for a name that cannot be one, or a folder that is in use.
    """
    words = names(name)
    if name in load_plugins().kinds[kind]:
        raise UsageError(f"'{name}' is installed already; choose another name")
    folder = output or Path(words["distribution"])
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UsageError(f"{folder}: exists and is not empty; name a new folder with --output")
    for path, source in files(kind).items():
        target = folder / Template(path).substitute(words)
        target.parent.mkdir(parents=True, exist_ok=True)
        text = (TEMPLATE / source).read_text(encoding="utf-8")
        target.write_text(Template(text).substitute(words), encoding="utf-8")
    print(f"{folder} holds a working {kind}. Next:")
    print(f"  pip install -e {folder}")
    print(f"  alignzoo check {name}")
    print(f"  alignzoo run {folder / 'recipe.yaml'}")


def names(name: str) -> dict[str, str]:
    """Every form of a method's name that the template uses."""
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name) or keyword.iskeyword(name):
        raise UsageError(
            f"'{name}' cannot name a plug-in: begin with a letter, then lower-case letters, "
            "digits, underscores, as in my_method"
        )
    return {
        "name": name,
        "slug": name.replace("_", "-"),
        "title": name.replace("_", " ").capitalize(),
        "cls": "".join(part.capitalize() for part in name.split("_")),
        "package": f"alignzoo_{name}",
        "distribution": f"alignzoo-{name.replace('_', '-')}",
        "version": __version__,
    }
