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
from gpu_stages import FULL, SETTINGS, SMALL, TINY, agreement, measure, predicted

ROOT = Path(__file__).resolve().parents[1]
PAGE = Path(__file__).with_suffix(".md")
RESULT = Path(__file__).parent / "results" / "gpu.json"
LIMIT = 300  # seconds for everything
AGREEMENT = "agreement"


def run(tiny: bool, only: Sequence[str] | None = None) -> Report:
    """Every setting while there is time, each in a process of its own."""
    began, report, foreseen = time.monotonic(), Report(facts()), _predictions(tiny, only)
    for name in only or (AGREEMENT, *(s.name for s in SETTINGS)):
        setting = next((s for s in SETTINGS if s.name == name), None)
        left = LIMIT - (time.monotonic() - began)
        if setting is not None and setting.missing:
            report.skipped[name] = f"{setting.needs} is not installed"
        elif left < 20:
            report.skipped[name] = f"no time was left of {LIMIT} s"
        else:
            _take(report, name, _process(name, tiny, left))
            print(f"{name}: {time.monotonic() - began:.0f} s", file=sys.stderr, flush=True)
    for name, process in foreseen.items():
        if name in report.settings:
            report.settings[name]["predicted_bytes"] = float(process.communicate()[0])
        process.kill()
    check(report)
    return report


def _predictions(tiny: bool, only: Sequence[str] | None) -> dict[str, subprocess.Popen[str]]:
    """Processes beside the measurements, on cores that these do not use, each printing bytes."""
    hidden = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
    return {
        setting.name: subprocess.Popen(
            [*_command(setting.name, tiny), "--predict"],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=hidden,
        )
        for setting in SETTINGS
        if not setting.missing and (not only or setting.name in only)
    }


def _command(name: str, tiny: bool) -> list[str]:
    return [sys.executable, __file__, "--one", name, *(["--tiny"] if tiny else [])]


def _process(name: str, tiny: bool, seconds: float) -> Any:
    try:
        done = subprocess.run(
            _command(name, tiny),
            check=False,
            capture_output=True,
            text=True,
            timeout=seconds,
            cwd=ROOT,
        )
    except subprocess.TimeoutExpired:
        return f"took longer than the {seconds:.0f} s that were left"
    if done.returncode:
        return (done.stderr.strip().splitlines() or ["ended without a word"])[-1]
    return json.loads(done.stdout.splitlines()[-1])


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
        "commit": done.stdout.strip(),
        "machine": platform.machine(),
        "versions": {name: version(name) for name in here},
    }


def _one(name: str, tiny: bool, predict: bool) -> Any:
    setting = next((s for s in SETTINGS if s.name == name), None)
    if setting is None:
        return agreement(TINY if tiny else SMALL)
    shape = TINY if tiny else FULL
    return predicted(setting, shape) if predict else measure(setting, shape)


def main() -> int:
    """1 if something is wrong."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tiny", action="store_true", help="toy shapes, on any machine")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    parser.add_argument("--predict", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--only", nargs="+", metavar="NAME", help="these settings alone")
    given = parser.parse_args()
    if given.one:
        print(json.dumps(_one(given.one, given.tiny, given.predict)))
        return 0
    import torch

    if not given.tiny and not torch.cuda.is_available():
        print("there is no GPU here; --tiny tries the script on a CPU", file=sys.stderr)
        return 1
    report = run(given.tiny, given.only)
    print(json.dumps(asdict(report), indent=2))
    if not given.tiny:
        RESULT.write_text(json.dumps(asdict(report), indent=2) + "\n")
        PAGE.write_text(page(report))
    return int(bool(report.wrong))


if __name__ == "__main__":
    sys.exit(main())
