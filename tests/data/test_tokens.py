import pytest
from alignzoo_reward_model.algorithm import GradedPairBatch
from shared_data import shared
from tokenizers import AddedToken, Regex, Tokenizer, models, pre_tokenizers, processors
from transformers import AutoTokenizer, PreTrainedTokenizerFast

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
    Tokens,
)
from alignzoo.data.ends import end_ids, stop_ids
from alignzoo.data.reader import Reader
from alignzoo.data.samples import DataSource, load_samples
from alignzoo.data.tokens import (
    Limits,
    TooLong,
    decode_answer,
    encode,
    encode_all,
    prompt_ids,
)

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
SPECIAL = ["<unk>", "<s>", "</s>", "<|im_start|>", "<|im_end|>"]
WORDS = [*SPECIAL, "user", "assistant", "hello", "how", "are", "you", "fine", "bye"]
HELLO = ({"role": "user", "content": "hello how are you"},)
WIDE = Limits(max_length=64)


def word_tokenizer(eos="<|im_end|>", template=CHATML, bos=None):
    """One id per word; "\\n" is a token; BOS, if any, is added to plain texts."""
    words = {word: i for i, word in enumerate([*WORDS, "\n"])}
    model = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    model.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(" "), "removed"),
            pre_tokenizers.Split(Regex("\n"), "isolated"),
        ]
    )
    if bos:
        model.post_processor = processors.TemplateProcessing(
            single=f"{bos} $A", special_tokens=[(bos, words[bos])]
        )
    made = PreTrainedTokenizerFast(
        tokenizer_object=model, unk_token="<unk>", eos_token=eos, bos_token=bos
    )
    made.add_special_tokens(
        {"additional_special_tokens": [AddedToken(t) for t in ("<|im_start|>", "<|im_end|>")]}
    )
    made.chat_template = template
    return made


def names(ids, tokenizer):
    return tokenizer.convert_ids_to_tokens(list(ids))


@pytest.fixture(scope="module")
def stories():
    return AutoTokenizer.from_pretrained(shared("models", "stories260k"))


def rows(sample, tokenizer, limits=WIDE):
    return encode(sample, tokenizer, limits).rows


# --- chats -----------------------------------------------------------------------------------


def test_a_chat_is_the_templates_prompt_and_an_answer_that_ends_with_one_end_token():
    words = word_tokenizer()
    (row,) = rows(TextSample(HELLO, Response("fine bye")), words)
    turn = ["<|im_start|>", "user", "\n", "hello", "how", "are", "you", "<|im_end|>", "\n"]
    assert names(row.prompt, words) == [*turn, "<|im_start|>", "assistant", "\n"]
    assert names(row.response, words) == ["fine", "bye", "<|im_end|>"]
    assert row.prompt == prompt_ids(PromptSample(HELLO), words)


def test_a_turn_that_its_template_closes_with_a_special_token_gets_no_second_end():
    words = word_tokenizer(eos="</s>")
    (row,) = rows(TextSample(HELLO, Response("fine")), words)
    assert names(row.response, words) == ["fine", "<|im_end|>"]


def test_a_turn_that_its_template_closes_with_ordinary_text_gets_the_tokenizers_end():
    plain = "{% for m in messages %}{{ m.role }}\n{{ m.content }} bye\n{% endfor %}"
    opening = "{% if add_generation_prompt %}assistant\n{% endif %}"
    words = word_tokenizer(eos="</s>", template=plain + opening)
    (row,) = rows(TextSample(HELLO, Response("fine")), words)
    assert names(row.response, words) == ["fine", "bye", "</s>"]


def test_of_two_ends_that_a_template_writes_the_first_alone_is_learnt():
    phi = CHATML + "{% if not add_generation_prompt %}</s>{% endif %}"
    words = word_tokenizer(eos="</s>", template=phi)
    (row,) = rows(TextSample(HELLO, Response("fine")), words)
    assert names(row.response, words) == ["fine", "<|im_end|>"]
    (cut,) = rows(TextSample(HELLO, Response("fine", ended=False)), words)
    assert names(cut.response, words) == ["fine"]


def test_a_row_that_ends_with_an_end_of_the_generation_config_gets_no_second_one(stories):
    limits = Limits(64, ends=end_ids(stories, (2, 13)))
    (row,) = rows(TextSample("Tim", Response(" ran\n")), stories, limits)
    assert names(row.response, stories)[-1] == "<0x0A>"
    (row,) = rows(TextSample("Tim", Response(" ran")), stories, limits)
    assert row.response[-1] == 2


