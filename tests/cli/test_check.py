"""`alignzoo check`: every listed name works as it stands, and options are those of recipes."""

from __future__ import annotations

import json

import pytest

from alignzoo.cli.authoring import checking
from alignzoo.cli.authoring.checking import parse_options
from alignzoo.cli.looking.catalogue import entries
from alignzoo.contract.errors import RecipeError, UsageError
from alignzoo.recipe.options import try_options
from alignzoo.recipe.registry import load_plugins

REGISTRY = load_plugins()
LISTED = sorted({(entry.kind, entry.name) for entry in entries(REGISTRY)})
TRIED_AT_LENGTH = ("algorithm", "engine", "benchmark")  # tests/kit tries each of them


@pytest.mark.parametrize(("kind", "name"), LISTED, ids=[f"{k} {n}" for k, n in LISTED])
def test_every_listed_name_is_checked_as_it_stands(cli, monkeypatch, tmp_path, kind, name):
    monkeypatch.setenv("ALIGNZOO_DATA", str(tmp_path))  # where no benchmark's files are
    tried = []
    for long in TRIED_AT_LENGTH:
        monkeypatch.setitem(checking.KITS, long, lambda plugin: tried.append(plugin) or [])
    status, out, err = cli("check", name)
    assert (status, err) == (0, "")
    assert f"{kind} {name}" in out
    assert ("not tried" in out) or tried or "kept" in out


def test_a_method_with_a_required_option_states_an_example_set():
    needy = [c for c in REGISTRY.algorithms.values() if try_options(c, {})[0] is None]
    assert needy
    for cls in needy:
        assert try_options(cls, cls.example_options)[0] is not None


def test_show_prints_the_signals_of_a_method_with_a_required_option(cli):
    _, out, _ = cli("show", "aligndistil")
    assert "with r = 2.0:" in out
    assert "policy, teacher, anchor   every micro-batch, with gradient" in out


def test_what_a_judge_needs_is_said_instead_of_trying_it(cli):
    status, out, _ = cli("check", "function")
    assert status == 0
    assert "not tried: it needs `--with path=...`" in out
    assert "nothing was tried" in out


def test_set_and_with_mean_the_same_and_read_values_as_recipes_do():
    assert parse_options(["r=1e-3"]) == parse_options([], ["with.r=1e-3"]) == {"r": 1e-3}
    assert parse_options(["on=yes"], ["with.size=4"]) == {"on": "yes", "size": 4}


@pytest.mark.parametrize(
    ("words", "error", "what"),
    [
        ((["size"], []), UsageError, "--with size: write KEY=VALUE"),
        (([], ["size=4"]), UsageError, r"check sets options only, as in with\.size=100"),
        (([], ["with.size=[1"]), RecipeError, "not YAML"),
    ],
)
def test_a_word_that_sets_nothing_is_refused(words, error, what):
    with pytest.raises(error, match=what):
        parse_options(*words)


def test_a_wrong_option_is_told_with_a_suggestion(cli):
    status, _, err = cli("check", "facts.sft", "--set", "with.sise=4")
    assert status == 2
    assert "facts.sft.sise: unknown option; did you mean 'size'?" in err


def test_a_broken_promise_is_shown_with_file_and_line(cli, tmp_path):
    module = tmp_path / "alignzoo_dicey.py"
    module.write_text(
        "import random\n"
        "from alignzoo import Dataset, PromptSample, hookimpl\n"
        "class Dicey(Dataset):\n"
        "    '''Prompts by chance.'''\n"
        "    name = 'dicey'\n"
        "    def samples(self, seed):\n"
        "        return [PromptSample(str(random.random()))]\n"
        "@hookimpl\n"
        "def register_datasets():\n"
        "    return [Dicey]\n"
    )
    status, out, _ = cli("check", module, "--json", tmp_path / "out.json")
    assert status == 1
    assert f"{module}:6: equal seeds give equal samples, whatever else is random" in out
    (broken,) = [
        c for c in json.loads((tmp_path / "out.json").read_text())["dataset dicey"] if not c["kept"]
    ]
    assert broken["where"] == f"{module}:6"


def test_a_recipe_is_checked_too(cli, tmp_path):
    assert "recipe real/alpaca_dpo" in cli("check", "real/alpaca_dpo")[1]
    broken = tmp_path / "broken.yaml"
    broken.write_text("name: r\nmodel: m\nstages: [{name: s, algorithm: nix, data: d}]\n")
    status, out, _ = cli("check", broken)
    assert status == 1
    assert "BROKEN" in out and "nix" in out
