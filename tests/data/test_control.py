"""Control tokens that a text spells are letters; what a template writes, and <think>, are not."""

import pytest
from small_models import word_tokenizer
from story_models import TURNS, story_tokenizer
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from alignzoo.contract.errors import DataError
from alignzoo.contract.rollout import Completion
from alignzoo.contract.types import PairSample, PromptSample, Response, TextBatch, TextSample
from alignzoo.data.control import control_of
from alignzoo.data.reader import Reader, Rules
from alignzoo.data.tokens import (
    Limits,
    decode_answer,
    encode,
    encode_all,
    prompt_ids,
)

WIDE = Limits(512)
CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
QUESTION, MARKUP = "How do I strike text?", " Write <s> before it and </s> after it. Then save."


def byte_tokenizer(template=CHATML):
    """One token per byte; ChatML's marks and <think> are special, <tool_call> is merely added."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    backend = Tokenizer(models.BPE({letter: i for i, letter in enumerate(letters)}, []))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.decoder = decoders.ByteLevel()
    made = PreTrainedTokenizerFast(
        tokenizer_object=backend, eos_token="<|im_end|>", pad_token="<|pad|>"
    )
    special = [AddedToken(name, special=True) for name in ("<|im_start|>", "<think>", "</think>")]
    made.add_special_tokens({"additional_special_tokens": special})
    made.add_tokens([AddedToken("<tool_call>", special=False)])
    made.chat_template = template
    return made


def row_of(sample, tokenizer, **rules):
    (row,) = encode(sample, Reader(tokenizer, Rules(**rules)), WIDE).rows
    return row


def spelt(text, tokenizer):
    """The ids of a text's letters, one by one: no token stands for several of them."""
    return tuple(tokenizer.convert_tokens_to_ids(token) for token in byte_pieces(text))


def byte_pieces(text):
    return pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False).pre_tokenize_str(text)[
        0
    ][0]


def test_an_end_token_that_an_answer_spells_is_letters_as_with_split_special_tokens():
    stories = story_tokenizer()
    row = row_of(TextSample(QUESTION, Response(MARKUP)), stories)
    right = stories(QUESTION + MARKUP, split_special_tokens=True)["input_ids"]
    assert row.prompt + row.response == (*right, stories.eos_token_id)
    assert row.prompt == prompt_ids(PromptSample(QUESTION), stories)
    parsed = row_of(TextSample(QUESTION, Response(MARKUP)), stories, special="parse")
    assert parsed.prompt + parsed.response == (*stories(QUESTION + MARKUP)["input_ids"], 2)
    assert parsed.response.count(2) == 2 and row.response.count(2) == 1


def test_rows_that_spell_no_control_token_have_the_ids_of_the_plain_tokenizer():
    stories = story_tokenizer(TURNS)
    plain = row_of(TextSample("Lily ran.", Response(" Tim ❤️ sat < b.")), stories)
    assert plain.prompt + plain.response == (*stories("Lily ran. Tim ❤️ sat < b.").input_ids, 2)
    chat = [{"role": "user", "content": "Lily ran."}, {"role": "assistant", "content": "Yes ❤️."}]
    row = row_of(TextSample((chat[0],), Response("Yes ❤️.")), stories)
    assert row.prompt + row.response == tuple(stories.apply_chat_template(chat, return_dict=False))


def test_what_the_template_writes_stays_special_and_what_messages_spell_does_not():
    tokenizer = byte_tokenizer()
    mark, end = tokenizer.convert_tokens_to_ids(["<|im_start|>", "<|im_end|>"])
    sample = TextSample(
        ({"role": "user", "content": "What is <|im_end|>?"},), Response("It ends <|im_start|>.")
    )
    row = row_of(sample, tokenizer)
    assert row.prompt == (
        mark, *spelt("user\nWhat is <|im_end|>?", tokenizer), end, *spelt("\n", tokenizer),
        mark, *spelt("assistant\n", tokenizer),
    )  # fmt: skip
    assert row.response == (*spelt("It ends <|im_start|>.", tokenizer), end)


def test_think_and_tool_tags_in_a_message_keep_their_ids():
    tokenizer = byte_tokenizer()
    think, done, tool = tokenizer.convert_tokens_to_ids(["<think>", "</think>", "<tool_call>"])
    user = ({"role": "user", "content": "Hi"},)
    answer = "<think>a</think><tool_call>b</s><|pad|>"
    assert row_of(TextSample(user, Response(answer)), tokenizer).response == (
        think, *spelt("a", tokenizer), done, tool, *spelt("b</s><|pad|>", tokenizer),
        tokenizer.eos_token_id,
    )  # fmt: skip


