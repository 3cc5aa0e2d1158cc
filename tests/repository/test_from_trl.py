"""The page for users of TRL names trainers, algorithms and keys that exist."""

import re

import pytest
from source_tree import ROOT

from alignzoo.recipe.foreign import homes
from alignzoo.recipe.options import option_table
from alignzoo.recipe.registry import load_plugins

PAGE = (ROOT / "docs" / "from-trl.md").read_text(encoding="utf-8")
REGISTRY = load_plugins()
TRAINERS = ["DPO", "KTO", "CPO", "SimPO", "ORPO", "GRPO", "RLOO", "PPO", "GKD", "OnlineDPO", "BCO"]
TRAINERS += ["NashMD", "XPO", "MiniLLM", "PRM"]
OURS = re.compile(r"`((?:with|train|rollout|data|validation|roles|rails|adapter)[.\w]*)")
PARTS = dict(re.findall(r"^## ([^\n]+)\n(.*?)(?=^## |\Z)", PAGE, re.MULTILINE | re.DOTALL))


def rows():
    """(section, its algorithms, a key of ours) of every row."""
    for title, text in PARTS.items():
        prose = "\n".join(line for line in text.splitlines() if not line.startswith("|"))
        named = re.findall(r"`(?:algorithm: )?(\w+)`", prose)
        known = [name for name in named if name in REGISTRY.algorithms]
        for line in text.splitlines():
            if line.startswith("| ") and not line.startswith("| theirs"):
                for key in OURS.findall(line.split(" | ", 1)[1]):
                    yield pytest.param(known, key, id=f"{title}: {key}")


@pytest.mark.parametrize("name", TRAINERS)
def test_every_trainer_is_answered(name):
    assert any(name in title for title in PARTS), name


@pytest.mark.parametrize(("methods", "key"), rows())
def test_every_key_of_ours_exists(methods, key):
    head, _, rest = key.partition(".")
    if head == "with":
        known = {o.name for name in methods for o in option_table(REGISTRY.algorithms[name])}
        assert rest in known, f"{key} of {methods}"
    elif head == "roles" and rest:
        assert any(rest in cls.roles for cls in REGISTRY.algorithms.values())
    else:
        places = homes().get(key.rpartition(".")[2], ())
        assert any(place == key or place.endswith(f".{key}") for place in places), (key, places)


def test_every_algorithm_that_is_named_is_installed():
    named = set(re.findall(r"algorithm: (\w+)", PAGE))
    assert named and named <= set(REGISTRY.algorithms)


def test_every_recipe_that_is_named_is_bundled():
    for name in re.findall(r"recipes/[\w.]+", PAGE):
        assert (ROOT / name).is_file(), name
