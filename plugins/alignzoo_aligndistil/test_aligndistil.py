"""AlignDistil on two words, where everything can be worked out by hand."""

import math

import pytest
import torch

from alignzoo.testing import check_algorithm
from alignzoo_aligndistil import AlignDistil

# One position, two words: DPO says 3/4 : 1/4, its anchor and the student 1/2 : 1/2.
OUTPUTS = {
    "policy": torch.tensor([[0.0, 0.0]], dtype=torch.float64),
    "teacher": torch.tensor([[math.log(3), 0.0]], dtype=torch.float64),
    "anchor": torch.tensor([[5.0, 5.0]], dtype=torch.float64),
}
LABEL = torch.tensor([0])


def rows(**options):
    values = AlignDistil(**options).rows(OUTPUTS, LABEL)
    return {name: x.item() for name, x in values.items()}


def kl_from_even(odds):
    """KL of 1/2 : 1/2 from odds : 1."""
    return math.log(0.5) - 0.5 * math.log(odds / (1 + odds) / (1 + odds))


def test_adaptive_extrapolation_by_hand():
    row = rows(r=4.0, epsilon=0.5, beta0=0.3)
    assert row["tvd"] == pytest.approx(1 / 4)  # half of |3/4 - 1/2| + |1/4 - 1/2|
    assert row["alpha"] == pytest.approx(1.5)  # 4 * 1/4 + .5
    assert row["beta_t"] == pytest.approx(0.2)  # .3 / 1.5
    assert row["kl"] == pytest.approx(kl_from_even(3**2.5))  # log odds 2.5 log 3
    assert row["reward"] == pytest.approx(0.3 * math.log(1.5))


def test_the_released_codes_distance_is_twice_as_large():
    row = rows(r=4.0, epsilon=0.5, tvd="l1")
    assert row["alpha"] == pytest.approx(2.5)
    assert row["tvd"] == pytest.approx(1 / 4)


def test_the_vanilla_form_interpolates_from_the_anchor():
    row = rows(reward="vanilla", extrapolation="constant", beta0=0.3, beta=0.2)
    assert row["kl"] == pytest.approx(kl_from_even(3**1.5))
    assert row["beta_t"] == pytest.approx(0.2)


def test_the_temperature_flattens_student_and_teacher_alike():
    row = rows(extrapolation="constant", beta0=0.1, beta=0.1, temperature=2.0)
    assert row["kl"] == pytest.approx(kl_from_even(3.0))  # log odds 2 log 3, halved
    assert row["tvd"] == pytest.approx(1 / 4)


@pytest.mark.parametrize("missing", [{}, {"extrapolation": "constant", "r": 1.0}])
def test_an_extrapolation_without_its_scale_is_refused(missing):
    with pytest.raises(ValueError, match="needs the option"):
        AlignDistil(**missing)


VARIANTS = [
    {"r": 2.0},
    {"r": 2.0, "reward": "vanilla", "reduction": "token_mean"},
    {"extrapolation": "constant", "beta": 0.08, "beta_weighting": "none"},
]


@pytest.mark.parametrize("options", VARIANTS, ids=str)
def test_the_contract_is_kept(options):
    check_algorithm(AlignDistil(**options))
