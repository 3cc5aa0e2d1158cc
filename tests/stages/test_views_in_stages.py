"""Views in a stage: what a teacher reads of given answers and of sampled ones."""

from __future__ import annotations

import json
import string
import types

import alignzoo_facts
import pytest
from extra_methods import Hinted
from tokenizers import Tokenizer, decoders, models
from transformers import PreTrainedTokenizerFast

from alignzoo import Judge, Score, TextSample, hookimpl
from alignzoo.contract.errors import DataError, PluginError, RecipeError
from alignzoo.contract.progress import Silent
from alignzoo.contract.types import Response
from alignzoo.contract.views import Case
from alignzoo.data.reader import Reader
from alignzoo.data.tokens import Limits, encode_all
from alignzoo.data.views import Views, with_views
from alignzoo.plan import plan_recipe
from alignzoo.recipe.file import load_recipe
from alignzoo.recipe.registry import Plugin, build_registry
from alignzoo.run import run_recipe


def letters():
    """A tokenizer of letters, in which two h in a row are one token."""
    known = ["<pad>", "</s>", *string.ascii_lowercase, " ", "hh"]
    backend = Tokenizer(models.BPE({x: i for i, x in enumerate(known)}, [("h", "h")]))
    backend.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="</s>", pad_token="<pad>")


READER = Reader(letters())
FACTS = [  # words that the tokenizer of the embedded world knows
    {"prompt": f"what is the color of the {animal} ?", "response": "it is red .", "meta": meta}
    for animal, meta in [("owl", {"hint": "the owl likes blue ."}), ("fox", {"hint": "fox ."})] * 2
]


class Sampled(Hinted):
    """L of the hint, which holds the best of the sampled answers. Source: https://example.org."""

    name = "sampled_hint"

    def view(self, name, case):
        best = max(range(len(case.scores)), key=case.scores.__getitem__)
        return f"{case.sampled[best].text} {case.sample.prompt}"


class Longer(Judge):
    """The longer, the better."""

    name = "longer"

    def score(self, answers):
        return [Score(float(answer.n_tokens)) for answer in answers]


def registry():
    module = types.ModuleType("viewing")

    def register_algorithms():
        return [Hinted, Sampled]

    def register_judges():
        return [Longer]

    module.register_algorithms = hookimpl(register_algorithms)
    module.register_judges = hookimpl(register_judges)
    facts = (alignzoo_facts, Plugin("alignzoo_facts", "dist", "1", ""))
    return build_registry([(module, Plugin("viewing", "dist", "1", "")), facts])


def recipe(folder, stage, rows=FACTS):
    data = folder / "data.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    file = folder / "recipe.yaml"
    head = "name: r\nmodel: facts\nthreads: 1\nstages:\n"
    source = f"data: {{name: {data}, max_bad: 0}}, train: {{steps: 2, batch_size: 2}}"
    file.write_text(f"{head}  - {{name: x, {source}, {stage}}}\n")
    return load_recipe(file, registry())


def run(folder, stage, rows=FACTS):
    run_recipe(recipe(folder, stage, rows), "", registry(), folder / "run", Silent())
    log = folder / "run" / "stages" / "01-x" / "metrics.jsonl"
    return [json.loads(line) for line in log.read_text().splitlines()]


ROLLOUT = "rollout: {prompts: 2, samples_per_prompt: 2, sampling: {max_new_tokens: 6}, %s}"
REWARD = "reward: {judge: longer}"


def test_a_stage_distils_what_a_teacher_knows_from_a_row(tmp_path):
    found = run(tmp_path, "algorithm: hinted")
    assert found[0]["loss"] > 1e-6  # equal models behind other prompts
    same = [{**row, "meta": {"hint": ""}} for row in FACTS]
    (tmp_path / "same").mkdir()
    assert run(tmp_path / "same", "algorithm: hinted", same)[0]["loss"] == pytest.approx(
        0, abs=1e-6
    )


