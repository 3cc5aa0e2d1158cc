"""What a recipe asks of verdicts now holds for finished stages, and files are looked for early."""

import json
import types
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from alignzoo_pairwise.benchmark import Pairwise
from judged_plugins import Longer
from run_parts import Heard

from alignzoo import AskedJudge, Capabilities, JudgeError, Reply, Usage, hookimpl, option
from alignzoo.plan.ahead import check_judges
from alignzoo.plan.standing import standings
from alignzoo.recipe.blocks import Recipe
from alignzoo.recipe.faults import FaultyRecipe
from alignzoo.recipe.registry import Plugin, build_registry
from alignzoo.run import How, run_recipe

ASKED = []
GROUPS = 12


@dataclass(frozen=True)
class Gaps(AskedJudge):
    """Prefers the longer answer; of odd prompts it says nothing, or another speaks for it."""

    name = "gaps"
    other_models: str = option("stop", "what another model's reply counts")
    fill_in: str | None = option(None, "who speaks for it")

    def identity(self):
        return {"fill_in": self.fill_in}

    @asynccontextmanager
    async def connect(self):
        yield Desk(self)


@dataclass
class Desk:
    judge: Gaps
    capabilities = Capabilities("gaps-1", served="gaps-1")

    async def replies(self, questions):
        return [self.reply(question.messages[-1]["content"]) for question in questions]

    def reply(self, text):
        ASKED.append(text)
        prompt, first, second = text.split("|")
        word = "FIRST" if len(first) > len(second) else "SECOND"
        odd = int(prompt.split()[-1]) % 2
        strange = odd and self.judge.fill_in
        said = word if strange or not odd else "hm"
        return Reply(said, usage=Usage(10, 1), finish="stop", model=strange or "gaps-1")


def hook():
    return [Gaps]


def benchmarks():
    return [Longer, Pairwise]


def registry():
    module = types.ModuleType("gaps")
    for name, call in (("register_judges", hook), ("register_benchmarks", benchmarks)):
        call.__name__ = name
        setattr(module, name, hookimpl(call))
    return build_registry([(module, Plugin("gaps", "dist", "1", ""))])


@pytest.fixture(autouse=True)
def _fresh(tmp_path, monkeypatch):
    monkeypatch.setenv("ALIGNZOO_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    write(range(GROUPS))
    (tmp_path / "m").write_text("")
    ASKED.clear()


def write(numbers):
    rows = [{"prompt": f"prompt {n}", "responses": ["aaa", "b"]} for n in numbers]
    Path("d.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def label(judge="gaps", **more):
    stage = {"name": "l", "stage": "label", "data": "d.jsonl", "judge": judge, **more}
    return Recipe.model_validate(
        {"name": "r", "model": "m", "stages": [stage | {"questions": {"name": "longer"}}]}
    )


def run(what, folder="r", **how):
    heard = Heard()
    run_recipe(what, "", registry(), Path(folder), heard, How(**how))
    return heard.events


def status(what, folder="r"):
    return standings(what, registry(), Path(folder)).stages[0].status


def test_labels_with_few_verdicts_do_not_pass_a_higher_bar_later():
    low, high = label(min_parsed=0), label()
    assert "run l" in run(low) and len(ASKED) == 2 * GROUPS
    assert status(low) == "reused" and "reuse l" in run(low)
    assert status(label(min_parsed=0.5)) == "reused"
    assert status(high) == "to run"
    with pytest.raises(JudgeError, match=r"12 of 24 replies .* fewer than min_parsed = 0\.9"):
        run(high)
    with pytest.raises(JudgeError, match="12 of 24"):
        run(high, "elsewhere")  # nor from another run
    assert len(ASKED) == 2 * GROUPS


def test_a_stranger_whose_replies_failed_before_stops_who_asks_for_one_judge():
    def chosen(other):
        given = [{"name": "gaps", "with": {"fill_in": "gaps-2", "other_models": other}}]
        return label(given, min_parsed=0)

    assert "run l" in run(chosen("fail"))
    assert "reuse l" in run(chosen("fail"))
    before = len(ASKED)
    with pytest.raises(JudgeError, match="these are two judges"):
        run(chosen("stop"))
    assert len(ASKED) == before + 1


def test_verdicts_that_lack_nothing_pass_any_bar():
    write(range(0, 2 * GROUPS, 2))
    run(label(min_parsed=0))
    assert status(label(min_parsed=1)) == "reused"
    assert "reuse l" in run(label(min_parsed=1), again=True)


def test_a_template_that_is_not_there_is_found_before_an_earlier_stage_runs():
    with_ = {"questions": {"name": "pairwise", "with": {"template": "nowhere.md"}}}
    made = {"name": "a", "stage": "generate", "data": "d.jsonl", "samples": 2}
    late = {"name": "l", "stage": "label", "data": "a", "judge": "gaps", **with_}
    what = Recipe.model_validate({"name": "r", "model": "facts", "stages": [made, late]})
    known = standings(what, registry(), Path("r"))
    with pytest.raises(FaultyRecipe) as error:
        check_judges(what, registry(), known)
    assert [fault.path for fault in error.value.faults] == [("stages", 1, "questions")]
    assert "nowhere.md" in str(error.value)
