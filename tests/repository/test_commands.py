"""Every command that a page shows works, or says what it needs that a test has not."""

import contextlib
import importlib
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import typer
import yaml
from doc_blocks import NEEDS, Block, blocks, pages, program, words
from source_tree import ROOT

from alignzoo.cli.commands import app
from alignzoo.cli.terminal.names import find_recipe

BLOCKS = {path: list(blocks(path)) for path in pages()}
ALL = [block for found in BLOCKS.values() for block in found]
SHOWN = [(block, command) for block in ALL for command in block.commands]
STORIES = [path for path in BLOCKS if any(block.commands for block in BLOCKS[path])]
ANYWHERE = {"RUN": "runs/demo"}  # words that stand for something in every page
COMMANDS = typer.main.get_command(app).commands


def each(found):
    names = [f"{block.place}: {command[:40]}" for block, command in found]
    return pytest.mark.parametrize(("block", "command"), found, ids=names)


def known(command):
    """The command of alignzoo that a line runs, with the subcommand of `new`."""
    _, name, *rest = words(command)
    found = COMMANDS[name]
    return found.commands[rest[0]] if hasattr(found, "commands") else found


@each([(b, c) for b, c in SHOWN if program(c) == "alignzoo" and words(c)[1:]])
def test_every_command_and_option_that_is_shown_exists(block, command):
    options = {word.partition("=")[0] for word in words(command) if word.startswith("--")}
    takes = {name for parameter in known(command).params for name in parameter.opts} | {"--help"}
    assert options <= takes, block.place


@each([(b, c) for b, c in SHOWN if program(c) == "make"])
def test_every_target_of_make_that_is_shown_exists(block, command):
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert re.search(rf"^{words(command)[1]}:", makefile, re.MULTILINE), block.place


@pytest.mark.parametrize("block", ALL, ids=lambda block: block.place)
def test_a_block_is_sound_in_its_language(block):
    if block.language == "yaml":
        assert yaml.safe_load(block.text) is not None
    elif block.language == "json":
        assert json.loads(block.text)
    elif block.language == "python" and "replace in" not in block.marks:
        with contextlib.suppress(IndentationError):  # a piece of a class
            compile(block.text, block.place, "exec")


def test_a_test_that_is_said_to_run_a_command_exists():
    named = {block.marks["tested by"] for block in ALL if "tested by" in block.marks}
    assert [name for name in named if not (ROOT / name).is_file()] == []


def test_what_a_command_needs_is_something_that_no_test_has():
    wanted = {word for block in ALL for word in block.marks.get("needs", "").split(", ")} - {""}
    assert wanted <= set(NEEDS)
    slow = [b.commands for b in ALL if "minutes" in b.marks.get("needs", "")]
    assert {program(command) for found in slow for command in found} <= {"make"}


# --- the commands are run, page by page, from the first to the last ---------------------------


def shrunken(recipe):
    """--set words that make a recipe of the embedded world a matter of seconds."""
    content = yaml.safe_load(Path(recipe).read_text(encoding="utf-8"))
    changes = {}
    for stage in content["stages"]:
        for key, value in smaller(stage).items():
            changes[f"stages.{stage['name']}.{key}"] = value
    for n, _ in enumerate(content.get("evaluate", ())):
        changes |= {f"evaluate.{n}.with.size": 4, f"evaluate.{n}.samples": 1}
        changes[f"evaluate.{n}.sampling.max_new_tokens"] = 16
    return [word for key, x in changes.items() for word in ("--set", f"{key}={x}")]


def smaller(stage):
    """Key -> value of one stage."""
    data = stage["data"] if isinstance(stage["data"], dict) else {"name": stage["data"]}
    sizes = {
        "data.with.size": (data["name"].startswith("facts."), 32),
        "data.skip": ("skip" in data, 4),
        "validation.data.limit": ("validation" in stage, 4),
        "validation.every": ("validation" in stage, 1),
        "rollout.prompts": ("rollout" in stage, 8),
        "rollout.sampling.max_new_tokens": ("rollout" in stage, 16),
        "sampling.max_new_tokens": (stage.get("stage") == "generate", 16),
        **{f"train.{key}": ("algorithm" in stage, 8) for key in ("batch_size", "micro_batch_size")},
        "train.steps": ("algorithm" in stage, 2),
    }
    return {key: value for key, (there, value) in sizes.items() if there}


