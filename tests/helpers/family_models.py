"""One tiny random model per family of transformers, with the settings that make it special."""

from __future__ import annotations

import string
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    CONFIG_MAPPING,
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForMultimodalLM,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

VOCABULARY = 512
FIRST = 10  # id of the first byte
CONTEXT = 128

Options = dict[str, Any]

SIZE: Options = {
    "vocab_size": VOCABULARY,
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "pad_token_id": 0,
    "eos_token_id": 1,
    "bos_token_id": 2,
    "max_position_embeddings": CONTEXT,
    "initializer_range": 0.15,
}
DENSE: Options = {**SIZE, "num_key_value_heads": 2, "intermediate_size": 128}
MOE: Options = {**DENSE, "num_experts": 4, "num_local_experts": 4, "num_experts_per_tok": 2} | {
    "moe_intermediate_size": 32
}
WINDOW: Options = {"sliding_window": 16}
MIXED = {"layer_types": ["sliding_attention", "full_attention"], **WINDOW}
HEADS_16: Options = {"head_dim": 16}
LINEAR: Options = {"linear_key_head_dim": 16, "linear_value_head_dim": 16} | {
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "layer_types": ["linear_attention", "full_attention"],
    "head_dim": 16,
}
MAMBA_2: Options = {"mamba_n_heads": 8, "mamba_d_head": 16, "mamba_d_state": 16} | {
    "mamba_chunk_size": 16
}
MLA: Options = {"q_lora_rank": 32, "kv_lora_rank": 32, "qk_nope_head_dim": 16} | {
    "qk_rope_head_dim": 16,
    "v_head_dim": 16,
    "n_routed_experts": 4,
    "n_shared_experts": 1,
    "moe_intermediate_size": 32,
    "num_experts_per_tok": 2,
    "n_group": 1,
    "topk_group": 1,
    "first_k_dense_replace": 1,
    "num_key_value_heads": 4,
    "head_dim": 16,
}
QWEN_VISION: Options = {"depth": 1, "hidden_size": 32, "intermediate_size": 64, "num_heads": 2} | {
    "out_hidden_size": 64,
    "patch_size": 4,
}
VIT: Options = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1} | {
    "num_attention_heads": 2,
    "image_size": 16,
    "patch_size": 4,
}
ROPE_SECTIONS: Options = {
    "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [2, 3, 3]}
}
IMAGE: Options = {"image_token_id": 500, "video_token_id": 501} | {
    "vision_start_token_id": 502,
    "vision_end_token_id": 503,
}
LLAMA_4: Options = {**DENSE, "head_dim": 16, "intermediate_size_mlp": 128} | {
    "num_local_experts": 4,
    "attention_chunk_size": 16,
    "interleave_moe_layer_step": 2,
}


@dataclass(frozen=True)
class Family:
    """A row of the table: which config class, and what is special about it."""

    name: str
    kind: str  # model_type
    config: Options = field(default_factory=dict)
    wrapper: bool = False  # towers beside the language model

    @property
    def known(self) -> bool:
        """Whether the installed transformers has it."""
        return self.kind in CONFIG_MAPPING


def dense(name: str, kind: str | None = None, **special: Any) -> Family:
    return Family(name, kind or name, DENSE | special)


def moe(name: str, kind: str | None = None, **special: Any) -> Family:
    return Family(name, kind or name, MOE | special)


def wrapped(name: str, kind: str, text: Options, vision: Options, **special: Any) -> Family:
    return Family(name, kind, {"text_config": text, "vision_config": vision} | special, True)


