"""Lenses of any size for tests of the page: real tokens, real values, numbers from a generator."""

from dataclasses import dataclass

import torch

from alignzoo.contract.algorithm import Algorithm, Role
from alignzoo.contract.stage import ModelRef
from alignzoo.contract.types import PromptSample, Response, TextBatch, Tokens
from alignzoo.lens.gather import Readings
from alignzoo.lens.methods import Method
from alignzoo.lens.read import EVERY, TOP, Quantity, Reading
from alignzoo.lens.responses import Answered
from alignzoo.lens.tokens import Pieces
from alignzoo.lens.top import Top
from alignzoo.lens.view import Lens

QUANTITIES = ("kl", "tvd", "alpha", "beta_t", "reward", "log p", "entropy", "log ratio")
DISTRIBUTIONS = ("policy", "teacher", "anchor", "synthetic teacher")


@dataclass(frozen=True)
class Any(Algorithm):
    """Stands for any method."""

    name = "any"
    batch = TextBatch
    roles = {"policy": Role(trainable=True)}


def readings(label, lengths, seed, vocabulary):
    """What a method might say of responses of these lengths."""
    noise = torch.Generator().manual_seed(seed)
    rows = []
    for n in lengths:
        values = {q: torch.randn(n + 1, generator=noise) for q in QUANTITIES}
        top = {}
        for name in DISTRIBUTIONS:
            ids = torch.randint(0, vocabulary, (n + 1, TOP), generator=noise)
            p = torch.rand(n + 1, TOP, generator=noise).sort(-1, descending=True).values / TOP
            top[name] = Top(ids, p, p[:, 0])
        rows.append(Reading(values, top))
    quantities = tuple(Quantity(q, "nats", EVERY, (0, 1)) for q in QUANTITIES)
    method = Method(label, Any(), {"policy": ModelRef("facts")})
    return Readings(method, quantities, DISTRIBUTIONS, False, tuple(rows))


def lens_of(tokenizer, n_rows, n_tokens, n_methods=1):
    """A lens of so many responses of so many tokens each."""
    vocabulary = len(tokenizer)
    noise = torch.Generator().manual_seed(0)
    rows = []
    for n in range(n_rows):
        ids = torch.randint(0, vocabulary, (n_tokens,), generator=noise).tolist()
        tokens = Tokens((1, 2, 3), tuple(ids))
        rows.append(
            Answered(f"rows.jsonl:{n + 1}", "", PromptSample("a prompt"), Response("x"), tokens)
        )
    methods = [
        readings(f"method {m}", [n_tokens] * n_rows, m, vocabulary) for m in range(n_methods)
    ]
    return Lens.of(rows, methods, Pieces(tokenizer))
