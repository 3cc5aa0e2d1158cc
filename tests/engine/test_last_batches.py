"""Every row is trained on in every epoch, for any number of processes."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from alignzoo_kto import KTO
from alignzoo_ppo import PPO
from alignzoo_sft import SFT
from engine_jobs import job, rollout

from alignzoo import LabelledBatch, TextBatch
from alignzoo.contract.errors import DataError
from alignzoo.engine.layout.optim import Optim
from alignzoo.engine.sampling.generate import TransformersEngine, TransformersSession
from alignzoo.engine.sampling.ways import Way
from alignzoo.engine.train.cut import Cut
from alignzoo.engine.train.job import Validation
from alignzoo.engine.train.loop import train
from alignzoo.engine.train.sources import schedule
from alignzoo.testing import tiny_models, toy_items

HERE = Path(__file__).resolve().parent
PLACES = [str(HERE), str(HERE.parent / "helpers")]


def rows(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def plain_loss(model, items):
    """The mean negative log-likelihood of all response tokens, in plain transformers."""
    losses = []
    for item in items:
        (row,) = item.rows
        with torch.no_grad():
            logits = model(torch.tensor([row.prompt + row.response])).logits[0]
        picked = logits.log_softmax(-1)[len(row.prompt) - 1 : -1]
        log_probs = picked.gather(1, torch.tensor(row.response)[:, None])
        losses += (-log_probs).flatten().tolist()
    return sum(losses) / len(losses)


def test_the_last_batch_of_an_epoch_is_trained_on_with_its_own_loss(tmp_path):
    items = toy_items(TextBatch, 5)
    optim = Optim(epochs=3, batch_size=4, micro_batch_size=4, lr=1e-30, shuffle=False)
    train(job(tmp_path / "run", SFT(), items=items, optim=optim))
    model = tiny_models(SFT())["policy"]
    expected = [plain_loss(model, items[:4]), plain_loss(model, items[4:])] * 3
    assert [row["loss"] for row in rows(tmp_path / "run")] == pytest.approx(expected, abs=1e-5)


def test_a_rest_too_small_for_a_method_joins_the_batch_before_it(tmp_path):
    items = toy_items(LabelledBatch, 9)
    train(job(tmp_path / "run", KTO(), items=items, optim=Optim(batch_size=4, lr=1e-3)))
    assert len(rows(tmp_path / "run")) == 2
    train(job(tmp_path / "more", KTO(), items=items[:6], optim=Optim(batch_size=4, lr=1e-3)))
    assert len(rows(tmp_path / "more")) == 2
    with pytest.raises(DataError, match=r"1 samples are left .* needs 2"):
        train(job(tmp_path / "one", KTO(), items=items[:1], optim=Optim(batch_size=4)))


def test_prompts_that_do_not_fill_a_buffer_are_a_smaller_buffer(tmp_path):
    asked = []

    class Session(TransformersSession):
        def generate(self, prompts, sampling, keys):
            asked.append(list(map(tuple, prompts)))
            return super().generate(prompts, sampling, keys)

    @dataclass(frozen=True)
    class Engine(TransformersEngine):
        def start(self, model):
            return Session(model, 16, Way())

    block = rollout(5, engine=Engine(), prompts_per_buffer=4, samples_per_prompt=2, epochs=2)
    optim = Optim(epochs=2, batch_size=4, micro_batch_size=2, lr=1e-3)
    train(job(tmp_path / "run", PPO(), rollout=block, optim=optim))
    assert [len(prompts) for prompts in asked] == [8, 2] * 2
    for epoch in (asked[:2], asked[2:]):
        assert sorted([*epoch[0], *epoch[1]]) == sorted([*block.prompts] * 2)
    assert len(rows(tmp_path / "run")) == 2 * (2 * 2 + 2 * 1)  # epochs x (8 and 2 rows by 4, twice)


JOBS = """
import sys
from dataclasses import replace
from pathlib import Path
sys.path[:0] = {places!r}
from alignzoo.engine.parallel.agreement import end
from alignzoo.engine.parallel.ranks import start_ranks
from alignzoo.engine.train.loop import train
from test_last_batches import runs
ranks = start_ranks("fp32")
for name, made in runs(Path({folder!r})):
    train(replace(made, ranks=ranks))
print("ranks", ranks.size)
ranks.barrier()
end(0)
"""


def runs(folder):
    """Runs whose shares are uneven or empty on two or three ranks."""
    optim = Optim(epochs=2, batch_size=4, micro_batch_size=1, lr=1e-2, save_every=100)
    labelled = toy_items(LabelledBatch, 6)
    texts = toy_items(TextBatch, 5)
    held_out = Validation(toy_items(TextBatch, 1, seed=3), every=2, metric="loss", sign=-1)
    block = rollout(5, prompts_per_buffer=4, samples_per_prompt=1, epochs=2)
    small = Optim(epochs=2, batch_size=2, micro_batch_size=2, lr=1e-2, save_every=100)
    yield "sft", job(folder / "sft", SFT(), items=texts, optim=optim, validation=held_out)
    yield "kto", job(folder / "kto", KTO(), items=labelled, optim=optim)
    yield "ppo", job(folder / "ppo", PPO(), rollout=block, optim=small)


@pytest.mark.slow
@pytest.mark.parametrize("ranks", [2, 3])
def test_a_rank_without_items_adds_nothing_and_keeps_no_other_waiting(tmp_path, ranks):
    alone, several = tmp_path / "alone", tmp_path / "several"
    for folder in (alone, several):
        folder.mkdir()
    for _, made in runs(alone):
        train(made)
    script = tmp_path / "train.py"
    script.write_text(JOBS.format(places=PLACES, folder=str(several)))
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command = [*launch, "--nproc-per-node", str(ranks), str(script)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    assert f"ranks {ranks}" in done.stdout
    for name in ("sft", "kto", "ppo"):
        one, other = rows(alone / name), rows(several / name)
        assert len(one) == len(other) >= 4
        for mine, theirs in zip(one, other, strict=True):
            assert mine.keys() == theirs.keys()
            for key, x in mine.items():
                assert key == "padding" or theirs[key] == pytest.approx(x, abs=1e-4, rel=1e-4), key


def test_a_billion_steps_take_no_room_and_any_batch_is_computed_from_its_index():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    long = schedule(13, Cut(5), Optim(steps=10**9, batch_size=5), 0)
    short = schedule(13, Cut(5), Optim(epochs=7, batch_size=5), 0)
    assert len(long) == 10**9 and len(short) == 21
    assert all(torch.equal(long[i], short[i]) for i in range(21))
    assert len(long[999_999_999]) in (3, 5)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50_000  # KiB


@pytest.mark.parametrize("steps", [1, 2, 3, 7, 8, 20])
def test_as_many_buffers_as_the_steps_take(steps):
    updates = {5: 3, 4: 2, 3: 1}
    found = schedule(13, Cut(5), Optim(steps=steps), 0, updates.__getitem__)
    served = [updates[len(found[i])] for i in range(len(found))]
    assert sum(served) >= steps > sum(served[:-1])
    assert found.total(updates.__getitem__) == sum(served)
