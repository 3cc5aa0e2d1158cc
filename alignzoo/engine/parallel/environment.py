"""What Accelerate's environment asks for and this engine decides otherwise: refused by name.

`accelerate launch` turns its flags and its config file into variables. The recipe is what decides
here, so a variable that would be read by nobody must not look as if it had been.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import yaml

from alignzoo.contract.errors import UsageError

OFF = {"", "no", "none", "false", "0"}
IN_RECIPE = "the recipe decides: "
WANTED = {  # variable: what it asks for, what to do instead
    "ACCELERATE_USE_FSDP": ("FSDP", IN_RECIPE + "write `parallel: {strategy: fsdp2}` there"),
    "ACCELERATE_USE_DEEPSPEED": (
        "DeepSpeed",
        IN_RECIPE + "write `parallel: {strategy: zero2}` or zero3 there",
    ),
    "ACCELERATE_USE_MEGATRON_LM": ("Megatron-LM", "this engine does not drive it"),
    "ACCELERATE_USE_PARALLELISM_CONFIG": (
        "tensor, context or sequence parallelism",
        "this engine does not drive it; `parallel: {strategy: fsdp2}` in the recipe shards models",
    ),
    "ACCELERATE_USE_SAGEMAKER": ("SageMaker", "start it as `alignzoo run RECIPE --processes N`"),
    "ACCELERATE_DYNAMO_BACKEND": ("torch.compile", "this engine does not compile models"),
    "ACCELERATE_USE_CPU": ("the CPU", "hide the GPUs instead: CUDA_VISIBLE_DEVICES=''"),
    "ACCELERATE_TORCH_DEVICE": ("a device", "choose one with CUDA_VISIBLE_DEVICES"),
}
AGREEING = {  # with the recipe's strategy: the variable would have Accelerate do it once more
    "ACCELERATE_USE_FSDP": ("fsdp2",),
    "ACCELERATE_USE_DEEPSPEED": ("zero2", "zero3"),
}
STEPS = "ACCELERATE_GRADIENT_ACCUMULATION_STEPS"
PRECISION = "ACCELERATE_MIXED_PRECISION"


def refuse_unheeded(
    environment: Mapping[str, str], precision: str, gpus: int, strategy: str = "ddp"
) -> None:
    """Raise UsageError for what the environment asks for and this run would not do.

    `precision` and `strategy` are the recipe's, `gpus` the number of devices of this machine.
    """
    for name, (what, instead) in WANTED.items():
        value = environment.get(name, "")
        fine = name == "ACCELERATE_USE_CPU" and not gpus
        if value.lower() not in OFF and not fine:
            agrees = strategy in AGREEING.get(name, ())
            cure = f"the recipe says strategy: {strategy} already, which is enough"
            raise UsageError(
                f"{name}={value} asks for {what}; {cure if agrees else instead}; unset {name}"
            )
    mixed = environment.get(PRECISION, "no").lower()
    if mixed not in {*OFF, precision}:
        raise UsageError(
            f"{PRECISION}={mixed}, but the recipe says precision: {precision}; "
            f"the recipe decides (fp32 or bf16), so unset {PRECISION} or let both agree"
        )
    steps = environment.get(STEPS, "1")
    if steps not in {*OFF, "1"}:
        raise UsageError(
            f"{STEPS}={steps}; the recipe decides: batch_size over micro_batch_size and processes "
            f"is the number of steps that are accumulated; unset {STEPS}"
        )
    _refuse_lost_processes(environment, gpus)


def _refuse_lost_processes(environment: Mapping[str, str], gpus: int) -> None:
    """Processes that were asked for and not started, or not given a device."""
    here = int(environment.get("LOCAL_WORLD_SIZE", "1"))
    if gpus and here > gpus:
        raise UsageError(
            f"{here} processes were started on this machine, which has {gpus} GPUs; a process "
            f"needs one of its own: start at most {gpus}"
        )
    # `accelerate launch` sets an address for several processes also where it starts only one.
    simple = "ACCELERATE_USE_CPU" in environment and "RANK" not in environment
    if simple and "MASTER_ADDR" in environment and "WORLD_SIZE" not in environment:
        raise UsageError(
            "`accelerate launch` was asked for several processes and started one, as it does on a "
            "CPU; use `alignzoo run RECIPE --processes N`"
        )


def unread_config(environment: Mapping[str, str]) -> str | None:
    """A sentence about Accelerate's config file, if it asks for what this run does not read."""
    if PRECISION in environment:  # `accelerate launch` turned it into variables
        return None
    home = environment.get("HF_HOME") or Path.home() / ".cache" / "huggingface"
    file = Path(home) / "accelerate" / "default_config.yaml"
    try:
        config = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError):
        return None
    if not isinstance(config, dict) or config.get("distributed_type", "NO") == "NO":
        return None
    return (
        f"{file} asks for {config['distributed_type']} with {config.get('num_processes')} "
        "processes, and is not read: the recipe and --processes decide"
    )
