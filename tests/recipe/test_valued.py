"""Rewards and labels that no judge could give are refused before anything loads."""

import sys
import types
from dataclasses import dataclass

import pytest

from alignzoo import AskedJudge, Benchmark, Judge, JudgedBenchmark, Score, Usage, hookimpl, option
from alignzoo.contract.algorithm import Algorithm
from alignzoo.contract.errors import RecipeError
from alignzoo.contract.types import RolloutBatch
from alignzoo.recipe.file import load_recipe
from alignzoo.recipe.registry import Plugin, build_registry
from alignzoo.store.folders import default_folder
from alignzoo.store.identity import stage_identity


class Scores(Judge):
    """Scores."""

    name = "scores"

    def score(self, answers):
        return [Score(0.0) for _ in answers]


class Compares(Judge):
    """Only compares."""

    name = "compares"

    def compare(self, pairs):
        return [0.5 for _ in pairs]


class Neither(Judge):
    """Can do nothing."""

    name = "neither"


@dataclass(frozen=True)
class Asked(AskedJudge):
    """Replies, for a price that may be known."""

    name = "asked"
    price: float | None = option(None, "of a token")
    voice: str = option("low", "what decides the replies")

    def identity(self):
        return {"voice": self.voice}

    def cost(self, usage):
        return None if self.price is None else self.price * usage.completion_tokens


@dataclass(frozen=True)
class Endless(Asked):
    """Nothing cuts its replies."""

    name = "endless"

    def largest_usage(self, question):
        return Usage(1, sys.maxsize)


@dataclass(frozen=True)
class Pairwise(JudgedBenchmark):
    """Compares."""

    name = "pairwise"
    wording: str = option("plain", "of the questions")


class Pointwise(JudgedBenchmark):
    """Grades."""

    name = "pointwise"
    compares = False


class Counts(Benchmark):
    """Judges by itself."""

    name = "counts"


class Online(Algorithm):
    """Learns from what it samples."""

    name = "online"
    batch = RolloutBatch


@dataclass(frozen=True)
class Plays(Online):
    """Learns from scores, or from shares of wins."""

    name = "plays"
    wins: bool = option(False, "scores are shares of wins")

    @property
    def takes_wins(self):
        return self.wins


def registry():
    module = types.ModuleType("valued")
    hooks = {
        "register_judges": [Scores, Compares, Neither, Asked, Endless],
        "register_benchmarks": [Pairwise, Pointwise, Counts],
        "register_algorithms": [Online, Plays],
    }
    for name, classes in hooks.items():
        setattr(module, name, hookimpl(_named(name, classes)))
    return build_registry([(module, Plugin("valued", "dist", "1", ""))])


def _named(name, classes):
    def hook():
        return classes

    hook.__name__ = name
    return hook


REGISTRY = registry()
HEAD = "name: r\nmodel: m\nstages:\n"


def loaded(tmp_path, reward, samples=2, algorithm="online"):
    file = tmp_path / "r.yaml"
    rollout = f"{{samples_per_prompt: {samples}, reward: {reward}}}"
    file.write_text(
        f"{HEAD}  - {{name: it, algorithm: {algorithm}, data: 'd.jsonl', rollout: {rollout}}}\n"
    )
    return load_recipe(file, REGISTRY)