def test_a_chat_gets_the_bos_of_its_template_and_no_second_one(stories):
    (row,) = rows(TextSample(({"role": "user", "content": "Tim ran."},), Response("Yes.")), stories)
    assert row.prompt[0] == stories.bos_token_id not in row.prompt[1:]
    assert row.response[-1] == stories.eos_token_id != row.response[-2]


def test_two_bos_tokens_are_refused(stories):
    with pytest.raises(DataError, match="begins with <s> twice"):
        encode(TextSample("<s>Tim ran.", Response(" Yes.")), stories, WIDE)
    doubled = word_tokenizer(bos="<s>", eos="</s>", template="<s><s>" + CHATML)
    with pytest.raises(DataError, match="out of the chat template"):
        prompt_ids(PromptSample(HELLO), doubled)


@pytest.mark.parametrize(
    ("template", "cause"),
    [
        (None, "no chat template"),
        ("{{ raise_exception('roles must alternate') }}", "refuses the messages: roles must"),
        ("{% for m in messages if m.role == 'user' %}{{ m.content }}{% endfor %}", "no tokens"),
        ("{% for m in messages[-1:] %}{{ m.content }}\n{% endfor %}fine", "in another way"),
    ],
)
def test_a_template_that_would_give_a_wrong_mask_is_refused(template, cause):
    words = word_tokenizer(template=template)
    with pytest.raises(DataError, match=f"d.jsonl:4: .*({cause})"):
        encode(TextSample(HELLO, Response("bye")), words, WIDE, "d.jsonl:4")


def test_a_generation_prompt_that_the_answered_chat_lacks_is_cut_from_the_prompt():
    opening = "{% if add_generation_prompt %}<|im_start|>assistant\nhello{% endif %}"
    words = word_tokenizer(template=CHATML.split("{% if", maxsplit=1)[0] + opening)
    (row,) = rows(TextSample(HELLO, Response("fine")), words)
    assert names(row.prompt, words)[-3:] == ["<|im_start|>", "assistant", "\n"]
    assert names(row.response, words) == ["fine", "<|im_end|>"]


# --- plain text: the traps of a tokenizer that prepends a space -------------------------------


def test_text_is_tokenised_jointly_and_not_piece_by_piece(stories):
    (row,) = rows(TextSample("There was a dog.", Response(" He was happy.")), stories)
    assert (*row.prompt, *row.response[:-1]) == tuple(
        stories("There was a dog. He was happy.")["input_ids"]
    )
    assert names(row.response, stories) == ["▁He", "▁was", "▁happy", ".", "</s>"]


@pytest.mark.parametrize(
    ("prompt", "answer", "response"),
    [
        ('Lily said, "', 'Hi"', ["H", "i", '"']),
        ("Tim sa", "w a.", ["▁saw", "▁a", "."]),
        ("Lily ran. ", "She was", ["▁She", "▁was"]),
        ("Lily ran.", "\nHe", ["<0x0A>", "H", "e"]),
    ],
)
def test_a_token_across_the_boundary_belongs_to_the_response(stories, prompt, answer, response):
    (row,) = rows(TextSample(prompt, Response(answer)), stories)
    assert names(row.response, stories) == [*response, "</s>"]
    assert (*row.prompt, *row.response[:-1]) == tuple(stories(prompt + answer)["input_ids"])


def test_sampled_ids_are_kept_although_their_text_encodes_otherwise(stories):
    ids = tuple(stories.convert_tokens_to_ids(["▁the", "re", "<0x0A>"]))
    assert tuple(stories("there\n", add_special_tokens=False)["input_ids"]) != ids
    (row,) = rows(TextSample("Tim was", Response(" there\n", ids)), stories)
    assert row == Tokens(prompt_ids(PromptSample("Tim was"), stories), ids)


def test_a_response_cut_at_the_length_limit_gets_no_end_token(stories):
    cut = rows(TextSample("Tim", Response("", (303, 410), ended=False)), stories)[0]
    text = rows(TextSample("Tim", Response(" ran", ended=False)), stories)[0]
    assert cut.response == (303, 410)
    assert stories.eos_token_id not in text.response


