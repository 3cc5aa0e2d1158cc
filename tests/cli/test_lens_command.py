"""`alignzoo lens` on the command line: what it writes, and what it refuses in one sentence."""

import json
import shutil
import sys
from pathlib import Path

import pytest
import yaml
from lens_runs import PAIRS, STILL, TEXTS, lens_run, registry
from shared_data import shared
from small_models import run_stages, word_model, write_rows
from tiny_models import model_folder

from alignzoo.cli.doing import lens as command
from alignzoo.contract.errors import DataError, UsageError
from alignzoo.lens.methods import stage_method
from alignzoo.recipe.registry import load_plugins

OUTSIDE = Path(__file__).parents[1] / "third_party"


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return lens_run(tmp_path_factory.mktemp("lens"))


def twin(file):
    return json.loads(Path(file).read_text())


def test_a_run_is_shown_on_the_responses_that_it_keeps(cli, run, tmp_path):
    page, data = tmp_path / "page.html", tmp_path / "lens.json"
    status, said, complained = cli("lens", run / "dpo", "-o", page, "--json", data)
    assert status == 0, complained
    assert f"{page}: 6 responses, " in said and " MB" in said
    found = twin(data)
    assert [row["label"] for row in found["responses"]] == ["chosen", "rejected"] * 3
    assert found["methods"][0]["name"] == "run/dpo" and page.read_text().startswith("<!doctype")


def test_two_stages_of_a_run_are_compared_on_the_same_responses(cli, run, tmp_path):
    data = tmp_path / "lens.json"
    stages = ("--stage", "dpo", "--stage", "reverse")
    status, _, complained = cli("lens", "--run", run, *stages, "--json", data)
    assert status == 0, complained
    assert [m["name"] for m in twin(data)["methods"]] == ["run/dpo", "run/reverse"]


def test_prompts_without_a_response_are_answered_by_the_first_model(cli, run, tmp_path):
    prompts, data = tmp_path / "p.txt", tmp_path / "lens.json"
    prompts.write_text("hello how\n\nthe cat\n")
    words = ("--prompts", prompts, "--max-new-tokens", 5, "--json", data)
    assert cli("lens", run / "dpo", *words)[0] == 0
    first = twin(data)
    assert [row["prompt"] for row in first["responses"]] == ["hello how", "the cat"]
    assert [row["place"] for row in first["responses"]] == [f"{prompts}:1", f"{prompts}:3"]
    assert all(0 < len(row["ids"]) <= 5 for row in first["responses"])
    assert first["notes"] == ["run/dpo answered the prompts of p.txt."]
    cli("lens", run / "dpo", *words)
    assert twin(data) == first