REFUSED = {
    "{judge: neither}": "reward.judge: neither can neither score nor compare answers",
    "{judge: compares, by: score}": "reward.judge: compares compares answers and cannot score "
    "single ones; give `by: wins`",
    "{judge: [compares, asked]}": "reward.judge.0.name: compares compares answers and cannot score "
    "single ones; give `by: wins`, and no panel",
    "{judge: asked, max_cost: 3}": "reward.max_cost: asked has no price, so nothing can be kept",
    "{judge: endless, with: {price: 1.0}, max_cost: 3}": "reward.max_cost: nothing limits the "
    "tokens of a reply of endless",
    "{judge: scores, max_cost: 3}": "reward.max_cost: has no effect: the judge is not asked",
    "{judge: scores, questions: pairwise}": "reward.questions: has no effect: the judge is not ask",
    "{judge: scores, min_parsed: 0}": "reward.min_parsed: has no effect: the judge is not asked",
    "{judge: asked, vote: majority}": "reward.vote: has no effect: a single judge votes with",
    "{judge: scores, vote: majority}": "reward.vote: has no effect: a single judge votes with",
    "{model: m, vote: majority}": "reward.vote: is for judges; a reward model takes none",
    "{model: m, min_parsed: 0.5}": "reward.min_parsed: is for judges; a reward model takes none",
    "{judge: asked, by: score, questions: pairwise}": "reward.questions.name: pairwise compares "
    "two answers, which is `by: wins`, not `by: score`",
    "{judge: asked, by: wins, questions: pointwise}": "reward.questions.name: pointwise grades "
    "single answers, which is `by: score`, not `by: wins`",
    "{judge: asked, questions: nobody}": "reward.questions.name: unknown benchmark 'nobody'",
    "{judge: asked, questions: {name: pairwise, with: {wordnig: x}}}": "questions.with.wordnig: "
    "unknown option; did you mean 'wording'?",
    "{model: m, by: wins}": "reward.by: is for judges; a reward model takes none",
    "{judge: scores, weight: 2}": "reward.weight: counts in a list of rewards alone; remove it",
    "[{judge: scores, weight: 0}, {judge: asked, weight: 0}]": "reward: every weight is 0",
    "[]": "reward: write one list with a reward or more",
    "{judge: []}": "reward.judge: names no judge",
    "{judge: [asked, scores, {name: asked, with: {price: 2.0}}]}": "reward.judge.2: is the same "
    "judge as number 0, by all that decides its replies",
    "{judge: [scores, scores]}": "reward.judge.1: is the same judge as number 0",
    "[{judge: asked}, {judge: [scores, asked, asked]}]": "reward.1.judge.2: is the same judge as "
    "number 1",
    "[{judge: scores}, {judge: scorse}]": "reward.1.judge: unknown judge 'scorse'; did you mean",
    "{judge: [asked, scores], with: {voice: x}}": "reward: options of a judge of several stand",
    "[{judge: scores, model: m}]": "reward.0: a reward needs exactly one of 'judge' and 'model'",
}


@pytest.mark.parametrize("reward", REFUSED)
def test_a_reward_that_cannot_be_given_is_refused_with_place_and_cause(tmp_path, reward):
    with pytest.raises(RecipeError) as error:
        loaded(tmp_path, reward)
    (problem,) = error.value.problems
    assert REFUSED[reward] in str(problem)


@pytest.mark.parametrize(
    ("block", "words"),
    [
        (
            "benchmark: pairwise, baseline: b, judge: asked, vote: majority",
            "evaluate.0.vote: has no",
        ),
        ("benchmark: counts, min_parsed: 0.5", "evaluate.0.min_parsed: has no effect: counts asks"),
        ("benchmark: pairwise, baseline: b, judge: [asked, asked]", "evaluate.0.judge.1: is the"),
    ],
)
def test_keys_of_judges_that_do_nothing_in_an_evaluation_are_refused(tmp_path, block, words):
    file = tmp_path / "r.yaml"
    file.write_text(
        f"name: r\nmodel: m\nstages: []\nevaluate:\n  - {{models: [initial], {block}}}\n"
    )
    with pytest.raises(RecipeError) as error:
        load_recipe(file, REGISTRY)
    (problem,) = error.value.problems
    assert words in str(problem)


def test_replies_without_an_end_that_cost_nothing_may_have_a_limit(tmp_path):
    assert loaded(tmp_path, "{judge: endless, with: {price: 0.0}, max_cost: 3}").stages


@pytest.mark.parametrize("reward", ["{judge: scores, by: wins}", "{judge: asked}"])
def test_win_rates_need_two_answers_to_a_prompt(tmp_path, reward):
    with pytest.raises(RecipeError, match="win rates are among the answers to a prompt"):
        loaded(tmp_path, reward, samples=1)


def test_what_a_judge_can_do_is_what_it_is_asked_by_default(tmp_path):
    from alignzoo.recipe.judges import by_of, questions_of

    def found(reward):
        spec = loaded(tmp_path, reward).stages[0].rollout.reward
        return by_of(spec, REGISTRY)

    assert found("{judge: scores}") == "score"
    assert found("{judge: compares}") == "wins"
    assert found("{judge: asked}") == "wins"
    assert found("{judge: asked, questions: pointwise}") == "score"
    spec = loaded(tmp_path, "{judge: asked, by: score}").stages[0].rollout.reward
    assert isinstance(questions_of(spec, REGISTRY), Pointwise)


