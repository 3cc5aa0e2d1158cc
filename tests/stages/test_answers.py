"""Answers for a judged benchmark: turn by turn, decoded as it prescribes, kept through a stop."""

import json
import types
from dataclasses import dataclass

import pytest
from alignzoo_facts.model import build_model, build_tokenizer
from run_parts import Heard

from alignzoo import (
    Column,
    Judge,
    JudgedBenchmark,
    ModelRef,
    PromptSample,
    Question,
    Role,
    Score,
    hookimpl,
)
from alignzoo.recipe.blocks import Recipe
from alignzoo.recipe.registry import Plugin, build_registry
from alignzoo.run import run_recipe
from alignzoo.stages.evaluation import answers
from alignzoo.store import parts

TEMPLATE = "{% for m in messages %}{{ m['role'] }} {{ m['content'] }} {% endfor %}"
SEEN = []  # conversations that the judge read


@dataclass(frozen=True)
class Talks(JudgedBenchmark):
    """Two turns; the first prompt is answered greedily, the second with noise."""

    name = "talks"
    compares = False

    def prompts(self, seed):
        for number, words in enumerate(("the fox eats", "the owl sleeps", "the cat runs")):
            yield PromptSample(({"role": "user", "content": words},), {"id": str(number)})

    def later_turns(self, prompt):
        return [] if prompt.meta["id"] == "2" else ["and the owl ?"]

    def sampling(self, prompt):
        return {"temperature": float(prompt.meta["id"] != "0"), "max_new_tokens": 6}

    def questions(self, answers, baseline):
        for i, answer in enumerate(answers):
            yield Question(str(i), i, (answer,), ({"role": "user", "content": "grade"},))

    def columns(self, answers, baseline, verdicts):
        return {"grade": Column(tuple(verdicts[str(i)].value for i in range(len(answers))))}


class Reader(Judge):
    """Remembers what it read; a long answer is a good one."""

    name = "reader"

    def score(self, answers):
        SEEN.extend(answer.turns for answer in answers)
        return [Score(float(len(answer.response.text))) for answer in answers]


class Other(Reader):
    """Another judge."""

    name = "other"


def hook(name, found):
    def register():
        return found

    register.__name__ = name
    return hookimpl(register)


def registry():
    module = types.ModuleType("talking")
    module.register_benchmarks = hook("register_benchmarks", [Talks])
    module.register_judges = hook("register_judges", [Reader, Other])
    return build_registry([(module, Plugin("talking", "dist", "1", ""))])


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    tokenizer = build_tokenizer()
    tokenizer.chat_template = TEMPLATE
    tokenizer.save_pretrained(folder)
    build_model(ModelRef("facts", seed=5), Role()).save_pretrained(folder)
    return str(folder)


@pytest.fixture(autouse=True)
def _fresh(tmp_path, monkeypatch):
    monkeypatch.setenv("ALIGNZOO_CACHE", str(tmp_path / "cache"))
    SEEN.clear()


def run(model, folder, judge="reader", **more):
    evaluate = {"benchmark": "talks", "models": [model], "judge": judge} | more
    recipe = {"name": "r", "model": model, "stages": [], "evaluate": [evaluate]}
    run_recipe(Recipe.model_validate(recipe), "", registry(), folder, Heard())
    (file,) = (folder / "answers").rglob("answers.jsonl")
    return [json.loads(line) for line in file.read_text().splitlines()]


def conversations(monkeypatch):
    """The prompts that are really given to the model."""
    given = []
    plain = answers._conversation

    def watched(question, replies):
        made = plain(question, replies)
        given.append([message["content"] for message in made.prompt])
        return made

    monkeypatch.setattr(answers, "_conversation", watched)
    return given


def test_the_second_turn_is_asked_with_the_models_own_first_reply(tmp_path, model, monkeypatch):
    given = conversations(monkeypatch)
    rows = run(model, tmp_path / "r")
    ((first,),) = rows[0]["turns"]
    assert ["the fox eats", first.strip(), "and the owl ?"] in given
    assert (first, rows[0]["responses"][0]["text"]) in SEEN
    assert "turns" not in rows[2]
    assert len(given) == 5


def test_each_prompt_is_decoded_as_the_benchmark_prescribes(tmp_path, model):
    one, two = (run(model, tmp_path / name, batch_size=n) for name, n in (("a", 1), ("b", 8)))
    assert one == two
    warm = run(model, tmp_path / "c", sampling={"temperature": 1.0})
    assert warm[0]["responses"] != one[0]["responses"]
    assert warm[1]["responses"] == one[1]["responses"]


def test_what_the_recipe_says_about_sampling_goes_first(tmp_path, model):
    rows = run(model, tmp_path / "r", sampling={"max_new_tokens": 3})
    assert all(len(row["responses"][0]["ids"]) <= 3 for row in rows)


def test_another_judge_reads_the_same_answers_without_sampling_again(tmp_path, model, monkeypatch):
    first = run(model, tmp_path / "r")
    given = conversations(monkeypatch)
    assert run(model, tmp_path / "r", judge="other") == first
    assert given == []


def test_sampling_goes_on_after_a_stop_where_it_was_and_ends_the_same(tmp_path, model, monkeypatch):
    undisturbed = run(model, tmp_path / "whole", batch_size=1)
    keep = parts.keep_part
    calls = []

    def stops(file, number, value):
        if len(calls) == 3:
            raise KeyboardInterrupt
        calls.append(number)
        keep(file, number, value)

    monkeypatch.setenv("ALIGNZOO_CACHE", str(tmp_path / "other"))
    monkeypatch.setattr(parts, "keep_part", stops)
    with pytest.raises(KeyboardInterrupt):
        run(model, tmp_path / "r", batch_size=1)
    (state,) = (tmp_path / "r/answers").rglob("turn-1-by-1.jsonl")
    with state.open("a") as file:
        file.write('0123abcd [1,[["te')  # what a kill leaves of a line
    monkeypatch.setattr(parts, "keep_part", keep)
    given = conversations(monkeypatch)
    assert run(model, tmp_path / "r", batch_size=1) == undisturbed
    assert len(given) == 2
