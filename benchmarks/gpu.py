"""One GPU, five minutes: is training right on it, how fast, and in how much memory?

    python benchmarks/gpu.py          # on a machine with a GPU; writes gpu.md and results/gpu.json
    python benchmarks/gpu.py --tiny   # toy shapes on any machine; writes nothing, times say nothing

Every setting runs in a process of its own, through the product's training loop, on a model with
random weights in the published shape of Qwen2.5-1.5B:

    agreement   losses of DPO and AlignDistil (off- and on-policy) in a small shape: float32 and
                bf16 here against float32 on the CPU, on the same inputs
    dpo, ...    tokens a second, model FLOPs of the peak (MFU), peak memory, and what
                `alignzoo plan --memory` predicts for the same stage
    fsdp2, zero3  the same with one process under the strategy, which asserts itself; its first loss
                must be DPO's

MFU counts 6 N FLOPs a token for weights that learn, 2 N for passes without gradient and for tokens
sampled, over the dense bf16 peak of the card; recomputation does not count.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

from gpu_page import Report, check, page
from gpu_stages import FULL, SETTINGS, SMALL, TINY, agreement, measure, predicted, preload

ROOT = Path(__file__).resolve().parents[1]
PAGE = Path(__file__).with_suffix(".md")
RESULT = Path(__file__).parent / "results" / "gpu.json"
LIMIT = 300.0  # seconds
AGREEMENT = "agreement"


def run(tiny: bool, only: Sequence[str] | None = None, limit: float = LIMIT) -> Report:
    """Every setting while there is time, each in a process of its own, one after the other."""
    began, report = time.monotonic(), Report(facts())
    waiting, foreseen = {}, {}
    for name in only or (AGREEMENT, *(s.name for s in SETTINGS)):
        setting = next((s for s in SETTINGS if s.name == name), None)
        if setting is not None and setting.missing:
            report.skipped[name] = f"{setting.needs} is not installed"
            continue
        waiting[name] = _started(name, tiny)
        if setting is not None:
            foreseen[name] = _started(name, tiny, "--predict")
    for name, process in waiting.items():
        left = limit - (time.monotonic() - began)
        _take(report, name, _ended(process, left))
        print(f"{name}: {time.monotonic() - began:.0f} s", file=sys.stderr, flush=True)
    for name, process in foreseen.items():
        found = _ended(process, limit - (time.monotonic() - began))
        if name in report.settings and not isinstance(found, str):
            report.settings[name]["predicted_bytes"] = found
    check(report)
    return report


def _started(name: str, tiny: bool, *more: str) -> subprocess.Popen[str]:
    """A process that imports what it needs and waits for a line, so that one can follow another.

    One that predicts does not wait, and works on cores that the measurements leave alone.
    """
    command = [sys.executable, __file__, "--one", name, *(["--tiny"] if tiny else []), *more]
    process = subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env={**os.environ, **({"CUDA_VISIBLE_DEVICES": ""} if more else {})},
    )
    return process


def _ended(process: subprocess.Popen[str], seconds: float) -> Any:
    """What a process found, or why it found nothing."""
    try:
        out, err = process.communicate("go\n", timeout=max(1.0, seconds))
    except subprocess.TimeoutExpired:
        process.kill()
        return f"took longer than the {max(0.0, seconds):.0f} s that were left"
    if process.returncode:
        return (err.strip().splitlines() or ["ended without a word"])[-1]
    return json.loads(out.splitlines()[-1])


def _take(report: Report, name: str, found: Any) -> None:
    if isinstance(found, str):
        report.wrong.append(f"{name}: {found}")
    elif name == AGREEMENT:
        report.agreement = found
    else:
        report.settings[name] = found


def facts() -> dict[str, Any]:
    """Commit, machine, versions."""
    git = ["git", "rev-parse", "--short", "HEAD"]
    done = subprocess.run(git, check=False, cwd=ROOT, capture_output=True, text=True)
    names = ("torch", "transformers", "accelerate", "deepspeed", "peft", "flash_attn")
    here = [name for name in names if importlib.util.find_spec(name)]
    return {
        "commit": os.environ.get("COMMIT") or done.stdout.strip(),
        "machine": platform.machine(),
        "versions": {name: version(name) for name in here},
    }


def _one(name: str, tiny: bool, predict: bool) -> Any:
    setting = next((s for s in SETTINGS if s.name == name), None)
    shape = TINY if tiny else FULL
    if setting is not None and predict:
        return predicted(setting, shape)
    preload()
    sys.stdin.readline()
    if setting is None:
        return agreement(TINY if tiny else SMALL)
    return measure(setting, shape)


def main() -> int:
    """1 if something is wrong."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tiny", action="store_true", help="toy shapes, on any machine")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    parser.add_argument("--predict", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--only", nargs="+", metavar="NAME", help="these settings alone")
    parser.add_argument("--limit", type=float, default=LIMIT, help="seconds for everything")
    given = parser.parse_args()
    if given.one:
        print(json.dumps(_one(given.one, given.tiny, given.predict)))
        return 0
    import torch

    if not given.tiny and not torch.cuda.is_available():
        print("there is no GPU here; --tiny tries the script on a CPU", file=sys.stderr)
        return 1
    report = run(given.tiny, given.only, given.limit)
    print(json.dumps(asdict(report), indent=2))
    if not given.tiny:
        RESULT.write_text(json.dumps(asdict(report), indent=2) + "\n")
        PAGE.write_text(page(report))
    return int(bool(report.wrong))


if __name__ == "__main__":
    sys.exit(main())
