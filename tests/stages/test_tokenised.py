"""Tokens of data are read once for all stages with the same data, tokenizer and rules."""

from dataclasses import replace

import pytest
from tiny_models import word_tokenizer

from alignzoo.contract.types import LabelledBatch, PairBatch, PairSample, Response, TextBatch
from alignzoo.data import tokens
from alignzoo.data.reader import Embedding, Reader, Rules
from alignzoo.data.samples import Loaded
from alignzoo.data.tokens import Limits, encode_all
from alignzoo.stages import tokenised
from alignzoo.stages.tokenised import remembered

LIMITS = Limits()
CHAT = (
    {"role": "user", "content": "a b"},
    {"role": "assistant", "content": "b"},
    {"role": "user", "content": "c"},
)


def loaded_of(n=6):
    samples = [PairSample(CHAT, Response("b c a"), Response("a " * k)) for k in range(1, n)]
    samples[1] = replace(samples[1], prompt=CHAT[:1])
    samples.append(PairSample("a </s>" * 2, Response(""), Response("b", ids=(1,))))
    return Loaded(tuple(samples), (), tuple(f"here:{k}" for k in range(n)), n)


def tokenizer_of():
    made = word_tokenizer()
    made.chat_template = (
        "{% for m in messages %}{{ m['role'] + ' ' + m['content'] }}</s> {% endfor %}"
    )
    return made


@pytest.fixture
def said(monkeypatch, tmp_path):
    monkeypatch.setenv("ALIGNZOO_CACHE", str(tmp_path))
    monkeypatch.setattr(tokenised, "FEWEST", 1)
    return []


def read(loaded, said, kind=PairBatch, reader=None, limits=LIMITS):
    reader = reader or Reader(tokenizer_of(), Rules(learn="all"))
    known = remembered(loaded, kind, reader, limits.ends, said.append)
    return encode_all(loaded.samples, kind, reader, limits, loaded.places, known)


def refuse(*_):
    raise AssertionError("the tokenizer was asked")


def test_the_same_data_are_read_once_and_cut_to_any_length(said, monkeypatch):
    loaded = loaded_of()
    reader = Reader(tokenizer_of(), Rules(learn="all"))
    plain = encode_all(loaded.samples, PairBatch, reader, LIMITS, loaded.places)
    first = read(loaded, said)
    assert first == plain
    assert first.items[0].rows[0].learnt is not None
    assert first.report.bad
    monkeypatch.setattr(tokens, "in_rounds", refuse)
    assert read(loaded, said) == plain
    cut = read(loaded, said, limits=Limits(max_length=12))
    assert max(map(len, cut.items)) == 12 < max(map(len, plain.items))
    assert len(said) == 1
    assert "their tokens are kept in" in said[0]


def other(loaded, **change):
    return replace(loaded, samples=(replace(loaded.samples[0], **change), *loaded.samples[1:]))


@pytest.mark.parametrize(
    "change",
    [
        lambda x, r: (other(x, chosen=Response("b c")), r, PairBatch, Limits()),
        lambda x, r: (other(x, chosen=Response("b c a", ended=False)), r, PairBatch, Limits()),
        lambda x, r: (other(x, meta={"tools": [{"name": "t"}]}), r, PairBatch, Limits()),
        lambda x, r: (replace(x, places=("there:0", *x.places[1:])), r, PairBatch, Limits()),
        lambda x, r: (x, replace(r, rules=Rules(learn="last")), PairBatch, Limits()),
        lambda x, r: (x, replace(r, rules=Rules("split", learn="all")), PairBatch, Limits()),
        lambda x, r: (x, replace(r, embedding=Embedding("m", 99)), PairBatch, Limits()),
        lambda x, r: (x, r, TextBatch, Limits()),
        lambda x, r: (x, r, LabelledBatch, Limits()),
        lambda x, r: (x, r, PairBatch, Limits(ends=(3,))),
    ],
)
def test_whatever_decides_what_is_read_makes_it_be_read_again(said, tmp_path, change):
    loaded, reader = loaded_of(), Reader(tokenizer_of(), Rules(learn="all"))
    read(loaded, said)
    loaded, reader, kind, limits = change(loaded, reader)
    assert read(loaded, said, kind, reader, limits) == encode_all(
        loaded.samples, kind, reader, limits, loaded.places
    )
    assert len(list((tmp_path / "tokens").iterdir())) == 2


def test_another_template_or_vocabulary_has_tokens_of_its_own(said, tmp_path):
    read(loaded_of(), said)
    written, larger = tokenizer_of(), tokenizer_of()
    written.chat_template += " "
    larger.add_tokens(["zebra"])
    for n, tokenizer in enumerate((written, larger), 2):
        read(loaded_of(), said, reader=Reader(tokenizer, Rules(learn="all")))
        assert len(list((tmp_path / "tokens").iterdir())) == n


def test_a_damaged_file_is_told_and_read_again(said, tmp_path):
    first = read(loaded_of(), said)
    (file,) = (tmp_path / "tokens").iterdir()
    file.write_bytes(file.read_bytes()[:-1] + b"\7")
    assert read(loaded_of(), said) == first
    assert "the data are read again" in said[1]
    said.clear()
    assert read(loaded_of(), said) == first
    assert said == []


def test_what_was_not_used_for_longest_makes_room(said, tmp_path, monkeypatch):
    read(loaded_of(4), said)
    (old,) = (tmp_path / "tokens").iterdir()
    monkeypatch.setattr(tokenised, "ROOM", old.stat().st_size * 2)
    for n in (5, 6, 7):
        read(loaded_of(n), said)
    left = list((tmp_path / "tokens").iterdir())
    assert old not in left
    assert 0 < sum(file.stat().st_size for file in left) <= tokenised.ROOM


def test_a_folder_that_cannot_be_written_costs_nothing_but_time(said, tmp_path):
    (tmp_path / "tokens").write_text("no folder")
    assert read(loaded_of(), said).items
    assert said == []
