"""Tokens of data are read once for all stages with the same data, tokenizer and rules."""

import importlib
import sys
from dataclasses import replace

import pytest
from tiny_models import word_tokenizer
from transformers import PreTrainedTokenizerFast

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


def named(**special):
    """A tokenizer whose template writes a token by its name; all of them have the same tokens."""
    made = word_tokenizer(**special)
    made.add_tokens(["owl", "sees"], special_tokens=True)
    (name,) = special
    name = name if isinstance(special[name], str) else next(iter(special[name]))
    made.chat_template = f"{{% for m in messages %}}{{{{ m['content'] + {name} }}}}{{% endfor %}}"
    return made


def fresh(loaded, kind=PairBatch, reader=None):
    reader = reader or Reader(tokenizer_of(), Rules(learn="all"))
    return encode_all(loaded.samples, kind, reader, LIMITS, loaded.places)


@pytest.mark.parametrize(
    "special",
    [lambda token: {"sep_token": token}, lambda token: {"extra_special_tokens": {"turn": token}}],
    ids=["one that all tokenizers have", "one of this tokenizer"],
)
def test_a_token_that_the_template_writes_by_its_name_counts(said, special):
    loaded = loaded_of()
    for token in ("owl", "sees"):
        reader = Reader(named(**special(token)), Rules(special="parse"))
        assert read(loaded, said, reader=reader) == fresh(loaded, reader=reader)
    assert len(said) == 2


def test_nothing_is_kept_where_the_template_writes_the_day(said):
    tokenizer = tokenizer_of()
    tokenizer.chat_template = "{{ strftime_now('%d') + ' ' }}" + tokenizer.chat_template
    read(loaded_of(), said, reader=Reader(tokenizer))
    assert said == []


def test_nothing_is_kept_of_a_tokenizer_with_code_that_is_not_of_transformers(said):
    made = tokenizer_of()
    for word in ("owl ", "sees "):

        class Own(PreTrainedTokenizerFast):
            def apply_chat_template(self, *args, word=word, **more):
                return word + super().apply_chat_template(*args, **more)

        tokenizer = Own(tokenizer_object=made.backend_tokenizer, unk_token="<u>", eos_token="<e>")
        tokenizer.chat_template = made.chat_template
        reader = Reader(tokenizer)
        assert read(loaded_of(), said, reader=reader) == fresh(loaded_of(), reader=reader)
    assert said == []


def test_the_code_of_plugins_that_make_tokenizers_counts(said, tmp_path):
    loaded, reader = loaded_of(), Reader(tokenizer_of())
    for code in ("mine@1#a", "mine@1#b"):
        known = remembered(loaded, PairBatch, reader, (), said.append, [code])
        encode_all(loaded.samples, PairBatch, reader, LIMITS, loaded.places, known)
    assert len(said) == 2


MARKED = """
from dataclasses import dataclass, replace
from torch import Tensor
from alignzoo import TextBatch

@dataclass(frozen=True)
class Marked(TextBatch):
    mark: Tensor
"""
FILLING = """
    @classmethod
    def collate(cls, items, pad_id, **more):
        filled = [replace(x, values={"mark": 0.0} | dict(x.values)) for x in items]
        return super().collate(filled, pad_id)
"""


def test_the_code_of_a_batch_of_a_plugin_counts(said, tmp_path, monkeypatch):
    """One that learns to fill a number itself leaves no row out any more."""
    monkeypatch.syspath_prepend(tmp_path)
    loaded = loaded_of()
    loaded = replace(loaded, samples=(other(loaded, meta={"mark": 1.0}).samples))
    bad = []
    for text in (MARKED, MARKED + FILLING):
        (tmp_path / "marked_batches.py").write_text(text)
        sys.modules.pop("marked_batches", None)
        importlib.invalidate_caches()
        kind = importlib.import_module("marked_batches").Marked
        assert read(loaded, said, kind) == fresh(loaded, kind)
        bad.append(len(fresh(loaded, kind).report.bad))
    assert bad[0] > bad[1]


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