def test_a_list_of_one_reward_makes_pairs_like_that_reward(tmp_path):
    from alignzoo.contract.choosing import CHOOSERS, WIN_CHOOSERS
    from alignzoo.recipe.judges import choosers_of

    def found(reward):
        return choosers_of(loaded(tmp_path, reward).stages[0].rollout.reward, REGISTRY)

    for one in ("{judge: asked}", "[{judge: asked}]", "[{judge: scores, by: wins, weight: 1}]"):
        assert found(one) is WIN_CHOOSERS
    for other in ("[{judge: asked, weight: 2}]", "[{judge: asked}, {judge: asked}]", "{model: m}"):
        assert found(other) is CHOOSERS


def test_a_method_gets_scores_or_shares_of_wins_as_its_options_say(tmp_path):
    wins = "plays, with: {wins: true}"
    loaded(tmp_path, "{judge: scores, by: wins}", algorithm=wins)
    loaded(tmp_path, "[{judge: scores, by: wins}]", algorithm=wins)
    loaded(tmp_path, "{judge: scores}", algorithm="plays")
    with pytest.raises(RecipeError, match="reads scores, and win rates are none; give `by: score`"):
        loaded(tmp_path, "{judge: asked}", algorithm="plays")
    for reward in (
        "{judge: scores}",
        "{model: some/rm}",
        "[{judge: scores, by: wins, weight: 0.5}]",
        "[{judge: scores, by: wins}, {judge: asked}]",
    ):
        with pytest.raises(RecipeError, match="reads shares of wins, and these are scores"):
            loaded(tmp_path, reward, algorithm=wins)


def test_parts_of_a_sum_that_are_called_alike_are_told_apart(tmp_path):
    recipe = loaded(tmp_path, "[{judge: scores}, {judge: scores}, {model: some/rm}]")
    assert recipe.stages[0].rollout.reward.names == ("scores#1", "scores#2", "rm")


def test_work_is_done_again_for_what_decides_values_and_not_for_prices_or_limits(
    tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "d.jsonl").write_text('{"prompt": "a"}\n')

    def known(reward):
        recipe = loaded(tmp_path, reward)
        identity = stage_identity(recipe.stages[0], recipe, REGISTRY, {})
        return identity.digest, default_folder(recipe, REGISTRY)

    usual, folder = known("{judge: asked, with: {price: 1.0}}")
    assert known("{judge: asked, with: {price: 1.0}, max_cost: 9}") == (usual, folder)
    assert known("{judge: asked, with: {price: 2.0}, min_parsed: 0.5}")[0] == usual
    assert known("{judge: asked, with: {voice: low, price: 3.0}}") == (usual, folder)
    assert known("{judge: [{name: asked, with: {price: 3.0}}]}")[0] == usual
    assert known("{judge: asked, with: {voice: high, price: 1.0}}")[1] != folder
    assert known("{judge: asked, by: wins, questions: pairwise}")[0] == usual
    others = [
        "{judge: asked, with: {voice: high}}",
        "{judge: asked, by: score}",
        "{judge: asked, questions: {name: pairwise, with: {wording: rich}}}",
        "{judge: [asked, {name: asked, with: {voice: high}}]}",
        "{judge: [asked, {name: asked, with: {voice: high}}], vote: majority}",
        "[{judge: asked}]",
        "[{judge: asked, weight: 2}]",
        "{judge: scores}",
        "{judge: scores, by: wins}",
    ]
    assert len({usual, *(known(reward)[0] for reward in others)}) == 1 + len(others)


def test_a_judge_that_says_what_it_reads_is_asked_anew_when_that_changes(tmp_path, monkeypatch):
    """As the function judge does, whose file may change under the same path."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "d.jsonl").write_text('{"prompt": "a"}\n')
    recipe, found = loaded(tmp_path, "{judge: scores}"), []
    for content in ("one", "two"):
        monkeypatch.setattr(Scores, "identity", lambda self, x=content: {"digest": x})
        found.append(stage_identity(recipe.stages[0], recipe, REGISTRY, {}).digest)
    assert found[0] != found[1]


def test_a_label_stage_takes_judges_like_a_reward(tmp_path):
    file = tmp_path / "r.yaml"
    made = "  - {name: a, stage: generate, data: 'd.jsonl', samples: 2}\n"
    file.write_text(f"{HEAD}{made}  - {{name: b, stage: label, data: a, judge: neither}}\n")
    with pytest.raises(RecipeError, match=r"stages.1.judge: neither can neither score nor"):
        load_recipe(file, REGISTRY)
    file.write_text(f"{HEAD}{made}  - {{name: b, stage: label, data: a, judge: [asked, scores]}}\n")
    assert [judge.name for judge in load_recipe(file, REGISTRY).stages[1].judges] == [
        "asked",
        "scores",
    ]
