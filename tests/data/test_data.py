import gzip
import json

import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import given
from hypothesis import strategies as st
from shared_data import shared

from alignzoo.contract.errors import DataError
from alignzoo.contract.types import (
    GroupSample,
    LabelledBatch,
    LabelledSample,
    PairBatch,
    PairSample,
    PromptSample,
    Response,
    RolloutBatch,
    TextBatch,
    TextSample,
)
from alignzoo.data.conversions import convert
from alignzoo.data.rows import row_from_sample, sample_from_row
from alignzoo.data.samples import DataSource, data_digest, load_samples, read_rows

USER = {"role": "user", "content": "Hi?"}
GOOD = {"role": "assistant", "content": "Hello."}
BAD = {"role": "assistant", "content": "Go away."}
CHAT_PAIR = PairSample((USER,), Response("Hello."), Response("Go away."))
PAIR = {"prompt": "Hi?", "chosen": "Hello.", "rejected": "Go away."}
HI = ("Hi?", Response("Hello."), Response("Go away."))
PLAIN_PAIR = PairSample("Hi?", Response("Hello."), Response("Go away."))


def write(path, *rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def load(path, **options):
    return load_samples(DataSource(str(path), **options))


@pytest.mark.parametrize(
    ("row", "sample"),
    [
        (PAIR, PLAIN_PAIR),
        ({"prompt": [USER], "chosen": [GOOD], "rejected": [BAD]}, CHAT_PAIR),
        ({"prompt": [USER], "chosen": "Hello.", "rejected": "Go away."}, CHAT_PAIR),
        ({"chosen": [USER, GOOD], "rejected": [USER, BAD]}, CHAT_PAIR),
        ({"prompt": [USER], "chosen": [USER, GOOD], "rejected": [USER, BAD]}, CHAT_PAIR),
        ({"prompt": "Hi?", "chosen": [USER, GOOD], "rejected": [USER, BAD]}, CHAT_PAIR),
        ({"prompt": "Hi?", "chosen": [GOOD], "rejected": [BAD]}, CHAT_PAIR),
        ({"prompt": "a", "response": "b"}, TextSample("a", Response("b"))),
        ({"question": "a", "answer": "b"}, TextSample("a", Response("b"))),
        ({"prompt": [USER], "completion": [GOOD]}, TextSample((USER,), Response("Hello."))),
        ({"messages": [USER, GOOD]}, TextSample((USER,), Response("Hello."))),
        ({"messages": [USER, BAD, USER]}, PromptSample((USER, BAD, USER))),
        ({"instruction": "a", "input": "", "output": "b"}, TextSample("a", Response("b"))),
        ({"instruction": "a", "input": "c", "output": "b"}, TextSample("a\n\nc", Response("b"))),
        ({"prompt": "a", "response": "b", "label": 1}, LabelledSample("a", Response("b"), True)),
        (
            {"prompt": "a", "completion": "b", "label": "undesirable"},
            LabelledSample("a", Response("b"), False),
        ),
        ({"prompt": "a", "meta": {"k": 1}, "other": 2}, PromptSample("a", {"k": 1})),
        (PAIR | {"margin": 1}, PairSample(*HI, {"margin": 1.0})),
        (PAIR | {"margin": None}, PairSample(*HI)),
        (PAIR | {"margin": 1, "meta": {"margin": 2}}, PairSample(*HI, {"margin": 2})),
        (
            {"prompt": "a", "responses": ["b", {"text": "c", "ids": [5, 2]}], "scores": [1, 2]},
            GroupSample("a", (Response("b"), Response("c", (5, 2))), (1.0, 2.0)),
        ),
    ],
)
def test_every_usual_form_of_row_is_understood(row, sample):
    assert sample_from_row(row) == sample


def test_the_prompt_of_two_transcripts_ends_after_the_last_answer_turn_they_share():
    start = "\n\nHuman: a\n\nAssistant: So\n\nHuman: b\n\nAssistant:"
    sample = sample_from_row({"chosen": start + " Sure", "rejected": start + " Such"})
    assert sample == PairSample(start, Response(" Sure"), Response(" Such"))


@pytest.mark.parametrize(
    ("row", "cause"),
    [
        ({}, "no prompt"),
        ({"prompt": None}, "prompt is missing"),
        ({"prompt": "  "}, "prompt is empty"),
        ({"prompt": []}, "prompt is an empty list"),
        ({"prompt": 3}, "prompt is a number"),
        ({"prompt": [{"role": "user", "content": ""}]}, "the prompt is empty"),
        ({"prompt": [{"role": "user"}]}, r"prompt\[0\].content is missing"),
        ({"prompt": [USER, GOOD]}, "ends with an assistant message"),
        ({"prompt": "half \ud800"}, "half a character"),
        ({"prompt": "a", "chosen": "b"}, "rejected is missing"),
        ({"prompt": "a", "chosen": "b", "rejected": None}, "rejected is missing"),
        ({"prompt": "a", "chosen": 1, "rejected": "b"}, "chosen is a number"),
        ({"chosen": "a", "rejected": "b"}, "share no"),
        ({"chosen": "\n\nAssistant: a", "rejected": "\n\nAssistant: a"}, "same dialogue"),
        ({"chosen": "\n\nAssistant: a", "rejected": "\n\nAssistant: b\n\nHuman: c"}, "differ bef"),
        ({"chosen": [USER, GOOD], "rejected": [GOOD, BAD]}, "differ before"),
        ({"chosen": [USER, GOOD], "rejected": [USER]}, "rejected ends with a user message"),
        ({"prompt": "other", "chosen": [USER, GOOD], "rejected": "b"}, "does not repeat"),
        ({"messages": [GOOD]}, "prompt is empty"),
        ({"prompt": "a", "response": None}, "response is missing; give a text"),
        ({"prompt": "a", "response": "b", "label": 2}, "label is 2"),
        ({"prompt": "a", "response": "b", "label": None}, "label is None"),
        ({"prompt": "a", "responses": []}, "responses is an empty list"),
        ({"prompt": "a", "responses": ["b"], "scores": [1, 2]}, "scores is not a list of 1"),
        ({"prompt": "a", "responses": ["b"], "scores": [float("nan")]}, "finite"),
        ({"prompt": "a", "responses": [{"text": "b", "ids": [True]}]}, "ids is not a list"),
        ({"prompt": "a", "meta": []}, "meta is a list"),
        (PAIR | {"margin": "large"}, "margin is a text"),
        (PAIR | {"margin": float("nan")}, "finite"),
    ],
)
def test_a_bad_row_is_refused_with_its_cause(row, cause):
    with pytest.raises(DataError, match=cause):
        sample_from_row(row)


texts = st.text(st.characters(codec="utf-8"), max_size=8)
prompts = texts.filter(str.strip) | st.just((USER,)) | st.just((USER, GOOD, USER))
ids = st.none() | st.lists(st.integers(0, 600), min_size=1, max_size=4).map(tuple)
responses = st.builds(Response, texts, ids, st.booleans())
metas = st.dictionaries(texts, st.integers() | texts | st.lists(st.booleans()), max_size=2)
numbers = st.floats(allow_nan=False, allow_infinity=False)
samples = st.one_of(
    st.builds(PromptSample, prompts, metas),
    st.builds(TextSample, prompts, responses, metas),
    st.builds(PairSample, prompts, responses, responses, metas),
    st.builds(LabelledSample, prompts, responses, st.booleans(), metas),
    st.builds(GroupSample, prompts, st.tuples(responses), st.none() | st.tuples(numbers), metas),
)


@given(samples)
def test_a_written_sample_is_read_back_as_it_was_with_its_sampled_ids(sample):
    assert sample_from_row(json.loads(json.dumps(row_from_sample(sample)))) == sample


@pytest.mark.parametrize("name", ["d.jsonl", "d.jsonl.gz", "d.json", "d.json.gz", "d.parquet"])
def test_every_kind_of_file_gives_the_same_samples(tmp_path, name):
    rows = [PAIR | {"meta": {"n": n}} for n in range(3)]
    text = json.dumps(rows) if ".json" in name and "jsonl" not in name else ""
    data = (text or "\n\n".join(json.dumps(row) for row in rows)).encode()
    path = tmp_path / name
    if name.endswith("parquet"):
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    else:
        path.write_bytes(gzip.compress(data) if name.endswith("gz") else data)
    loaded = load(path)
    assert [sample.meta["n"] for sample in loaded.samples] == [0, 1, 2]
    assert loaded.samples[0].chosen == Response("Hello.")
    assert loaded.places[-1].startswith(str(path))


def test_places_name_the_line_of_the_file_also_after_blank_lines(tmp_path):
    path = tmp_path / "d.jsonl"
    path.write_text('{"prompt": "a"}\n\n\n{"prompt": "b"}\n')
    assert load(path).places == (f"{path}:1", f"{path}:4")


def test_saved_datasets_are_read_and_a_missing_split_is_named(tmp_path):
    datasets = pytest.importorskip("datasets")
    data = datasets.Dataset.from_list([PAIR])
    data.save_to_disk(str(tmp_path / "one"))
    datasets.DatasetDict(train=data).save_to_disk(str(tmp_path / "many"))
    assert load(tmp_path / "one").samples == load(tmp_path / "many").samples == (PLAIN_PAIR,)
    with pytest.raises(DataError, match="no split 'trian'; did you mean 'train'"):
        load(tmp_path / "many", split="trian")


def test_a_name_that_is_nowhere_is_one_sentence_about_what_was_tried():
    with pytest.raises(DataError) as caught:
        load("nobody/nothing", subset="tiny")
    assert "no such file or folder" in str(caught.value)
    assert "nobody/nothing (tiny)[train]" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_bad_rows_within_the_tolerated_share_are_listed_with_line_and_cause(tmp_path):
    path = write(tmp_path / "d.jsonl", PAIR, {"prompt": ""}, PAIR, PAIR)
    with path.open("ab") as file:
        file.write(b'{"prompt": \n{"prompt": "\xff"}\n[1]\n')
    loaded = load(path, max_bad=4 / 7)
    assert loaded.samples == (PLAIN_PAIR,) * 3
    assert [bad.split(": ")[0] for bad in loaded.bad] == [f"{path}:{n}" for n in (2, 5, 6, 7)]
    for bad, cause in zip(loaded.bad, ("empty", "not JSON", "not UTF-8", "a list"), strict=True):
        assert cause in bad


def test_more_bad_rows_than_tolerated_stop_with_the_first_ten_and_the_way_out(tmp_path):
    path = write(tmp_path / "d.jsonl", PAIR, *[{"prompt": ""}] * 12)
    with pytest.raises(DataError, match="12 of 13 rows") as caught:
        load(path, max_bad=0.5)
    message = str(caught.value)
    assert "data.max_bad" in message and "... and 2 more" in message
    assert f"{path}:11: prompt is empty" in message and f"{path}:12" not in message


@pytest.mark.parametrize(
    ("name", "content", "cause"),
    [
        ("missing.jsonl", None, "no such file"),
        ("d.csv", b"a,b", "unknown kind of file"),
        ("d.json", b'{"prompt": "a"}', "not a list of rows"),
        ("d.json", b'{"prompt": "a"}\n{"prompt": "b"}', "not JSON.*jsonl"),
        ("d.jsonl", b"", "has no rows"),
        ("d.jsonl.gz", b"no gzip", r"d.jsonl.gz:1: the file cannot be read on"),
        ("d.parquet", b"no parquet", "d.parquet: row 1: the file cannot be read on"),
    ],
)
def test_a_file_that_cannot_be_read_is_named_with_the_cause(tmp_path, name, content, cause):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=cause):
        load(tmp_path / name, max_bad=1)


