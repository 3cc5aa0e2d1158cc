"""The conformance kit for judges that compare: sound ones pass, every flaw is named."""

import itertools
from dataclasses import dataclass

import pytest

from alignzoo import Judge, PluginError, PromptSample, Score
from alignzoo.testing import check_judge, run_judge_checks

PROMPTS = [PromptSample("Say hello."), PromptSample("Count.")]


@dataclass(frozen=True)
class Longer(Judge):
    """Prefers the longer answer, and cannot score one alone."""

    name = "longer"

    def compare(self, pairs):
        both = [(a.response.text, b.response.text) for a, b in pairs]
        return [0.5 if a == b else float(len(a) > len(b)) for a, b in both]


class First(Longer):
    """Likes what it reads first."""

    def compare(self, pairs):
        return [0.75 for _ in pairs]


class Honest(First):
    """The same, and says so."""

    symmetric = False


class Short(Longer):
    """Loses the last pair."""

    def compare(self, pairs):
        return super().compare(pairs)[:-1]


class Wide(Longer):
    """Gives what is no probability."""

    def compare(self, pairs):
        return [2 * x for x in super().compare(pairs)]


CALLS = itertools.count()


class Moody(Longer):
    """Changes its mind."""

    symmetric = False

    def compare(self, pairs):
        return [(next(CALLS) % 7) / 7 for _ in pairs]


class Crowd(Longer):
    """Looks at what else is compared."""

    symmetric = False

    def compare(self, pairs):
        return [n / (n + 1) for n, _ in enumerate(pairs)]


class Talkative(Longer):
    """Has a number for nothing."""

    def compare(self, pairs):
        return super().compare(pairs) or [0.5]


FLAWED = {
    Short: "one number from 0 to 1 per pair, in order",
    Wide: "one number from 0 to 1 per pair, in order",
    Moody: "the same pairs get the same numbers",
    Crowd: "a comparison does not depend on its neighbours",
    Talkative: "no pairs, no numbers",
    First: "P(a, b) = 1 - P(b, a), as it claims",
}


def test_a_judge_that_only_compares_passes_and_so_does_one_that_admits_to_positions():
    check_judge(Longer(), PROMPTS)
    check_judge(Honest(), PROMPTS)
    assert not any("score" in check.promise for check in run_judge_checks(Longer(), PROMPTS))


@pytest.mark.parametrize("judge", FLAWED)
def test_a_flawed_comparison_is_told_which_promise_it_breaks(judge):
    found = [check.promise for check in run_judge_checks(judge(), PROMPTS) if not check.kept]
    assert FLAWED[judge] in found
    with pytest.raises(PluginError, match="breaks"):
        check_judge(judge(), PROMPTS)


def test_every_promise_of_a_comparison_has_a_flawed_plugin():
    promises = {check.promise for check in run_judge_checks(Longer(), PROMPTS)}
    assert promises == {*FLAWED.values(), "docstring"}


def test_a_judge_that_scores_compares_by_its_scores():
    class Words(Judge):
        """Counts words."""

        name = "words"

        def score(self, answers):
            return [Score(float(a.n_tokens)) for a in answers]

    check_judge(Words(), PROMPTS)
    kept = [check.promise for check in run_judge_checks(Words(), PROMPTS)]
    assert "P(a, b) = 1 - P(b, a), as it claims" in kept and "no answers, no scores" in kept


def test_a_judge_that_can_do_neither_breaks_its_contract():
    class Silent(Judge):
        """Says nothing."""

        name = "silent"

    broken = [check for check in run_judge_checks(Silent(), PROMPTS) if not check.kept]
    assert broken and "cannot score" in broken[0].detail
