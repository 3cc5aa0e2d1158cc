"""What README.md and CONTRIBUTING.md name exists, and their examples work."""

import dataclasses
import re
import shlex
import sys
import types

import pytest
import torch
import typer
from room_rules import ROOMS
from source_tree import CORE, ROOT, code_lines, python_files

import alignzoo
from alignzoo import Batch, PairBatch
from alignzoo.cli.commands import app
from alignzoo.cli.terminal.names import find_recipe
from alignzoo.contract import hooks as hookspecs
from alignzoo.contract.evaluation import Answer
from alignzoo.contract.types import Item, PromptSample, Response, Tokens
from alignzoo.recipe.file import load_recipe
from alignzoo.recipe.registry import load_plugins
from alignzoo.testing import check_algorithm

README = (ROOT / "README.md").read_text(encoding="utf-8")
CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
REGISTRY = load_plugins()


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def command_lines():
    """What a reader would type: indented lines, without the prompt."""
    lines = re.findall(r"^    (?:\$ )?((?:alignzoo|make|torchrun|pip) .*)$", README, re.MULTILINE)
    return [shlex.split(line) for line in lines]


def recipe_commands():
    """Words after `alignzoo run` or `plan`, where the recipe is in this repository."""
    for words in command_lines():
        rest = words[words.index("alignzoo") :] if "alignzoo" in words else ["", "", ""]
        if rest[1] in ("run", "plan") and not rest[2].startswith("alignzoo-"):
            yield rest[2:]


@pytest.fixture(scope="module")
def commands():
    return typer.main.get_command(app).commands


def test_every_command_of_the_table_exists_and_no_command_is_left_out(commands):
    named = set(re.findall(r"^\| `alignzoo ([a-z-]+)", README, re.MULTILINE))
    assert named == set(commands)


def test_every_command_and_option_that_is_shown_exists(commands):
    shown = [words for words in command_lines() if words[0] == "alignzoo"]
    assert len(shown) >= 6
    for _, name, *rest in shown:
        known = {option for parameter in commands[name].params for option in parameter.opts}
        assert {word for word in rest if word.startswith("--")} <= known


def test_the_targets_of_make_exist():
    targets = {words[1] for words in command_lines() if words[0] == "make"}
    targets |= set(re.findall(r"`make ([a-z]+)`", README + CONTRIBUTING))
    targets |= set(re.findall(r"^    make ([a-z]+)", CONTRIBUTING, re.MULTILINE))
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert {"demo", "test"} <= targets
    assert [t for t in targets if not re.search(rf"^{t}:", makefile, re.MULTILINE)] == []


@pytest.mark.parametrize("text", [README, CONTRIBUTING], ids=["README", "CONTRIBUTING"])
def test_every_file_that_is_named_exists(text):
    files = re.findall(r"(?:recipes|plugins|benchmarks|tests|alignzoo)/[\w./-]+\.(?:yaml|py)", text)
    links = [link for link in re.findall(r"\]\(([^)]+)\)", text) if "://" not in link]
    own = [name for name in files if not name.startswith("alignzoo/recipes")]
    assert own
    assert [name for name in own + links if not (ROOT / name).exists()] == []


def test_the_recipes_of_the_commands_are_valid_with_their_overrides():
    checked = 0
    for name, *rest in recipe_commands():
        overrides = [rest[i + 1] for i, word in enumerate(rest) if word == "--set"]
        if "stages.dpo.train.lrr=1" not in overrides:  # shown for its error
            assert load_recipe(find_recipe(name), REGISTRY, overrides).stages
            checked += 1
    assert checked >= 4


def test_the_recipe_that_is_shown_is_valid(tmp_path):
    (text,) = blocks("yaml")
    path = tmp_path / "recipe.yaml"
    path.write_text(text, encoding="utf-8")
    assert [s.name for s in load_recipe(path, REGISTRY).stages] == [
        "sft",
        "answers",
        "pairs",
        "dpo",
    ]


@pytest.fixture
def shown(monkeypatch):
    """The names that a Python example defines."""

    def run(word):
        (text,) = (block for block in blocks("python") if word in block)
        module = types.ModuleType("shown_in_readme")
        monkeypatch.setitem(sys.modules, module.__name__, module)
        exec(compile(text, "README.md", "exec"), vars(module))
        return module

    return run


def test_every_python_example_compiles():
    assert len(blocks("python")) >= 3
    for block in blocks("python"):
        compile(block, "README.md", "exec")


def test_the_method_that_is_shown_is_dpo(shown):
    method = shown("class DPO").DPO(beta=0.5)
    pair = Item((Tokens((5,), (6, 1)), Tokens((5,), (7, 1))))
    batch = PairBatch.collate([pair], pad_id=0)
    policy = torch.tensor([[-1.0, -3.0, 0.0], [-2.0, -4.0, 0.0]])
    signals = {"policy": policy, "reference": torch.zeros_like(policy)}
    expected = torch.log1p(torch.exp(torch.tensor(-0.5 * (-4.0 + 6.0))))
    torch.testing.assert_close(method.loss(batch, signals, {}).named["loss"].value, expected[None])


@pytest.mark.slow
def test_the_method_that_is_shown_keeps_the_contract(shown):
    check_algorithm(shown("class DPO").DPO())


def test_the_judge_that_is_shown_scores(shown):
    example = shown("class Brief")
    answers = [Answer(PromptSample("hi"), Response("a b"), n) for n in (18, 20)]
    assert example.register_judges() == [example.Brief]
    assert [score.value for score in example.Brief().score(answers)] == [-2, 0]


def rooms_described():
    """Dotted names of the tree that CONTRIBUTING.md opens with."""
    outer = ""
    for indent, name in re.findall(r"^    ( +)([a-z_]+)(?:/|\.py) {2,}\S", CONTRIBUTING, re.M):
        if len(indent) == 2:
            outer = name
        if not name.startswith("__"):
            yield name if len(indent) == 2 else f"{outer}.{name}"


def test_the_rooms_that_are_described_are_those_that_are_enforced():
    enforced = {room for room in ROOMS if not room.startswith(("cli.", "__"))}
    assert set(rooms_described()) == enforced


def test_the_table_of_hooks_is_complete():
    named = set(
        re.findall(r"^\| `(\w+)` \| (?:registering|resolving|observing)", CONTRIBUTING, re.M)
    )
    assert named == {n for n, x in vars(hookspecs).items() if hasattr(x, "alignzoo_spec")}


def batches(cls=Batch):
    """Every kind of batch that is exported."""
    for kind in cls.__subclasses__():
        if kind.__name__ in alignzoo.__all__:
            yield kind
            yield from batches(kind)


def test_the_table_of_batches_has_every_kind_with_its_own_fields():
    common = {f.name for f in dataclasses.fields(Batch)}
    rows = dict(re.findall(r"^\| `(\w+Batch)` \| (.*)$", CONTRIBUTING, re.M))
    assert set(rows) == {kind.__name__ for kind in batches()}
    for kind in batches():
        _, fields, slices, _ = (cell.strip() for cell in rows[kind.__name__].split("|"))
        own = {f.name for f in dataclasses.fields(kind)} - common
        assert set(re.findall(r"`(\w+)`", fields)) == own
        named = {n for n, x in vars(kind).items() if isinstance(x, property)}
        assert set(re.findall(r"`(\w+)`", slices)) == named


def test_the_size_of_the_core_is_about_what_is_said():
    said = re.search(r"it has about ([\d,]+)", CONTRIBUTING)[1]
    actual = sum(code_lines(path) for path in python_files(CORE))
    assert int(said.replace(",", "")) == pytest.approx(actual, rel=0.15)
