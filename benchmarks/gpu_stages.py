"""What `gpu.py` measures: settings, and the stage that each of them trains in its own process."""

from __future__ import annotations

import importlib.util
import json
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

PEAKS = {"H100": 989e12, "H200": 989e12, "A100": 312e12, "L40S": 362e12}  # dense bf16 FLOP/s


@dataclass(frozen=True)
class Shape:
    """A Qwen2 and the rows it is fed."""

    hidden: int = 1536
    inner: int = 8960
    layers: int = 28
    heads: int = 12
    vocabulary: int = 151936
    prompt: int = 256
    response: int = 768
    batch: int = 8
    micro: int = 4
    rows: int = 32  # sampled at once
    sampled: int = 256  # tokens of an answer that is sampled
    warm: int = 2  # optimiser steps that are not measured
    measured: int = 4


FULL = Shape()
SMALL = Shape(256, 512, 3, 4, 4096, 16, 48, 4, 2, 4, 48)
TINY = Shape(32, 64, 1, 2, 300, 4, 8, 4, 2, 4, 8)


@dataclass(frozen=True)
class Setting:
    """One measurement."""

    name: str
    method: str = "dpo"
    sampled: bool = False
    lora: bool = False
    strategy: str = "ddp"
    attention: str = "sdpa"
    needs: str = ""  # a package
    again: bool = True  # whether layers are computed again in the backward pass

    @property
    def missing(self) -> bool:
        """Whether what it needs is not installed."""
        return bool(self.needs) and importlib.util.find_spec(self.needs) is None


SETTINGS = (
    Setting("dpo"),
    Setting("dpo-flash", attention="flash_attention_2", needs="flash_attn"),
    Setting("dpo-lora", lora=True, needs="peft"),
    Setting("dpo-kept", again=False),
    Setting("aligndistil-off", "aligndistil"),
    Setting("aligndistil-off-kept", "aligndistil", again=False),
    Setting("aligndistil-on", "aligndistil", sampled=True),
    Setting("dpo-fsdp2", strategy="fsdp2"),
    Setting("dpo-zero3", strategy="zero3", needs="deepspeed"),
)


def preload() -> None:
    """Import what every setting needs; no device is touched."""
    import alignzoo_aligndistil
    import alignzoo_dpo
    from transformers import Qwen2ForCausalLM

    import alignzoo.engine.train.loop

    del alignzoo_aligndistil, alignzoo_dpo, Qwen2ForCausalLM, alignzoo


def config_of(shape: Shape) -> Any:
    """The config of a shape."""
    from transformers import Qwen2Config

    return Qwen2Config(
        vocab_size=shape.vocabulary,
        hidden_size=shape.hidden,
        intermediate_size=shape.inner,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=2,
        max_position_embeddings=4096,
        tie_word_embeddings=True,
        initializer_range=0.05,  # of logits that differ from token to token
    )


def job_of(setting: Setting, shape: Shape, folder: Path, ranks: Any, **more: Any) -> Any:
    """The stage as the product's loop takes it; models are drawn from a seed on the CPU."""
    import torch
    from alignzoo_aligndistil import AlignDistil
    from alignzoo_dpo import DPO
    from transformers import Qwen2ForCausalLM

    from alignzoo.engine.layout.optim import Optim
    from alignzoo.engine.models.adapters import Adapted, Lora
    from alignzoo.engine.models.quiet import silence
    from alignzoo.engine.train.job import Job
    from alignzoo.engine.train.rails import Rails

    algorithm = DPO() if setting.method == "dpo" else AlignDistil(r=2.0)
    seeds = {role: n for n, role in enumerate(algorithm.roles)}

    def load(role: str) -> Any:
        torch.manual_seed(seeds[role])
        with torch.device(more.get("built_on", "cpu")):
            model = Qwen2ForCausalLM(config_of(shape))
        model.set_attn_implementation(setting.attention)
        silence(model)
        return model

    optim = Optim(
        steps=shape.warm + shape.measured + 1,
        batch_size=shape.rows if setting.sampled else shape.batch,
        micro_batch_size=shape.micro,
        lr=1e-5,
        warmup=0.0,
        schedule="constant",
        gradient_checkpointing=setting.again,
    )
    new = {"policy": Adapted("base", new=Lora(16))}
    return Job(
        algorithm=algorithm,
        load=load,
        digests={role: f"seed {seed}" for role, seed in seeds.items()},
        items=() if setting.sampled else items_of(algorithm.batch, shape),
        rollout=rollout_of(shape) if setting.sampled else None,
        validation=None,
        optim=replace(optim, **more.get("optim", {})),
        pad_id=0,
        seed=0,
        folder=folder,
        cache=folder / "cache",
        ranks=ranks,
        strategy=setting.strategy,
        adapted=new if setting.lora else {},
        rails=Rails(max_kl=None, say=lambda text: None),
        **({"on_step": more["on_step"]} if "on_step" in more else {}),
    )


