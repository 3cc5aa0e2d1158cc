"""`alignzoo new algorithm`: a small package that installs, runs and passes its tests as it is."""

from __future__ import annotations

import keyword
import re
from pathlib import Path
from string import Template

from alignzoo import __version__
from alignzoo.errors import UsageError

TEMPLATE = Path(__file__).with_name("template")
FILES = {  # path in the new package: file of the template
    "pyproject.toml": "pyproject.toml.txt",
    "README.md": "README.md.txt",
    "recipe.yaml": "recipe.yaml.txt",
    "test_$package.py": "test.py.txt",
    "$package/__init__.py": "__init__.py.txt",
    "$package/algorithm.py": "algorithm.py.txt",
}


def new_algorithm_command(name: str, output: Path | None) -> None:
    """Write the package and say what to do with it.

    Raises UsageError for a name that cannot be one, or a folder that is in use.
    """
    words = names(name)
    folder = output or Path(words["distribution"])
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UsageError(f"{folder}: exists and is not empty; name a new folder with --output")
    for path, source in FILES.items():
        target = folder / Template(path).substitute(words)
        target.parent.mkdir(parents=True, exist_ok=True)
        text = (TEMPLATE / source).read_text(encoding="utf-8")
        target.write_text(Template(text).substitute(words), encoding="utf-8")
    print(f"{folder} holds a working method. Next:")
    print(f"  pip install -e {folder}")
    print(f"  alignzoo show {name}")
    print(f"  alignzoo run {folder / 'recipe.yaml'}")


def names(name: str) -> dict[str, str]:
    """Every form of a method's name that the template uses."""
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name) or keyword.iskeyword(name):
        raise UsageError(
            f"'{name}' cannot name a method: begin with a letter, then lower-case letters, digits, "
            "underscores, as in my_method"
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
