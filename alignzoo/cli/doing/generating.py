"""`alignzoo generate`: answers to a prompt or a file of prompts, or a conversation."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, closing, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from alignzoo.cli.terminal.names import find_speaker
from alignzoo.contract.algorithm import Role
from alignzoo.contract.errors import DataError, UsageError
from alignzoo.contract.rollout import RolloutEngine, RolloutSession, Sampling, sample_key
from alignzoo.contract.stage import ModelRef
from alignzoo.contract.types import GroupSample, Message, PromptSample, RolloutBatch
from alignzoo.data.conversions import convert
from alignzoo.data.ends import end_ids
from alignzoo.data.reader import USUAL, Embedding, Reader, Rules
from alignzoo.data.rows import row_from_sample
from alignzoo.data.samples import DataSource, load_samples
from alignzoo.data.tokens import decode_answer, prompt_ids
from alignzoo.engine.models.bounds import bounds_of
from alignzoo.engine.models.fit import check_end
from alignzoo.engine.models.load import load_model, load_tokenizer
from alignzoo.engine.parallel.exchange import everyone
from alignzoo.engine.parallel.quiet import silence_libraries
from alignzoo.recipe.blocks import EngineSpec, SamplingSpec
from alignzoo.recipe.faults import Block, validate
from alignzoo.recipe.registry import Registry, load_plugins
from alignzoo.recipe.text import read_value
from alignzoo.stages.compared import start_compared
from alignzoo.stages.engines import engine_of
from alignzoo.stages.sampling import resolve
from alignzoo.store.inputs import BUILT_IN_ENGINE
from alignzoo.store.presence import require_model

USUAL_TOKENS = 256
USUAL_BATCH = 256  # sequences that the built-in engine samples side by side


@dataclass(frozen=True)
class Wish:
    """What the command line asks for."""

    model: str
    decoding: Mapping[str, Any]
    max_new_tokens: int | None  # None: the usual number, or what the context leaves
    samples: int
    seed: int
    plain: bool
    engine: str = "transformers"  # or {name: NAME, with: OPTIONS}


@dataclass(frozen=True)
class Voice:
    """A loaded model, ready to answer."""

    session: RolloutSession
    reader: Reader
    sampling: Sampling
    context: int  # tokens that prompt and answer may have together
    wish: Wish
    arithmetic: Callable[[], AbstractContextManager[Any]]  # as in the run that it comes from

    @property
    def chats(self) -> bool:
        """Whether prompts are turns of a chat."""
        return self.reader.tokenizer.chat_template is not None and not self.wish.plain

    def sample_of(self, text: str, before: Sequence[Message] = ()) -> PromptSample:
        """A prompt in the form the model knows."""
        turn = {"role": "user", "content": text}
        return PromptSample((*before, turn) if self.chats else text)

    def answer(self, prompts: Sequence[PromptSample]) -> list[GroupSample]:
        """All answers to all prompts; an answer depends on its prompt's number and the seed."""
        ids = [prompt_ids(p, self.reader, f"prompt {n}") for n, p in enumerate(prompts, 1)]
        jobs = [(p, k) for p in range(len(prompts)) for k in range(self.wish.samples)]
        keys = [sample_key(self.wish.seed, "answer", p, k) for p, k in jobs]
        sampling = self._fitting(max(map(len, ids), default=0))
        with self.arithmetic():
            done = self.session.generate([ids[p] for p, _ in jobs], sampling, keys)
        texts = [
            replace(
                decode_answer(ids[p], c.ids, self.reader, sampling.stop_ids, ended=c.ended),
                ids=None,
            )
            for (p, _), c in zip(jobs, done, strict=True)
        ]
        n = self.wish.samples
        return [
            GroupSample(prompt.prompt, tuple(texts[p * n : (p + 1) * n]), meta=prompt.meta)
            for p, prompt in enumerate(prompts)
        ]

    def _fitting(self, longest_prompt: int) -> Sampling:
        """The usual number of tokens gives way to the context; a number asked for does not."""
        if self.wish.max_new_tokens is not None:
            return self.sampling
        room = max(1, min(USUAL_TOKENS, self.context - longest_prompt))
        return replace(self.sampling, max_new_tokens=room)


