"""Bundles: what leaves a machine, and what is refused of what comes in."""

from __future__ import annotations

import getpass
import json
import random
import socket
from pathlib import Path

import pytest

from alignzoo.cli.doing.bundling import bundle_command, impersonal
from alignzoo.cli.doing.export import export_command
from alignzoo.cli.doing.running import leaderboard_command
from alignzoo.cli.terminal.names import find_speaker
from alignzoo.contract.errors import DataError, UsageError
from alignzoo.contract.progress import Silent
from alignzoo.leaderboard import as_json, bundle_text, read_bundle, read_leaderboard, render_page
from alignzoo.leaderboard.bundle import LONGEST, MOST, Bundle
from alignzoo.recipe.blocks import Recipe
from alignzoo.recipe.registry import load_plugins
from alignzoo.run import run_recipe
from alignzoo.store.files import digest_of_value


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run of two models that were measured, its data in a folder of this machine."""
    home = tmp_path_factory.mktemp("secret-place")
    row = {"prompt": "tell me the food of the fox .", "response": "the food is fish ."}
    (home / "pairs.jsonl").write_text((json.dumps(row) + "\n") * 4)
    train = {"steps": 1, "batch_size": 4, "lr": 0.01}
    stage = {"name": "sft", "algorithm": "sft", "data": str(home / "pairs.jsonl"), "train": train}
    parts = {"name": "sent", "model": "facts", "seed": 3, "threads": 1, "stages": [stage]}
    block = {"benchmark": "facts", "with": {"size": 3}, "models": ["initial", "sft"]}
    evaluate = [{**block, "baseline": "initial"}]
    recipe = Recipe.model_validate({**parts, "evaluate": evaluate})
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ALIGNZOO_CACHE", str(home / "cache"))
        run_recipe(recipe, "", load_plugins(), home / "sent-1", Silent())
    return home / "sent-1"


@pytest.fixture
def file(run, tmp_path):
    bundle_command(run, tmp_path / "sent.json")
    return tmp_path / "sent.json"


def test_a_bundle_gives_the_table_that_its_run_gives(run, file):
    assert as_json(read_leaderboard([file])) == as_json(read_leaderboard([run]))
    assert as_json(read_leaderboard([file, run])) == as_json(read_leaderboard([run]))


def test_a_bundle_says_recipe_seed_versions_and_digests_and_no_weights(run, file):
    sent = read_bundle(file)
    assert (sent.run, sent.seed, sent.recipe["model"]) == ("sent-1", 3, "facts")
    assert sent.versions == json.loads((run / "run.json").read_text())["versions"]
    record = json.loads((run / "evaluations/01-facts/sft/stage.json").read_text())["files"]
    kept = sent.files["01-facts/sft"]
    assert kept == {name: record[name] for name in ("answers.jsonl", "scores.json")}
    assert file.stat().st_size < 40_000


def test_nothing_in_a_bundle_names_a_place_of_this_machine(run, file):
    text = file.read_text()
    assert str(run) in (run / "recipe.yaml").read_text() + str(run)
    assert "pairs.jsonl" in text
    for word in (str(run.parent), "secret-place", str(Path.home()), socket.gethostname()):
        assert word not in text
    if len(getpass.getuser()) > 4:
        assert getpass.getuser() not in text


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("/data/me/model", "model"),
        ("~/model-1.5", "model-1.5"),
        ("answers of /data/me/x.jsonl, cut", "answers of x.jsonl, cut"),
        ("http://10.0.0.1:8000/v1", "(address)"),
        ("owner/model", "owner/model"),
        ("ties 1/2, and/or a / b", "ties 1/2, and/or a / b"),
        ("../shared/pairs.jsonl", "../shared/pairs.jsonl"),
    ],
)
def test_of_a_path_only_its_last_name_is_left(text, left):
    assert impersonal({"a": [text]}) == {"a": [left]}


def test_any_changed_byte_is_refused_with_the_file_named(file):
    text = file.read_bytes()
    places = random.Random(0).sample(range(len(text)), 150)
    for place in places:
        other = b"7" if text[place : place + 1] != b"7" else b"8"
        file.write_bytes(text[:place] + other + text[place + 1 :])
        with pytest.raises(DataError, match=r"sent\.json: no sound bundle"):
            read_leaderboard([file])
    for changed in (text[:-1], text + b" ", text.replace(b"\n", b"\r\n"), b"", b"[]", b"\xff\xfe"):
        file.write_bytes(changed)
        with pytest.raises(DataError, match=r"sent\.json"):
            read_leaderboard([file])


def rewritten(file, change):
    """The bundle with other content and a digest that fits, as an enemy would write it."""
    content = json.loads(file.read_text())["content"]
    change(content)
    file.write_text(bundle_text(Bundle(**content)))
    return file


def scores(content):
    return content["scores"][0]


def renamed(content):
    """A section under an id that is not the hash of its content."""
    (shared,) = content["sections"].values()
    content["sections"] = {"ab" * 32: shared}
    for row in content["scores"]:
        row["section"] = "ab" * 32


HOSTILE = {
    "an id that is not that of its content": renamed,
    "other options under the same section": lambda c: next(iter(c["sections"].values())).update(
        options={"size": 9}
    ),
    "a section that is not there": lambda c: scores(c).update(section="0" * 64),
    "another benchmark's name": lambda c: scores(c).update(benchmark="mt_bench"),
    "parts of another section": lambda c: scores(c).update(parts={}),
    "an escape sequence": lambda c: scores(c).update(model="\x1b[2Jsft"),
    "letters in another order": lambda c: scores(c).update(model="sft\u202egnp.exe"),
    "half a character": lambda c: scores(c).update(model="\ud800"),
    "a text without end": lambda c: c.update(run="x" * (LONGEST + 1)),
    "a figure that is a text": lambda c: scores(c)["columns"]["length"].update(mean="12"),
    "no results": lambda c: c.update(scores=[]),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_bundle_with_a_right_digest_is_refused_too(file, name):
    rewritten(file, HOSTILE[name])
    with pytest.raises(DataError, match=r"sent\.json: (no sound bundle|damaged)"):
        read_leaderboard([file])


@pytest.mark.parametrize(
    "text", ["NaN", "1e999", "-Infinity", "9" * 5000, "[" * 200_000, '{"content": ' * 50_000]
)
def test_numbers_that_are_none_and_endless_nesting_are_refused(file, text):
    file.write_text(file.read_text().replace('"seed": 3', f'"seed": {text}'))
    with pytest.raises(DataError, match=r"sent\.json: no sound bundle"):
        read_leaderboard([file])


def test_a_huge_file_is_refused_before_it_is_read(file):
    with file.open("ab") as out:
        out.truncate(MOST + 1)
    with pytest.raises(DataError, match=r"sent\.json: larger than 16 MiB"):
        read_leaderboard([file])


def test_a_script_in_a_name_is_shown_and_does_not_run(file):
    evil = "<script>alert(1)</script>"
    rewritten(file, lambda c: [row.update(model=evil + row["model"]) for row in c["scores"]])
    page = render_page(read_leaderboard([file]), [file])
    assert "<script>alert" not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;sft" in page


def test_equal_answers_with_other_figures_are_refused_and_both_files_named(run, file):
    rewritten(
        file, lambda c: scores(c)["columns"]["length"].update(mean=99.0, low=98.0, high=100.0)
    )
    with pytest.raises(DataError, match=r"sent-1 and .*sent\.json contradict each other"):
        read_leaderboard([run, file])


def test_a_column_that_would_rank_the_other_way_round_is_refused(run, file):
    def turn(content):
        for row in content["scores"]:
            row["columns"]["true_reward"]["better"] = -1

    rewritten(file, turn)
    with pytest.raises(DataError, match="contradict each other about column true_reward"):
        read_leaderboard([run, file])


def test_sections_that_differ_stay_apart_in_bundles_as_in_runs(run, file, tmp_path):
    def other(content):
        (shared,) = content["sections"].values()
        shared["samples"] = 9
        mark = digest_of_value(shared)
        content["sections"] = {mark: shared}
        parts = {part: digest_of_value(x) for part, x in shared.items()}
        for row in content["scores"]:
            row.update(section=mark, parts=parts)

    rewritten(file, other)
    sections = read_leaderboard([run, file])
    assert len(sections) == 2
    assert sections[1].apart.endswith("other samples")


def test_a_file_that_changed_after_the_evaluation_is_not_bundled(run, tmp_path):
    answers = run / "evaluations/01-facts/sft/answers.jsonl"
    before = answers.read_text()
    answers.write_text(before.replace("a", "b"))
    try:
        with pytest.raises(DataError, match=r"answers\.jsonl: changed since it was written"):
            bundle_command(run, tmp_path / "x.json")
    finally:
        answers.write_text(before)
    scored = run / "scores.jsonl"
    before = scored.read_text()
    try:
        scored.write_text(before.replace('"prompts": 3', '"prompts": 4'))
        with pytest.raises(DataError, match=r"scores\.jsonl: prompts of 'initial' is not that of"):
            bundle_command(run, tmp_path / "x.json")
        scored.write_text(before[:100])
        with pytest.raises(DataError, match=r"scores\.jsonl: damaged"):
            bundle_command(run, tmp_path / "x.json")
    finally:
        scored.write_text(before)
    assert not (tmp_path / "x.json").exists()


@pytest.mark.parametrize("text", ["name: [cut", "3", "", None])
def test_a_run_with_a_damaged_recipe_is_a_sentence_with_its_remedy(run, tmp_path, text):
    recipe = run / "recipe.yaml"
    before = recipe.read_text()
    recipe.unlink() if text is None else recipe.write_text(text)
    try:
        with pytest.raises(DataError, match=r"recipe\.yaml: damaged .*run the recipe again"):
            bundle_command(run, tmp_path / "x.json")
        with pytest.raises(DataError, match=r"recipe\.yaml: damaged .*run the recipe again"):
            export_command(str(run), tmp_path / "exported", None)
        with pytest.raises(DataError, match=r"recipe\.yaml: damaged .*run the recipe again"):
            find_speaker(f"{run}/sft")
    finally:
        recipe.write_text(before)
    assert not (tmp_path / "exported").exists()


def test_what_is_no_finished_run_is_not_bundled(run, tmp_path):
    with pytest.raises(UsageError, match="no run that has evaluated"):
        bundle_command(tmp_path, tmp_path / "x.json")
    with pytest.raises(UsageError, match="this is a folder"):
        bundle_command(run, tmp_path)


def test_the_command_takes_runs_and_bundles_and_names_what_is_not_there(run, file, capsys):
    leaderboard_command([run, file], as_json=True)
    (section,) = json.loads(capsys.readouterr().out)
    assert {row["model"] for row in section["rows"]} == {"initial", "sft"}
    with pytest.raises(UsageError, match=r"gone\.json: not there; name the folders of runs, or"):
        leaderboard_command([file.with_name("gone.json")], as_json=True)