def test_a_folder_that_is_no_saved_dataset_is_refused(tmp_path):
    with pytest.raises(DataError, match="neither a data file nor a saved dataset"):
        load(tmp_path)


def test_a_truncated_gzip_is_an_error_even_if_bad_rows_are_tolerated(tmp_path):
    whole = gzip.compress(
        "".join(json.dumps({"prompt": str(n)}) + "\n" for n in range(999)).encode()
    )
    path = tmp_path / "cut.jsonl.gz"
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match=r"cut.jsonl.gz:\d+: .*cut short"):
        load(path, max_bad=1)
    assert load(path, limit=1).samples == (PromptSample("0"),)


def test_skip_and_limit_count_good_samples_only(tmp_path):
    rows = [{"prompt": "" if n == 1 else str(n)} for n in range(6)]
    loaded = load(write(tmp_path / "d.jsonl", *rows), skip=1, limit=2, max_bad=1)
    assert [sample.prompt for sample in loaded.samples] == ["2", "3"]
    with pytest.raises(DataError, match="5 usable samples, and skip: 9 leaves none"):
        load(tmp_path / "d.jsonl", skip=9, max_bad=1)


def test_swap_exchanges_chosen_and_rejected_and_needs_pairs(tmp_path):
    path = write(tmp_path / "d.jsonl", PAIR, {"prompt": "a"})
    (swapped,) = load(path, swap=True, limit=1).samples
    assert swapped == PairSample("Hi?", Response("Go away."), Response("Hello."))
    with pytest.raises(DataError, match=r"d.jsonl:2: swap needs chosen and rejected"):
        load(path, swap=True)


