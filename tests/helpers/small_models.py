"""A one-layer model whose vocabulary is words, in a plain transformers folder, and runs on it."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from accelerate.state import AcceleratorState
from tokenizers import AddedToken, Regex, Tokenizer, models, pre_tokenizers
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from alignzoo.contract.progress import Silent
from alignzoo.recipe.blocks import Recipe
from alignzoo.recipe.registry import Registry, load_plugins
from alignzoo.run import run_recipe

TURNS = (
    "{% for m in messages %}<|start|> {{ m.role }} {{ m.content }} <|end|> {% endfor %}"
    "{% if add_generation_prompt %}<|start|> assistant {% endif %}"
)
NAMES = ("<unk>", "<s>", "</s>", "<|start|>", "<|end|>", "user", "assistant")
TALK = ("hello", "how", "are", "you", "fine", "bye", "the", "cat", "sat", "on", "a", "mat", "ran")
WORDS = (*NAMES, *TALK)


def word_tokenizer(
    template: str | None = TURNS, eos: str | None = "</s>"
) -> PreTrainedTokenizerFast:
    """One id per word; turns of a chat end with <|end|>, which is special."""
    ids = {word: number for number, word in enumerate(WORDS)}
    model = Tokenizer(models.WordLevel(ids, unk_token="<unk>"))
    model.pre_tokenizer = pre_tokenizers.Split(Regex(" "), "removed")
    made = PreTrainedTokenizerFast(tokenizer_object=model, unk_token="<unk>", eos_token=eos)
    turns = [AddedToken(name) for name in ("<|start|>", "<|end|>")]
    made.add_special_tokens({"additional_special_tokens": turns})
    made.chat_template = template
    return made


def ids_of(text: str) -> list[int]:
    """The ids of words."""
    return [WORDS.index(word) for word in text.split()]


def word_model(
    folder: Path, ends: tuple[str, ...] = ("</s>",), seed: int = 0, context: int = 64
) -> str:
    """Save a random model whose generation config ends at these words; the folder's name."""
    torch.manual_seed(seed)
    ids = ids_of(" ".join(ends))
    config = LlamaConfig(
        vocab_size=len(WORDS),
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=context,
        initializer_range=0.4,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=0,
    )
    made = LlamaForCausalLM(config)
    made.generation_config = GenerationConfig(eos_token_id=ids, pad_token_id=0)
    made.save_pretrained(folder)
    word_tokenizer().save_pretrained(folder)
    return str(folder)


def write_rows(file: Path, rows: list[dict]) -> str:
    """A JSONL file; its name."""
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(file)


class Heard(Silent):
    """Remembers the notes of a run."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        """Keep it."""
        self.notes.append(text)


def run_stages(
    model: str, folder: Path, *stages: dict, registry: Registry | None = None, **more
) -> list[str]:
    """Run a recipe of these stages into a folder; what it said."""
    heard = Heard()
    what = {"name": "r", "model": model, "stages": stages, **more}
    recipe = Recipe.model_validate(what)
    AcceleratorState._reset_state()  # a process has one precision, but tests share a process
    try:
        run_recipe(recipe, "", registry or load_plugins(), folder, heard)
    finally:
        AcceleratorState._reset_state()
    return heard.notes


def logged(stage: Path) -> list[dict]:
    """The metrics of every step of a finished stage."""
    return [json.loads(line) for line in (stage / "metrics.jsonl").read_text().splitlines()]
