"""Bad data, models, plug-ins and places: one sentence each, no traceback, nothing half-written."""

import json
import re
import shutil

import pytest
from bad_data import BROKEN_PARTS, DATA, GROUPS, MODELS, PLUGIN, PLUGINS, TEXT, lines, recipe
from cli_process import Call, run_calls

pytestmark = pytest.mark.slow  # a process that imports torch, and a model to damage

PLACES = {  # what -> (words after the recipe, exit status, cause)
    "an output that is a file": (("--output", "{file}"), 2, "choose another --output"),
    "an output under a file": (("--output", "{file}/run"), 1, "Not a directory"),
    "an output of something else": (("--output", "{thesis}"), 2, "no run of a recipe"),
    "an override without a value": (("--set", "seed"), 2, r"--set seed: write it as key\.path"),
    "an override of nothing": (("--set", "stages.it.trian.lr=1"), 2, "did you mean 'train'"),
    "an override that climbs out": (("--set", "name=../x"), 2, "may hold only letters"),
    "an unknown option": (("--outptu", "x"), 2, "No such option: --outptu"),
}
COMMANDS = {  # words -> (exit status, cause)
    ("rnu",): (2, "No such command 'rnu'"),
    ("eval", "x"): (2, "Missing option '--benchmark'"),
    ("eval", "{model}", "--benchmark", "fact"): (2, "did you mean 'facts'?"),
    ("generate", "{model}", " "): (2, "the prompt is empty"),
    ("generate", "{model}", "x", "--top-p", "0"): (2, "--top-p must be greater than 0"),
    ("generate", "{model}", "x", "--stop", "a b"): (1, "is not one token"),
    ("generate", "{model}", "x", "--max-new-tokens", "6000"): (1, "the model's context is 512"),
    ("generate", "{model}", "--prompts", "{latin}"): (1, r"latin\.txt: not UTF-8 \(byte 4\)"),
    ("generate", "{file}", "x"): (1, "a model is a folder, this is a file"),
    ("export", "{model}", "{file}"): (2, "neither a run's folder nor RUN/STAGE"),
    ("leaderboard", "{file}"): (1, "no sound bundle"),
    ("recipe-schema", "--output", "{thesis}"): (1, "Is a directory"),
    ("new", "algorithm", "My-Method"): (2, "cannot name a plug-in"),
    ("new", "algorithm", "dpo"): (2, "'dpo' is installed already"),
    ("new", "algorithm", "abc", "--output", "{thesis}"): (2, "is not empty"),
}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with a good model, a good data file, and things that are in the way."""
    folder = tmp_path_factory.mktemp("bad")
    (folder / "good.jsonl").write_bytes(lines(TEXT))
    (folder / "good.yaml").write_text(recipe("sft", folder / "good.jsonl"))
    (folder / "file").write_text("mine")
    (folder / "latin.txt").write_bytes(b"caf\xe9\n")
    (folder / "groups.jsonl").write_bytes(GROUPS)
    (folder / "thesis").mkdir()
    (folder / "thesis" / "chapter.txt").write_text("years of work")
    (trained,) = run_calls([Call(("run", f"{folder}/good.yaml", "--output", f"{folder}/run"))])
    assert trained.status == 0, trained.err
    return folder


def named(place, words):
    names = {
        "file": place / "file",
        "thesis": place / "thesis",
        "latin": place / "latin.txt",
        "model": place / "run/stages/01-it/model",
        "groups": place / "groups.jsonl",
    }
    return tuple(word.format(**names) for word in words)


def written(folder, text, **options):
    """A call that runs this recipe into a folder of its own."""
    folder.mkdir(exist_ok=True)
    (folder / "recipe.yaml").write_text(text)
    return Call(("run", f"{folder}/recipe.yaml", "--output", f"{folder}/run"), **options)


def install(folder, name, source):
    """An installed plug-in for one call."""
    information = folder / f"{name}-1.0.dist-info"
    information.mkdir(parents=True)
    (information / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (information / "entry_points.txt").write_text(f"[alignzoo]\n{name} = {name}\n")
    (folder / f"{name}.py").write_text(source)
    return str(folder)


def data_calls(place):
    for number, (what, (name, content, stage, _)) in enumerate(DATA.items()):
        folder = place / f"data-{number}"
        file = folder / name
        file.parent.mkdir(parents=True)
        if content is not None:
            file.write_bytes(content)
        read = file.parent if name == "d/x" else file
        yield f"data: {what}", written(folder, recipe(stage, read))


def model_calls(place):
    for number, (what, (damage, _)) in enumerate(MODELS.items()):
        folder = place / f"model-{number}"
        shutil.copytree(place / "run/stages/01-it/model", folder / "model")
        damage(folder / "model")
        text = recipe("sft", place / "good.jsonl", folder / "model")
        yield f"model: {what}", written(folder, text)


def plugin_calls(place):
    for number, (what, (source, words, _, _)) in enumerate(PLUGINS.items()):
        path = install(place / f"plugin-{number}", f"cracked{number}", source)
        yield f"plugin: {what}", Call(words, path)
    path = install(place / "parts", "parts", PLUGIN)
    for number, (what, (block, _)) in enumerate(BROKEN_PARTS.items()):
        (stage,) = named(place, [block.replace("{", "{{").replace("}", "}}")
                                 .replace("{{groups}}", "{groups}")])  # fmt: skip
        text = f"name: x\nmodel: facts\nstages:\n  - {{name: it, {stage}}}\n"
        yield f"part: {what}", written(place / f"part-{number}", text, plugins=path)


def place_calls(place):
    for what, (words, _, _) in PLACES.items():
        yield f"place: {what}", Call(("run", f"{place}/good.yaml", *named(place, words)))
    cache = Call(("run", f"{place}/good.yaml", "--output", f"{place}/cacheless"))
    yield "place: a cache that is a file", Call(cache.words, cache=str(place / "file"))
    for words in COMMANDS:
        yield f"command: {' '.join(words)}", Call(named(place, words))


@pytest.fixture(scope="module")
def outcomes(place):
    """Every case by name, all from one process."""
    makers = (data_calls, model_calls, plugin_calls, place_calls)
    calls = dict(pair for maker in makers for pair in maker(place))
    return dict(zip(calls, run_calls(list(calls.values())), strict=True))


def refused(outcome, status, cause):
    """Exit status and cause as promised, in plain sentences."""
    assert outcome.status == status, outcome.err
    said = outcome.err or outcome.out  # `doctor` and `list` report on standard output
    assert re.search(cause, said, re.MULTILINE | re.DOTALL), said
    assert "Traceback" not in outcome.err and "unexpected" not in outcome.err
    said = [line for line in outcome.err.splitlines() if line.strip()]
    assert all(len(line) < 400 for line in said), outcome.err


def nothing_half_written(run):
    """The record says that the run failed; no output stands there as if it were one."""
    record = json.loads((run / "run.json").read_text())
    assert record["status"] == "failed" and record["error"]
    names = {file.name for file in run.rglob("*")}
    assert not names & {"model", "data.jsonl", "state", "scores.jsonl"}
    assert not [name for name in names if name.endswith(".tmp")]


@pytest.mark.parametrize("what", DATA)
def test_bad_data_is_one_sentence_with_its_place(place, outcomes, what):
    absent = DATA[what][1] is None  # the recipe is at fault
    refused(outcomes[f"data: {what}"], 2 if absent else 1, DATA[what][3])
    nothing_half_written(place / f"data-{list(DATA).index(what)}" / "run")


@pytest.mark.parametrize("what", MODELS)
def test_a_damaged_model_is_named_with_the_cause(place, outcomes, what):
    refused(outcomes[f"model: {what}"], 1, MODELS[what][1])
    folder = place / f"model-{list(MODELS).index(what)}"
    assert str(folder / "model") in outcomes[f"model: {what}"].err
    nothing_half_written(folder / "run")


def test_no_code_of_a_model_folder_is_run(place, outcomes):
    assert outcomes["model: code to run"].status == 1
    assert not list(place.rglob("evil.txt"))


@pytest.mark.parametrize("what", PLUGINS)
def test_a_broken_plugin_is_named(outcomes, what):
    _, _, status, cause = PLUGINS[what]
    module = f"cracked{list(PLUGINS).index(what)}"
    refused(outcomes[f"plugin: {what}"], status, cause.replace("{module}", module))


@pytest.mark.parametrize("what", BROKEN_PARTS)
def test_a_part_that_breaks_its_contract_is_named(place, outcomes, what):
    refused(outcomes[f"part: {what}"], 1, BROKEN_PARTS[what][1])
    nothing_half_written(place / f"part-{list(BROKEN_PARTS).index(what)}" / "run")


@pytest.mark.parametrize("what", PLACES)
def test_a_wrong_place_or_override_is_refused_before_anything_is_written(place, outcomes, what):
    _, status, cause = PLACES[what]
    refused(outcomes[f"place: {what}"], status, cause)
    assert (place / "file").read_text() == "mine"
    assert [path.name for path in (place / "thesis").iterdir()] == ["chapter.txt"]


def test_a_cache_that_cannot_be_written_stops_nothing(outcomes):
    done = outcomes["place: a cache that is a file"]
    assert done.status == 0, done.err


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_a_wrong_command_is_one_sentence(outcomes, words):
    refused(outcomes[f"command: {' '.join(words)}"], *COMMANDS[words])
