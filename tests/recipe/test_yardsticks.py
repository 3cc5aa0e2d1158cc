"""What is measured against a role that moves is found, and is no metric to choose a model by."""

import pytest
from alignzoo_bco import BCO
from alignzoo_dpo import DPO, TRDPO
from alignzoo_gkd import MOPD, SDFT, SDPO
from alignzoo_sppo import SPPO

from alignzoo.contract.errors import RecipeError
from alignzoo.recipe.file import load_recipe
from alignzoo.recipe.registry import load_plugins
from alignzoo.recipe.yardsticks import taken_against


@pytest.mark.parametrize(
    ("method", "role", "free"),
    [
        (TRDPO(), "reference", {"logps/chosen", "logps/rejected"}),
        (SDFT(), "teacher", set()),
        (SDPO(), "teacher", {"taught", "success"}),  # groups
        (MOPD(), "teacher_1", {"teacher_1"}),  # a number of every row
        (BCO(), "reference", {"delta"}),  # a state
    ],
    ids=lambda x: getattr(x, "name", None),
)
def test_metrics_that_change_with_a_role_are_found(method, role, free):
    assert set(method.metrics) - taken_against(method, [role]) == free


def test_what_no_role_says_is_taken_against_none():
    assert taken_against(DPO(), []) == set()
    assert taken_against(SPPO(), ["reference"]) == set()


def test_of_a_method_that_cannot_be_tried_all_metrics_may_be():
    class Odd(DPO):
        def loss(self, batch, signals, state):
            raise RuntimeError("of this batch I make nothing")

    assert taken_against(Odd(), ["reference"]) == {"loss", *DPO.metrics}


@pytest.mark.parametrize("metric", ["loss", "rewards/accuracy", "logps/chosen"])
def test_a_model_is_not_chosen_by_a_metric_against_a_reference_that_moves(tmp_path, metric):
    file = tmp_path / "r.yaml"
    held = f"{{data: x.jsonl, metric: {metric}, better: higher}}"
    stage = f"{{name: a, algorithm: tr_dpo, data: x.jsonl, validation: {held}}}"
    file.write_text(f"name: r\nmodel: facts\nstages:\n  - {stage}\n")
    (tmp_path / "x.jsonl").write_text("")
    if metric == "logps/chosen":
        assert load_recipe(file, load_plugins()).stages
        return
    with pytest.raises(RecipeError, match=rf"{metric} is taken against it.*name logps/chosen, "):
        load_recipe(file, load_plugins())
