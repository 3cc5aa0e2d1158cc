"""Sampling on a GPU: steps launched one by one against steps that are replayed as a graph.

    python benchmarks/gpu_decode.py [--json] [--tiny]

First that both sample the same tokens, whatever happens to rows, columns and weights; then
milliseconds per step and tokens per second of a Qwen2.5-1.5B shape with random weights, 32 prompts
of 256 tokens, 256 new ones. The floor is the time in which the weights are read once.
"""

from __future__ import annotations

import argparse
import json
import time
import traceback
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import torch
from gpu_stages import FULL, SMALL, TINY, Shape, config_of

from alignzoo.contract.rollout import Sampling, sample_key
from alignzoo.engine.models.heads import product
from alignzoo.engine.sampling import static
from alignzoo.engine.sampling.generate import TransformersSession
from alignzoo.engine.sampling.rounded import rounded
from alignzoo.engine.sampling.static import Replaying, StaticDecoder
from alignzoo.engine.sampling.ways import Way, stepping_mode, way_of

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
BANDWIDTH = {"H200": 4.3e12, "H100": 3.0e12}  # bytes per second that are reached
PLAIN, REPLAYED, LIBRARY = Way(stepped=True), Way(stepped=True, captured=True), Way()


def built(shape: Shape, dtype: torch.dtype) -> Any:
    """A model of this shape with random weights."""
    from transformers import Qwen2ForCausalLM

    torch.manual_seed(0)
    with torch.device(DEVICE):
        return Qwen2ForCausalLM(config_of(shape)).to(dtype).eval()


def prompts_of(shape: Shape, rows: int) -> list[tuple[int, ...]]:
    """Random ones of full length, all different."""
    draws = torch.Generator().manual_seed(2)
    ids = torch.randint(3, shape.vocabulary, (rows, shape.prompt), generator=draws).tolist()
    return [tuple(row) for row in ids]


def sampled(model: Any, way: Way, prompts: Any, sampling: Sampling) -> list[Any]:
    """The completions of a batch."""
    keys = [sample_key(n) for n in range(len(prompts))]
    return TransformersSession(model, len(prompts), way).generate(prompts, sampling, keys)


def nearer(one: Any, other: Any) -> tuple[int, float]:
    """Tokens up to the first that differs, and the largest difference of their log-probs."""
    same = (n for n, (a, b) in enumerate(zip(one.ids, other.ids, strict=False)) if a != b)
    n = next(same, min(len(one.ids), len(other.ids)))
    gaps = [abs(a - b) for a, b in zip(one.log_probs[:n], other.log_probs[:n], strict=True)]
    return n, max(gaps, default=0.0)


# --- the same tokens --------------------------------------------------------------------------


def checks(shape: Shape) -> dict[str, bool]:
    """What holds of a small model in float32; each of them sampled in two ways."""
    model = built(shape, torch.float32)
    mixed = [p[: 4 + n % 13] for n, p in enumerate(prompts_of(shape, 24))] + [(5, 6, 7)] * 8
    stops = Sampling(96, stop_ids=tuple(range(0, shape.vocabulary, 29)), min_new_tokens=2)
    every = Sampling(96)
    found = {}

    def same(name: str, sampling: Sampling) -> None:
        plain, replayed = (sampled(model, way, mixed, sampling) for way in (PLAIN, REPLAYED))
        pairs = list(zip(plain, replayed, strict=True))
        other = [n for n, (a, b) in enumerate(pairs) if a.ids != b.ids]
        gap = max(nearer(a, b)[1] for a, b in pairs)
        found[name] = len(other) <= 2 and gap < 1e-3  # a token at a boundary, by rounding
        starts = [nearer(*pairs[n])[0] for n in other]
        print(f"{name}: rows {other} differ from tokens {starts} on; log-probs by {gap:.1e}")

    found["its trial says that it can be replayed"] = way_of(model).captured
    same("rows leave", stops)
    same("places fill", every)
    before = [one.ids for one in sampled(model, REPLAYED, mixed, every)]
    with torch.no_grad():
        for weight in model.parameters():
            weight.mul_(1.05)
    same("weights change in place", every)
    after = [one.ids for one in sampled(model, REPLAYED, mixed, every)]
    found["and with them the tokens"] = after != before
    for weight in model.parameters():
        weight.data = weight.data * 0.97
    same("weights lie elsewhere", every)
    one_by_one, replayed = (gap(model, way, mixed, every) for way in (PLAIN, REPLAYED))
    print(
        f"log-probs against full forwards, autocast: {one_by_one:.4f} and {replayed:.4f} replayed"
    )
    found["under autocast log-probs are as near to full forwards"] = replayed < 1.2 * one_by_one
    found.update(waiting(model, mixed))
    return found


