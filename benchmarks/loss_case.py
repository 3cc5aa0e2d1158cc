"""One training step of one loss, in this process: what loss_memory.py and loss_speed.py start.

    python benchmarks/loss_case.py jsd engine --positions 512 --vocabulary 151936 --hidden 256

`engine` is a micro-batch through the step of alignzoo: rows of all metrics, the loss, gradients.
`naive` is the same loss by autograd and nothing else: the logits of each model, their log-softmax,
no metrics, teachers without gradient. `leanest` forgets logits at once. `matmuls` are the matrix
products that the gradient needs when no logits are kept or computed twice, on reused memory.
`error` compares gradients with float64.

Models are an embedding, a norm and a head: hidden states cost nothing, so the loss is all there is.
The embedding is frozen, because its gradient would be as large as the head's. The peak is the
resident set over models and batch, the head's gradient included. Linux only.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from math import log
from pathlib import Path
from typing import Any

import torch
from alignzoo_aligndistil.algorithm import AlignDistil
from alignzoo_dpo.algorithm import DPO
from alignzoo_gkd.algorithm import GKD
from alignzoo_sft.algorithm import SFT
from torch import Tensor, nn
from torch.nn import functional
from transformers import LlamaConfig, LlamaForCausalLM

from alignzoo import Algorithm, Loss, Role, TextBatch, ops
from alignzoo.contract.types import Batch, Item, Tokens
from alignzoo.engine.layout.build import build_layout
from alignzoo.engine.layout.optim import Optim
from alignzoo.engine.parallel.ranks import start_ranks
from alignzoo.engine.scoring.scorer import SCORERS, ScoringModule
from alignzoo.engine.train.step import Stepper

ROWS = 8  # sequences in a batch
WARM = 16 * ROWS  # positions of the step before the measured one
CHUNK = 64  # positions whose logits `matmuls` holds at a time
SPREAD = 1.6  # standard deviation of a logit
MB = 10**6
Log = Mapping[str, Tensor]  # role -> log-probabilities [N, V]


@dataclass(frozen=True)
class Entropy(Algorithm[TextBatch]):
    """L = -mean H(pi): an entropy bonus alone."""

    name = "entropy_bonus"
    batch = TextBatch
    roles = {"policy": Role(trainable=True, doc="the model that learns")}

    def signals(self):
        return {"entropy": ops.entropy("policy")}

    def loss(self, batch, signals, state):
        return Loss(ops.token_mean_term(-signals["entropy"], batch.mask))


@dataclass(frozen=True)
class Case:
    """A loss as a method of alignzoo, and as plain tensors."""

    method: Algorithm[Any]
    naive: Callable[[Log, Tensor, Tensor], Tensor]  # (log p, labels, given [N]) -> loss []


def _kl(p: Tensor, q: Tensor) -> Tensor:
    return (p.exp() * (p - q)).sum(-1)


def _label(p: Tensor, labels: Tensor) -> Tensor:
    return p.gather(-1, labels[:, None])[:, 0]


def _aligndistil(p: Log, labels: Tensor, given: Tensor) -> Tensor:
    with torch.no_grad():
        dpo, anchor = p["teacher"], p["anchor"]
        alpha = (dpo.exp() - anchor.exp()).abs().sum(-1) + 1e-3  # r / 2 = 1
        target = functional.log_softmax(dpo + alpha[:, None] * (dpo - anchor), -1)
    return (0.1 / alpha * _kl(p["policy"], target)).mean()


def _jsd(p: Log, labels: Tensor, given: Tensor) -> Tensor:
    middle = torch.logaddexp(p["policy"], p["teacher"]) - log(2)
    return (0.5 * _kl(p["teacher"], middle) + 0.5 * _kl(p["policy"], middle)).mean()


def _dpo(p: Log, labels: Tensor, given: Tensor) -> Tensor:
    """Rows of a batch are as long as each other, the chosen ones first."""
    chosen, rejected = (_label(p["policy"], labels) - given).view(2, ROWS // 2, -1).sum(-1)
    return -functional.logsigmoid(0.1 * (chosen - rejected)).mean()


CASES: Mapping[str, Case] = {
    "log_prob": Case(SFT(), lambda p, y, _: -_label(p["policy"], y).mean()),
    "pair_log_prob": Case(DPO(), _dpo),
    "reverse_kl": Case(
        GKD(divergence="reverse"), lambda p, y, _: _kl(p["policy"], p["teacher"]).mean()
    ),
    "forward_kl": Case(
        GKD(divergence="forward"), lambda p, y, _: _kl(p["teacher"], p["policy"]).mean()
    ),
    "jsd": Case(GKD(divergence="jsd"), _jsd),
    "aligndistil": Case(AlignDistil(r=2.0), _aligndistil),
    "entropy": Case(Entropy(), lambda p, y, _: (p["policy"].exp() * p["policy"]).sum(-1).mean()),
}


# --- models and data -------------------------------------------------------------------------


@dataclass(frozen=True)
class Shape:
    """How much there is to do."""

    positions: int
    vocabulary: int
    hidden: int


TOY = Shape(WARM, 64, 8)  # so that everything is imported before memory is looked at


def model(shape: Shape, seed: int, *, open_embedding: bool = False) -> LlamaForCausalLM:
    """A model without layers."""
    torch.manual_seed(seed)
    made = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=shape.vocabulary,
            hidden_size=shape.hidden,
            num_hidden_layers=0,
            num_attention_heads=1,
            intermediate_size=1,
            tie_word_embeddings=False,
            max_position_embeddings=shape.positions + 1,
        )
    )
    nn.init.normal_(made.lm_head.weight, std=SPREAD / shape.hidden**0.5)
    made.get_input_embeddings().weight.requires_grad_(open_embedding)
    return made


def read_roles(case: Case) -> list[str]:
    """Roles whose logits the step needs; snapshots are given."""
    return sorted({role for signal in case.method.signals().values() for role in signal.roles})


def batch_of(case: Case, positions: int, vocabulary: int) -> Batch:
    """ROWS sequences of one length that are read at so many positions together."""
    draw = torch.Generator().manual_seed(0)
    ids = torch.randint(1, vocabulary, (ROWS, positions // ROWS + 1), generator=draw).tolist()
    rows = [Tokens(tuple(row[:1]), tuple(row[1:])) for row in ids]
    each = case.method.batch.rows_per_item
    items = [Item(tuple(rows[i :: ROWS // each])) for i in range(ROWS // each)]
    return case.method.batch.collate(items, 0)


@torch.no_grad()
def reference(policy: LlamaForCausalLM, batch: Batch) -> Tensor:
    """[B, S] the policy's own log-probabilities of the answers, row by row."""
    grid = torch.zeros(batch.ids.shape)
    for n, row in enumerate(batch.ids):
        p = functional.log_softmax(policy(input_ids=row[None], use_cache=False).logits[0], -1)
        grid[n, batch.mask[n]] = _label(p, batch.labels[n])[batch.mask[n]]
    return grid


