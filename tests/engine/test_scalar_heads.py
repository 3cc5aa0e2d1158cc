"""Scalar heads: saved so that plain transformers reads what was trained, loaded or refused."""

import pluggy
import pytest
import torch
import transformers
from tiny_models import WORDS, model_folder, score, tiny_llama, word_tokenizer
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from alignzoo import ModelRef, Role
from alignzoo.contract import hooks
from alignzoo.contract.errors import AlignzooError
from alignzoo.engine.models.load import load_model, save_model
from alignzoo.engine.models.padding import padded_apart

TEXTS = ["the fox eats <e>", "owl <e>", "a berry <e>"]
SHAPE = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "num_labels": 1}
FAMILIES = {
    "Qwen2": {"intermediate_size": 32, "num_key_value_heads": 2},
    "Mixtral": {"intermediate_size": 32, "num_key_value_heads": 2, "num_local_experts": 2},
    "Gemma2": {"intermediate_size": 32, "num_key_value_heads": 2, "head_dim": 8},
    "GPTNeoX": {"intermediate_size": 32},
    "GPT2": {"n_positions": 32},
    "Bloom": {},
    "OPT": {"ffn_dim": 32, "word_embed_proj_dim": 16},
}


def relay():
    manager = pluggy.PluginManager("alignzoo")
    manager.add_hookspecs(hooks)
    return manager.hook


def plain(model, tokenizer, texts):
    """What a user of transformers gets for a padded batch."""
    batch = tokenizer(texts, return_tensors="pt", padding=True, return_token_type_ids=False)
    with torch.no_grad():
        return model(**batch).logits[:, 0].tolist()


@pytest.mark.parametrize(
    ("words", "rows", "special", "padding"),
    [
        (WORDS, 12, {"pad_token": "<e>"}, "<u>"),  # nothing spare: the unknown token pads
        (WORDS, 12, {"pad_token": None}, "<u>"),
        (WORDS, 12, {"pad_token": "a"}, "a"),  # apart from the end already
        (WORDS, 16, {"pad_token": "<e>"}, "<|pad|>"),  # rows of the embedding to spare
        (WORDS[1:], 11, {"pad_token": "<e>", "unk_token": None}, "<|pad|>"),  # nothing at all
        ((*WORDS, "<pad>"), 12, {"pad_token": "<pad>"}, "<u>"),  # padding outside the embedding
    ],
)
def test_a_saved_scalar_head_scores_in_plain_transformers_as_it_was_trained(
    tmp_path, words, rows, special, padding
):
    tokenizer = word_tokenizer(words, **special)
    model = tiny_llama("scalar", rows=rows)
    right = [score(model, tokenizer(text).input_ids) for text in TEXTS]
    save_model(relay(), model, tokenizer, tmp_path, [tokenizer.eos_token_id])
    saved = AutoModelForSequenceClassification.from_pretrained(tmp_path)
    own = AutoTokenizer.from_pretrained(tmp_path)
    assert own.pad_token == padding
    assert own.pad_token_id == saved.config.pad_token_id != own.eos_token_id
    assert own.pad_token_id < saved.config.vocab_size
    assert plain(saved, own, TEXTS) == pytest.approx(right, abs=1e-5)
    assert plain(saved, own, TEXTS[:1]) == pytest.approx(right[:1], abs=1e-5)
    assert (tokenizer.pad_token, tokenizer.padding_side) == (special["pad_token"], "right")


def test_no_id_that_the_models_config_ends_answers_with_is_taken_for_padding():
    model, tokenizer = tiny_llama("scalar"), word_tokenizer(pad_token="berry")
    assert padded_apart(model, tokenizer).pad_token == "berry"
    model.config.eos_token_id = [1, tokenizer.pad_token_id]
    assert padded_apart(model, tokenizer).pad_token == "<u>"


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_reads_the_end_of_a_row_under_the_padding_that_is_saved(family):
    torch.manual_seed(0)
    options = SHAPE | FAMILIES[family] | {"vocab_size": len(WORDS), "pad_token_id": 1}
    config = getattr(transformers, f"{family}Config")(**options)
    config.num_labels = 1
    model = getattr(transformers, f"{family}ForSequenceClassification")(config).eval()
    torch.nn.init.normal_(model.score.weight, std=1.0)
    tokenizer = word_tokenizer(pad_token="<e>", padding_side="left")
    right = []
    for text in TEXTS:
        ids = torch.tensor([tokenizer(text).input_ids])
        with torch.no_grad():
            hidden = model.base_model(input_ids=ids).last_hidden_state
            right.append(model.score(hidden[0, -1]).item())
    own = padded_apart(model, tokenizer)
    assert plain(model, own, TEXTS) == pytest.approx(right, abs=1e-5)


def test_a_language_model_keeps_its_padding(tmp_path):
    tokenizer = word_tokenizer(pad_token="<e>")
    save_model(relay(), tiny_llama(), tokenizer, tmp_path, [tokenizer.eos_token_id])
    assert AutoTokenizer.from_pretrained(tmp_path).pad_token == "<e>"


def test_a_scalar_head_may_be_new_only_in_a_role_that_is_trained(tmp_path):
    ref = ModelRef(str(model_folder(tmp_path / "lm")))
    new = load_model(relay(), ref, Role(trainable=True, head="scalar"))
    assert new.score.weight.shape == (1, 16)
    with pytest.raises(AlignzooError, match=r"has no scalar head \(score.weight\)"):
        load_model(relay(), ref, Role(head="scalar"))


@pytest.mark.parametrize("trainable", [True, False])
def test_a_model_with_a_scalar_head_is_no_language_model(tmp_path, trainable):
    ref = ModelRef(str(model_folder(tmp_path / "rm", head="scalar")))
    with pytest.raises(AlignzooError, match="gives no distribution over tokens"):
        load_model(relay(), ref, Role(trainable=trainable))
    assert load_model(relay(), ref, Role(head="scalar")).score.weight.shape == (1, 16)