def test_a_stage_samples_and_shows_the_teacher_the_hint_of_the_prompt(tmp_path):
    assert run(tmp_path, f"algorithm: hinted, {ROLLOUT % 'epochs: 1'}")[0]["loss"] > 1e-6


def test_a_view_may_hold_what_was_sampled_and_how_it_was_judged(tmp_path):
    stage = f"algorithm: sampled_hint, {ROLLOUT % REWARD}"
    assert run(tmp_path, stage)[0]["loss"] > 1e-6


def test_a_row_without_what_the_view_is_made_of_is_named_before_training(tmp_path):
    rows = [*FACTS, {**FACTS[0], "meta": {}}]
    for stage in ("algorithm: hinted", f"algorithm: hinted, {ROLLOUT % 'epochs: 1'}"):
        with pytest.raises(DataError, match=r"data.jsonl:5: 'hinted' makes no view 'hint' \(KeyE"):
            run(tmp_path, stage, rows)


def test_a_view_that_leaves_no_room_for_an_answer_is_refused_before_training(tmp_path):
    long = [{**FACTS[0], "meta": {"hint": "the owl likes blue . " * 200}}]
    with pytest.raises(DataError, match="prompts or their views are longer than"):
        run(tmp_path, f"algorithm: hinted, {ROLLOUT % 'epochs: 1'}", long)
    with pytest.raises(DataError, match="a view's prompt has"):
        run(tmp_path, "algorithm: hinted", long)


def test_the_plan_says_what_a_role_sees_and_turns_of_chats_are_refused(tmp_path):
    (step,) = plan_recipe(recipe(tmp_path, "algorithm: hinted"), registry()).stages
    assert step.models["teacher"].endswith("(sees hint)")
    with pytest.raises(RecipeError, match="'teacher' sees other prompts, and these are"):
        file = tmp_path / "recipe.yaml"
        file.write_text(file.read_text().replace("max_bad: 0", "learn: all"))
        load_recipe(file, registry())


def encoded(sample, limits):
    return encode_all([sample], Hinted.batch, READER, limits, ["row 1"])


def sample(prompt="say hello", answer="hello you", hint="psst"):
    return TextSample(prompt, Response(answer), {"hint": hint})


def test_an_answer_has_the_same_tokens_behind_its_prompt_and_its_view():
    limits = Limits(64)
    views = Views.of(Hinted())
    (item,) = with_views(encoded(sample(), limits), views, READER, limits).items
    own, seen = item.rows[0], item.views["hint"][0]
    assert own.response == seen.response
    assert READER.plain(seen.prompt) == "psst say hello"


def test_answers_are_cut_so_that_their_views_fit():
    answer = " ".join(["hello"] * 12)
    whole = encoded(sample(answer=answer), Limits(64)).items[0].rows[0]
    limits = Limits(len(whole))
    views = Views.of(Hinted())
    found = with_views(encoded(sample(answer=answer), limits), views, READER, limits)
    own, seen = found.items[0].rows[0], found.items[0].views["hint"][0]
    assert len(seen) == limits.max_length > len(own)
    assert own.response == seen.response and own.response[-1] == whole.response[-1]
    assert "answers cut so that their views fit" in found.report.warnings[-1]


def test_an_answer_that_merges_with_the_end_of_its_view_is_refused():
    class Ends(Hinted):
        def view(self, name, case):
            return case.sample.prompt + "h"

    limits = Limits(64)
    with pytest.raises(DataError, match="has other tokens than behind the prompt"):
        glued = TextSample("say ", Response("hello"), {})
        with_views(encoded(glued, limits), Views.of(Ends()), READER, limits)


def test_a_view_of_a_chat_is_a_chat():
    class Flat(Hinted):
        def view(self, name, case):
            return "plain"

    chat = ({"role": "user", "content": "say hello"},)
    with pytest.raises(PluginError, match="the view 'hint' a str, and the prompt is messages"):
        Views.of(Flat()).sample("hint", Case(TextSample(chat, Response("hello"), {})), "row 1")