def given(
    case: Case, shape: Shape, models: Mapping[str, LlamaForCausalLM] | None = None
) -> tuple[Batch, Tensor]:
    """A batch, and what a snapshot says of it: of a policy at its start, or nothing."""
    batch = batch_of(case, shape.positions, shape.vocabulary)
    if models is None or not case.method.snapshots():
        return batch, torch.zeros(batch.ids.shape)
    return batch, reference(models["policy"], batch)


# --- ways ------------------------------------------------------------------------------------


def naive(
    case: Case, models: Mapping[str, LlamaForCausalLM], *, keep: bool = True
) -> Callable[[Batch, Tensor], float]:
    """One step by autograd."""

    def step(batch: Batch, given: Tensor) -> float:
        logits, logs = {}, {}
        for role, net in models.items():
            with torch.set_grad_enabled(role == "policy"):
                hidden = net.model(input_ids=batch.ids, use_cache=False).last_hidden_state
                made = net.lm_head(hidden[batch.mask])
                logs[role] = functional.log_softmax(made, -1)
                logits |= {role: made} if keep else {}
            del made
        loss = case.naive(logs, batch.labels[batch.mask], given[batch.mask])
        if not keep:
            del logs
        loss.backward()
        return loss.item()

    return step


def engine(
    case: Case, models: Mapping[str, LlamaForCausalLM], chunk_mb: int = 256
) -> Callable[[Batch, Tensor], float]:
    """One step by alignzoo; all items are one micro-batch."""
    ranks, optim = start_ranks("fp32"), Optim(micro_batch_size=ROWS, chunk_mb=chunk_mb)
    scorer = SCORERS[optim.scorer](chunk_mb * 2**20)
    module = ScoringModule(models, frozenset({"policy"}), scorer)
    stepper = Stepper(case.method, build_layout(ranks, module, optim, "ddp"), optim, ranks)
    state = case.method.init_state()
    first: list[Stepper] = []

    def step(batch: Batch, given: Tensor) -> float:
        known = {name: given for name in case.method.snapshots()}
        items = torch.arange(batch.n_items)
        if not first:  # as the loop decides at the first step of a stage
            first.append(stepper.decided(None, batch, known, items, state))
        sums, terms = first[0].gradients(batch, known, items, state, {})
        found = sums.reduce(ranks)
        return sum(found[f"term/{name}"] * scale for name, scale in terms.scales.items())

    return step


