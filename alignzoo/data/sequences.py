"""Prompt and answer to ids: where the prompt ends, and how the answer ends.

Both are tokenised together and cut at the longest prefix that they share with the prompt alone,
because ids(prompt) + ids(answer) is not ids(prompt + answer). Sampled answers keep their ids.
Nothing here looks for a token to find the prompt: BOS, EOS and padding may be one and the same id.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from alignzoo.contract.errors import DataError
from alignzoo.contract.types import Response, Sample, Tokens
from alignzoo.data.chats import Chat, left_out_of, render, unwritten
from alignzoo.data.control import RESERVED
from alignzoo.data.ends import end_token
from alignzoo.data.messages import message_of
from alignzoo.data.reader import Reader
from alignzoo.data.rounds import Steps, at_once
from alignzoo.data.rows import shared_length
from alignzoo.data.turns import all_turns

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase as Tokenizer


@dataclass(frozen=True)
class Start:
    """A prompt as text, as the template writes it, and as ids."""

    text: str  # control tokens that stand in messages are marked, see `Reader.protected`
    ids: tuple[int, ...]
    left_out: tuple[str, ...] = ()  # what the template did not write, in words

    @property
    def spells(self) -> bool:
        """Whether control tokens stand in it that are read as letters."""
        return not self.text.isascii() and RESERVED.search(self.text) is not None


@dataclass(frozen=True)
class Row:
    """A sequence, and what the template did not write of its answer, in words."""

    tokens: Tokens
    left_out: tuple[str, ...] = ()
    spells: bool = False  # control tokens stand in it that are read as letters
    empty: bool = False  # the answer is its end alone


def prompt_start(sample: Sample, reader: Reader, place: str) -> Start:
    """A prompt alone, with the opening of the answer's turn if it is a chat."""
    return at_once(start_steps(sample, reader, place))


def start_steps(sample: Sample, reader: Reader, place: str) -> Steps[Start]:
    """The same in steps."""
    prompt, tokenizer = sample.prompt, reader.tokenizer
    if not isinstance(prompt, str):
        chat = Chat.of(sample, reader, place)
        text = render(chat, reader, place, opening=True)
        yield text, False
        ids, left_out = reader.ids(text, place, alone=False), left_out_of(chat, text, reader)
    else:
        text, left_out = reader.protected_prompt(prompt, place), ()
        yield text, True
        ids = reader.ids(text, place, alone=True)
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
    return Start(text, ids, left_out)


def sequence(sample: Sample, start: Start, response: Response, reader: Reader, place: str) -> Row:
    """Prompt and response ids; `start` is the prompt alone."""
    return at_once(sequence_steps(sample, start, response, reader, place))


def sequence_steps(
    sample: Sample, start: Start, response: Response, reader: Reader, place: str
) -> Steps[Row]:
    """The same in steps."""
    is_chat = not isinstance(sample.prompt, str)
    row = yield from _answered(sample, start, response, reader, place)
    if is_chat and reader.rules.learn == "all":
        tokens, earlier = all_turns(sample, row.tokens, reader, place)
        row = replace(row, tokens=tokens, left_out=(*row.left_out, *earlier))
    if row.left_out and reader.rules.template_cuts == "refuse":
        raise DataError(
            f"{place}: the chat template leaves out {row.left_out[0]}, which is to be learnt; use "
            "a template that writes it, or say data.template_cuts: tell to learn what is written"
        )
    return row


def _answered(
    sample: Sample, start: Start, response: Response, reader: Reader, place: str
) -> Steps[Row]:
    tokenizer, is_chat = reader.tokenizer, not isinstance(sample.prompt, str)
    if response.ids is not None:
        if not response.ids:
            raise DataError(f"{place}: a response has no tokens")
        _check_ids(start.ids, response, reader, place)
        empty = response.ended and len(response.ids) == 1
        return Row(Tokens(start.ids, response.ids), empty=empty)
    text = _joint_text(sample, start, response, reader, place)
    yield text, not is_chat
    joint = reader.ids(text, place, alone=not is_chat)
    if is_chat:
        _check_prompt(sample, start.ids, joint, reader, place)
    cut = shared_length(start.ids, joint)
    if not cut:
        raise DataError(f"{place}: the prompt's only token merges with the answer; make it longer")
    answer, end = _parted(joint[cut:], reader, chat=is_chat)
    if response.ended:
        end = end or (end_token(tokenizer, place),)
        answer = (*answer, *end)
    says_more = _says_more(response, tokenizer)
    if not answer or (answer == end and says_more):
        raise DataError(
            f"{place}: the answer gives no tokens; the tokenizer or its chat template leaves it out"
        )
    left_out = _left_out(sample, start, response, text, reader, place) if is_chat else ()
    return Row(Tokens(joint[:cut], answer), left_out, Start(text, joint).spells, not says_more)


