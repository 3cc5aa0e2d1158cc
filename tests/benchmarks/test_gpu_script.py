"""The script for the first GPU, tried without one: it must not fail there on a slip."""

import importlib
import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "gpu.py"


@pytest.fixture
def gpu(monkeypatch):
    monkeypatch.syspath_prepend(SCRIPT.parent)
    return importlib.import_module("gpu")


@pytest.fixture
def stages(gpu):
    return importlib.import_module("gpu_stages")


def report(gpu, **changes):
    losses = {"cpu": [0.70, 0.60], "fp32": [0.70, 0.60], "bf16": [0.705, 0.602]}
    found = {
        "losses": [0.7, 0.6],
        "seconds_per_step": 0.5,
        "tokens_per_second": 1000.0,
        "mfu": 0.31,
        "peak_bytes": 12e9,
        "predicted_bytes": 11e9,
        "device": "a card",
    }
    other = {**found, "losses": [0.7, 0.6], **changes.pop("fsdp2", {})}
    known = {"dpo": found, "dpo-fsdp2": other}
    made = gpu.Report({"commit": "c0ffee", "versions": {"torch": "2"}}, known)
    made.agreement = {"dpo": {**losses, **changes}}
    gpu.check(made)
    return made


def test_losses_that_rounding_explains_are_right(gpu):
    assert report(gpu).wrong == []


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"fp32": [0.70, 0.61]}, "dpo in fp32"),
        ({"bf16": [0.60, 0.60]}, "dpo in bf16"),
        ({"bf16": [float("nan"), 0.6]}, "dpo in bf16"),
        ({"fsdp2": {"losses": [0.8, 0.6]}}, "dpo-fsdp2: its first loss"),
    ],
)
def test_losses_that_it_does_not_are_wrong(gpu, changes, said):
    (fault,) = report(gpu, **changes).wrong
    assert fault.startswith(said)
    assert f"**wrong**: {said}" in gpu.page(report(gpu, **changes))


def test_the_page_says_speed_and_memory_of_every_setting(gpu):
    text = gpu.page(report(gpu))
    assert "| dpo-fsdp2 | 0.50 | 1000 | 31.0% | 12.0 | 11.0 |" in text
    assert "a card; torch 2; commit c0ffee." in text


def test_parameters_are_those_of_the_published_shape(stages):
    assert stages.parameters(stages.FULL) == 1_543_714_304


def test_a_setting_runs_in_a_process_of_its_own(gpu, stages):
    found = gpu._ended(gpu._started("aligndistil-on", True), 120)
    assert len(found["losses"]) == stages.TINY.warm + stages.TINY.measured
    assert gpu._one("aligndistil-on", True, True) > 0  # what the planner says of it


@pytest.mark.grid  # every setting, minutes; one of them runs above
def test_the_whole_script_runs_in_a_toy_shape():
    done = subprocess.run(
        [sys.executable, SCRIPT, "--tiny"], check=False, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(done.stdout)
    assert found["wrong"] == []
    assert set(found["settings"]) >= {"dpo", "aligndistil-off", "aligndistil-on", "dpo-fsdp2"}
    assert all("not installed" in why for why in found["skipped"].values())