@torch.no_grad()
def gap(model: Any, way: Way, prompts: Any, sampling: Sampling) -> float:
    """Mean difference of the samples' log-probs to those of full forwards, under autocast."""
    keys = [sample_key(n) for n in range(len(prompts))]
    total, n = 0.0, 0
    with torch.autocast(DEVICE.type, torch.bfloat16):
        done = TransformersSession(model, len(prompts), way).generate(prompts, sampling, keys)
        for prompt, one in zip(prompts, done, strict=True):
            ids = torch.tensor([[*prompt, *one.ids]], device=DEVICE)
            hidden = model.model(ids, use_cache=False).last_hidden_state[0, len(prompt) - 1 : -1]
            right = product(model.lm_head, hidden).log_softmax(-1)
            right = right.gather(1, ids[0, len(prompt) :, None])[:, 0]
            total += float((right - torch.tensor(one.log_probs, device=DEVICE)).abs().sum())
            n += len(one.ids)
    return total / n


def waiting(model: Any, prompts: Any) -> dict[str, bool]:
    """A model whose layers wait for the device is sampled without a graph, and so are others."""

    def ask(module: Any, args: Any, out: Any) -> Any:
        return out * float(out[0, 0, 0] * 0 + 1)

    hook, short = model.model.norm.register_forward_hook(ask), Sampling(8)
    way = way_of(model)
    print(f"a model that waits: {way.remark or 'no remark'}")
    plain, other = sampled(model, way, prompts, short), sampled(model, PLAIN, prompts, short)
    alike = [one.ids for one in plain] == [one.ids for one in other]
    hook.remove()
    return {
        "a model that waits says so": "waits for the device" in way.remark and way.stepped,
        "and is sampled all the same": alike,
        "and the next one is replayed": way_of(model).captured,
    }


# --- time -------------------------------------------------------------------------------------


def rate(run: Callable[[int], Any], few: int, many: int) -> float:
    """Seconds per step, without what comes before the first ones."""
    took = []
    for steps in (few, few, many):
        wait()
        start = time.perf_counter()
        run(steps)
        wait()
        took.append(time.perf_counter() - start)
    return (took[2] - took[1]) / (many - few)


def wait() -> None:
    """Until the device has done all."""
    if DEVICE.type == "cuda":
        torch.cuda.synchronize()


def rates(shape: Shape, rows: int, new: int, dtype: torch.dtype, name: str) -> dict[str, float]:
    """Milliseconds per step of every way, in bf16 or float32 under autocast."""
    model = built(shape, dtype)
    prompts = prompts_of(shape, rows)
    around = (
        nullcontext() if dtype == torch.bfloat16 else torch.autocast(DEVICE.type, torch.bfloat16)
    )
    found = {}
    with around:
        for how, way in (("generate", LIBRARY), ("steps", PLAIN), ("replayed", REPLAYED)):
            many = new if how == "replayed" else new // 4 + 9

            def run(steps: int, way: Way = way) -> None:
                sampled(model, way, prompts, Sampling(steps))

            found[f"{name}, {how}"] = guarded(lambda: rate(run, 8, many) * 1e3)  # noqa: B023
        found[f"{name}, replayed, whole call"] = guarded(lambda: whole(model, prompts, new))
        found[f"{name}, one replay alone"] = guarded(lambda: alone(model, prompts))
    if DEVICE.type == "cuda":
        band = next((x for n, x in BANDWIDTH.items() if n in torch.cuda.get_device_name()), 2e12)
        head = model.lm_head.weight
        body = sum(x.numel() for x in model.parameters()) * 2
        found[f"{name}, floor"] = (body + head.numel() * 4) / band * 1e3
    return found


