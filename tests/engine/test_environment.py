"""What Accelerate's environment asks for is done, or refused by name."""

import pytest

from alignzoo.contract.errors import UsageError
from alignzoo.engine.parallel.environment import refuse_unheeded, unread_config

HARMLESS = {  # what `accelerate launch` sets without being asked for anything
    "ACCELERATE_MIXED_PRECISION": "no",
    "ACCELERATE_DYNAMO_BACKEND": "no",
    "ACCELERATE_DYNAMO_MODE": "default",
    "ACCELERATE_USE_CPU": "False",
}


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_the_defaults_of_accelerate_launch_ask_for_nothing(precision):
    refuse_unheeded(HARMLESS, precision, gpus=8)
    refuse_unheeded({}, precision, gpus=0)


@pytest.mark.parametrize(
    ("name", "value", "remedy"),
    [
        ("ACCELERATE_USE_FSDP", "true", "strategy: fsdp2"),
        ("ACCELERATE_USE_DEEPSPEED", "true", "strategy: zero2"),
        ("ACCELERATE_USE_MEGATRON_LM", "true", "does not drive"),
        ("ACCELERATE_USE_PARALLELISM_CONFIG", "true", "does not drive"),
        ("ACCELERATE_USE_SAGEMAKER", "true", "--processes"),
        ("ACCELERATE_DYNAMO_BACKEND", "INDUCTOR", "does not compile"),
        ("ACCELERATE_USE_CPU", "True", "CUDA_VISIBLE_DEVICES"),
        ("ACCELERATE_TORCH_DEVICE", "cuda:1", "CUDA_VISIBLE_DEVICES"),
        ("ACCELERATE_MIXED_PRECISION", "bf16", "precision: fp32"),
        ("ACCELERATE_MIXED_PRECISION", "fp16", "precision: fp32"),
        ("ACCELERATE_GRADIENT_ACCUMULATION_STEPS", "4", "micro_batch_size"),
    ],
)
def test_what_would_not_be_engaged_is_refused_with_its_name_and_a_remedy(name, value, remedy):
    with pytest.raises(UsageError, match=f"{name}.*{remedy}"):
        refuse_unheeded({**HARMLESS, name: value}, "fp32", gpus=2)


@pytest.mark.parametrize(
    ("name", "strategy"),
    [
        ("ACCELERATE_USE_FSDP", "fsdp2"),
        ("ACCELERATE_USE_DEEPSPEED", "zero2"),
        ("ACCELERATE_USE_DEEPSPEED", "zero3"),
    ],
)
def test_nobody_is_told_to_write_what_the_recipe_says_already(name, strategy):
    told = rf"{name}=true .*the recipe says strategy: {strategy} already.*; unset {name}$"
    with pytest.raises(UsageError, match=told) as caught:
        refuse_unheeded({name: "true"}, "fp32", 0, strategy)
    assert "write `parallel" not in str(caught.value)
    other = "ddp" if strategy == "fsdp2" else "fsdp2"
    with pytest.raises(UsageError, match=f"{name}.*write `parallel"):
        refuse_unheeded({name: "true"}, "fp32", 0, other)


def test_bf16_of_accelerate_and_of_the_recipe_agree():
    refuse_unheeded({"ACCELERATE_MIXED_PRECISION": "bf16"}, "bf16", gpus=0)


def test_more_processes_than_gpus_are_refused_with_both_numbers():
    with pytest.raises(UsageError, match=r"4 processes .* 2 GPUs"):
        refuse_unheeded({"LOCAL_WORLD_SIZE": "4"}, "fp32", gpus=2)
    refuse_unheeded({"LOCAL_WORLD_SIZE": "4"}, "fp32", gpus=0)


def test_several_processes_of_which_accelerate_starts_one_are_refused():
    from accelerate.commands.launch import _validate_launch_command, launch_command_parser
    from accelerate.utils.launch import prepare_simple_launcher_cmd_env

    def environment(*flags):
        args = launch_command_parser().parse_args([*flags, "script.py"])
        return prepare_simple_launcher_cmd_env(_validate_launch_command(args)[0])[1]

    with pytest.raises(UsageError, match=r"started one.*--processes"):
        refuse_unheeded(environment("--cpu", "--num_processes", "2"), "fp32", gpus=0)
    refuse_unheeded(environment("--cpu", "--num_processes", "1"), "fp32", gpus=0)


@pytest.mark.parametrize("kind", ["FSDP", "DEEPSPEED", "MULTI_CPU"])
def test_a_config_file_of_accelerate_that_nobody_reads_is_told(tmp_path, kind):
    file = tmp_path / "accelerate" / "default_config.yaml"
    file.parent.mkdir()
    file.write_text(f"distributed_type: {kind}\nnum_processes: 4\n")
    told = unread_config({"HF_HOME": str(tmp_path)})
    assert kind in told and "4 processes" in told and "--processes" in told
    file.write_text("distributed_type: 'NO'\n")
    assert unread_config({"HF_HOME": str(tmp_path)}) is None
    assert unread_config({"HF_HOME": str(tmp_path / "nowhere")}) is None
