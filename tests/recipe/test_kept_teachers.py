"""`train.cache_teacher` is refused wherever it would keep nothing."""

import pytest

from alignzoo.contract.errors import RecipeError
from alignzoo.recipe.file import load_recipe
from alignzoo.recipe.registry import load_plugins

OFF_POLICY = """
name: p
model: facts
stages:
  - name: it
    algorithm: {algorithm}
    data: {{name: facts.sft, with: {{size: 40}}}}
    train: {{cache_teacher: true}}
"""


def load(folder, algorithm, *overrides):
    file = folder / "recipe.yaml"
    file.write_text(OFF_POLICY.format(algorithm=algorithm))
    return load_recipe(file, load_plugins(), overrides)


DISTIL = ("stages.it.roles={teacher: initial, anchor: initial}", "stages.it.with={r: 2}")


def test_a_method_that_reads_frozen_models_in_every_epoch_takes_it(tmp_path):
    assert load(tmp_path, "aligndistil", *DISTIL).stages[0].train.cache_teacher
    assert load(tmp_path, "gkd", "stages.it.roles={teacher: initial}").stages[0].train.cache_teacher


REFUSED = {
    "answers of a rollout": (
        ("aligndistil", *DISTIL, "stages.it.rollout={prompts: 64}"),
        "has no effect: answers are sampled anew, so no hidden state comes twice; take it out",
    ),
    "no frozen model": (("sft",), "has no effect: sft reads no frozen model again in every epoch"),
    "values that are kept already": (
        ("dpo", "stages.it.data={name: d/d}"),
        "has no effect: dpo reads no frozen model again in every epoch, or keeps its values",
    ),
    "a reference that moves": (
        ("tr_dpo", "stages.it.data={name: d/d}"),
        "has no effect: tr_dpo reads no frozen model again",
    ),
    **{
        f"states that would lie over ranks, {strategy}": (
            ("aligndistil", *DISTIL, f"parallel.strategy={strategy}"),
            f"is not tried under {strategy}; take ddp, or remove this",
        )
        for strategy in ("fsdp2", "zero2", "zero3")
    },
}


@pytest.mark.parametrize(("given", "words"), REFUSED.values(), ids=REFUSED)
def test_where_nothing_would_be_kept_it_is_refused(tmp_path, given, words):
    with pytest.raises(RecipeError) as error:
        load(tmp_path, *given)
    assert f"stages.0.train.cache_teacher: {words}" in str(error.value)
