"""Texts read in pieces, many at a time, have the ids that the tokenizer gives the whole text."""

import random

import pytest
from tokenizers import (
    AddedToken,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)
from transformers import PreTrainedTokenizerFast

from alignzoo.contract.types import PairBatch, PairSample, Response
from alignzoo.data.pieces import pieces_of
from alignzoo.data.reader import Reader, Rules
from alignzoo.data.tokens import Limits, encode, encode_all

TEXT = ["one two three", "Two  ones, three: 12 twos\n", "Ünser Zwei ist eins\n\nzwei ", "<thrée>"]
SPECIAL = ["<s>", "</s>", "<|end|>", "<|end|>s", "<|user|>", "<three>"]
PARTS = [*TEXT, *SPECIAL, " ", "\n", "<|", "end|>", "<", "s", "  x", "ﬁ", "a<|us", "er|>"]


def byte_level(**how):
    return models.BPE(), None, pre_tokenizers.ByteLevel(**how), trainers.BpeTrainer


def metaspace(scheme):
    pre = pre_tokenizers.Metaspace(prepend_scheme=scheme)
    return models.Unigram(), None, pre, trainers.UnigramTrainer


def llama():
    spaces = [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    return models.BPE(), normalizers.Sequence(spaces), None, trainers.BpeTrainer


def bert():
    pre = pre_tokenizers.BertPreTokenizer()
    return models.WordPiece(unk_token="<unk>"), normalizers.BertNormalizer(), pre, None


def nfkc():
    return models.BPE(), normalizers.NFKC(), pre_tokenizers.Digits(True), trainers.BpeTrainer


KINDS = {
    "byte-level": byte_level(add_prefix_space=False),
    "byte-level with a space before": byte_level(add_prefix_space=True),
    "metaspace first": metaspace("first"),
    "metaspace always": metaspace("always"),
    "prepended": llama(),
    "wordpiece": bert(),
    "nfkc": nfkc(),
}


def tokenizer_of(kind):
    model, normalizer, pre, trainer = KINDS[kind]
    made = Tokenizer(model)
    made.normalizer, made.pre_tokenizer = normalizer or normalizers.NFC(), pre
    made.decoder = decoders.ByteLevel()
    unknown = {"unk_token": "<unk>"} if trainer is trainers.UnigramTrainer else {}
    learnt = (trainer or trainers.WordPieceTrainer)(
        vocab_size=150, special_tokens=["<unk>"], show_progress=False, **unknown
    )
    made.train_from_iterator(TEXT * 4, learnt)
    made.add_special_tokens([AddedToken(text, normalized=False) for text in SPECIAL])
    made.add_special_tokens([AddedToken("<mask>", lstrip=True, normalized=False)])
    made.add_tokens(["zwei", AddedToken("<three>s", normalized=True)])
    ids = [("<s>", made.token_to_id("<s>"))]
    made.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=ids)
    return PreTrainedTokenizerFast(
        tokenizer_object=made, bos_token="<s>", eos_token="</s>", pad_token="</s>"
    )


@pytest.mark.parametrize("kind", KINDS)
def test_pieces_make_the_ids_of_the_whole_text(kind):
    tokenizer = tokenizer_of(kind)
    pieces = pieces_of(tokenizer)
    assert pieces is not None
    assert pieces.starts is not None, "nothing is cut"
    draw = random.Random(0)
    texts = ["".join(draw.choices(PARTS, k=draw.randint(0, 12))) for _ in range(400)]
    pieces.prepare((text, alone) for text in texts[:200] for alone in (True, False))
    for text in texts:
        for alone in (True, False):
            whole = tokenizer(text, add_special_tokens=alone)["input_ids"]
            assert list(pieces.ids(text, alone=alone)) == whole, (text, alone)


def test_a_token_into_which_another_one_reaches_cuts_nothing():
    tokenizer = tokenizer_of("byte-level")
    for text in ("<|end|>", "<three>", "<mask>"):  # begins a longer one; takes spaces before it
        assert pieces_of(tokenizer).starts.split(f"a{text}b") == [f"a{text}b"]
    assert pieces_of(tokenizer).starts.split("a<|user|>b</s>") == ["a", "<|user|>b", "</s>"]


def test_a_tokenizer_that_draws_lots_is_asked_every_time():
    tokenizer = tokenizer_of("byte-level")
    tokenizer.backend_tokenizer.model.dropout = 0.5
    assert pieces_of(tokenizer) is None


def test_a_tokenizer_whose_python_part_changes_ids_is_asked_itself():
    class Reversed(PreTrainedTokenizerFast):
        def __call__(self, text, **how):
            made = super().__call__(text, **how)
            made["input_ids"] = made["input_ids"][::-1]
            return made

    plain = tokenizer_of("byte-level")
    other = Reversed(tokenizer_object=plain.backend_tokenizer)
    assert pieces_of(other) is None
    ids = Reader(other, Rules("parse")).ids("one two", "here", alone=False)
    assert list(ids) == plain("one two", add_special_tokens=False)["input_ids"][::-1]


def test_what_becomes_of_a_sample_does_not_depend_on_those_beside_it():
    """A prompt too long, an answer that is a control token, one without letters, one as usual."""
    tokenizer = tokenizer_of("byte-level")
    texts = ["one", "two <|user|>", "three " * 90, "", "one two"] * 60
    samples = [PairSample("two", Response(t), Response(f"one {t}")) for t in texts]
    limits = Limits(40, too_long="drop")
    together = encode_all(samples, PairBatch, Reader(tokenizer, Rules()), limits)
    each = [encode(s, Reader(tokenizer, Rules()), limits) for s in samples]
    assert list(together.items) == [item for item in each if hasattr(item, "rows")]
    assert 0 < len(together.items) < len(samples)
