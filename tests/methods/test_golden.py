"""Losses, gradients and metrics of the delivered methods equal the golden vectors.

Logits go through the engine's own scoring into the plug-ins' public code; no formula is repeated
here. A file of a delivered method that holds something unknown fails; so does an unknown file.
"""

import dataclasses
import os

import pytest
from golden_cases import DTYPES, cases_of, compare, golden_folder, golden_names
from golden_distil import check_offpolicy, check_onpolicy, check_paper
from golden_dpo import check_dpo, check_reward_metrics
from golden_kto import check_kto
from golden_pairs import check_cpo, check_orpo, check_reward_model, check_simpo, check_tdpo
from golden_ppo import check_ppo
from golden_rollouts import check_bandit, check_reinforce, check_rto
from logit_models import SCORERS

CHECKS = {
    "dpo": check_dpo,
    "reverse_dpo": check_dpo,
    "reward_metrics": check_reward_metrics,
    "aligndistil_paper": check_paper,
    "aligndistil_offpolicy": check_offpolicy,
    "aligndistil_onpolicy": check_onpolicy,
    "ppo": check_ppo,
    "kto": check_kto,
    "simpo": check_simpo,
    "tdpo1": check_tdpo,
    "tdpo2": check_tdpo,
    "orpo": check_orpo,
    "cpo": check_cpo,
    "reward_model": check_reward_model,
    "rto": check_rto,
    "token_reinforce": check_reinforce,
    "sentence_bandit": check_bandit,
}

pytestmark = pytest.mark.skipif(
    not golden_folder().is_dir(),
    reason="the folder of golden vectors is absent (ALIGNZOO_GOLDEN names another place)",
)
FILES = [name for name in golden_names() if name in CHECKS]
CASES = [case for name in FILES for case in cases_of(name)]


@pytest.mark.parametrize("scorer", SCORERS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.file}-{case.name}")
def test_a_method_gives_the_golden_values_and_gradients(case, dtype, scorer):
    case = dataclasses.replace(case, dtype=DTYPES[dtype])
    compare(case, CHECKS[case.file](case, SCORERS[scorer]))


@pytest.mark.parametrize("name", golden_names())
def test_every_golden_file_is_checked(name):
    assert name in CHECKS


@pytest.mark.skipif("ALIGNZOO_GOLDEN" in os.environ, reason="a folder of one's own may hold less")
def test_every_delivered_method_has_its_golden_file():
    assert set(FILES) == set(CHECKS)


def a_case_of(file):
    case = next((case for case in CASES if case.file == file), None)
    return case or pytest.skip(f"no case of {file} in this folder")


@pytest.mark.parametrize("path", [("new_number",), ("metrics", "new_number")])
def test_an_expected_value_nobody_checks_is_a_failure(path):
    case = a_case_of("aligndistil_paper")
    expected = dict(case.expected)
    expected["metrics"] = dict(expected["metrics"])
    (expected["metrics"] if len(path) == 2 else expected)[path[-1]] = 0.0
    changed = dataclasses.replace(case, expected=expected)
    with pytest.raises(AssertionError, match=r"no check for expected .*new_number"):
        compare(changed, check_paper(changed, SCORERS["dense"]))


@pytest.mark.parametrize("where", ["inputs", "hparams"])
def test_an_input_nobody_reads_is_a_failure(where):
    case = a_case_of("dpo")
    inputs = dict(case.inputs)
    inputs["hparams"] = dict(inputs["hparams"])
    (inputs if where == "inputs" else inputs["hparams"])["new_option"] = 1.0
    with pytest.raises(AssertionError, match="new_option"):
        check_dpo(dataclasses.replace(case, inputs=inputs), SCORERS["dense"])


def test_a_wrong_value_is_a_failure():
    case = a_case_of("dpo")
    wrong = dataclasses.replace(
        case, expected=case.expected | {"loss": case.expected["loss"] + 1e-6}
    )
    with pytest.raises(AssertionError, match="/loss: off by 1e-06"):
        compare(wrong, check_dpo(wrong, SCORERS["dense"]))