def whole(model: Any, prompts: Any, new: int) -> float:
    """Milliseconds per token of a whole call: prompts, records and all."""
    wait()
    start = time.perf_counter()
    sampled(model, REPLAYED, prompts, Sampling(new))
    wait()
    return (time.perf_counter() - start) / new * 1e3


@torch.inference_mode()
def alone(model: Any, prompts: Any) -> float:
    """Milliseconds of the device for one step without drawing."""
    decoder = Replaying(StaticDecoder(model, 64))
    with stepping_mode(model), rounded(model):
        tokens = decoder.begin(prompts).argmax(-1)
        decoder.next(tokens)
        decoder.next(tokens)
        start = time.perf_counter()
        decoder.next(tokens)
        wait()
        print(f"recording took {(time.perf_counter() - start) * 1e3:.0f} ms")
        start = time.perf_counter()
        for _ in range(40):
            decoder.next(tokens)
        wait()
    return (time.perf_counter() - start) / 40 * 1e3


def guarded(measure: Callable[[], Any]) -> Any:
    """What is measured; a failure is shown, and the rest goes on."""
    try:
        return measure()
    except Exception:
        traceback.print_exc()
        return None


def profile(shape: Shape) -> None:
    """The kernels of one replay that take longest."""
    from torch.profiler import ProfilerActivity
    from torch.profiler import profile as traced

    model, prompts = built(shape, torch.bfloat16), prompts_of(shape, shape.rows)
    decoder = Replaying(StaticDecoder(model, 64))
    with torch.inference_mode(), stepping_mode(model):
        tokens = decoder.begin(prompts).argmax(-1)
        for _ in range(4):
            decoder.next(tokens)
        wait()
        with traced(activities=[ProfilerActivity.CUDA]) as seen:
            decoder.next(tokens)
            wait()
    print(
        seen.key_averages().table(sort_by="cuda_time_total", row_limit=14, max_name_column_width=70)
    )


def main() -> None:
    """Print a table, and with --json one line of numbers at the end."""
    asked = argparse.ArgumentParser()
    asked.add_argument("--json", action="store_true")
    asked.add_argument("--tiny", action="store_true", help="toy shapes, on any machine")
    given = asked.parse_args()
    small, shape, new = (TINY, TINY, 48) if given.tiny else (SMALL, FULL, 256)
    rows = shape.rows
    usual = static.WIDER, static.FEW
    static.WIDER, static.FEW = 24, 2  # so that places fill and rows leave
    found: dict[str, Any] = guarded(lambda: checks(small)) or {}
    static.WIDER, static.FEW = usual
    for name, held in found.items():
        print(f"{'holds' if held else 'FAILS'}  {name}")
    for dtype, name in ((torch.bfloat16, "bf16"), (torch.float32, "autocast")):
        times = guarded(lambda: rates(shape, rows, new, dtype, name)) or {}  # noqa: B023
        for what, ms in times.items():
            if ms is not None:
                print(f"{what:32} {ms:8.2f} ms per step {rows / ms * 1e3:10,.0f} tokens/s")
        found.update(times)
    if DEVICE.type == "cuda":
        guarded(lambda: profile(shape))
    if given.json:
        print(json.dumps(found))


if __name__ == "__main__":
    main()
