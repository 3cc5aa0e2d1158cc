"""What differs from family to family of transformers when a model is loaded."""

from __future__ import annotations

from typing import Any

from transformers import (
    AutoModelForCausalLM,
    AutoModelForMultimodalLM,
    AutoModelForSequenceClassification,
    PreTrainedConfig,
    PreTrainedModel,
)
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
    MODEL_FOR_MULTIMODAL_LM_MAPPING_NAMES,
    MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES,
)

from alignzoo.contract.algorithm import Role
from alignzoo.contract.errors import AlignzooError
from alignzoo.contract.stage import ModelRef


def class_for(config: PreTrainedConfig, role: Role, name: str) -> Any:
    """The auto class whose model holds every tensor of the checkpoint.

    A model with towers for images or sound is loaded whole, so that it is saved whole, unless its
    checkpoint says that it holds the language model alone. Raises AlignzooError when the family
    has no class with the head that the role needs.
    """
    if role.head == "scalar":
        if config.model_type not in MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES:
            raise AlignzooError(
                f"{name}: transformers has no scalar head for the family '{config.model_type}'; "
                "use a reward function, or a method without a critic"
            )
        return AutoModelForSequenceClassification
    whole = config.model_type in MODEL_FOR_MULTIMODAL_LM_MAPPING_NAMES
    return AutoModelForMultimodalLM if whole and not _text_alone(config) else AutoModelForCausalLM


def _text_alone(config: PreTrainedConfig) -> bool:
    """Whether the checkpoint was saved from the class without towers, where there is one."""
    alone = MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.get(config.model_type)
    whole = MODEL_FOR_MULTIMODAL_LM_MAPPING_NAMES[config.model_type]
    return alone != whole and list(config.architectures or ()) == [alone]


def freeze_other_parts(model: PreTrainedModel) -> None:
    """Leave only the language model of a multimodal wrapper to be trained: text reaches no other.

    A parameter that no gradient reaches would stop training on several ranks.
    """
    if model.config.get_text_config() is model.config:
        return
    text = {id(p) for p in model.get_decoder().parameters()}
    head = getattr(model, "score", None) or model.get_output_embeddings()
    if head is not None:
        text |= {id(p) for p in head.parameters()}
    for parameter in model.parameters():
        if id(parameter) not in text:
            parameter.requires_grad_(False)


def set_attention(model: PreTrainedModel, ref: ModelRef) -> None:
    """Compute attention as the recipe says; AlignzooError when the model cannot."""
    wanted = ref.attn_implementation
    if wanted is None:
        return
    try:
        model.set_attn_implementation(wanted)
    except Exception as error:  # a missing package, an unfit device, a family without it
        cause = next(iter(str(error).strip().splitlines()), type(error).__name__).split(". ")[0]
        raise _no_attention(model, ref, cause) from error
    if model.config._attn_implementation != wanted:  # the library only warns
        raise _no_attention(
            model, ref, f"it computes '{model.config._attn_implementation}' instead"
        )


def _no_attention(model: PreTrainedModel, ref: ModelRef, cause: str) -> AlignzooError:
    return AlignzooError(
        f"{ref.name}: attn_implementation '{ref.attn_implementation}' is not possible here: "
        f"{cause}; leave the key out to take the model's default"
    )


def checkpoint_activations(model: PreTrainedModel) -> None:
    """Recompute activations in the backward pass; the library has renamed the switch."""
    enable = getattr(model, "activation_checkpointing_enable", model.gradient_checkpointing_enable)
    enable({"use_reentrant": False})
