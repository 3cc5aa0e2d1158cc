"""How a local model reads a question and replies: ids in, text and first-token log-probs out."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    GenerationConfig,
    LogitsProcessor,
    LogitsProcessorList,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from alignzoo import (
    Decoding,
    JudgeError,
    Reply,
    Usage,
    end_ids,
    holds_reasoning,
    without_reasoning,
)

TAIL = 8  # ids at a prompt's end in which a template may open reasoning
MARK_ENDS = (">", "]", "▷")
SPARE = 4  # candidates looked at per alternative wanted, since several tokens may read the same


@dataclass(frozen=True)
class Reader:
    """A loaded model with its tokenizer."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    stops: tuple[int, ...]
    context: int | None
    vocabulary: int

    @property
    def commit(self) -> str | None:
        """Which weights of a hub model these are; None for a folder."""
        found = getattr(self.model.config, "_commit_hash", None)
        return str(found) if found else None

    def chat_ids(self, messages: Sequence[Mapping[str, str]]) -> list[int]:
        """Ids of a conversation in the model's own template, ready for the reply.

        Raises JudgeError when the template refuses it.
        """
        try:
            text = self.tokenizer.apply_chat_template(
                [dict(m) for m in messages], add_generation_prompt=True, tokenize=False
            )
        except Exception as error:  # a template may raise anything
            raise JudgeError(
                f"local: the chat template refuses {', '.join(m['role'] for m in messages)}: "
                f"{error}; for a model without a system role set `system_as_user: true`"
            ) from error
        return self._ids(str(text), special=False)

    def plain_ids(self, messages: Sequence[Mapping[str, str]]) -> list[int]:
        """Ids of the messages' contents with an empty line between them."""
        return self._ids("\n\n".join(m["content"] for m in messages), special=True)

    def _ids(self, text: str, special: bool) -> list[int]:
        # Half surrogate pairs, which JSON can carry, have no UTF-8 form.
        sound = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
        ids = self.tokenizer(sound, add_special_tokens=special, verbose=False)["input_ids"]
        return list(cast(Any, ids)) or [self.stops[0]]

    @torch.inference_mode()
    def reply(self, ids: Sequence[int], decoding: Decoding, key: str) -> Reply:
        """Greedy at temperature 0, else sampled with noise keyed by `key` (hex)."""
        picker = Picker(decoding, int(key[:15], 16))
        prompt = torch.tensor([ids], device=self.model.device)
        config = _config(
            do_sample=False,  # the picker has sampled already
            max_new_tokens=decoding.max_tokens,
            eos_token_id=list(self.stops),
            pad_token_id=self.stops[0],
        )
        output = cast(Any, self.model).generate(
            prompt,
            attention_mask=torch.ones_like(prompt),
            generation_config=config,
            logits_processor=LogitsProcessorList([picker]),
        )
        new = output[0, len(ids) :].tolist()
        wanted = decoding.top_logprobs
        return Reply(
            text=self.begun(ids) + self.words(new),
            top_logprobs=self._alternatives(picker.first, wanted) if wanted else None,
            usage=Usage(len(ids), len(new)),
            finish="stop" if new and new[-1] in self.stops else "length",
        )

    def words(self, new: Sequence[int]) -> str:
        """What was said, without special tokens, unless some of them mark reasoning: that must
        stay to be told from the reply.
        """
        spelled = str(self.tokenizer.decode(list(new), skip_special_tokens=False))
        if holds_reasoning(spelled):
            ended = len(new) - (bool(new) and new[-1] in self.stops)
            return str(self.tokenizer.decode(list(new[:ended]), skip_special_tokens=False))
        return str(self.tokenizer.decode(list(new), skip_special_tokens=True))

    def begun(self, ids: Sequence[int]) -> str:
        """The mark that opens reasoning, where the template has put it at the prompt's end."""
        end = str(self.tokenizer.decode(list(ids[-TAIL:]), skip_special_tokens=False)).split()
        opened = end and end[-1].endswith(MARK_ENDS) and without_reasoning(end[-1]) is None
        return "<think>\n" if opened else ""

    def _alternatives(self, logits: torch.Tensor | None, wanted: int) -> dict[str, float] | None:
        """The likeliest first tokens by how a reply of that token alone reads.

        Tokens that read the same (in some tokenizers "m" at the start of a word and inside one)
        are one alternative with P the sum of theirs; " m" and "m" stay two.
        """
        if logits is None:
            return None
        log_probs = logits.double().log_softmax(-1)
        values, ids = log_probs.topk(min(wanted * SPARE, len(log_probs)))
        found: dict[str, float] = {}
        for value, token in zip(values.tolist(), ids.tolist(), strict=True):
            text = self.spelling(token)
            found[text] = _log_sum(found[text], value) if text in found else value
        likeliest = sorted(found, key=lambda text: -found[text])[:wanted]
        return {text: found[text] for text in likeliest}

    def spelling(self, token: int) -> str:
        """How a reply of one token reads; special tokens keep their names."""
        return str(
            self.tokenizer.decode(
                [token], skip_special_tokens=False, clean_up_tokenization_spaces=False
            )
        )


