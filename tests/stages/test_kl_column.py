"""The KL column of a leaderboard where one model forbids what the other allows."""

import math

from alignzoo.stages.evaluation.ruled import finite_kl


def test_a_kl_that_is_infinite_for_a_prompt_has_no_figure_and_says_why():
    said = []
    assert finite_kl("sft", (0.5, 0.25), said.append) == (0.5, 0.25)
    assert said == []
    assert finite_kl("sft", (0.5, math.inf, math.nan), said.append) == (None, None, None)
    assert len(said) == 1
    assert "kl(sft) has no figure: it is not finite for 2 of 3 prompts" in said[0]
