"""A method's README says what its code says: equation, options, roles, metrics, a valid recipe."""

import json
import re

import pytest
from source_tree import PLUGINS

from alignzoo.recipe.file import load_recipe
from alignzoo.recipe.options import option_table
from alignzoo.recipe.registry import load_plugins

REGISTRY = load_plugins()
METHODS = [
    cls for cls in REGISTRY.algorithms.values() if (PLUGINS / cls.__module__.split(".")[0]).is_dir()
]
each_method = pytest.mark.parametrize("method", METHODS, ids=lambda cls: cls.name)


def readme(method):
    folder = PLUGINS / method.__module__.split(".")[0]
    return (folder / "README.md").read_text(encoding="utf-8")


def recipes():
    for path in sorted(PLUGINS.glob("*/README.md")):
        for block in re.findall(r"```yaml\n(.*?)```", path.read_text(encoding="utf-8"), re.DOTALL):
            if block.startswith("name:"):
                yield pytest.param(block, id=path.parent.name)


@each_method
def test_the_equation_is_that_of_the_docstring(method):
    assert method.__doc__.splitlines()[0] in readme(method)


@each_method
def test_every_option_is_listed_with_its_default(method):
    for option in option_table(method):
        default = "required" if option.required else json.dumps(option.default).strip('"')
        assert f"| `{option.name}` | {default} |" in readme(method)


@each_method
def test_every_role_and_metric_is_explained(method):
    text = readme(method)
    for role, part in method.roles.items():
        assert f"| `{role}` | {'yes' if part.trainable else 'no'} |" in text
    assert {name for name in method.metrics if f"`{name}`" not in text} == set()


@pytest.mark.parametrize("recipe", recipes())
def test_a_recipe_in_a_readme_is_valid_as_it_is(recipe, tmp_path):
    path = tmp_path / "recipe.yaml"
    path.write_text(recipe, encoding="utf-8")
    assert load_recipe(path, REGISTRY).stages
