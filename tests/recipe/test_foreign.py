"""Who comes from another trainer is told our name for a setting, or what serves instead."""

import re

import pytest
from recipe_plugins import registry

from alignzoo.contract.errors import RecipeError
from alignzoo.recipe.file import load_recipe
from alignzoo.recipe.foreign import homes, names


def told(tmp_path, *, stage="", train="", top="", options=""):
    file = tmp_path / "recipe.yaml"
    file.write_text(
        f"name: r\nmodel: m\n{top}\nstages:\n"
        f"  - {{name: s, algorithm: margin, data: {{name: toys}}, train: {{lr: 1e-6, {train}}}, "
        f"with: {{{options}}}, {stage}}}\n"
    )
    with pytest.raises(RecipeError) as caught:
        load_recipe(file, registry())
    return str(caught.value)


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("learning_rate", "here it is `train.lr`"),
        ("num_train_epochs", "here it is `train.epochs`"),
        ("max_steps", "here it is `train.steps`"),
        ("per_device_train_batch_size", "`train.batch_size` is the whole optimiser step"),
        ("gradient_accumulation_steps", "accumulation follows from the two"),
        ("deepspeed", "`alignzoo run RECIPE --processes N` (and `--machines`) starts"),
        ("lora", "it stands elsewhere: `adapter.lora`"),
        ("use_peft", "here it is `adapter.lora`"),
        ("lora_rank", "here it is `adapter.lora.r`"),
        ("load_in_4bit", "weights are not quantised"),
        ("report_to", "`trackers: [NAME]` beside `model:` names tensorboard"),
        ("cutoff_len", "here it is `data.max_length`"),
        ("num_generations", "here it is `rollout.samples_per_prompt`"),
        ("use_vllm", "named by `rollout.engine`"),
        ("actor_learning_rate", "here it is `train.lr`"),
    ],
)
def test_a_name_of_another_trainer_is_answered_with_ours_wherever_it_stands(
    tmp_path, name, sentence
):
    assert f"train.{name}: unknown key; " in told(tmp_path, train=f"{name}: 1")
    for place in ({"stage": f"{name}: 1"}, {"train": f"{name}: 1"}, {"top": f"{name}: 1"}):
        assert sentence in told(tmp_path, **place)
    assert sentence in told(tmp_path, options=f"{name}: 1")


def test_a_dash_and_capitals_make_no_difference(tmp_path):
    assert "here it is `train.lr`" in told(tmp_path, train="Learning-Rate: 1")


def test_an_option_of_the_method_beside_with_is_told_where_it_belongs(tmp_path):
    assert "an option of the method stands under `with:`" in told(tmp_path, stage="beta: 0.1")
    found = told(tmp_path, train="beta: 0.1")
    assert "options of the method stand under its `with:`" in found
    assert "did you mean 'betas'" not in found
    for name in ("r", "alpha"):  # of AlignDistil and GKD, and of LoRA too
        assert "an option of the method stands under" in told(tmp_path, stage=f"{name}: 1")


@pytest.mark.parametrize(
    ("place", "sentence"),
    [
        ({"stage": "lr: 1e-6"}, "it stands elsewhere: `train.lr`"),
        ({"options": "lr: 1e-6"}, "it stands elsewhere: `train.lr`"),
        ({"train": "max_length: 9"}, "it stands elsewhere: `data.max_length`"),
        ({"train": "max_new_tokens: 9"}, "`sampling.max_new_tokens`"),
        ({"stage": "samples_per_prompt: 9"}, "it stands elsewhere: `rollout.samples_per_prompt`"),
    ],
)
def test_our_own_key_at_the_wrong_place_is_told_the_right_one(tmp_path, place, sentence):
    assert sentence in told(tmp_path, **place)


def test_a_slip_is_still_answered_with_the_nearest_key(tmp_path):
    assert "unknown key; did you mean 'warmup'?" in told(tmp_path, train="warmpu: 0.1")


def test_every_place_that_the_table_names_exists():
    known = {place for places in homes().values() for place in places}
    named = {path.partition(":")[0] for path in names().ours}
    named |= {p for text in names().absent.values() for p in re.findall(r"`(\w+(?:\.\w+)+)`", text)}
    named -= {"metrics.jsonl"}
    options = {path for path in named if path.startswith("with.")}
    assert named - known - options == set()
    assert {path.removeprefix("with.") for path in options} <= names().options


def test_no_name_of_the_table_is_one_of_ours_or_stands_twice():
    words = [word for text in [*names().ours.values(), *names().absent] for word in text.split()]
    assert len(words) == len(set(words))
    assert set(words) & set(homes()) == set()