class Picker(LogitsProcessor):
    """Chooses the next token; it remembers the logits of the first one.

    At temperature t > 0 it adds Gumbel noise g to logits / t: argmax(logits / t + g) is a sample
    from softmax(logits / t).
    """

    def __init__(self, decoding: Decoding, seed: int) -> None:
        self.decoding = decoding
        self.noise = torch.Generator().manual_seed(seed)
        self.first: torch.Tensor | None = None

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """Scores [1, V] whose largest is the token."""
        if self.first is None:
            self.first = scores[0].float().cpu()
        if self.decoding.is_greedy:
            return scores
        uniform = torch.rand(scores.shape, generator=self.noise, dtype=torch.float64)
        gumbel = -(-uniform.clamp_min(1e-300).log()).log()
        return scores / self.decoding.temperature + gumbel.to(scores)


def load(name: str, revision: str | None, dtype: str) -> Reader:
    """The model and tokenizer of a folder or hub name: safetensors only, no code of others.

    Raises JudgeError with one sentence when it cannot be loaded.
    """
    options: dict[str, Any] = {"revision": revision, "trust_remote_code": False}
    device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        tokenizer = AutoTokenizer.from_pretrained(name, **options)
        model, report = cast(Any, AutoModelForCausalLM).from_pretrained(
            name,
            dtype=getattr(torch, dtype),
            use_safetensors=True,
            output_loading_info=True,
            **options,
        )
        model = model.to(device).eval()
    except Exception as error:  # a damaged folder makes the libraries raise anything
        cause = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise JudgeError(f"local: cannot load '{name}': {cause}") from error
    if "score.weight" in report["unexpected_keys"]:
        raise JudgeError(f"local: {name} has a scalar head, so it scores texts and cannot reply")
    return _reader(name, model, tokenizer)


def _reader(name: str, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> Reader:
    stops = _stops(model, tokenizer)
    if not stops:
        raise JudgeError(f"local: {name} has no end-of-sequence token; set one in its tokenizer")
    # `generate` fills what a request leaves open from the folder's own defaults (penalties).
    model.generation_config = _config()
    text = model.config.get_text_config(decoder=True)
    context = getattr(text, "max_position_embeddings", None)
    return Reader(model, tokenizer, stops, context, int(text.vocab_size))


def _stops(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> tuple[int, ...]:
    """Every id that ends a turn, as for models that are trained and evaluated."""
    own = getattr(model.generation_config, "eos_token_id", None)
    return end_ids(tokenizer, own if isinstance(own, list) else [own])


def _config(**options: Any) -> GenerationConfig:
    config: GenerationConfig = cast(Any, GenerationConfig)(**options)
    return config


def _log_sum(a: float, b: float) -> float:
    """log(exp(a) + exp(b))."""
    return max(a, b) + math.log1p(math.exp(-abs(a - b)))