GPT_2: Options = {"n_embd": 64, "n_layer": 2, "n_head": 4, "n_positions": CONTEXT} | {
    "vocab_size": VOCABULARY,
    "initializer_range": 0.15,
    "bos_token_id": 2,
    "eos_token_id": 1,
}
OPT: Options = {**SIZE, "ffn_dim": 128, "word_embed_proj_dim": 64, "init_std": 0.15}
BLOOM: Options = {**SIZE, "n_layer": 2, "n_head": 4}
MPT: Options = {"d_model": 64, "n_heads": 4, "n_layers": 2, "max_seq_len": CONTEXT} | {
    "vocab_size": VOCABULARY,
    "initializer_range": 0.15,
}
GEMMA_3N: Options = {**DENSE, "head_dim": 16, **WINDOW} | {
    "num_hidden_layers": 4,
    "layer_types": ["sliding_attention", "full_attention"] * 2,
    "vocab_size_per_layer_input": VOCABULARY,
    "hidden_size_per_layer_input": 16,
    "num_kv_shared_layers": 2,
    "laurel_rank": 8,
    "intermediate_size": [128] * 4,
    "activation_sparsity_pattern": [0.5, 0.0, 0.0, 0.0],
}
JAMBA: Options = {"attn_layer_period": 2, "attn_layer_offset": 1, "use_mamba_kernels": False} | {
    "mamba_d_state": 8
}