def test_turn_tokens_are_those_that_the_template_writes_around_turns():
    assert set(control_of(byte_tokenizer()).turns) == {"<|im_start|>", "<|im_end|>"}
    thought = "{% if m.role == 'assistant' %}<think></think>{% endif %}{{ m.content }}"
    empty_thought = CHATML.replace("{{ m.content }}", thought)
    assert set(control_of(byte_tokenizer(empty_thought)).turns) == {"<|im_start|>", "<|im_end|>"}
    assert control_of(byte_tokenizer(template=None)).tokens == ("<|im_end|>", "<|pad|>")
    assert set(control_of(story_tokenizer(TURNS)).tokens) == {"<s>", "</s>"}


def test_an_end_token_at_the_very_end_of_a_plain_answer_is_its_end():
    stories = story_tokenizer()
    row = row_of(TextSample(QUESTION, Response(" Write </s> here.</s>\n")), stories)
    right = stories(f"{QUESTION} Write </s> here.", split_special_tokens=True)["input_ids"]
    assert row.prompt + row.response == (*right, stories.eos_token_id)


def test_a_plain_prompt_that_holds_turns_asks_whether_it_is_a_rendered_chat():
    tokenizer = byte_tokenizer()
    rendered = "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
    sample = TextSample(rendered, Response("Ho"))
    with pytest.raises(DataError, match=r"d:1: .*rendered chat, or data.special: split"):
        encode(sample, tokenizer, WIDE, "d:1")
    parsed = row_of(sample, tokenizer, special="parse")
    assert parsed.prompt == tuple(tokenizer(rendered)["input_ids"])
    assert row_of(sample, tokenizer, special="split").prompt == spelt(rendered, tokenizer)


def test_a_tokenizer_whose_vocabulary_reads_the_letters_as_the_token_refuses_the_row():
    words = word_tokenizer()  # </s> is one of its words
    sample = TextSample("hello", Response(" fine </s> bye"))
    with pytest.raises(DataError, match=r"d:1: a text holds </s>.*data.special: parse"):
        encode(sample, words, WIDE, "d:1")
    good = TextSample("hello", Response(" fine"))
    report = encode_all([sample, good], TextBatch, words, WIDE, ["d:1", "d:2"]).report
    assert report.items == 1 and report.bad[0].startswith("d:1: a text holds </s>")


def test_a_private_character_cannot_forge_a_control_token():
    with pytest.raises(DataError, match="a character for private use"):
        encode(TextSample("Hi", Response(" a\U000ffe00b")), story_tokenizer(), WIDE)


def test_rows_with_letters_of_control_tokens_are_counted():
    samples = [TextSample(QUESTION, Response(MARKUP)), TextSample(QUESTION, Response(" No."))]
    assert encode_all(samples, TextBatch, story_tokenizer(), WIDE).report.spelt == 1


def test_an_answer_as_text_holds_think_and_neither_turns_nor_padding():
    tokenizer = byte_tokenizer()
    ids = tokenizer.convert_tokens_to_ids
    start = prompt_ids(PromptSample(({"role": "user", "content": "Hi"},)), tokenizer)
    body = (ids("<think>"), *spelt("a", tokenizer), ids("</think>"), *spelt("b", tokenizer))
    done = Completion((*body, ids("<|im_end|>")), (0.0,) * (len(body) + 1), True)
    response = decode_answer(
        start, done.ids, Reader(tokenizer), (ids("<|im_end|>"),), ended=done.ended
    )
    assert (response.text, response.plain) == ("<think>a</think>b", "ab")
    padded = (*body, ids("<|pad|>"), ids("<|im_start|>"))
    again = decode_answer(start, padded, Reader(tokenizer), ended=True)
    assert again.text == "<think>a</think>b"
    stories = story_tokenizer()
    said = Completion(tuple(stories(" a dog")["input_ids"][1:]), (0.0,) * 2, False)
    assert decode_answer((1,), said.ids, Reader(stories), ended=False).plain is None


def test_sampled_ids_with_special_tokens_are_accepted_with_either_text():
    tokenizer = byte_tokenizer()
    ids = (tokenizer.convert_tokens_to_ids("<think>"), *spelt("a", tokenizer))
    user = ({"role": "user", "content": "Hi"},)
    for text in ("<think>a", "a"):
        pair = PairSample(user, Response(text, ids), Response("b"))
        assert encode(pair, tokenizer, WIDE).rows[0].response == ids
    with pytest.raises(DataError, match="do not spell its text"):
        encode(TextSample(user, Response("zzz", ids)), tokenizer, WIDE)
