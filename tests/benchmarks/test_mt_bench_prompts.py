"""Prompts for MT-Bench's judge, against those that the official program recorded."""

import parity_mt_bench as parity
import pytest
from alignzoo_mt_bench.benchmark import MTBench
from alignzoo_mt_bench.files import prompts_file, read_templates
from shared_data import shared


@pytest.fixture(scope="module")
def benchmark():
    return MTBench(str(shared("eval", parity.FOLDER)), parity.OFFICIAL)


def recorded():
    return parity.recorded_prompts(shared("eval"))


def test_some_model_has_all_of_its_prompts_recorded():
    assert [len(prompts) for prompts in recorded().values()] == [160]


def test_every_recorded_prompt_is_rendered_byte_for_byte(benchmark):
    for prompts in recorded().values():
        answers = parity.recovered_answers(prompts, benchmark, shared("eval"))
        rendered = {
            (q.id.split("/")[0], int(q.id.split("/")[1])): parity.user_message(q)
            for q in benchmark.questions(answers, None)
        }
        assert rendered == prompts


def test_the_instructions_are_in_the_system_message_of_second_turns(benchmark):
    templates = read_templates(prompts_file(benchmark.data))
    answers = [parity.answer_of(prompt, ("a", "b")) for prompt in benchmark.prompts(0)]
    systems = {q.messages[0]["content"] for q in benchmark.questions(answers, None)}
    assert systems == {t.system for name, t in templates.items() if name.startswith("single")}


def test_references_of_another_author_change_the_prompts_and_the_settings(benchmark):
    other = MTBench(benchmark.data)
    answers = [parity.answer_of(prompt, ("a", "b")) for prompt in benchmark.prompts(0)]
    pairs = zip(benchmark.questions(answers, None), other.questions(answers, None), strict=True)
    changed = {one.id for one, two in pairs if one.digest != two.digest}
    guided = {
        answer.sample.meta["id"]
        for answer in answers
        if answer.sample.meta["category"] in ("math", "reasoning", "coding")
    }
    assert {id_.split("/")[0] for id_ in changed} == guided
    assert benchmark.settings() != other.settings()
    assert [p for p in benchmark.prompts(0)] == [p for p in other.prompts(0)]