def items_of(kind: Any, shape: Shape) -> list[Any]:
    """Random rows of full length, the same everywhere."""
    import torch

    from alignzoo.contract.types import Item, Tokens

    draws = torch.Generator().manual_seed(1)
    n, width = (shape.warm + shape.measured) * shape.batch, shape.prompt + shape.response
    ids = torch.randint(3, shape.vocabulary, (n, kind.rows_per_item, width), generator=draws)

    def row(numbers: list[int]) -> Any:
        return Tokens(tuple(numbers[: shape.prompt]), tuple(numbers[shape.prompt :]))

    return [Item(tuple(map(row, rows))) for rows in ids.tolist()]


def rollout_of(shape: Shape) -> Any:
    """Random prompts; no stop token, so every answer has full length."""
    import torch

    from alignzoo.contract.rollout import Sampling
    from alignzoo.engine.sampling.generate import TransformersEngine
    from alignzoo.engine.train.sources import Rollout

    draws = torch.Generator().manual_seed(2)
    ids = torch.randint(
        3, shape.vocabulary, (2 * shape.rows, shape.prompt), generator=draws
    ).tolist()
    return Rollout(
        prompts=[tuple(row) for row in ids],
        reward=None,
        engine=TransformersEngine(batch_size=shape.rows),
        sampling=Sampling(max_new_tokens=shape.sampled),
        prompts_per_buffer=shape.rows,
    )


def answer_of(setting: Setting, shape: Shape) -> int:
    """Tokens of an answer."""
    return shape.sampled if setting.sampled else shape.response


def shares_of(folder: Path) -> dict[str, float]:
    """The part of the host's time that each phase took."""
    from alignzoo.engine.train.phases import summary

    found: dict[str, float] = summary(folder / "timing.jsonl")["shares"]
    return found


def losses_of(folder: Path) -> list[float]:
    """What the steps logged."""
    rows = (folder / "metrics.jsonl").read_text().splitlines()
    return [json.loads(row)["loss"] for row in rows]


class Enough(Exception):
    """All steps that are measured have been."""


def measure(setting: Setting, shape: Shape) -> dict[str, Any]:
    """Train, and say how fast and in how much memory."""
    import torch

    from alignzoo.engine.parallel.ranks import start_ranks
    from alignzoo.engine.train.loop import train

    ranks, folder = start_ranks("bf16"), Path(tempfile.mkdtemp())
    ends: list[float] = []
    on_gpu = ranks.device.type == "cuda"

    def stepped(*_: Any) -> None:
        if on_gpu:
            torch.cuda.synchronize()
        ends.append(time.perf_counter())
        if len(ends) == shape.warm + shape.measured:
            raise Enough

    job = job_of(setting, shape, folder, ranks, on_step=stepped, built_on=ranks.device)
    with suppress(Enough):  # a checkpoint of all moments is not what is measured
        train(job)
    seconds = (ends[-1] - ends[shape.warm - 1]) / shape.measured
    rows = (shape.rows if setting.sampled else shape.batch) * job.algorithm.batch.rows_per_item
    tokens = rows * (shape.prompt + answer_of(setting, shape))
    found = {
        "losses": losses_of(folder),
        "seconds_per_step": seconds,
        "tokens_per_second": tokens / seconds,
        "mfu": mfu(setting, shape, tokens, seconds) if on_gpu else None,
        "peak_bytes": torch.cuda.max_memory_allocated() if on_gpu else None,
        "shares": shares_of(folder),
        "device": torch.cuda.get_device_name() if on_gpu else "cpu",
    }
    return found