def test_an_empty_answer_is_its_end_token_alone(stories):
    assert rows(TextSample("Tim ran.", Response("")), stories)[0].response == (2,)
    assert rows(TextSample(HELLO, Response("")), word_tokenizer())[0].response == (4,)


def test_an_end_token_in_the_text_is_not_doubled():
    words = word_tokenizer(eos="</s>")
    (row,) = rows(TextSample("hello", Response(" fine </s>\n")), words)
    assert names(row.response, words) == ["fine", "</s>"]


def test_a_tokenizer_without_an_end_token_is_refused():
    with pytest.raises(DataError, match="no end-of-sequence token"):
        encode(TextSample("hello", Response(" bye")), word_tokenizer(eos=None), WIDE)


def text_of(prompt, response, tokenizer, stop=()):
    """The text of a sampled answer."""
    return decode_answer(prompt, response, Reader(tokenizer), stop, ended=True).text


def test_decoding_keeps_the_leading_space_and_leaves_stop_tokens_out(stories):
    (row,) = rows(TextSample("There was a dog.", Response(" He ran.")), stories)
    for end in ((2,), (1,), (13,)):
        sampled = (*row.response[:-1], *end)
        assert text_of(row.prompt, sampled, stories, (13, 1, 2)) == " He ran."
    assert text_of(row.prompt, (13,), stories, (13,)) == ""
    assert text_of(row.prompt, (13,), stories) == "\n"


def test_stop_tokens_are_found_by_name_also_ordinary_ones(stories):
    assert stop_ids(stories, (), (2, 13)) == (2, 13)
    assert stop_ids(stories, ("<0x0A>", "<s>", "</s>", "<s>"), (2,)) == (13, 1, 2)
    for unknown in ("\n", "zzz"):
        with pytest.raises(DataError, match="is not one token"):
            stop_ids(stories, (unknown,), (2,))


# --- length ------------------------------------------------------------------------------------


LONG = TextSample("hello how", Response(" are you fine bye"))  # 2 + 5 tokens


def test_a_long_text_answer_is_cut_and_still_ends():
    words = word_tokenizer()
    (row,) = rows(LONG, words, Limits(max_length=5))
    assert names(row.prompt + row.response, words) == ["hello", "how", "are", "you", "<|im_end|>"]
    assert rows(LONG, words, Limits(max_length=7)) == rows(LONG, words)


def test_long_sampled_ids_are_cut_as_they_are():
    sampled = TextSample("hello how", Response("", (9, 10, 11, 12, 4)))
    (row,) = rows(sampled, word_tokenizer(), Limits(max_length=5))
    assert row.response == (9, 10, 11)


@pytest.mark.parametrize("setting", ["truncate", "drop"])
def test_a_prompt_is_never_cut_but_left_out(setting):
    words = word_tokenizer()
    for limits in (Limits(4, None, setting), Limits(64, 1, setting)):
        assert isinstance(encode(LONG, words, limits), TooLong)
    assert not isinstance(encode(LONG, words, Limits(64, 2, setting)), TooLong)


def test_drop_leaves_long_samples_out_and_error_names_them():
    words = word_tokenizer()
    cause = encode(LONG, words, Limits(6, None, "drop"))
    assert isinstance(cause, TooLong) and "7 tokens, max_length is 6" in cause.cause
    with pytest.raises(DataError, match=r"d\.jsonl:9: it has 7 tokens"):
        encode(LONG, words, Limits(6, None, "error"), "d.jsonl:9")


# --- whole data sets -----------------------------------------------------------------------------


def test_a_pair_is_one_item_with_the_chosen_row_first_and_a_group_has_a_row_per_answer():
    words = word_tokenizer()
    fine, bye = Response(" fine"), Response(" bye")
    chosen, rejected = rows(PairSample("hello", fine, bye), words)
    assert (names(chosen.response, words)[0], names(rejected.response, words)[0]) == ("fine", "bye")
    assert rows(GroupSample("hello", (fine, bye)), words) == (chosen, rejected)


def test_the_report_counts_what_was_cut_and_what_was_left_out():
    words = word_tokenizer()
    short = TextSample("hello", Response(" bye"))
    far = TextSample("hello how are you", Response(" bye"))
    made = encode_all([short, LONG, far], TextBatch, words, Limits(5), ["f:1", "f:2", "f:3"])
    report = made.report
    assert (report.items, report.truncated, report.dropped) == (2, 1, 1)
    assert report.dropped_at[0].startswith("f:3: the prompt has 4 tokens")
    assert report.prompt_length == 1.5 and report.response_lengths == {"response": 2.5}
    assert made.samples == (short, LONG) and len(report.warnings) == 2
    with pytest.raises(DataError, match=r"raise max_length \(5\)\nsample 1: the prompt"):
        encode_all([far], TextBatch, words, Limits(5))


