"""Model folders of a few kilobytes: one token per word, a Llama of one layer, any head."""

from __future__ import annotations

import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    LlamaForSequenceClassification,
    PreTrainedTokenizerFast,
)

END = "<e>"
WORDS = ("<u>", END, "the", "fox", "owl", "sees", "eats", "runs", "a", "berry", "user", "bot")
ROWS = len(WORDS)  # of the embedding
CHAT = (
    "{% for m in messages %}{{ m['role'] + ' ' + m['content'] + ' ' }}"
    "{% if m['role'] == 'assistant' %}{{ '<e> ' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'assistant ' }}{% endif %}"
)


def word_tokenizer(words=WORDS, **special):
    """Ids are places in `words`; "<u>" stands for unknown words and "<e>" ends an answer."""
    backend = Tokenizer(WordLevel({w: n for n, w in enumerate(words)}, unk_token="<u>"))
    backend.pre_tokenizer = WhitespaceSplit()
    given = {"unk_token": "<u>", "eos_token": END} | special
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, clean_up_tokenization_spaces=False, **given
    )


def tiny_llama(head="lm", rows=ROWS, seed=0, outputs=1, context=64):
    """Random weights; a scalar head's are large enough for scores to differ."""
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=rows,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=2,
        max_position_embeddings=context,
        initializer_range=0.5,
        tie_word_embeddings=True,
        pad_token_id=None,
        bos_token_id=None,
        eos_token_id=1,
    )
    config.num_labels = outputs
    classes = {"lm": LlamaForCausalLM, "scalar": LlamaForSequenceClassification}
    return classes[head](config).eval()


def model_folder(folder, tokenizer=None, **options):
    """A folder in the layout of transformers; its path."""
    tiny_llama(**options).save_pretrained(folder)
    (tokenizer or word_tokenizer()).save_pretrained(folder)
    return folder


def score(model, ids):
    """A scalar head at the last of some ids, by plain transformers without padding."""
    with torch.no_grad():
        hidden = model.model(input_ids=torch.tensor([ids])).last_hidden_state
        return model.score(hidden[0, -1]).item()
