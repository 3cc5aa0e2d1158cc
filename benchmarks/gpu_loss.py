"""The loss op on a GPU: hidden states to rows and gradients, beside its own matrix products.

    python benchmarks/gpu_loss.py [--json] [--tiny]

8,192 positions, H = 1,536, V = 151,936, bf16 states and weights, float32 logits, a known upstream.
`torch` are the closed forms in torch, `kernels` those of Triton. GEMMs are the op's own products in
the same chunks: one per role, two more for the role that learns. Memory is the peak over inputs,
gradients included. Times are medians of CUDA events. Half a minute of one GPU.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any
from unittest.mock import patch

import torch
from alignzoo_aligndistil import AlignDistil
from torch import Tensor, nn

from alignzoo.closed import kernels
from alignzoo.engine.models.heads import Head
from alignzoo.engine.scoring.fused import Fused
from alignzoo.ops import kl, log_prob

LOSSES = {
    "aligndistil": AlignDistil(r=2.0).signals(),
    "reverse_kl": {"kl": kl("policy", "teacher")},
    "log_prob": {"lp": log_prob("policy")},
}
ROUNDS, GB = 7, 1e9


@dataclass(frozen=True)
class Case:
    """A loss and what it is given."""

    name: str
    size: tuple[int, int, int]  # N, H, V
    dtype: torch.dtype
    device: str

    @property
    def roles(self) -> list[str]:
        return sorted({r for s in LOSSES[self.name].values() for r in s.roles}, reverse=True)

    def inputs(self) -> tuple[dict[str, Tensor], dict[str, Head], Tensor]:
        """States of a spread that makes logits as large as a trained model's."""
        torch.manual_seed(0)
        n, h, v = self.size
        how: Any = {"device": self.device, "dtype": self.dtype}
        states, heads = {}, {}
        shared, base = torch.randn(n, h, **how), torch.randn(v, h, **how)
        for role in self.roles:
            linear = nn.Linear(h, v, bias=False, **how)
            linear.weight.data.copy_(base + 0.1 * torch.randn(v, h, **how)).mul_(4 * h**-0.5)
            linear.requires_grad_(role == "policy")
            heads[role] = Head(linear)
            states[role] = shared + 0.1 * torch.randn(n, h, **how)
            states[role].requires_grad_(role == "policy")
        return states, heads, torch.randint(v, (n,), device=self.device)


class Known:
    """An upstream of ones."""

    def pays(self, chunks: int) -> bool:
        return True

    def missed(self) -> None:
        raise SystemExit("the forecast was wrong")

    def __call__(self, at: slice, rows: dict[str, Tensor], learn: Any) -> dict[str, Tensor]:
        return {name: torch.ones_like(rows[name]) for name in learn}


def timed(work: Callable[[], Any], device: str, rounds: int = ROUNDS) -> float:
    """Median milliseconds, after two rounds to warm up."""
    if device == "cpu":
        work()
        return float("nan")
    spans = []
    for k in range(rounds + 2):
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        work()
        end.record()
        torch.cuda.synchronize()
        spans += [begin.elapsed_time(end)] if k > 1 else []
    return statistics.median(spans)


def loss_op(case: Case, budget: int, mixed: bool) -> tuple[Callable[[], None], int]:
    """One forward and backward pass, and the positions of a chunk."""
    states, heads, labels = case.inputs()
    scorer = Fused(budget)
    leaves = [states["policy"], heads["policy"].linear.weight]

    def work() -> None:
        around = torch.autocast("cuda", torch.bfloat16) if mixed else nullcontext()
        with around:
            rows = scorer(states, heads, labels, LOSSES[case.name], Known())
        total = sum(x.sum() for x in rows.values() if x.requires_grad)
        torch.autograd.backward(total, inputs=leaves)
        for leaf in leaves:
            leaf.grad = None

    return work, max(64, budget // (8 * len(heads) * case.size[2]) // 64 * 64)


def products(case: Case, chunk: int) -> Callable[[], None]:
    """The matrix products alone."""
    states, heads, _ = case.inputs()
    n, h, v = case.size
    weights = {role: head.linear.weight.detach().bfloat16() for role, head in heads.items()}
    z = torch.empty(chunk, v, device=case.device)
    dz = torch.randn(chunk, v, device=case.device).bfloat16()
    dh, dw = torch.empty(n, h, device=case.device), torch.zeros(v, h, device=case.device)
    own = {role: x.detach().bfloat16() for role, x in states.items()}

    def work() -> None:
        for start in range(0, n, chunk):
            m = min(chunk, n - start)
            for role, x in own.items():
                here = x[start : start + m]
                torch.mm(here, weights[role].t(), out_dtype=torch.float32, out=z[:m])
            here = own["policy"][start : start + m]
            place = dh[start : start + m]
            torch.mm(dz[:m], weights["policy"], out_dtype=torch.float32, out=place)
            torch.addmm(dw, dz[:m].t(), here, out_dtype=torch.float32, out=dw)

    return work


def syncs(work: Callable[[], None]) -> int:
    """How often the host waits for the device."""
    import warnings

    torch.cuda.set_sync_debug_mode("warn")
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        work()
    torch.cuda.set_sync_debug_mode("default")
    return sum("synchroniz" in str(w.message) for w in seen)


def measure(case: Case, budget: int, mixed: bool = False) -> dict[str, Any]:
    """One row of the table."""
    on_gpu = case.device == "cuda"
    found: dict[str, Any] = {"loss": case.name + (" mixed" if mixed else "")}
    for way in ("torch", "kernels"):
        off = patch.object(kernels, "serve", lambda *logits: False)
        with off if way == "torch" else nullcontext():
            work, chunk = loss_op(case, budget, mixed)
            work()
            if on_gpu:
                found[f"{way}_syncs"] = syncs(work)
            del work
            empty(on_gpu)
            work, chunk = loss_op(case, budget, mixed)
            before = torch.cuda.memory_allocated() if on_gpu else 0
            if on_gpu:
                torch.cuda.reset_peak_memory_stats()
            found[f"{way}_ms"] = timed(work, case.device)
            if on_gpu:
                found[f"{way}_gb"] = (torch.cuda.max_memory_allocated() - before) / GB
            del work
            empty(on_gpu)
    if on_gpu:
        found |= {"chunk": chunk, "gemm_ms": timed(products(case, chunk), case.device)}
        found["ratio"] = found["kernels_ms"] / found["gemm_ms"]
    return found


def empty(on_gpu: bool) -> None:
    if on_gpu:
        torch.cuda.synchronize()
        torch.cuda.empty_cache()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--tiny", action="store_true", help="toy shapes on any machine")
    parser.add_argument("--gb", type=float, default=3.0, help="the scorer's budget")
    asked = parser.parse_args()
    size, device = ((130, 16, 5000), "cpu") if asked.tiny else ((8192, 1536, 151_936), "cuda")
    budget = int(asked.gb * 2**30)
    dtype = torch.float32 if asked.tiny else torch.bfloat16
    rows = []
    for name in LOSSES:
        rows.append(measure(Case(name, size, dtype, device), budget))
        print(rows[-1], flush=True)
    if not asked.tiny:
        rows.append(measure(Case("aligndistil", size, torch.float32, device), budget, mixed=True))
        print(rows[-1], flush=True)
    found: dict[str, Any] = {"rows": rows}
    if not asked.tiny:
        found["device"] = torch.cuda.get_device_name()
    if asked.json:
        print(json.dumps(found))


if __name__ == "__main__":
    main()
