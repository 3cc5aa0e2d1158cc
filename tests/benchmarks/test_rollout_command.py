"""The benchmark of rollouts at its smallest, and the loop that it compares with."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path

import pytest
import torch

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def command(monkeypatch):
    monkeypatch.syspath_prepend(BENCHMARKS)
    return importlib.import_module("rollout")


def test_the_command_shows_a_table_and_ends_with_one_line_of_figures(command, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["rollout.py", "--small", "--json", "--rounds", "1"])
    command.main()
    lines = capsys.readouterr().out.splitlines()
    found = json.loads(lines[-1])
    assert {"commit", "versions", "machine", "facts_64", "llama_32k", "small"} <= found.keys()
    assert [row["case"] for row in found["rows"]] == ["facts_64", "llama_32k"]
    assert all(row["same answers"] == 1 for row in found["rows"])
    assert any(line.startswith("| facts_64 | 8 x 6 |") for line in lines)


@torch.no_grad()
def test_the_loop_by_hand_samples_with_the_models_own_log_probs(command):
    case = command.llama(
        4, 5, vocab_size=5000, hidden_size=32, intermediate_size=64, num_hidden_layers=2
    )
    tokens, log_probs = command.Loop(case.model, case.prompts, 5).sample(torch.rand(4, 5))
    for prompt, ids, found in zip(case.prompts, tokens, log_probs, strict=True):
        row = torch.cat([torch.tensor(prompt), ids])[None]
        logits = case.model(row).logits[0, len(prompt) - 1 : -1].log_softmax(-1)
        torch.testing.assert_close(found, logits.gather(1, ids[:, None])[:, 0])


def test_samples_that_are_not_those_of_the_loop_are_no_figure(command, monkeypatch):
    case = command.facts(4, 4)
    monkeypatch.setattr(command.Loop, "sample", lambda loop, noise: (noise.long(), noise))
    with pytest.raises(SystemExit, match=r"only 0.0% of the answers"):
        command.measure("facts_64", case, 1)
