"""The tokenizer and the untrained base model; imports transformers, so it is imported late."""

from __future__ import annotations

import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    LlamaForSequenceClassification,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
)

from alignzoo import ModelRef, PluginError, Role
from alignzoo_facts.grammar import vocabulary

PAD, UNK, START, END = SPECIALS = ("<pad>", "<unk>", "<|im_start|>", "<|im_end|>")
SPEAKERS = ("user", "assistant")
CONTEXT = 512
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def token_ids() -> dict[str, int]:
    """Word -> id; the same for every seed."""
    return {word: n for n, word in enumerate((*SPECIALS, *SPEAKERS, *vocabulary()))}


def build_tokenizer() -> PreTrainedTokenizerBase:
    """One token per word; "<|im_end|>" ends an answer; ChatML."""
    backend = Tokenizer(WordLevel(token_ids(), unk_token=UNK))
    backend.pre_tokenizer = WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        pad_token=PAD,
        unk_token=UNK,
        eos_token=END,
        additional_special_tokens=[START],
        clean_up_tokenization_spaces=False,  # "fish ." must not come back as "fish."
        model_max_length=CONTEXT,
        chat_template=CHAT_TEMPLATE,
    )


def build_model(ref: ModelRef, role: Role) -> PreTrainedModel:
    """The seeded base model; a scalar head sits on the same body as the language model's.

    Raises PluginError for a frozen scalar head, which nobody has trained.
    """
    if role.head == "scalar" and not role.trainable:
        raise PluginError(
            f"{ref.name}: the base model has no trained scalar head and would score at random; "
            "name a stage that trains a reward model"
        )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(ref.seed)
        language_model = LlamaForCausalLM(_config())
        if role.head == "lm":
            return language_model
        scored = LlamaForSequenceClassification(_config())
    scored.model.load_state_dict(language_model.model.state_dict())
    return scored


def _config() -> LlamaConfig:
    ids = token_ids()
    config = LlamaConfig(
        vocab_size=len(ids),
        hidden_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=4,
        intermediate_size=256,
        max_position_embeddings=CONTEXT,
        initializer_range=0.05,
        tie_word_embeddings=True,
        pad_token_id=ids[PAD],
        eos_token_id=ids[END],
        bos_token_id=None,
    )
    config.num_labels = 1  # a scalar head, also when one is put on a saved language model
    return config
