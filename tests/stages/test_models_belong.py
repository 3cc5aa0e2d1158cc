"""Every id means the same to every model that reads it, or nothing is trained."""

import json
import subprocess
import sys
import types

import alignzoo_dpo
import pytest
from run_parts import Heard
from tiny_models import CHAT, WORDS, model_folder, tiny_llama, word_tokenizer

from alignzoo import hookimpl
from alignzoo.contract.errors import DataError
from alignzoo.recipe.blocks import Recipe
from alignzoo.recipe.registry import Plugin, build_registry, load_plugins
from alignzoo.run import run_recipe

MOVED = (*WORDS[:4], "runs", *WORDS[4:7], *WORDS[8:])  # four words have other ids
ROWS = [
    {"prompt": "the fox", "chosen": "eats a berry", "rejected": "runs"},
    {"prompt": "the owl", "chosen": "sees a fox", "rejected": "eats"},
]


@pytest.fixture(autouse=True)
def _place(tmp_path, monkeypatch):
    """A folder of its own with a student and data."""
    monkeypatch.setenv("ALIGNZOO_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    model_folder("student")
    lines = [json.dumps(row) + "\n" for row in ROWS]
    (tmp_path / "pairs.jsonl").write_text("".join(lines))
    texts = [{"prompt": row["prompt"], "response": row["chosen"]} for row in ROWS]
    (tmp_path / "text.jsonl").write_text("".join(json.dumps(row) + "\n" for row in texts))
    (tmp_path / "prompts.jsonl").write_text('{"prompt": "the fox"}\n{"prompt": "the owl"}\n')


def recipe(tmp_path, *stages, evaluate=(), model="student"):
    path = tmp_path / "recipe.yaml"
    lines = ["name: x", f"model: {model}", "stages:" if stages else "stages: []"]
    lines += [f"  - {stage}" for stage in stages]
    lines += ["evaluate:", *(f"  - {block}" for block in evaluate)] if evaluate else []
    path.write_text("\n".join(lines) + "\n")
    return path


TRAIN = "train: {steps: 1, batch_size: 2, lr: 1e-9}"
DPO = f"{{name: it, algorithm: dpo, roles: {{reference: other}}, data: pairs.jsonl, {TRAIN}}}"
GKD = f"{{name: it, algorithm: gkd, roles: {{teacher: other}}, data: text.jsonl, {TRAIN}}}"


def test_a_model_that_reads_ids_otherwise_is_refused_by_plan_and_run_with_both_names(cli, tmp_path):
    model_folder("other", word_tokenizer(MOVED))
    for words in (("plan",), ("run", "--output", "run")):
        status, _, err = cli(words[0], recipe(tmp_path, DPO), *words[1:])
        assert status == 2
        assert "stages.it.roles.reference: 'other' does not read ids as 'student' does" in err
        assert "4 of 12 ids mean another token, such as 4 ('owl', not 'runs')" in err
        assert "take models with one tokenizer" in err
    assert not list(tmp_path.glob("run/stages/*/metrics.jsonl"))


def test_an_id_that_another_model_does_not_know_is_refused(cli, tmp_path):
    model_folder("student", word_tokenizer((*WORDS, "<think>")), rows=13)
    model_folder("other", rows=13)
    status, _, err = cli("plan", recipe(tmp_path, DPO))
    assert status == 2
    assert "1 of 13 ids mean another token, such as 12 ('<think>', unknown to the other)" in err


def test_a_padding_token_alone_sets_no_two_models_apart(cli, tmp_path):
    model_folder("student", word_tokenizer((*WORDS, "<pad>"), pad_token="<pad>"), rows=13)
    model_folder("other")
    status, _, err = cli("run", recipe(tmp_path, DPO), "--output", "run")
    assert (status, err) == (0, "")


def test_another_end_of_answers_is_refused_unless_the_model_knows_it_too(cli, tmp_path):
    model_folder("other", word_tokenizer(eos_token="berry"))
    (tmp_path / "other" / "generation_config.json").write_text('{"eos_token_id": 9}')
    status, _, err = cli("plan", recipe(tmp_path, DPO))
    assert status == 2
    assert "answers end with 1 ('<e>'), not 9 ('berry')" in err
    (tmp_path / "other" / "generation_config.json").write_text('{"eos_token_id": [9, 1]}')
    assert cli("plan", recipe(tmp_path, DPO))[0] == 0
    assert cli("run", recipe(tmp_path, DPO), "--output", "run")[0] == 0


def test_vocabularies_of_two_sizes_are_refused_where_distributions_are_compared(cli, tmp_path):
    model_folder("other", rows=16)  # the same tokenizer, a padded embedding
    status, _, err = cli("plan", recipe(tmp_path, GKD))
    assert status == 2
    assert "stages.it" in err
    assert "'other' has 16 entries in its vocabulary, 'student' has 12" in err
    assert cli("run", recipe(tmp_path, DPO), "--output", "run")[0] == 0  # reads log-probabilities


def test_another_chat_template_is_a_note(cli, tmp_path):
    model_folder("other", word_tokenizer(chat_template=CHAT))
    status, out, _ = cli("plan", recipe(tmp_path, DPO))
    assert status == 0
    assert "'other' has another chat template than 'student'" in out
    assert "chat template" in cli("run", recipe(tmp_path, DPO), "--output", "run")[1]


def test_a_stage_that_is_not_trained_yet_has_the_tokenizer_of_its_policy(cli, tmp_path):
    model_folder("moved", word_tokenizer(MOVED))
    sft = f"{{name: sft, algorithm: sft, policy: moved, data: text.jsonl, {TRAIN}}}"
    stages = (sft, DPO.replace("other", "sft"))
    status, _, err = cli("plan", recipe(tmp_path, *stages))
    assert status == 2
    assert "'sft' does not read ids as 'student' does" in err
    assert cli("plan", recipe(tmp_path, *stages, model="moved"))[0] == 0


def test_a_critic_that_reads_ids_otherwise_is_refused(cli, tmp_path):
    model_folder("other", word_tokenizer(MOVED), head="scalar")
    ppo = "{name: it, algorithm: ppo, roles: {critic: other}, data: prompts.jsonl, rollout: {}}"
    status, _, err = cli("plan", recipe(tmp_path, ppo))
    assert status == 2
    assert "stages.it.roles.critic: 'other' does not read ids as 'student' does" in err


def test_a_critic_may_know_another_end_of_answers(cli, tmp_path):
    model_folder("other", word_tokenizer(eos_token="berry"), head="scalar")
    ppo = "{name: it, algorithm: ppo, roles: {critic: other}, data: prompts.jsonl, "
    ppo += "rollout: {prompts: 2, reward: {model: rm}, sampling: {max_new_tokens: 4}}, "
    model_folder("rm", head="scalar", seed=1)
    assert cli("plan", recipe(tmp_path, ppo + TRAIN + "}"))[0] == 0
    status, _, err = cli("run", recipe(tmp_path, ppo + TRAIN + "}"), "--output", "run")
    assert (status, err) == (0, "")


def test_a_model_of_the_hub_that_is_here_is_compared_like_a_folder(cli, tmp_path, monkeypatch):
    commit = "0" * 40
    hub = tmp_path / "hub" / "models--someone--other"
    model_folder(hub / "snapshots" / commit, word_tokenizer(MOVED))
    (hub / "refs").mkdir()
    (hub / "refs" / "main").write_text(commit)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    status, _, err = cli("plan", recipe(tmp_path, DPO.replace("other", "someone/other")))
    assert status == 2
    assert "'someone/other' does not read ids as 'student' does: 4 of 12" in err


def test_a_kl_to_a_model_that_reads_ids_otherwise_is_refused(cli, tmp_path):
    model_folder("other", word_tokenizer(MOVED))
    block = "{benchmark: facts, models: [initial], kl_to: [other]}"
    status, _, err = cli("plan", recipe(tmp_path, evaluate=[block]))
    assert status == 2
    assert "evaluate.0.kl_to: 'other' does not read ids as 'student' does" in err


def test_models_that_only_a_plugin_knows_are_compared_when_the_stage_starts(tmp_path):
    module = types.ModuleType("others")
    known = {"other": word_tokenizer(MOVED), "same": word_tokenizer()}

    def load_model(ref, role):
        return tiny_llama() if ref.name in known else None

    def load_tokenizer(ref):
        return known.get(ref.name)

    module.load_model, module.load_tokenizer = hookimpl(load_model), hookimpl(load_tokenizer)
    modules = [(module, "others"), (alignzoo_dpo, "alignzoo_dpo")]
    registry = build_registry([(m, Plugin(name, name, "1", "")) for m, name in modules])
    spec = {
        "name": "it",
        "algorithm": "dpo",
        "roles": {"reference": "same"},
        "data": {"name": "pairs.jsonl"},
        "train": {"steps": 1, "batch_size": 2},
    }
    what = {"name": "x", "model": "student", "stages": [spec]}
    run_recipe(Recipe.model_validate(what), "", registry, tmp_path / "same-run", Heard())
    spec["roles"] = {"reference": "other"}
    with pytest.raises(DataError, match="'other' does not read ids as 'student' does: 4 of 12"):
        run_recipe(Recipe.model_validate(what), "", registry, tmp_path / "run", Heard())
    assert not list((tmp_path / "run").glob("stages/*/metrics.jsonl"))


def test_comparing_the_models_of_a_plan_imports_no_transformers(tmp_path):
    model_folder("other", word_tokenizer(MOVED))
    path = recipe(tmp_path, DPO)
    program = (
        "import sys; sys.argv = ['alignzoo', 'plan', sys.argv[1]]\n"
        "from alignzoo.cli import main\n"
        "assert main() == 2\n"
        "assert 'transformers' not in sys.modules and 'tokenizers' not in sys.modules"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, path], check=False, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "does not read ids" in done.stderr


def test_the_bundled_recipes_still_belong_together():
    from alignzoo.cli.terminal.names import bundled_recipes
    from alignzoo.recipe.file import load_recipe
    from alignzoo.store.belonging import check_models

    registry = load_plugins()
    for path in bundled_recipes().values():
        assert check_models(load_recipe(path, registry, ()), registry, {}) == ()