def test_samples_are_turned_into_what_a_batch_kind_needs():
    best = GroupSample("p", (Response("a"), Response("b")), (0.0, 1.0))
    text = TextSample("Hi?", Response("Hello."))
    assert convert(PLAIN_PAIR, TextBatch) == [text]
    assert convert(best, TextBatch) == [TextSample("p", Response("b"))]
    assert len(convert(GroupSample("p", best.responses), TextBatch)) == 2
    assert convert(LabelledSample("p", Response("a"), False), TextBatch) == []
    assert convert(PLAIN_PAIR, LabelledBatch) == [
        LabelledSample("Hi?", Response("Hello."), True),
        LabelledSample("Hi?", Response("Go away."), False),
    ]
    assert convert(PLAIN_PAIR, PairBatch) == [PLAIN_PAIR]
    assert convert(text, RolloutBatch) == [PromptSample("Hi?")]


def test_data_that_lacks_what_a_method_needs_is_an_error_with_its_place():
    with pytest.raises(DataError, match=r"needs pairs \(.*; d.jsonl:3 has only a prompt"):
        convert(PromptSample("a"), PairBatch, "d.jsonl:3")
    with pytest.raises(DataError, match="a label stage makes pairs"):
        convert(GroupSample("a", (Response("b"),)), PairBatch)


