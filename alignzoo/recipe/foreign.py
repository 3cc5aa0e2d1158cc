"""Names that TRL, HF Trainer, OpenRLHF, verl and LLaMA-Factory use, and ours for them.

A newcomer who writes one of them is told where it stands here, or that the feature is absent and
what serves instead.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from typing import Any, get_args

from alignzoo.recipe.blocks import Recipe, Spec

# Path here -> names elsewhere. Paths of a stage start at its keys.
OURS: Mapping[str, str] = {
    "name": "run_name experiment_name",
    "model": "model_name_or_path model_name pretrained pretrain pretrained_model",
    "precision: bf16": "bf16 fp16 half_precision mixed_precision torch_dtype dtype",
    "stages": "trainer training pipeline",
    "data.name": "dataset dataset_name datasets train_file prompt_data train_files dataset_path",
    "data.subset": "dataset_config dataset_config_name",
    "data.split": "dataset_split train_split dataset_train_split",
    "data.limit": "max_samples max_train_samples num_samples",
    "data.max_length": "max_len max_seq_length max_seq_len cutoff_len model_max_length seq_length",
    "data.max_prompt_length": "prompt_max_len max_prompt_len",
    "data.too_long": "truncation truncation_mode",
    "train.lr": "learning_rate actor_learning_rate lr_rate",
    "train.lr_by_role": "critic_learning_rate value_lr critic_lr",
    "train.epochs": "num_train_epochs max_epochs total_epochs n_epochs num_epochs num_episodes",
    "train.steps": "max_steps total_training_steps num_steps num_training_steps train_steps",
    "train.batch_size": "train_batch_size global_batch_size ppo_mini_batch_size",
    "train.micro_batch_size": (
        "micro_train_batch_size mini_batch_size ppo_micro_batch_size_per_gpu "
        "micro_batch_size_per_gpu per_gpu_train_batch_size"
    ),
    "train.schedule": "lr_scheduler_type lr_scheduler scheduler",
    "train.min_lr": "min_lr_ratio min_learning_rate lr_min",
    "train.warmup": "warmup_ratio lr_warmup_ratio lr_warmup_steps_ratio",
    "train.betas": "adam_betas adam_beta1 adam_beta2",
    "train.eps": "adam_epsilon adam_eps",
    "train.max_grad_norm": "clip_grad gradient_clipping max_norm grad_clip",
    "train.save_every": "save_steps save_freq checkpoint_interval",
    "train.gradient_checkpointing": "enable_gradient_checkpointing use_gradient_checkpointing",
    "validation.data": "eval_dataset val_files val_size eval_data test_split_ratio",
    "validation.every": "eval_steps eval_strategy evaluation_strategy test_freq eval_every",
    "validation.metric": "metric_for_best_model",
    "validation.better": "greater_is_better",
    "roles": "ref_model ref_model_name ref_pretrain reference_model teacher_model_name_or_path",
    "rollout.prompts": "rollout_batch_size num_rollouts",
    "rollout.samples_per_prompt": (
        "n_samples_per_prompt num_generations num_return_sequences rollout_n group_size"
    ),
    "rollout.epochs": "ppo_epochs num_ppo_epochs num_iterations updates_per_rollout",
    "rollout.reward.model": "reward_model reward_model_path reward_pretrain reward_model_name",
    "rollout.reward.judge": "reward_funcs reward_function reward_fn custom_reward_function",
    "rollout.sampling.max_new_tokens": (
        "max_completion_length generate_max_len max_response_length response_length max_tokens"
    ),
    "with.beta": "pref_beta dpo_beta kl_beta",
    "with.kl_coef": "init_kl_coef kl_loss_coef kl_penalty_coef",
    "with.label_smoothing": "label_smoothing_factor",
}

# Names elsewhere -> why there is nothing of the kind, and what serves instead.
ABSENT: Mapping[str, str] = {
    "per_device_train_batch_size gradient_accumulation_steps accumulate_grad_batches": (
        "`train.batch_size` is the whole optimiser step on all devices, and "
        "`train.micro_batch_size` what one forward holds; accumulation follows from the two"
    ),
    "per_device_eval_batch_size eval_batch_size": "validation uses `train.micro_batch_size`",
    "deepspeed fsdp fsdp_config ds_config zero_stage accelerate_config ray_num_nodes nnodes": (
        "models are not sharded; start several processes with torchrun (DDP), and save memory by "
        "`train.micro_batch_size`, `train.gradient_checkpointing` and `train.chunk_mb`"
    ),
    "lora peft peft_config use_peft use_lora lora_r lora_rank lora_alpha lora_dropout "
    "lora_target lora_target_modules finetuning_type qlora load_in_4bit load_in_8bit "
    "quantization_bit quantization_config": (
        "there are no adapters, all parameters learn; a plug-in's `load_model` may freeze some"
    ),
    "report_to wandb use_wandb wandb_project tensorboard logging_dir log_with logger swanlab": (
        "there are no trackers; figures are in `metrics.jsonl`, and a plug-in's `on_step` may send "
        "them anywhere"
    ),
    "warmup_steps num_warmup_steps lr_warmup_steps": (
        "the warm-up is a share of all steps, `train.warmup`"
    ),
    "logging_steps log_freq log_every logging_strategy": "every step is logged to `metrics.jsonl`",
    "output_dir save_path default_local_dir ckpt_path": "the folder is named by `--output`",
    "overwrite_output_dir": "`--fresh` begins anew",
    "resume_from_checkpoint load_checkpoint resume": "the same command again resumes by itself",
    "save_total_limit max_ckpt_num save_strategy": "the newest checkpoint is kept, no other",
    "load_best_model_at_end": "with `validation:` the best checkpoint is kept by itself",
    "push_to_hub hub_model_id": "`alignzoo export` writes a folder that can be uploaded",
    "optim optimizer": "the optimiser is AdamW; its settings stand under `train:`",
    "packing sample_packing padding_free group_by_length": (
        "rows of similar length are scored together by themselves, so nothing is packed"
    ),
    "use_vllm vllm vllm_mode vllm_gpu_memory_utilization": (
        "sampling is built in; another engine is a plug-in, named by `rollout.engine`"
    ),
    "loss_type pref_loss advantage_estimator adv_estimator": (
        "every loss is an algorithm of its own; `alignzoo list algorithms` names them"
    ),
    "tokenizer tokenizer_name tokenizer_name_or_path": "the tokenizer comes with the model",
    "template chat_template apply_chat_template prompt_template": (
        "the chat template is the tokenizer's; prompts as lists of messages go through it"
    ),
    "input_key label_key chosen_key rejected_key prompt_key columns remove_unused_columns": (
        "columns are known by their names; see the layouts under Data in README"
    ),
    "precompute_ref_log_probs reference_free": (
        "log-probs of frozen models are computed once and cached by themselves"
    ),
    "torch_compile compile neftune_noise_alpha dataloader_num_workers preprocessing_num_workers": (
        "there is nothing of the kind; leave it out"
    ),
}
METHOD = (  # options of methods, written beside `with` instead of inside it
    "beta gamma simpo_gamma epsilon clip clip_range cliprange clip_ratio kl_coef label_smoothing "
    "lam vf_coef temperature_loss desirable_weight undesirable_weight alpha"
)


def hint(key: str, keys: tuple[str, ...]) -> str:
    """What to say of a key that a block does not know: "; here it is `train.lr`", or nothing."""
    word = key.lower().replace("-", "_")
    if word in keys:
        return ""
    if word in _table():
        return f"; {_table()[word]}"
    places = [place for place in homes().get(word, ()) if place.rpartition(".")[2] == word]
    if places:
        return f"; it stands elsewhere: {' or '.join(f'`{place}`' for place in places[:2])}"
    if word in METHOD.split() and "with" in keys:
        return "; an option of the method stands under `with:`"
    return "; options of the method stand under its `with:`" if word in METHOD.split() else ""


@functools.cache
def _table() -> Mapping[str, str]:
    """Foreign name -> the sentence about it."""
    found = {word: f"here it is `{path}`" for path, words in OURS.items() for word in words.split()}
    return {**found, **{word: text for words, text in ABSENT.items() for word in words.split()}}


@functools.cache
def homes() -> Mapping[str, tuple[str, ...]]:
    """Own key -> the places where it may stand; those of a stage start at its keys."""
    found: dict[str, list[str]] = {}
    for place in _places(Recipe, ""):
        words = found.setdefault(place.rpartition(".")[2], [])
        if place not in words:
            words.append(place)
    return {key: tuple(sorted(places, key=len)) for key, places in found.items()}


def _places(model: type[Spec], prefix: str) -> Iterator[str]:
    for name, field in model.model_fields.items():
        key = field.alias or name
        yield f"{prefix}{key}"
        inside = "" if key == "stages" else f"{prefix}{key}."
        for block in _blocks(field.annotation):
            yield from _places(block, inside)


def _blocks(annotation: Any) -> Iterator[type[Spec]]:
    """The blocks inside a type such as `tuple[TrainSpec | GenerateSpec, ...]`."""
    if isinstance(annotation, type) and issubclass(annotation, Spec):
        yield annotation
    for part in get_args(annotation):
        yield from _blocks(part)