@contextmanager
def voice(wish: Wish) -> Iterator[Voice]:
    """Load the model that a run, a stage, a folder, a hub name or a plug-in's name stands for.

    A run's model computes as in the run: its precision, its attention.
    """
    import torch

    from alignzoo.engine.parallel.ranks import arithmetic

    silence_libraries()
    registry = load_plugins()
    hooks, engine = registry.hooks, _engine(wish.engine, registry)
    name, origin = find_speaker(wish.model)
    ref = ModelRef(name, wish.seed, attn_implementation=origin.get("attn_implementation"))
    require_model(ref, registry)
    tokenizer = load_tokenizer(hooks, ref)
    wanted = wish.max_new_tokens or USUAL_TOKENS
    spec = SamplingSpec.model_validate({**wish.decoding, "max_new_tokens": wanted})
    model = load_model(hooks, ref, Role())
    check_end(model, tokenizer, ref.name)
    bounds = bounds_of(model)
    sampling = resolve(spec, tokenizer, end_ids(tokenizer, bounds.ends))
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model.to(device)  # type: ignore[arg-type]
    context = bounds.context or sys.maxsize
    with closing(start_compared(engine, model)) as session:
        rules = Rules(special="parse") if wish.plain else USUAL
        reader = Reader(tokenizer, rules, (), Embedding(ref.name, bounds.ids))
        how = partial(arithmetic, origin.get("precision", "fp32"), device.type)
        yield Voice(session, reader, sampling, context, wish, how)


def _engine(text: str, registry: Registry) -> RolloutEngine:
    """The engine that the command line names, with its options."""
    block = Block("key", "an engine", ("name", "with"))
    spec, faults = validate(EngineSpec, read_value(text), lambda path: block)
    if spec is None:
        raise UsageError(f"--engine {text}: {faults[0].what}")
    if spec.name == BUILT_IN_ENGINE and spec.with_:
        raise UsageError(f"--engine {text}: the {spec.name} engine takes no options here")
    engine = engine_of(spec, USUAL_BATCH, registry)
    engine.check_here()
    return engine


def generate_command(wish: Wish, prompt: str | None, file: Path | None) -> None:
    """Answer what there is: a prompt, a file, standard input, or a person."""
    _check(wish, prompt, file)
    with voice(wish) as model:
        if file is not None:
            for group in model.answer(_prompts(file, model)):
                print(json.dumps(row_from_sample(group), ensure_ascii=False))
        elif prompt is not None or not sys.stdin.isatty():
            text = sys.stdin.read().rstrip("\n") if prompt is None else prompt
            _print_answers(model.answer([model.sample_of(text)])[0])
        else:
            converse(model, input, print)


def _check(wish: Wish, prompt: str | None, file: Path | None) -> None:
    if prompt is not None and file is not None:
        raise UsageError("give a prompt or --prompts FILE, not both")
    if prompt is not None and not prompt.strip():
        raise UsageError("the prompt is empty")
    if wish.decoding["top_p"] <= 0:
        raise UsageError("--top-p must be greater than 0; 1 is off")
    if file is not None and not file.exists():
        raise UsageError(f"{file}: no such file")
    if everyone().size > 1:
        raise UsageError(
            f"generate: {everyone().size} processes would all print the same answers; start one, "
            "or share the work out with a `generate` stage of a recipe"
        )


def _prompts(file: Path, model: Voice) -> list[PromptSample]:
    if file.suffix == ".txt":
        lines = [line for line in _text(file).splitlines() if line.strip()]
        if not lines:
            raise DataError(f"{file}: no prompts")
        return [model.sample_of(line) for line in lines]
    samples = load_samples(DataSource(str(file), max_bad=None)).samples
    prompts = [prompt for sample in samples for prompt in convert(sample, RolloutBatch)]
    return [prompt for prompt in prompts if isinstance(prompt, PromptSample)]


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise DataError(f"{file}: not UTF-8 (byte {error.start + 1})") from error


def _print_answers(group: GroupSample) -> None:
    for number, response in enumerate(group.responses, 1):
        if len(group.responses) > 1:
            print(f"--- {number}")
        print(response.text)


def converse(model: Voice, read: Callable[[str], str], write: Callable[[str], None]) -> None:
    """Turn by turn until the end of input; a chat model remembers, another continues each text."""
    write("An empty line or Ctrl-D ends the conversation." if model.chats else
          "The model continues your text. An empty line or Ctrl-D ends.")  # fmt: skip
    history: tuple[Message, ...] = ()
    while True:
        try:
            text = read("> ")
        except EOFError:
            return
        if not text.strip():
            return
        sample = model.sample_of(text, history)
        (reply,) = model.answer([sample])[0].responses[:1]
        write(reply.text)
        if model.chats and not isinstance(sample.prompt, str):
            history = (*sample.prompt, {"role": "assistant", "content": reply.text})
