"""For authors of algorithms: a tiny model, toy data, and a check that a method keeps its contract.

from alignzoo.testing import check_algorithm
def test_my_method_keeps_the_contract():
    check_algorithm(MyMethod())
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor
from transformers import (
    PreTrainedModel,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen2ForSequenceClassification,
)

from alignzoo.contract.algorithm import Algorithm
from alignzoo.contract.choosing import fields_of_rows
from alignzoo.contract.groups import GroupBatch
from alignzoo.contract.rollout import Completion, Sampling
from alignzoo.contract.types import (
    Batch,
    Item,
    PairBatch,
    RolloutBatch,
    State,
    TextBatch,
    Tokens,
)
from alignzoo.contract.views import seen_by
from alignzoo.engine.layout.optim import Optim
from alignzoo.engine.parallel.ranks import start_ranks
from alignzoo.engine.sampling.generate import TransformersEngine
from alignzoo.engine.scoring.ahead import Ahead, Tally
from alignzoo.engine.scoring.packing import Packer
from alignzoo.engine.scoring.rows import Scorer, dense
from alignzoo.engine.scoring.scorer import ScoringModule
from alignzoo.engine.train.batches import micro_batches
from alignzoo.engine.train.job import Job
from alignzoo.engine.train.loop import train
from alignzoo.engine.train.moving import special_of
from alignzoo.engine.train.rails import Rails
from alignzoo.engine.train.sources import Rollout
from alignzoo.engine.train.step import denominators, foreseen, share_of_loss
from alignzoo.engine.train.world import BufferWorld

VOCABULARY = 13
GROUP = 3  # answers to a prompt where a method sees them together
CLASSES: dict[str, Any] = {"lm": Qwen2ForCausalLM, "scalar": Qwen2ForSequenceClassification}


def tiny_model(
    seed: int = 0, head: str = "lm", vocabulary: int = VOCABULARY, width: int = 16
) -> PreTrainedModel:
    """A random two-layer Qwen2 with two heads in float32; pad is id 0, end-of-sequence id 1."""
    torch.manual_seed(seed)
    config = Qwen2Config(
        vocab_size=vocabulary,
        hidden_size=width,
        intermediate_size=2 * width,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        max_position_embeddings=64,
        initializer_range=0.3,
        tie_word_embeddings=True,
        pad_token_id=0,
        eos_token_id=1,
    )
    config.num_labels = 1
    return cast(PreTrainedModel, CLASSES[head](config))


def toy_items(
    kind: type[Batch],
    n: int,
    seed: int = 0,
    vocabulary: int = VOCABULARY,
    views: Sequence[str] = (),
) -> list[Item]:
    """Items of random tokens with prompts of 1-4 and responses of 1-7 tokens, the last one EOS.

    A view has prompts of up to 6 tokens.
    """
    generator = torch.Generator().manual_seed(seed)

    def draw(low: int, high: int) -> int:
        return int(torch.randint(low, high, (), generator=generator))

    def response() -> tuple[int, ...]:
        return (*(draw(2, vocabulary) for _ in range(draw(0, 7))), 1)

    def item(index: int) -> Item:
        prompt = tuple(draw(2, vocabulary) for _ in range(draw(1, 5)))
        rows = tuple(Tokens(prompt, response()) for _ in range(kind.rows_per_item))
        scores = tuple(draw(0, 5) / 2 - 1 for _ in rows[: _scores(kind)])
        return Item(rows, _values(kind, index, scores))

    def viewed(item: Item) -> Item:
        own = ((name, tuple(draw(2, vocabulary) for _ in range(draw(1, 7)))) for name in views)
        seen = {name: tuple(replace(row, prompt=p) for row in item.rows) for name, p in own}
        return replace(item, views=seen)

    return [viewed(item) for item in [item(index) for index in range(n)]]


def items_for(algorithm: Algorithm[Any], n: int) -> list[Item]:
    """Items that a method eats as given data."""
    return toy_items(algorithm.batch, n, views=_names(algorithm))


def _names(algorithm: Algorithm[Any]) -> list[str]:
    return sorted(set(seen_by(algorithm).values()))


def _scores(kind: type[Batch]) -> int:
    """How many random numbers an item has."""
    return kind.rows_per_item if issubclass(kind, GroupBatch) else 1


def _values(
    kind: type[Batch], index: int, scores: tuple[float, ...]
) -> dict[str, float | tuple[float, ...]]:
    own: dict[str, Any] = {name: float(index % 2) for name in fields_of_rows(kind)}
    if issubclass(kind, RolloutBatch):
        return {**own, "reward": scores[0], "ended": 1.0, "group": float(index // 2)}
    if issubclass(kind, GroupBatch):
        return {**own, "score": scores, "ended": tuple(1.0 for _ in scores)}
    if issubclass(kind, PairBatch):
        return {**own, "score_chosen": abs(scores[0]), "score_rejected": -abs(scores[0])}
    return own


def toy_batch(algorithm: Algorithm[Any], n: int, vocabulary: int = VOCABULARY) -> Batch:
    """A batch of n random items of the kind that a method learns from; groups of three answers."""
    own = algorithm.batch
    kind = own.of(GROUP) if issubclass(own, GroupBatch) else own
    items = toy_items(kind, n, vocabulary=vocabulary, views=_names(algorithm))
    return kind.collate(items, 0)


def toy_values(kind: type[Batch], n: int) -> list[dict[str, float]]:
    """Numbers of the rows of n prompts, for a batch class that holds such."""
    return [{name: float(index % 2) for name in fields_of_rows(kind)} for index in range(n)]


def tiny_models(algorithm: Algorithm[Any]) -> dict[str, PreTrainedModel]:
    """A different random model for every role."""
    roles = enumerate(algorithm.roles.items())
    return {name: tiny_model(seed, role.head) for seed, (name, role) in roles}


@dataclass(frozen=True)
class Gradients:
    """Loss and parameter gradients of one pass."""

    loss: float
    by_role: Mapping[str, Sequence[Tensor | None]]
    rows: Mapping[str, Tensor] = field(default_factory=dict)  # of the last micro-batch [B, S]
    redone: int = 0  # gradients that were formed twice

    def distance(self, other: Gradients) -> float:
        """Largest absolute difference of any gradient entry, and of the loss."""
        pairs = [
            (a, b)
            for role in self.by_role
            for a, b in zip(self.by_role[role], other.by_role[role], strict=True)
            if a is not None and b is not None
        ]
        return max([abs(self.loss - other.loss), *((a - b).abs().max().item() for a, b in pairs)])

    def between_rows(self, other: Gradients) -> dict[str, float]:
        """The same of every row that a loss is shown, those that are only logged included."""
        return {f"row '{n}'": (x - other.rows[n]).abs().max().item() for n, x in self.rows.items()}


@dataclass(frozen=True)
class Shown:
    """What `loss` sees of a batch in one pass over tiny models."""

    given: dict[str, Tensor]  # snapshots and what `prepare` made of them
    live: dict[str, Tensor]  # without gradient
    state: State


@torch.no_grad()
def shown(algorithm: Algorithm[Any], batch: Batch, module: ScoringModule) -> Shown:
    """Everything that `loss` reads, from the models of a module."""
    state = algorithm.init_state()
    given = module(batch, algorithm.snapshots())
    world = BufferWorld(start_ranks("fp32"), batch, state)
    given |= algorithm.prepare(batch, given, world)
    return Shown(given, module(batch, algorithm.signals()), state)


def scoring(algorithm: Algorithm[Any], scorer: Scorer = dense) -> ScoringModule:
    """A different random model in float64 for every role; one that is another shares its."""
    special = special_of(algorithm)
    models = {
        name: model.double()
        for name, model in tiny_models(algorithm).items()
        if name not in special.shared
    }
    trainable = frozenset(name for name, role in algorithm.roles.items() if role.trainable)
    return ScoringModule(models, trainable, scorer, special)


def gradients(
    algorithm: Algorithm[Any],
    batch: Batch,
    scorer: Scorer = dense,
    micro: int | None = None,
    separable: bool = False,
) -> Gradients:
    """Gradients of one optimiser batch as the engine computes them, in float64.

    With `separable` as for a loss that takes positions apart, whether it does or not.
    """
    module = scoring(algorithm, scorer)
    seen = shown(algorithm, batch, module)
    known_terms = denominators(algorithm.loss, batch, seen.given, seen.state, start_ranks("fp32"))
    total, rows, tally = 0.0, dict[str, Tensor](), Tally()
    for part, known in _parts(batch, seen.given, micro):
        told = partial(foreseen, algorithm.loss, part, known, seen.state, known_terms, 1.0)
        rows = module(part, algorithm.signals(), ahead=Ahead(told, separable, tally))
        loss = algorithm.loss(part, {**known, **rows}, seen.state)
        value = share_of_loss(loss, known_terms)
        value.backward()
        total += value.item()
    models = {role: module.by_role[role] for role in module.models}
    by_role = {role: [p.grad for p in model.parameters()] for role, model in models.items()}
    return Gradients(total, by_role, {n: x.detach() for n, x in rows.items()}, tally.redone)


def _parts(
    batch: Batch, given: dict[str, Tensor], micro: int | None
) -> Iterator[tuple[Batch, dict[str, Tensor]]]:
    """Micro-batches of `micro` items; None: the batch as it is, with all its padding."""
    if micro is None:
        yield batch, given
        return
    for items in micro_batches(Packer(batch), micro):
        yield batch.take(items), batch.take_signals(items, given)


def toy_job(algorithm: Algorithm[Any], items: Sequence[Item], folder: Path, **changes: Any) -> Job:
    """Six steps of the real training loop in `folder`, whose models differ from role to role."""
    models = tiny_models(algorithm)
    known: dict[str, Any] = {
        "algorithm": algorithm,
        "load": lambda role: models[role],
        "digests": {role: f"digest of {role}" for role in models},
        "items": items,
        "rollout": None,
        "validation": None,
        "optim": Optim(steps=6, batch_size=4, micro_batch_size=3, lr=1e-2, save_every=2),
        "pad_id": 0,
        "seed": 0,
        "folder": folder,
        "cache": folder / "cache",
        "ranks": changes.get("ranks") or start_ranks("fp32"),
        "rails": Rails(say=lambda text: None),
    }
    return Job(**(known | changes))


def toy_rollout(algorithm: Algorithm[Any]) -> Rollout | None:
    """Six prompts and a reward for length; None for a method that learns from data.

    Rewards are below 1 and above it, where methods may tell failures from successes.
    """
    if not issubclass(algorithm.batch, RolloutBatch | GroupBatch):
        return None
    samples = GROUP if issubclass(algorithm.batch, GroupBatch) else 2
    names = _names(algorithm)

    def seen(
        number: int, done: Sequence[Completion], scores: Sequence[float]
    ) -> list[dict[str, tuple[int, ...]]]:
        """A prompt for each answer that holds how long the answer is."""
        return [{name: (2 + number, 2 + len(c.ids)) for name in names} for c in done]

    return Rollout(
        views=seen if names else None,
        values=toy_values(algorithm.batch, 6),
        prompts=[item.rows[0].prompt for item in toy_items(TextBatch, 6)],
        reward=lambda numbers, done: [len(c.ids) / 4 for c in done],
        engine=TransformersEngine(batch_size=16),
        sampling=toy_sampling(6),
        prompts_per_buffer=4,
        samples_per_prompt=samples,
    )


def toy_run(algorithm: Algorithm[Any], items: Sequence[Item], steps: int) -> list[float]:
    """Losses of a short run of the real training loop, on the same items in every step."""
    losses: list[float] = []
    optim = Optim(
        steps=steps, batch_size=len(items), lr=1e-2, schedule="constant", warmup=0.0, shuffle=False
    )
    with tempfile.TemporaryDirectory() as folder:
        job = toy_job(
            algorithm,
            items,
            Path(folder),
            optim=optim,
            on_step=lambda step, total, metrics, timing: losses.append(metrics["loss"]),
        )
        train(job)
    return losses


def toy_sampling(max_new_tokens: int = 8) -> Sampling:
    """Sampling that ends at the tiny model's end-of-sequence token."""
    return Sampling(max_new_tokens=max_new_tokens, stop_ids=(1,))
