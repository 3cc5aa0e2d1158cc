"""What a chat template leaves out, pairs that it makes equal, and which turns are learnt."""

import pytest
from small_models import ids_of, word_tokenizer
from story_models import CUTS_THOUGHTS, TURNS, story_tokenizer

from alignzoo.contract.errors import DataError
from alignzoo.contract.types import PairBatch, PairSample, Response, TextBatch, TextSample
from alignzoo.data.reader import Reader, Rules
from alignzoo.data.tokens import Limits, encode, encode_all

WIDE = Limits(256)
ASK = {"role": "user", "content": "How many dogs?"}
CHOSEN = "<think>One is big. One is small. So there are two.</think>Two dogs."
REJECTED = "<think>I see a cat. Cats are dogs. So there is one.</think>Two dogs."
GENERATION = (
    "{% for m in messages %}<|start|> {{ m.role }} {% if m.role == 'assistant' %}"
    "{% generation %}{{ m.content }} <|end|> {% endgeneration %}{% else %}{{ m.content }} <|end|> "
    "{% endif %}{% endfor %}{% if add_generation_prompt %}<|start|> assistant {% endif %}"
)


def said(*texts):
    """A chat: user and assistant in turn."""
    roles = ("user", "assistant")
    return tuple({"role": roles[n % 2], "content": text} for n, text in enumerate(texts))


def row_of(sample, tokenizer, limits=WIDE, **rules):
    (row,) = encode(sample, Reader(tokenizer, Rules(**rules)), limits, "d:1").rows
    return row


def learnt_ids(row):
    """The ids that carry loss."""
    mask = row.learnt or (True,) * len(row.response)
    return [id_ for id_, learnt in zip(row.response, mask, strict=True) if learnt]


def test_a_template_that_cuts_reasoning_out_of_the_answer_is_refused_or_told():
    stories, sample = story_tokenizer(CUTS_THOUGHTS), TextSample((ASK,), Response(CHOSEN))
    with pytest.raises(DataError, match=r"d:1: .*leaves out part of the content \('<think>One"):
        row_of(sample, stories, template_cuts="refuse")
    made = encode_all([sample], TextBatch, Reader(stories, Rules(template_cuts="tell")), WIDE)
    cut = stories.apply_chat_template([ASK, *said("", "Two dogs.")[1:]], return_dict=False)
    assert made.items[0].rows[0].prompt + made.items[0].rows[0].response == tuple(cut)
    assert made.report.left_out == {"parts of answers": 1}


def test_an_answer_that_goes_on_after_a_thought_the_template_opened_is_whole():
    opens = TURNS.replace("<assistant>{% endif %}", "<assistant><think>{% endif %}")
    row = row_of(
        TextSample((ASK,), Response(CHOSEN)), story_tokenizer(opens), template_cuts="refuse"
    )
    whole = story_tokenizer(opens).apply_chat_template(
        [ASK, {"role": "assistant", "content": CHOSEN}], return_dict=False
    )
    assert row.prompt + row.response == tuple(whole)


def test_a_template_that_only_moves_white_space_leaves_nothing_out():
    spaced = TURNS.replace("{{ m.content }}", "{{ m.content.split() | join('  ') }}")
    sample = TextSample((ASK,), Response("\n Two\n\ndogs. "))
    row_of(sample, story_tokenizer(spaced), template_cuts="refuse")


def test_what_a_template_skips_of_earlier_turns_fields_and_tools_is_counted():
    skips = TURNS.replace(
        "{{ m.content }}", "{% if m.role != 'system' %}{{ m.content }}{% endif %}"
    )
    chat = ({"role": "system", "content": "Be kind."}, ASK | {"name": "Tim"})
    sample = TextSample(chat, Response("Two."), {"tools": [{"function": {"name": "f"}}]})
    report = encode_all([sample], TextBatch, story_tokenizer(skips), WIDE).report
    assert report.left_out == {
        "parts of system turns": 1,
        "the message field 'name'": 1,
        "the tools": 1,
    }