FAMILIES: tuple[Family, ...] = (
    dense("qwen2"),
    dense("qwen2 tied", "qwen2", tie_word_embeddings=True),
    dense("qwen2 window", "qwen2", use_sliding_window=True, max_window_layers=1, **WINDOW),
    dense("qwen3", head_dim=16),
    dense("llama"),
    dense("mistral", **WINDOW),
    dense("gemma", head_dim=16),
    dense("gemma2 uncapped", "gemma2", final_logit_softcapping=None, head_dim=16, **MIXED),
    dense("gemma2", final_logit_softcapping=5.0, head_dim=16, **MIXED),
    dense("gemma3_text", head_dim=16, **MIXED),
    wrapped("gemma3", "gemma3", {**DENSE, "head_dim": 16, **MIXED}, VIT, image_token_index=500)
    ,
    Family("gemma3n_text", "gemma3n_text", GEMMA_3N | {"final_logit_softcapping": 5.0}),
    dense("gemma4_text", head_dim=16, **MIXED, hidden_size_per_layer_input=16)
    ,
    Family("phi", "phi", DENSE | {"num_key_value_heads": 4}),
    dense("phi3", **WINDOW),
    moe("phimoe", router_jitter_noise=0.01),
    dense("smollm3", no_rope_layer_interval=2),
    dense("olmo2"),
    dense("olmo3", **MIXED),
    moe("olmoe"),
    moe("olmoe router loss", "olmoe", output_router_logits=True),
    Family("gpt2", "gpt2", GPT_2),
    Family("gpt_neox", "gpt_neox", SIZE | {"intermediate_size": 128}),
    Family("opt", "opt", OPT),
    Family("opt layerdrop", "opt", OPT | {"layerdrop": 0.5}),
    Family("falcon", "falcon", SIZE | {"new_decoder_architecture": False}),
    Family("falcon alibi", "falcon", SIZE | {"alibi": True}),
    Family("bloom", "bloom", BLOOM),
    Family("mpt", "mpt", MPT),
    dense("glm4", head_dim=16),
    moe("glm4_moe", head_dim=16, n_routed_experts=4, n_shared_experts=1, n_group=1, topk_group=1),
    dense("starcoder2", **WINDOW),
    dense("stablelm"),
    Family("deepseek_v2", "deepseek_v2", DENSE | MLA),
    Family("deepseek_v3", "deepseek_v3", DENSE | MLA),
    moe("gpt_oss", head_dim=16, **MIXED),
    dense("exaone4", **MIXED),
    moe("jamba", **JAMBA),
    dense("zamba2", layers_block_type=["mamba", "hybrid"], n_mamba_heads=8, mamba_d_state=16,
          chunk_size=16, use_mamba_kernels=False, adapter_rank=8),
    moe("qwen3_next", **LINEAR, shared_expert_intermediate_size=32),
    dense("qwen3_5_text", **LINEAR),
    dense("lfm2", layer_types=["conv", "full_attention"], block_auto_adjust_ff_dim=False),
    dense("bamba", attn_layer_indices=[1], **MAMBA_2),
    moe("granitemoehybrid", layer_types=["linear_attention", "full_attention"], **MAMBA_2,
        shared_intermediate_size=32, logits_scaling=3.0),
    dense("falcon_h1", **MAMBA_2, mamba_d_ssm=128, lm_head_multiplier=0.3),
    dense("granite", logits_scaling=3.0),
    dense("cohere", logit_scale=0.25),
    dense("cohere2", logit_scale=0.25, head_dim=16, **MIXED),
    Family("recurrent_gemma", "recurrent_gemma", DENSE | {
        "num_key_value_heads": 1, "lru_width": 64, "attention_window_size": 16,
        "block_types": ["recurrent", "attention"], "logits_soft_cap": 5.0}),
    Family("mamba", "mamba", SIZE | {"state_size": 8, "time_step_rank": 8}),
    Family("mamba2", "mamba2", SIZE | {"num_heads": 8, "head_dim": 16, "state_size": 16,
                                      "n_groups": 2, "chunk_size": 16}),
    moe("nemotron_h", layers_block_type=["mamba", "attention", "moe"], num_hidden_layers=3,
        head_dim=16, mamba_num_heads=8, mamba_head_dim=16, ssm_state_size=16, n_groups=2,
        chunk_size=16, use_mamba_kernels=False, n_routed_experts=4,
        moe_shared_expert_intermediate_size=32),
    moe("minimax", head_dim=16, block_size=8, layer_types=["linear_attention", "full_attention"]),
    moe("mixtral"),
    moe("mixtral router loss", "mixtral", output_router_logits=True),
    moe("mixtral jitter", "mixtral", router_jitter_noise=0.1),
    moe("qwen3_moe", head_dim=16),
    moe("qwen3_moe router loss", "qwen3_moe", head_dim=16, output_router_logits=True),
    Family("llama4_text", "llama4_text", LLAMA_4),
    wrapped("llama4", "llama4", LLAMA_4, VIT | {"vision_output_dim": 32, "projector_input_dim": 32,
            "projector_output_dim": 32}, image_token_index=500),
    wrapped("qwen2_5_vl", "qwen2_5_vl", DENSE | ROPE_SECTIONS, QWEN_VISION | {
            "fullatt_block_indexes": [0], "window_size": 8}, **IMAGE),
    wrapped("mistral3", "mistral3", DENSE | {"model_type": "mistral", "head_dim": 16}, VIT | {
            "model_type": "pixtral"}, image_token_index=500),
    wrapped("qwen3_5", "qwen3_5", DENSE | LINEAR, QWEN_VISION | {"num_position_embeddings": 16},
            **IMAGE),
    wrapped("gemma3 text dropout", "gemma3", {**DENSE, "head_dim": 16, **MIXED,
            "attention_dropout": 0.3}, VIT, image_token_index=500),
)  # fmt: skip
NAMED = {family.name: family for family in FAMILIES}


def build(family: Family, seed: int) -> PreTrainedModel:
    """The model with random weights."""
    torch.manual_seed(seed)
    config = AutoConfig.for_model(family.kind, **family.config)
    auto = AutoModelForMultimodalLM if family.wrapper else AutoModelForCausalLM
    model: PreTrainedModel = auto.from_config(config).float()
    return model


def tokenizer() -> PreTrainedTokenizerFast:
    """A token for every byte, and spare ones; so simple that no family's own class changes it."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    words = ["<pad>", "<end>", *spare(2, FIRST), *letters, *spare(FIRST + len(letters), VOCABULARY)]
    made = Tokenizer(models.BPE({word: i for i, word in enumerate(words)}, []))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=made, pad_token="<pad>", eos_token="<end>")


def spare(start: int, end: int) -> list[str]:
    """Tokens that no text holds: they are only ever sampled."""
    return [f"<spare{i}>" for i in range(start, end)]


def letter_ids() -> dict[str, int]:
    """The ids of a, b, ... Z."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    return {x: FIRST + letters.index(x) for x in string.ascii_letters}


def save(family: Family, seed: int, folder: Path) -> Path:
    """A model's folder, as the hub would have it."""
    build(family, seed).save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    return folder
