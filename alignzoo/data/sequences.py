"""Prompt and answer to ids: where the prompt ends, and how the answer ends.

Both are tokenised together and cut at the longest prefix that they share with the prompt alone,
because ids(prompt) + ids(answer) is not ids(prompt + answer). Sampled answers keep their ids.
Nothing here looks for a token to find the prompt: BOS, EOS and padding may be one and the same id.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

from jinja2 import TemplateError

from alignzoo.contract.errors import DataError
from alignzoo.contract.types import Message, PromptText, Response, Tokens
from alignzoo.data.ends import end_token
from alignzoo.data.rows import shared_length

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase as Tokenizer


def prompt_tokens(prompt: PromptText, tokenizer: Tokenizer, place: str) -> tuple[int, ...]:
    """The ids of a prompt alone, with the opening of the answer's turn if it is a chat."""
    if not isinstance(prompt, str):
        ids = _template(prompt, tokenizer, place, opening=True)
    else:
        ids = _text_ids(prompt, tokenizer)
        eos = tokenizer.eos_token_id
        if ids[-1:] == (eos,) and not prompt.endswith(str(tokenizer.eos_token)):
            ids = ids[:-1]  # some tokenizers end every text; this one goes on
    bos = tokenizer.bos_token_id
    if bos is not None and ids[:2] == (bos, bos):
        raise DataError(
            f"{place}: the prompt begins with {tokenizer.bos_token} twice; the tokenizer adds it, "
            f"so take it out of the {'prompt' if isinstance(prompt, str) else 'chat template'}"
        )
    if not ids:
        raise DataError(f"{place}: the prompt has no tokens")
    return ids


def _text_ids(text: str, tokenizer: Tokenizer) -> tuple[int, ...]:
    return tuple(tokenizer(text, verbose=False)["input_ids"])


def _template(
    messages: Sequence[Message], tokenizer: Tokenizer, place: str, *, opening: bool
) -> tuple[int, ...]:
    """The ids of a chat; the template writes its own BOS, so none is added."""
    if tokenizer.chat_template is None:
        raise DataError(
            f"{place}: the prompt is a list of messages, but the tokenizer has no chat template; "
            "use plain-text prompts or a model with one"
        )
    try:
        return tuple(
            tokenizer.apply_chat_template(
                [dict(message) for message in messages],
                add_generation_prompt=opening,
                tokenize=True,
                return_dict=False,
                tokenizer_kwargs={"verbose": False},
            )
        )
    except (TemplateError, ValueError) as error:
        raise DataError(f"{place}: the chat template refuses the messages: {error}") from error


def sequence(
    prompt: PromptText,
    start: tuple[int, ...],
    response: Response,
    tokenizer: Tokenizer,
    ends: Collection[int],
    place: str,
) -> Tokens:
    """Prompt and response ids; `start` are the ids of the prompt alone, `ends` end an answer."""
    if response.ids is not None:
        if not response.ids:
            raise DataError(f"{place}: a response has no tokens")
        _check_ids(start, response.ids, response.text, tokenizer, place)
        return Tokens(start, response.ids)
    if isinstance(prompt, str):
        joint = _text_ids(prompt + response.text, tokenizer)
    else:
        joint = _chat_ids(prompt, start, response, tokenizer, place)
    cut = shared_length(start, joint)
    if not cut:
        raise DataError(f"{place}: the prompt's only token merges with the answer; make it longer")
    answer, end = _parted(joint[cut:], ends, tokenizer, chat=not isinstance(prompt, str))
    if response.ended:
        end = end or (end_token(tokenizer, place),)
        answer = (*answer, *end)
    if not answer or (answer == end and response.text.strip() not in ("", tokenizer.eos_token)):
        raise DataError(
            f"{place}: the answer gives no tokens; the tokenizer or its chat template leaves it out"
        )
    return Tokens(joint[:cut], answer)


def _check_ids(
    start: tuple[int, ...], ids: tuple[int, ...], text: str, tokenizer: Tokenizer, place: str
) -> None:
    """Sampled ids must spell their text; those of another tokenizer would be learnt as noise."""
    whole = decoded([*start, *ids], tokenizer, special=False)
    if "".join(text.split()) not in "".join(whole.split()):
        raise DataError(
            f"{place}: the ids of a response do not spell its text; they come from another "
            "tokenizer, so remove `ids` or train a model with that one"
        )


def _chat_ids(
    prompt: Sequence[Message],
    start: tuple[int, ...],
    response: Response,
    tokenizer: Tokenizer,
    place: str,
) -> tuple[int, ...]:
    """The ids of a chat with its answer, which must leave the prompt's text as it was."""
    answer = {"role": "assistant", "content": response.text}
    joint = _template([*prompt, answer], tokenizer, place, opening=False)
    if shared_length(start, joint) < len(start):
        asked = decoded(_template(prompt, tokenizer, place, opening=False), tokenizer)
        if not decoded(joint, tokenizer).startswith(asked.rstrip()):
            raise DataError(
                f"{place}: the chat template writes the prompt in another way once an answer "
                "follows, so prompt and answer cannot be told apart; use another template"
            )
    return joint


def _parted(
    answer: tuple[int, ...], ends: Collection[int], tokenizer: Tokenizer, *, chat: bool
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The answer without its end, and the first token that ends it, if one does.

    What follows that token goes; so does white space that a template writes after a chat's last
    turn. A template may write two ends, of which a model meets the first alone.
    """
    bare = len(answer)
    while bare and (answer[bare - 1] in ends or _blank(answer[bare - 1], tokenizer)):
        bare -= 1
    for at in range(bare, len(answer)):
        if answer[at] in ends:
            return answer[:at], answer[at : at + 1]
    return answer[: bare if chat else None], ()


def _blank(token: int, tokenizer: Tokenizer) -> bool:
    return not decoded((token,), tokenizer).strip()


def decoded(ids: Sequence[int], tokenizer: Tokenizer, *, special: bool = True) -> str:
    """The text of ids, with or without special tokens."""
    text = tokenizer.decode(
        list(ids), skip_special_tokens=not special, clean_up_tokenization_spaces=False
    )
    return str(text)
