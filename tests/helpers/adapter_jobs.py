"""Stages whose roles are adapters of one base, and the same models made by peft alone."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from alignzoo_aligndistil import AlignDistil
from engine_jobs import job, rollout
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import PreTrainedModel, Qwen2Config, Qwen2ForCausalLM

from alignzoo import TextBatch
from alignzoo.contract.errors import TrainingError
from alignzoo.engine.layout.optim import Optim
from alignzoo.engine.models.adapters import Adapted, Lora
from alignzoo.engine.train.loop import train
from alignzoo.testing import tiny_model, toy_items

STEADY = {"lr": 1e-2, "schedule": "constant", "warmup": 0.0, "max_grad_norm": 1e9, "shuffle": False}
IDS = torch.arange(2, 12)[None]
WAYS = {"texts": {}, "recomputed": {"gradient_checkpointing": True}, "samples": {"batch_size": 4}}
NAMES = ("policy", "teacher", "anchor")


def larger_model() -> PreTrainedModel:
    """3.15 million parameters: 4 layers of width 256."""
    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=2048,
        hidden_size=256,
        intermediate_size=512,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=128,
        tie_word_embeddings=True,
        pad_token_id=0,
        eos_token_id=1,
    )
    return Qwen2ForCausalLM(config)


def peft_adapter(folder: Path, seed: int, base=tiny_model, r: int = 2, spread: float = 0.1) -> Path:
    """An adapter with a B of its own, written by peft."""
    torch.manual_seed(seed)
    config = LoraConfig(r=r, lora_alpha=2 * r, target_modules="all-linear")
    model = get_peft_model(base(), config)
    for name, p in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(p, std=spread)
    model.save_pretrained(str(folder))
    return folder


def peft_model(folder: Path, base=tiny_model, learns: bool = False) -> PreTrainedModel:
    """peft's own model of a base and an adapter."""
    return PeftModel.from_pretrained(base(), str(folder), is_trainable=learns).eval()


def adapted(folder: Path, base=tiny_model, r: int = 2) -> dict[str, Adapted]:
    """A policy that learns, and two finished adapters over the same base."""
    made = {
        role: Adapted("base", folder=peft_adapter(folder / role, seed, base, r))
        for seed, role in enumerate(NAMES[1:], 1)
    }
    return {"policy": Adapted("base", new=Lora(r, 2.0 * r)), **made}


def stored_bytes(*models: torch.nn.Module) -> int:
    """Memory of all parameters and buffers, what is held together counted once."""
    held = {
        x.untyped_storage().data_ptr(): x.untyped_storage().nbytes()
        for model in models
        for x in (*model.parameters(), *model.buffers())
    }
    return sum(held.values())


def method():
    return AlignDistil(r=2.0)


def lora_job(folder, algorithm=None, parts=None, **changes):
    """Adapters over one tiny base in every role of a method."""
    folder.mkdir(exist_ok=True)
    known = {"load": lambda role: tiny_model(), "adapted": parts or adapted(folder / "adapters")}
    return job(folder, algorithm or method(), **(known | changes))


def losses(folder):
    return [
        json.loads(line)["loss"] for line in (folder / "metrics.jsonl").read_text().splitlines()
    ]


def noisy(model, std=0.1):
    """The adapter after some training, as it were."""
    torch.manual_seed(5)
    for name, p in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(p, std=std)
    return model


def logits(model, ids=IDS):
    with torch.no_grad():
        return model.eval()(input_ids=ids, use_cache=False).logits


def spread(folder, rank=0):
    """Uneven shares, under every strategy: 13 items in batches of 5, or samples of 5 prompts."""
    parts = adapted(folder / f"adapters of rank {rank}")
    for strategy in ("ddp", "fsdp2"):
        for way, more in WAYS.items():
            place = folder / strategy / way
            place.mkdir(parents=True, exist_ok=True)
            optim = Optim(**{"steps": 4, "batch_size": 5, "micro_batch_size": 2, "lr": 1e-3} | more)
            sampled = {"n_prompts": 8, "prompts_per_buffer": 5, "epochs": 1, "reward": None}
            source = {"items": toy_items(TextBatch, 13)}
            if way == "samples":
                source = {"rollout": rollout(max_gap=1e-5, **sampled)}
            train(lora_job(place, parts=parts, optim=optim, strategy=strategy, **source))


def stopped_after(folder, step, **changes):
    """A job that crashes after a step, and what it leaves."""

    def crash(now, total, metrics, timing):
        if now == step:
            raise TrainingError("the power went")

    with pytest.raises(TrainingError, match="the power went"):
        train(lora_job(folder, on_step=crash, **changes))