def test_reasoning_in_a_field_that_the_template_does_not_write_is_left_out():
    message = {"role": "assistant", "content": "Two.", "reasoning_content": "One and one."}
    sample = TextSample((ASK,), Response("Two.", message=message))
    with pytest.raises(DataError, match="leaves out the message's 'reasoning_content'"):
        row_of(sample, story_tokenizer(TURNS), template_cuts="refuse")


def test_pairs_that_the_template_or_a_cut_makes_equal_are_counted():
    stories = story_tokenizer(CUTS_THOUGHTS)
    same = PairSample((ASK,), Response(CHOSEN), Response(REJECTED))
    other = PairSample((ASK,), Response("Two."), Response("One."))
    assert encode_all([same, other], PairBatch, stories, WIDE).report.equal == 1
    long = PairSample("Lily ran", Response(" home and slept."), Response(" home and ate."))
    assert encode_all([long], PairBatch, stories, Limits(8)).report.equal == 1


# --- which turns are learnt -----------------------------------------------------------------------

CHAT = said("hello", "how are you", "fine bye")
FIRST, LAST = "how are you <|end|>", "the cat <|end|>"


@pytest.mark.parametrize("template", [None, GENERATION])
def test_every_turn_of_the_assistant_is_learnt_where_the_recipe_says_so(template):
    words = word_tokenizer()
    words.chat_template = template or words.chat_template
    sample = TextSample(CHAT, Response("the cat"))
    last = row_of(sample, words)
    every = row_of(sample, words, learn="all")
    assert learnt_ids(last) == ids_of(LAST)
    assert learnt_ids(every) == ids_of(f"{FIRST} {LAST}")
    assert every.prompt + every.response == last.prompt + last.response
    assert every.prompt == tuple(ids_of("<|start|> user hello <|end|> <|start|> assistant"))


def test_only_what_the_assistant_said_counts_in_the_batch():
    words = word_tokenizer()
    row = row_of(TextSample(CHAT, Response("the cat")), words, learn="all")
    single = row_of(TextSample(said("hello"), Response("bye")), words, learn="all")
    made = encode_all(
        [TextSample(CHAT, Response("the cat")), TextSample(said("hello"), Response("bye"))],
        TextBatch, Reader(words, Rules(learn="all")), WIDE,
    )  # fmt: skip
    batch = TextBatch.collate(made.items, pad_id=0)
    assert batch.ids[0][batch.response[0]].tolist() == learnt_ids(row)
    assert batch.ids[1][batch.response[1]].tolist() == list(single.response)
    assert single.learnt is None


def test_a_long_chat_is_cut_within_all_its_turns():
    row = row_of(TextSample(CHAT, Response("the cat")), word_tokenizer(), Limits(11), learn="all")
    assert len(row) == 11 and len(row.learnt) == len(row.response)
    assert learnt_ids(row) == ids_of(FIRST)


def test_a_template_that_rewrites_earlier_turns_cannot_be_learnt_whole():
    numbered = (
        "{% for m in messages %}{{ messages | length }} <{{ m.role }}>{{ m.content }}"
        "{{ eos_token }}{% endfor %}{% if add_generation_prompt %}<assistant>{% endif %}"
    )
    sample = TextSample(CHAT, Response("the cat"))
    with pytest.raises(DataError, match="in another way once"):
        row_of(sample, story_tokenizer(numbered), learn="all")


def test_reasoning_that_is_cut_from_an_earlier_turn_is_refused_where_that_turn_is_learnt():
    chat = (ASK, {"role": "assistant", "content": CHOSEN}, ASK)
    sample, stories = TextSample(chat, Response("Two.")), story_tokenizer(CUTS_THOUGHTS)
    assert row_of(sample, stories, template_cuts="refuse")
    with pytest.raises(DataError, match="of an earlier turn, which is to be learnt"):
        row_of(sample, stories, template_cuts="refuse", learn="all")
