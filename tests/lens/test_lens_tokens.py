"""Everything in a token can be seen, and nothing in it acts."""

import pytest
from shared_data import shared
from tiny_models import word_tokenizer
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from alignzoo.lens.coloured import parts_of
from alignzoo.lens.tokens import LETTERS, Pieces, bare, visible


def byte_tokenizer(*more):
    """One token for every byte, and some of several bytes."""
    letters = sorted(LETTERS, key=LETTERS.get)
    by_byte = {LETTERS[letter]: letter for letter in letters}
    words = [*letters, *("".join(by_byte[b] for b in part) for part in more)]
    backend = Tokenizer(models.BPE({w: n for n, w in enumerate(words)}, []))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    made = PreTrainedTokenizerFast(tokenizer_object=backend)
    made.add_special_tokens({"eos_token": "<end>"})
    return made


def shown(tokenizer, text):
    return [bare(x) for x in Pieces(tokenizer).shown(tokenizer(text)["input_ids"])]


def test_white_space_and_line_ends_are_seen():
    assert shown(byte_tokenizer(), "a b\n\tc") == ["a", "·", "b", "⏎\n", "⇥", "c"]


def test_a_character_that_lies_over_several_tokens_stands_at_the_first_of_them():
    assert shown(byte_tokenizer(), "é漢x") == ["é", "⋯", "漢", "⋯", "⋯", "x"]


def test_a_token_that_ends_one_character_and_begins_another_owns_what_begins_in_it():
    both = "é".encode()[1:] + "漢".encode()[:1]
    tokenizer = byte_tokenizer(both)
    ids = ["é".encode()[0], 256, *"漢".encode()[1:]]
    assert [bare(x) for x in Pieces(tokenizer).shown(ids)] == ["é", "漢", "⋯", "⋯"]


def test_bytes_that_make_no_character_are_shown_as_bytes():
    pieces = Pieces(byte_tokenizer())
    assert [bare(x) for x in pieces.shown([0xE6, 0xBC, ord("a"), 0xFF])] == [
        "⟨E6⟩",
        "⟨BC⟩",
        "a",
        "⟨FF⟩",
    ]
    assert bare(pieces.alone(0xC3)) == "⟨C3⟩"


@pytest.mark.parametrize(
    ("text", "seen"),
    [
        ("\x1b[31mred", "␛[31mred"),
        ("a\u202eb", "a⟨U+202E⟩b"),
        ("\u200f\u200b", "⟨U+200F⟩⟨U+200B⟩"),
        ("\ud800", "⟨U+D800⟩"),
        ("\x7f\x00\r", "␡␀␍"),
        ("\ue003x\ue004", "⟨U+E003⟩x⟨U+E004⟩"),
        ("\u0301x", "◌\u0301x"),
        ("a\xa0b", "a⟨U+00A0⟩b"),
        ("<script>", "<script>"),
    ],
)
def test_what_acts_in_a_text_is_written_out(text, seen):
    assert bare(visible(text)) == seen


def test_a_text_that_spells_a_special_token_is_told_apart_from_the_token():
    tokenizer = byte_tokenizer()
    pieces = Pieces(tokenizer)
    spelt = "".join(pieces.shown([ord(letter) for letter in "<end>"]))
    token = pieces.alone(tokenizer.eos_token_id)
    assert bare(spelt) == bare(token) == "<end>"
    assert parts_of(token) == (("<end>", True),) and parts_of(spelt) == (("<end>", False),)


def test_an_id_without_a_token_is_named_by_its_number():
    assert bare(Pieces(byte_tokenizer()).alone(9999)) == "⟨id 9999⟩"


def test_tokens_of_whole_words_have_the_space_that_decoding_writes_between_them():
    tokenizer = word_tokenizer()
    ids = [3, 5, 4]
    assert [bare(x) for x in Pieces(tokenizer).shown(ids, before=2)] == ["·fox", "·sees", "·owl"]


def test_the_real_sentencepiece_model_shows_words_and_parts_of_characters():
    tokenizer = AutoTokenizer.from_pretrained(shared("models", "stories260k"))
    found = shown(tokenizer, "once upon, é漢\n")
    assert found == ["<s>", "·on", "ce", "·upon", ",", "·", "é", "漢", "⋯", "⋯", "⏎\n"]