def test_a_strangers_method_shows_its_signals_without_a_line_for_it(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(OUTSIDE)
    import alignzoo_outsider

    plugins = load_plugins([alignzoo_outsider])
    model = word_model(tmp_path / "model")
    pairs = write_rows(tmp_path / "pairs.jsonl", PAIRS)
    train = {"steps": 2, "batch_size": 3, "lr": 1e-2}
    stage = {"name": "it", "algorithm": "margin-dpo", "data": {"name": pairs}, "train": train}
    run_stages(model, tmp_path / "run", stage, registry=plugins)
    found = command.look(command.Asked([str(tmp_path / "run" / "it")]), plugins)
    own = {q.name: (q.unit, q.origin) for q in found.methods[0].quantities}
    assert own["policy"] == ("nats", "signals") and own["reference"] == ("nats", "snapshots")
    assert "log policy/reference" in own and found.methods[0].distributions == (
        "policy",
        "reference",
    )
    values = found.methods[0].rows[0].values
    ratio = values["policy"] - values["reference"]
    assert (ratio - values["log policy/reference"]).abs().max() < 1e-5 < ratio.abs().max()
    sys.modules.pop("alignzoo_outsider")


def test_models_that_no_stage_brought_together_are_read_as_any_method(run):
    roles = [f"teacher={run}/dpo", f"anchor={run}/reverse"]
    options = ["r=2.0", "positions=official"]
    folder = str(run / "stages" / "04-official" / "model")
    asked = command.Asked([folder], algorithm="aligndistil", roles=roles, options=options,
                          prompts=run.parent / "t.jsonl")  # fmt: skip
    by_hand = command.look(asked, registry())
    stage = command.look(command.Asked([f"{run}/official"]), registry())
    assert by_hand.methods[0].official and stage.methods[0].official
    for one, other in zip(by_hand.methods[0].rows, stage.methods[0].rows, strict=True):
        assert {n: x.tolist() for n, x in one.values.items()} == {
            n: x.tolist() for n, x in other.values.items()
        }


def test_a_reward_model_shows_its_reward_where_it_is_read(cli, tmp_path):
    pairs = write_rows(tmp_path / "pairs.jsonl", [{**pair, "margin": 1.0} for pair in PAIRS])
    model = word_model(tmp_path / "model")
    stage = {"name": "rm", "algorithm": "reward_model", "data": {"name": pairs}, "train": STILL}
    run_stages(model, tmp_path / "run", stage)
    page, data = tmp_path / "page.html", tmp_path / "lens.json"
    status, _, complained = cli("lens", tmp_path / "run" / "rm", "-o", page, "--json", data)
    assert status == 0, complained
    found = twin(data)["responses"][0]["methods"][0]
    assert [x is None for x in found["values"]["reward"]][-2:] == [True, False]
    assert found["top"] == {}
    prompts = tmp_path / "p.txt"
    prompts.write_text("hello how\n")
    said = refusal(cli, tmp_path / "run" / "rm", "--prompts", prompts)
    assert "its model has a scalar head, which answers nothing; give responses" in said


def test_a_model_alone_has_log_probabilities_and_entropy(cli, run, tmp_path):
    rows, data = write_rows(tmp_path / "rows.jsonl", TEXTS), tmp_path / "lens.json"
    assert cli("lens", run.parent / "model", "--prompts", rows, "--json", data)[0] == 0
    names = [s["name"] for s in twin(data)["methods"][0]["signals"]]
    assert names == ["log p of policy", "entropy of policy"]


def refusal(cli, *words):
    status, _, complained = cli("lens", *words)
    assert status in (1, 2) and complained.count("\n") == 1, complained
    return complained


def test_what_cannot_be_shown_is_refused_with_fact_place_and_remedy(cli, run, tmp_path):
    rows = write_rows(tmp_path / "rows.jsonl", TEXTS)
    other = str(model_folder(tmp_path / "other"))
    said = refusal(cli, run / "dpo", other, "--prompts", rows)
    assert f"{other}: another tokenizer than that of" in said and "make a page for each" in said
    long = write_rows(tmp_path / "long.jsonl", [{"prompt": "hello how", "response": "cat " * 70}])
    said = refusal(cli, run / "dpo", "--prompts", long)
    assert "long.jsonl:1: prompt and response have" in said and "context is 64" in said
    assert "no such file" in refusal(cli, run / "dpo", "--prompts", tmp_path / "none.jsonl")
    assert "--run" in refusal(cli, "--run", tmp_path)
    assert "no stage 'dop'" in refusal(cli, "--run", run, "--stage", "dop")
    assert "name a model, or a run" in refusal(cli)
    assert "3 models; name one, or two" in refusal(cli, run / "dpo", run / "dpo", run / "reverse")
    assert "--algorithm NAME" in refusal(cli, run / "dpo", "--with", "r=2")
    model = run.parent / "model"
    assert "--role teacher=MODEL" in refusal(
        cli, model, "--algorithm", "aligndistil", "--with", "r=2"
    )
    assert "--prompts FILE" in refusal(cli, model)
    mixed = write_rows(tmp_path / "mixed.jsonl", [*TEXTS, {"prompt": "hello"}])
    assert "mixed.jsonl:4: a prompt without a response" in refusal(
        cli, run / "dpo", "--prompts", mixed
    )
    bad = write_rows(tmp_path / "bad.jsonl", [*TEXTS, {"response": "hello"}])
    status, _, said = cli("lens", run / "dpo", "--prompts", bad)
    assert status == 1 and "repair them, or take them out of the file" in said
    assert "bad.jsonl:4: no prompt" in said and "max_bad" not in said
    said = refusal(cli, run / "dpo", "--temperature", 0.5, "--seed", 1)
    assert "--temperature and --seed: for answers to bare prompts, and " in said
    said = refusal(cli, run / "dpo", "--signal", "kl", "-o", tmp_path / "no" / "page.html")
    assert "no folder" in said
    assert "this is a folder" in refusal(cli, run / "dpo", "-o", tmp_path)
    same = tmp_path / "x"
    assert "is the same file" in refusal(cli, run / "dpo", "-o", same, "--json", same)


def test_a_stage_whose_method_reads_nothing_is_refused(tmp_path):
    stage = {"name": "it", "algorithm": "deaf", "data": {"name": "x"}}
    made = {"name": "r", "model": "m", "stages": [stage, {**stage, "name": "other"}]}
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(made))
    with pytest.raises(UsageError, match="r/it: 'deaf' reads no signals from its models, so there"):
        stage_method(tmp_path, "it", "r/it", registry())


def test_a_role_whose_stage_left_no_model_is_named(run, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(run, copy)
    shutil.rmtree(copy / "stages" / "02-reverse" / "model")
    with pytest.raises(DataError, match="role 'anchor' is stage 'reverse', which left no model in"):
        stage_method(copy, "aligned", "copy/aligned", registry())


def test_the_real_pretrained_model_is_shown_on_real_text(cli, tmp_path):
    prompts, data = tmp_path / "p.txt", tmp_path / "lens.json"
    prompts.write_text("Once upon a time\n")
    words = ("--prompts", prompts, "--max-new-tokens", 30, "--temperature", 0, "--json", data)
    assert cli("lens", shared("models", "stories260k"), *words)[0] == 0
    (row,) = twin(data)["responses"]
    assert "".join(row["tokens"]).startswith(",·there·was·a·little·girl·named·")
    top = row["methods"][0]["top"]["policy"]
    assert [best[0][0] for best in top["best"]][:-1] == row["ids"]  # greedy takes the first