def mfu(setting: Setting, shape: Shape, tokens: int, seconds: float) -> float | None:
    """Model FLOPs over those of the card; None for a card whose peak is not known."""
    import torch

    name = torch.cuda.get_device_name()
    peak = next((x for card, x in PEAKS.items() if card in name), None)
    each = parameters(shape)
    learnt = 4 if setting.lora else 6  # frozen weights have no gradient of their own
    frozen = {"dpo": 0, "aligndistil": 2}[setting.method]  # references are scored once, before
    sampled = shape.rows * (shape.prompt + shape.sampled) if setting.sampled else 0
    flops = tokens * each * (learnt + 2 * frozen) + 2 * each * sampled
    return None if peak is None else flops / seconds / peak


def parameters(shape: Shape) -> int:
    """N, embeddings included, as they are the output layer too."""
    from alignzoo.engine.memory.fakes import fake_mode

    with fake_mode():
        from transformers import Qwen2ForCausalLM

        return sum(p.numel() for p in Qwen2ForCausalLM(config_of(shape)).parameters())


def predicted(setting: Setting, shape: Shape) -> float:
    """What `alignzoo plan --memory` says of the same stage."""
    from alignzoo.contract.algorithm import Role
    from alignzoo.contract.stage import ModelRef
    from alignzoo.engine.memory.fakes import fake_mode, fake_model
    from alignzoo.engine.memory.sampling import Decoding
    from alignzoo.engine.memory.walk import Alone, Stage, peaks
    from alignzoo.engine.parallel.ranks import Ranks

    mode = fake_mode()
    job = job_of(setting, shape, Path(), Ranks(Alone("bf16")))  # type: ignore[arg-type]
    job = replace(job, load=lambda _: fake_model(config_of(shape), Role(), ModelRef("x"), mode))
    decoding = None
    if job.rollout is not None:
        decoding = Decoding(shape.rows, shape.prompt, job.rollout.sampling)
    answer = answer_of(setting, shape)
    stage = Stage(job, mode, shape.prompt, answer, shape.prompt, True, decoding)
    return peaks(stage)["ddp"].total


def agreement(shape: Shape) -> dict[str, Any]:
    """The same steps on the CPU in float32, here in float32 and here in bf16."""
    from accelerate.state import AcceleratorState

    from alignzoo.engine.memory.walk import Alone
    from alignzoo.engine.parallel.ranks import Ranks, start_ranks
    from alignzoo.engine.train.loop import train

    @dataclass(frozen=True)
    class OnCpu(Alone):
        def prepare(self, module: Any) -> Any:
            return module

    makers: Mapping[str, Callable[[], Any]] = {
        "cpu": lambda: Ranks(OnCpu("no")),  # type: ignore[arg-type]
        "fp32": lambda: start_ranks("fp32"),
        "bf16": lambda: start_ranks("bf16"),
    }
    found: dict[str, Any] = {}
    for setting in (s for s in SETTINGS if s.name in ("dpo", "aligndistil-off", "aligndistil-on")):
        for name, make in makers.items():
            AcceleratorState._reset_state()
            folder = Path(tempfile.mkdtemp())
            train(job_of(setting, shape, folder, make(), optim={"lr": 1e-3}))
            found.setdefault(setting.name, {})[name] = losses_of(folder)
    return found