def matmuls(case: Case, models: Mapping[str, LlamaForCausalLM]) -> Callable[[Batch, Tensor], float]:
    """Logits of every role, and two products for the gradients of the one that learns."""
    weights = {role: net.lm_head.weight.detach() for role, net in models.items()}
    own = weights["policy"]
    hidden = {role: torch.randn(CHUNK, own.shape[1]) for role in models}
    logits, states, grad = torch.empty(CHUNK, len(own)), torch.empty(CHUNK, own.shape[1]), None

    def step(batch: Batch, given: Tensor) -> float:
        nonlocal grad
        grad = torch.zeros_like(own) if grad is None else grad
        for _ in range(0, int(batch.mask.sum()), CHUNK):
            for role, weight in weights.items():
                torch.mm(hidden[role], weight.t(), out=logits)
            torch.mm(logits, own, out=states)
            grad.addmm_(logits.t(), hidden["policy"])
        return 0.0

    return step


WAYS = {
    "naive": naive,
    "leanest": partial(naive, keep=False),
    "engine": engine,
    "matmuls": matmuls,
}


# --- figures ---------------------------------------------------------------------------------


def memory(key: str) -> float:
    """VmRSS or VmHWM of this process in MB."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(int(x.split()[1]) for x in lines if x.startswith(key)) * 1024 / MB


def measure(case: Case, way: str, shape: Shape) -> dict[str, float]:
    """CPU seconds and peak of one step, after a small one."""
    roles = read_roles(case)
    WAYS[way](case, {role: model(TOY, n) for n, role in enumerate(roles)})(*given(case, TOY))
    models = {role: model(shape, n) for n, role in enumerate(roles)}
    small, batch = (
        given(case, replace(shape, positions=n), models) for n in (WARM, shape.positions)
    )
    step = WAYS[way](case, models)
    Path("/proc/self/clear_refs").write_text("5")  # the peak so far is forgotten
    before = memory("VmRSS")
    step(*small)
    models["policy"].zero_grad()
    started = os.times()
    loss = step(*batch)
    ended = os.times()
    system = ended.system - started.system
    return {
        "cpu": ended.user - started.user + system,
        "system": system,
        "peak": memory("VmHWM") - before,
        "loss": loss,
    }


def gradient_error(case: Case, shape: Shape) -> dict[str, float]:
    """Distance of gradients from those of float64, of the engine as a multiple of naive ones."""
    grads = {}
    for name, way in (("exact", naive), ("naive", naive), ("engine", engine)):
        made = {r: model(shape, n, open_embedding=True) for n, r in enumerate(read_roles(case))}
        batch, known = given(case, shape, made)
        if name == "exact":
            made, known = {role: net.double() for role, net in made.items()}, known.double()
        more = {"chunk_mb": 1} if way is engine else {}  # so that there are several chunks
        way(case, made, **more)(batch, known)
        grads[name] = [p.grad.double() for p in made["policy"].parameters()]
    errors = {
        name: [float((a - b).norm()) for a, b in zip(grads[name], grads["exact"], strict=True)]
        for name in ("naive", "engine")
    }
    ratios = [a / b for a, b in zip(errors["engine"], errors["naive"], strict=True)]
    return {"error": max(ratios)}


def main() -> None:
    """Print one object."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("quantity", choices=CASES)
    parser.add_argument("way", choices=[*WAYS, "error"])
    for name in ("positions", "vocabulary", "hidden"):
        parser.add_argument(f"--{name}", type=int, required=True)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    shape, case = Shape(asked.positions, asked.vocabulary, asked.hidden), CASES[asked.quantity]
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)  # nothing is written, and nothing of this folder is imported
        error = asked.way == "error"
        found = gradient_error(case, shape) if error else measure(case, asked.way, shape)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