def test_pairs_whose_answers_differ_in_length_are_warned_about():
    words = word_tokenizer()
    longer = PairSample("hello", Response(" fine how are you"), Response(" bye"))
    report = encode_all([longer], PairBatch, words, WIDE).report
    assert report.response_lengths == {"chosen": 5, "rejected": 2}
    assert any("chosen answers are 150% longer" in sentence for sentence in report.warnings)
    even = PairSample("hello", Response(" fine"), Response(" bye"))
    assert encode_all([even], PairBatch, words, WIDE).report.warnings == ()


def test_labelled_items_carry_an_answer_to_another_prompt_after_their_own_prompt():
    words = word_tokenizer()
    pairs = [PairSample(p, Response(" fine"), Response(f" {p}")) for p in ("how", "are", "you")]
    items = encode_all(pairs, LabelledBatch, words, WIDE).items
    own = {item.rows[0].prompt: set() for item in items}
    for item in items:
        own[item.rows[0].prompt].add(item.rows[0].response)
    assert [item.values["desirable"] for item in items] == [1, 0] * 3
    for matched, mismatched in (item.rows for item in items):
        assert mismatched.prompt == matched.prompt
        assert any(mismatched.response in own[p] for p in own if p != matched.prompt)
    assert LabelledBatch.collate(items, pad_id=0).ids.shape[0] == 12


def test_mismatched_answers_are_as_often_undesirable_as_desirable():
    words = word_tokenizer()
    prompts = ["hello " * n for n in range(1, 200)]
    pairs = [PairSample(p.strip(), Response(" fine"), Response(" bye")) for p in prompts]
    items = encode_all(pairs, LabelledBatch, words, Limits(512)).items
    fine = sum(names(item.rows[1].response, words)[0] == "fine" for item in items)
    assert 0.4 < fine / len(items) < 0.6


def test_labelled_answers_to_a_single_prompt_are_refused():
    same = [LabelledSample("hello", Response(" bye"), True)] * 2
    with pytest.raises(DataError, match="at least two different prompts"):
        encode_all(same, LabelledBatch, word_tokenizer(), WIDE)


@pytest.mark.parametrize("name", ["alpaca_pairs.jsonl.gz", "harmless-base.test.jsonl.gz"])
def test_all_real_pairs_encode_with_an_end_token_and_their_own_text(stories, name):
    loaded = load_samples(DataSource(str(shared("data", name))))
    made = encode_all(loaded.samples, PairBatch, stories, Limits(8192), loaded.places)
    assert made.report.items == len(loaded.samples) and not made.report.dropped
    for item in made.items:
        assert all(row.prompt[0] == 1 and row.response[-1] == 2 for row in item.rows)
    for item, sample in zip(made.items[:50], made.samples, strict=False):
        text = text_of(item.rows[0].prompt, item.rows[0].response, stories)
        assert text.strip() == sample.chosen.text.strip()


def test_prompts_for_rollouts_come_from_any_data_and_keep_room_for_an_answer(stories):
    pairs = [PairSample("Tim ran.", Response(" a"), Response(" b"))]
    made = encode_all(pairs, RolloutBatch, stories, WIDE)
    assert made.items[0].rows == (Tokens(prompt_ids(pairs[0], stories), ()),)
    assert made.report.response_lengths == {}


def test_the_numbers_in_a_pair_s_meta_go_with_its_item():
    meta = {"margin": 2, "source": "a form"}
    pair = PairSample("hello", Response(" fine"), Response(" bye"), meta)
    assert encode(pair, word_tokenizer(), WIDE).values == {"margin": 2.0}


def test_a_batch_that_collates_itself_may_know_what_a_row_without_its_number_means():
    pairs = [
        PairSample("hello", Response(" fine"), Response(" bye"), meta)
        for meta in ({"margin": 2.0}, {})
    ]
    made = encode_all(pairs, GradedPairBatch, word_tokenizer(), WIDE)
    assert GradedPairBatch.collate(made.items, 0).margin.tolist() == [2.0, 0.0]
    assert made.report.bad == ()