class Reader:
    """Types what a page says, in a folder of its own."""

    def __init__(self, cli, monkeypatch):
        self.cli, self.monkeypatch = cli, monkeypatch
        self.installed = []

    def follow(self, found):
        """Every block in order."""
        rest = iter(found)
        for block in rest:
            if "replace in" in block.marks:
                self.replace(block, next(rest))
            elif "file" in block.marks:
                Path(block.marks["file"]).write_text(block.text + "\n", encoding="utf-8")
            elif not {"needs", "tested by"} & set(block.marks):
                for command in block.commands:
                    self.type(block, command)

    def type(self, block, command):
        """One command; what is shown below it is what it prints."""
        given = block.marks.get("tried with", "")
        pairs = ANYWHERE | dict(pair.split(" -> ") for pair in given.split("; ") if pair)
        for word, instead in pairs.items():
            command = re.sub(rf"\b{re.escape(word)}\b", instead, command)
        status, printed = self.started(words(command))
        assert status == int(block.marks.get("fails", 0)), f"{block.place}: {command}\n{printed}"
        for piece in filter(None, map(str.strip, block.output.split("..."))):
            assert piece in printed, f"{block.place}: {command}\n{printed}"

    def started(self, line):
        """Exit status and everything printed."""
        if line[:3] == ["pip", "install", "-e"]:
            return self.install(Path(line[3])), ""
        if line[0] == "python":
            path = os.pathsep.join([*self.installed, os.environ.get("PYTHONPATH", "")])
            env = os.environ | {"PYTHONPATH": path}
            command = [sys.executable, *line[1:]]
            done = subprocess.run(command, env=env, check=False, capture_output=True, text=True)
            return done.returncode, done.stdout + done.stderr
        assert line[0] == "alignzoo", f"no test can run {line[0]}: mark it with <!-- needs: ... -->"
        if line[1] == "run" and "--help" not in line:
            line[3:3] = shrunken(find_recipe(line[2]))
        status, out, err = self.cli(*line[1:])
        return status, out + err

    def install(self, folder):
        """What an editable installation leaves: the package on the path, and its entry point."""
        package = folder.name.replace("-", "_")
        about = folder.parent / "installed" / f"{package}-0.1.dist-info"
        about.mkdir(parents=True)
        (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 0.1\n")
        project = (folder / "pyproject.toml").read_text(encoding="utf-8")
        (line,) = re.findall(r"^\w+ = \"\w+\"$", project.partition("entry-points")[2], re.MULTILINE)
        (about / "entry_points.txt").write_text("[alignzoo]\n" + line.replace('"', "") + "\n")
        for path in (folder, about.parent):
            self.monkeypatch.syspath_prepend(str(path.resolve()))
            self.installed.append(str(path.resolve()))
        return 0

    def replace(self, old, new):
        """Edit a file as the page says, once."""
        path = Path(old.marks["replace in"])
        text = path.read_text(encoding="utf-8")
        assert text.count(old.text) == 1, f"{old.place}: {path} does not hold it once"
        path.write_text(text.replace(old.text, new.text), encoding="utf-8")
        for name in [name for name in sys.modules if name.startswith("alignzoo_my_")]:
            del sys.modules[name]
        importlib.invalidate_caches()


@pytest.fixture(scope="module")
def started(tmp_path_factory):
    """What pages suppose: the bundled recipes, a run, and two files of answers."""
    folder = tmp_path_factory.mktemp("pages")
    (folder / "recipes").symlink_to(ROOT / "recipes")
    recipe = ROOT / "recipes" / "aligndistil_onpolicy.yaml"
    command = [sys.executable, "-m", "alignzoo", "run", str(recipe), *shrunken(recipe)]
    subprocess.run([*command, "--output", "runs/demo"], cwd=folder, check=True, capture_output=True)
    for name, answer in (("ours", "A lemon."), ("theirs", "A lemon, or perhaps a lime.")):
        row = {"prompt": "Name a fruit that is not sweet.", "output": answer}
        (folder / f"{name}.jsonl").write_text(json.dumps(row) + "\n")
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("page", STORIES, ids=lambda path: path.stem)
def test_the_commands_of_a_page_do_what_it_says(page, started, cli, monkeypatch, tmp_path):
    folder = tmp_path / "reader"
    shutil.copytree(started, folder, symlinks=True, copy_function=os.link)
    monkeypatch.chdir(folder)
    before = set(sys.modules)
    Reader(cli, monkeypatch).follow(BLOCKS[page])
    for name in [n for n in sys.modules if n.startswith("alignzoo_my_") and n not in before]:
        del sys.modules[name]


def test_a_command_that_nothing_is_said_of_is_not_passed_over(cli, monkeypatch):
    block = Block("page.md", 1, "sh", "frobnicate --all")
    with pytest.raises(AssertionError, match="mark it with"):
        Reader(cli, monkeypatch).follow([block])
