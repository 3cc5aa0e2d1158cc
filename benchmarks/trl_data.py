"""The model and the rows on which vs_trl.py compares: drawn here, the same for both."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import NormalDist
from typing import Any

VOCABULARY = 32_000
# Of log tokens in 2,308 pairs of hh-rlhf harmless-base: mean, standard deviation; the longest.
LENGTHS = {"prompt": (4.10, 1.08, 774), "chosen": (3.14, 0.98, 236), "rejected": (3.35, 1.03, 532)}
STRATA = 16


@dataclass(frozen=True)
class Size:
    """Of the model and of a batch."""

    vocabulary: int = VOCABULARY
    hidden: int = 256
    layers: int = 4
    batch: int = 16  # pairs, answers
    micro: int = 8  # of them side by side
    more: int = 1  # batches that the longer run has beyond the shorter
    new_tokens: int = 48  # of a sampled answer
    samples: int = 4  # to a prompt, for methods that compare them


SMALL = Size(vocabulary=200, hidden=16, layers=1, batch=4, micro=2, more=24, new_tokens=4)


def make_models(folder: Path, size: Size) -> None:
    """Random weights as `model` and `teacher`, each with a tokenizer of one token a word."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    words = {f"w{n}": n for n in range(1, size.vocabulary)} | {"<eos>": 0}
    backend = Tokenizer(models.WordLevel(words, unk_token="w1"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    backend.decoder = decoders.Fuse()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, eos_token="<eos>", pad_token="<eos>", model_max_length=2048
    )
    config = LlamaConfig(
        vocab_size=size.vocabulary,
        hidden_size=size.hidden,
        intermediate_size=size.hidden * 43 // 16,
        num_hidden_layers=size.layers,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=2048,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=0,
        pad_token_id=0,
    )
    for seed, name in enumerate(("model", "teacher")):
        torch.manual_seed(seed)
        LlamaForCausalLM(config).save_pretrained(folder / name)
        tokenizer.save_pretrained(folder / name)


def pairs(count: int, vocabulary: int) -> Iterator[dict[str, str]]:
    """Prompts with two answers as long as those of hh-rlhf, of words drawn at random.

    Sixteen pairs have the quantiles of each length in an order drawn at random: every batch of them
    is as long as the next one, so few batches are enough to compare.
    """
    draw, order = random.Random(0), {name: list[int]() for name in LENGTHS}
    for number in range(count):
        row = {}
        for name, (mean, spread, longest) in LENGTHS.items():
            if number % STRATA == 0:
                order[name] = draw.sample(range(STRATA), STRATA)
            at = (order[name][number % STRATA] + 0.5) / STRATA
            n = min(longest, max(1, round(math.exp(NormalDist(mean, spread).inv_cdf(at)))))
            row[name] = " ".join(f"w{draw.randrange(1, vocabulary)}" for _ in range(n))
        yield {name: text if name == "prompt" else f" {text}" for name, text in row.items()}


def _answers(pair: dict[str, str], number: int) -> Iterator[dict[str, Any]]:
    liked = bool(number % 2)
    answer = pair["chosen" if liked else "rejected"]
    yield {"prompt": pair["prompt"], "completion": answer, "label": liked}


def _texts(pair: dict[str, str], number: int) -> Iterator[dict[str, Any]]:
    yield {"prompt": pair["prompt"], "completion": pair["chosen"]}


def _prompts(pair: dict[str, str], number: int) -> Iterator[dict[str, Any]]:
    yield {"prompt": " ".join(pair["prompt"].split()[:256])}


ROWS = {
    "pairs": lambda pair, number: iter([pair]),
    "labels": _answers,
    "texts": _texts,
    "prompts": _prompts,
}


def write_rows(file: Path, kind: str, count: int, vocabulary: int) -> Path:
    """The first so many rows of a kind, as JSON lines."""
    made = (row for n, pair in enumerate(pairs(count, vocabulary)) for row in ROWS[kind](pair, n))
    file.write_text("".join(json.dumps(row) + "\n" for row in made), encoding="utf-8")
    return file