def test_the_digest_follows_the_bytes_of_files_and_folders_and_the_name_of_hub_data(tmp_path):
    path = write(tmp_path / "d.jsonl", PAIR)
    before = data_digest(DataSource(str(path))), data_digest(DataSource(str(tmp_path)))
    assert before == (data_digest(DataSource(str(path))), data_digest(DataSource(str(tmp_path))))
    write(path, PAIR, PAIR)
    after = data_digest(DataSource(str(path))), data_digest(DataSource(str(tmp_path)))
    assert before[0] != after[0] and before[1] != after[1]
    assert data_digest(DataSource("org/set", "tiny")) == "hub:org/set@latest/tiny/train"
    with pytest.raises(DataError, match="no such file"):
        data_digest(DataSource("missing.jsonl"))


@pytest.mark.parametrize(
    ("name", "count"), [("alpaca_pairs.jsonl.gz", 994), ("harmless-base.test.jsonl.gz", 2312)]
)
def test_every_row_of_the_real_pairs_is_usable(name, count):
    path = shared("data", name)
    loaded = load(path)
    assert len(loaded.samples) == count == len(list(read_rows(path))) and not loaded.bad
    assert all(isinstance(sample, PairSample) for sample in loaded.samples)
    assert all(sample.chosen != sample.rejected for sample in loaded.samples)
