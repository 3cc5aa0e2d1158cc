"""The stories judge by hand, its prompts and benchmark, and the score of a real model."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from alignzoo import Answer, PromptSample, Response
from alignzoo_stories import StoriesBenchmark, StoriesJudge, StoryPrompts
from alignzoo_stories.benchmark import distinct_2
from alignzoo_stories.judge import NEGATIONS, NEGATIVE, POSITIVE, known_words, split_words

PROMPT = PromptSample("Tim was a little boy. One day, Tim went to the park.", {"name": "Tim"})
FIFTEEN = "the dog and the cat sat on the bed in the sun all day long"


def answer(text: str, *, ended: bool = True, prompt: PromptSample = PROMPT) -> Answer:
    return Answer(prompt, Response(text, ended=ended), len(text.split()))


def found(text: str, **options: object) -> dict[str, float]:
    return dict(StoriesJudge().score([answer(text, **options)])[0].features)


def value(text: str, **options: object) -> float:
    return StoriesJudge().score([answer(text, **options)])[0].value


# --- the judge ---------------------------------------------------------------------------------


def test_a_whole_answer_scores_what_the_table_says():
    text = 'Tim was sad and cried. Then he saw his friend and they had fun. "I am happy," said Tim.'
    assert found(text) == {
        "pos": 3, "neg": 2, "happy_end": 1, "nonword": 0, "rep": 0, "name": 1, "quotes": 0,
        "ended": 1, "short": 0, "long": 0, "words": 19,
    }  # fmt: skip
    assert value(text) == 0.5 * 3 - 0.5 * 2 + 1 + 0.5 + 1


def test_every_weight_is_the_one_of_the_table():
    assert value(f"{FIFTEEN}", ended=False) == 0.0
    assert value(f"{FIFTEEN} happy.", ended=False) == 0.5 + 1.0  # pos, happy_end
    assert value(f"{FIFTEEN} sad.", ended=False) == -0.5  # neg
    assert value(f"{FIFTEEN} xqz", ended=False) == -0.5  # nonword
    assert value(f"{FIFTEEN} and the cat sat on", ended=False) == -2.0  # rep: two 4-grams
    assert value(f"{FIFTEEN} Tim", ended=False) == 0.5  # name
    assert value(f'{FIFTEEN}"', ended=False) == -0.5  # quotes
    assert value(f"{FIFTEEN}.") == 1.0  # ended
    assert value("he sat.", ended=False) == pytest.approx(-1.3)  # short
    assert found("he sat " * 20)["long"] == 1.0


def test_distinct_polar_words_count_once_and_at_most_three():
    assert found("happy happy happy.")["pos"] == 1
    assert found("happy fun nice glad love.")["pos"] == 3
    assert found("sad sad.")["neg"] == 1
    assert found("sad lost hurt mean bad.")["neg"] == 3


def test_a_negated_positive_word_is_negative_and_a_negated_negative_word_is_nothing():
    unhappy, unsad = found("He was not happy."), found("He was not sad.")
    assert (unhappy["pos"], unhappy["neg"], unhappy["happy_end"]) == (0, 1, 0)
    assert (unsad["pos"], unsad["neg"], unsad["happy_end"]) == (0, 0, 0)


@pytest.mark.parametrize("negation", sorted(NEGATIONS))
def test_a_negation_reaches_two_words_and_no_further(negation):
    assert found(f"{negation} very happy")["neg"] == 1
    assert found(f"{negation} so very happy")["pos"] == 1


def test_a_word_can_be_positive_here_and_negative_there():
    both = found("He was happy. She was not happy.")
    assert (both["pos"], both["neg"], both["happy_end"]) == (1, 1, 0)


def test_only_the_last_sentence_decides_about_the_happy_end():
    assert found("He was sad. They had fun!")["happy_end"] == 1
    assert found("They had fun. He went home.")["happy_end"] == 0
    assert found("They had fun but he was sad.")["happy_end"] == 0
    assert found('He smiled. "They had fun."')["happy_end"] == 1


def test_unknown_words_are_counted_up_to_four_and_possessives_of_known_words_are_known():
    assert found("xqz and the dog's ball and the xqz's ball")["nonword"] == 2
    assert found("xqz xqz xqz xqz xqz xqz")["nonword"] == 4
    assert found("I saw a b")["nonword"] == 1


def test_repeats_of_the_prompt_and_of_the_answer_count_up_to_four():
    assert found("one day Tim went home")["rep"] == 1  # "one day tim went" is in the prompt
    assert found("he had a ball and he had a ball")["rep"] == 1
    assert found("he sat " * 10)["rep"] == 4


def test_the_character_is_recognised_also_in_the_possessive_but_not_inside_a_word():
    assert found("He saw tim.")["name"] == 1
    assert found("It was Tim's ball.")["name"] == 1
    assert found("Timmy had time.")["name"] == 0
    assert found("Tim sat.", prompt=PromptSample("Go on."))["name"] == 0


def test_an_open_quotation_costs_half_a_point():
    assert found('"Hi," he said.')["quotes"] == 0
    assert found('"Hi, he said.')["quotes"] == 1


def test_an_answer_has_ended_only_with_a_stop_token_after_a_closing_mark():
    assert [found(f"He sat{mark}")["ended"] for mark in (".", "!", "?", '"', ". \n")] == [1] * 5
    assert found("He sat,")["ended"] == 0
    assert found("He sat.", ended=False)["ended"] == 0


@pytest.mark.parametrize(
    ("words", "short", "long"),
    [(0, 1.5, 0), (14, 0.1, 0), (15, 0, 0), (30, 0, 0), (31, 0, 0.1), (50, 0, 2), (90, 0, 2)],
)
def test_length_is_free_between_15_and_30_words(words, short, long):
    got = found("he " * words)
    assert (got["short"], got["long"]) == (pytest.approx(short), pytest.approx(long))


@pytest.mark.parametrize("text", ["", "\n", " ", "...", "�"])
def test_a_text_without_words_is_scored_and_not_an_error(text):
    got = StoriesJudge().score([answer(text)])[0]
    assert got.features["words"] == 0
    assert got.value == -1.5 + (text == "...")


def test_a_chat_prompt_counts_for_repeats_like_a_plain_one():
    chat = PromptSample(({"role": "user", "content": str(PROMPT.prompt)},), {"name": "Tim"})
    text = "One day, Tim went home."
    assert found(text, prompt=chat) == found(text)


def test_scores_come_one_per_answer_in_order():
    texts = ["He was happy.", "", "He was sad."]
    scores = StoriesJudge().score([answer(text) for text in texts])
    assert [score.value for score in scores] == [value(text) for text in texts]


def test_the_word_list_is_sorted_and_knows_the_words_of_judge_and_prompts():
    words = (Path(__file__).parent / "words.txt").read_text("utf-8").splitlines()
    assert words == sorted(set(words))
    assert words[:1] == ["a"]
    assert [word for word in words if len(word) == 1] == ["a", "i"]
    named = {
        word
        for held_out in (True, False)
        for sample in StoryPrompts(size=400, held_out=held_out).samples(0)
        for word in split_words(str(sample.prompt))
    }
    assert known_words() >= POSITIVE | NEGATIVE | NEGATIONS | named


# --- the prompts -------------------------------------------------------------------------------


def texts(size: int, seed: int, *, held_out: bool = False) -> list[str]:
    samples = StoryPrompts(size=size, held_out=held_out).samples(seed)
    return [str(sample.prompt) for sample in samples]


def test_equal_seeds_give_equal_prompts_and_other_seeds_others():
    assert texts(50, 3) == texts(50, 3)
    assert not set(texts(50, 3)) & set(texts(50, 4))


def test_a_shorter_set_is_the_beginning_of_a_longer_one():
    assert texts(50, 0) == texts(200, 0)[:50]


def test_prompts_of_a_set_are_all_different_and_as_many_as_asked_for():
    assert len(set(texts(2000, 0))) == 2000


def test_no_held_out_prompt_is_among_training_prompts_of_any_seed_and_size():
    held_out = {text for seed in range(3) for text in texts(1000, seed, held_out=True)}
    training = {text for seed in range(3) for text in texts(3000, seed)}
    assert not held_out & training


def test_prompts_name_their_character_and_end_on_a_word_or_mark():
    for sample in StoryPrompts(size=300).samples(1):
        name = sample.meta["name"]
        text = str(sample.prompt)
        assert f", {name} went to the " in text
        assert text[-1] in ".,"
        assert ("She loved" in text) != ("He loved" in text)


def test_about_half_of_the_prompts_begin_an_ending():
    share = sum(text.endswith(",") for text in texts(1000, 0)) / 1000
    assert 0.45 < share < 0.55


# --- the benchmark -----------------------------------------------------------------------------


def test_the_benchmark_asks_held_out_prompts_only():
    benchmark = [str(sample.prompt) for sample in StoriesBenchmark(size=30).prompts(5)]
    assert benchmark == texts(30, 5, held_out=True)


def test_the_kinder_model_wins_every_pair_and_a_baseline_is_even_with_itself():
    kind = [[answer("He was happy."), answer("They had fun.")]]
    sad = [[answer("He was sad."), answer("It was bad.")]]
    ours, theirs = (StoriesBenchmark().measure(x, y) for x, y in ((kind, sad), (sad, None)))
    assert ours["win_rate"].values == (1.0,)
    assert theirs["win_rate"].values == (0.5,)
    assert ours["score"].values[0] - theirs["score"].values[0] == pytest.approx(2.0)
    assert {"length", "ended", "nonword", "words", "distinct_2"} <= ours.keys()


def test_distinct_2_averages_to_types_over_tokens_of_all_answers():
    values = distinct_2([["a b c", "a b"], ["a b d"]])
    assert sum(values) / 2 == pytest.approx(3 / 5)  # ab, bc, bd among ab bc ab ab bd
    assert distinct_2([["same old words"], ["same old words"]]) == (0.5, 0.5)
    assert distinct_2([["", "word"], [""]]) == (0.0, 0.0)


# --- a real model ------------------------------------------------------------------------------


def test_the_base_model_scores_about_nine_tenths():
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    root = Path(__file__).resolve().parents[2]
    folder = Path(os.environ.get("ALIGNZOO_SHARED", root / ".." / "shared")) / "models/stories260k"
    if not folder.exists():
        pytest.skip("needs the pretrained model in models/stories260k of the shared folder")
    tokenizer = AutoTokenizer.from_pretrained(folder, padding_side="left")
    model = AutoModelForCausalLM.from_pretrained(folder)
    samples = list(StoriesBenchmark(size=128).prompts(0))
    inputs = tokenizer([str(s.prompt) for s in samples], return_tensors="pt", padding=True)
    torch.manual_seed(0)
    out = model.generate(
        input_ids=inputs["input_ids"],
        attention_mask=inputs["attention_mask"],
        do_sample=True,
        top_k=0,
        max_new_tokens=96,
        eos_token_id=[13, 1, 2],
    )
    answers = []
    for sample, row in zip(samples, out[:, inputs["input_ids"].shape[1] :].tolist(), strict=True):
        end = next((i for i, token in enumerate(row) if token in (13, 1, 2)), None)
        response = Response(tokenizer.decode(row[:end]), ended=end is not None)
        answers.append(Answer(sample, response, len(row[:end])))
    scores = StoriesJudge().score(answers)
    assert 0.6 <= sum(score.value for score in scores) / len(scores) <= 1.2