def _says_more(response: Response, tokenizer: Tokenizer) -> bool:
    """Whether an answer is more than its end."""
    called = response.message is not None and response.message.get("tool_calls")
    return bool(called) or response.text.strip() not in ("", tokenizer.eos_token)


def _joint_text(
    sample: Sample, start: Start, response: Response, reader: Reader, place: str
) -> str:
    if isinstance(sample.prompt, str):
        return start.text + reader.protected_answer(response.text, place)
    chat = Chat.of(sample, reader, place, message_of(response))
    return render(chat, reader, place, opening=False)


def _left_out(
    sample: Sample, start: Start, response: Response, text: str, reader: Reader, place: str
) -> tuple[str, ...]:
    """What the template did not write of an answer, in words.

    A template may open the turn with letters that the answer begins with, so that the answer is
    looked for after the prompt without that opening.
    """
    message = reader.protected_message(message_of(response), place)
    if text.startswith(start.text) and not unwritten(message, text[len(start.text) :]):
        return ()
    asked, _ = _asked(sample, reader, place)
    lost = unwritten(message, text[shared_length(asked, text) :])
    return (lost,) if lost else ()


def _check_ids(start: tuple[int, ...], response: Response, reader: Reader, place: str) -> None:
    """Sampled ids must spell their text; those of another tokenizer would be learnt as noise."""
    whole = [*start, *reader.with_rows(response.ids or (), place)]
    text = "".join(response.text.split())
    if not any(text in "".join(f(whole).split()) for f in (reader.plain, reader.decoded)):
        raise DataError(
            f"{place}: the ids of a response do not spell its text; they come from another "
            "tokenizer, so remove `ids` or train a model with that one"
        )


def _check_prompt(
    sample: Sample, start: tuple[int, ...], joint: tuple[int, ...], reader: Reader, place: str
) -> None:
    """A chat's answer must leave the prompt's text as it was."""
    if shared_length(start, joint) == len(start):
        return
    asked = decoded(_asked(sample, reader, place)[1], reader.tokenizer)
    if not decoded(joint, reader.tokenizer).startswith(asked.rstrip()):
        raise DataError(
            f"{place}: the chat template writes the prompt in another way once an answer "
            "follows, so prompt and answer cannot be told apart; use another template"
        )


def _asked(sample: Sample, reader: Reader, place: str) -> tuple[str, tuple[int, ...]]:
    """A chat without the opening of the answer's turn, as text and ids."""
    text = render(Chat.of(sample, reader, place), reader, place, opening=False)
    return text, reader.ids(text, place, alone=False)


def _parted(
    answer: tuple[int, ...], reader: Reader, *, chat: bool
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The answer without its end, and the first token that ends it, if one does.

    What follows that token goes; so does white space that a template writes after a chat's last
    turn. A template may write two ends, of which a model meets the first alone.
    """
    bare = len(answer)
    while bare and (answer[bare - 1] in reader.ends or reader.is_blank(answer[bare - 1])):
        bare -= 1
    for at in range(bare, len(answer)):
        if answer[at] in reader.ends:
            return answer[:at], answer[at : at + 1]
    return answer[: bare if chat else None], ()


def decoded(ids: Sequence[int], tokenizer: Tokenizer, *, special: bool = True) -> str:
    """The text of ids, with or without special tokens."""
    text = tokenizer.decode(
        list(ids), skip_special_tokens=not special, clean_up_tokenization_spaces=False
    )
    return str(text)
