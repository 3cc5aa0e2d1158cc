"""Short runs of many methods under any layout: a script that torchrun starts on several ranks.

    python -m torch.distributed.run --standalone --nproc-per-node 2 layout_jobs.py PLAN

PLAN is JSON: a list of what `run_case` takes. The same file gives the runs of one process.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from unittest.mock import patch

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "plugins"), str(ROOT / "tests" / "helpers")]

from alignzoo_aligndistil import AlignDistil  # noqa: E402
from alignzoo_dpo import DPO, TRDPO  # noqa: E402
from alignzoo_gkd import GKD, MOPD, SDFT, SDPO  # noqa: E402
from alignzoo_grpo import GRPO  # noqa: E402
from alignzoo_kto import KTO  # noqa: E402
from alignzoo_ppo import PPO  # noqa: E402
from alignzoo_rto import RTO  # noqa: E402
from alignzoo_sft import SFT  # noqa: E402
from alignzoo_sppo import SPPO  # noqa: E402
from engine_jobs import behind_long_prompts, examples, job, rollout  # noqa: E402
from extra_methods import Renewed, Turning, Twin  # noqa: E402

from alignzoo.contract.errors import Interrupted  # noqa: E402
from alignzoo.engine.layout.optim import Optim  # noqa: E402
from alignzoo.engine.parallel.agreement import end  # noqa: E402
from alignzoo.engine.parallel.exchange import everyone  # noqa: E402
from alignzoo.engine.parallel.ranks import start_ranks  # noqa: E402
from alignzoo.engine.scoring.fused import Fused  # noqa: E402
from alignzoo.engine.scoring.scorer import SCORERS  # noqa: E402
from alignzoo.engine.train.job import Validation  # noqa: E402
from alignzoo.engine.train.loop import train  # noqa: E402
from alignzoo.testing import toy_items  # noqa: E402
from alignzoo.testing.toys import items_for  # noqa: E402


def seen(number, done, scores):
    """What a teacher reads before each answer: a prompt that says how long the answer is."""
    return [{"told": (2 + number, 2 + len(c.ids))} for c in done]


ITEMS = 13  # on two ranks, in batches of 5: shares of 3 and 2, 2 and 1
METHODS = {
    "sft": (SFT(), None),
    "dpo": (DPO(), None),
    "kto": (KTO(), None),
    "distil-off": (AlignDistil(r=2.0), None),
    "distil-on": (AlignDistil(r=2.0), {"epochs": 1, "reward": None}),
    "ppo": (PPO(), {"epochs": 2}),
    "grpo": (GRPO(), {"epochs": 1}),
    "rto": (RTO(), {"epochs": 2}),
    "dpo-on": (DPO(), {"epochs": 1, "samples_per_prompt": 3}),
    "sppo": (SPPO(eta=5.0), {"epochs": 2, "samples_per_prompt": 3}),
    "tr-dpo": (TRDPO(alpha=0.3), None),
    "renewed": (Renewed(), {"epochs": 1}),
    "twin": (Twin(), None),
    "gkd-mixed": (GKD(), {"epochs": 1, "samples_per_prompt": 1, "share": 0.5}),
    "sdft": (SDFT(follow=0.3), None),
    "sdpo": (SDPO(success=4.0), {"epochs": 1, "samples_per_prompt": 3, "views": seen}),
    "mopd": (MOPD(), None),
    "shared-prompts": (DPO(), None),
    "turning": (Turning(), None),
}


def made(
    folder, case, strategy="ddp", optim=None, items=ITEMS, precision="fp32", prompts=5, **changes
):
    """The job of a method, with uneven shares and several micro-batches."""
    algorithm, sampled = METHODS[case]
    known = {"steps": 4, "batch_size": 5, "micro_batch_size": 1, "lr": 1e-2, "save_every": 100}
    changes["optim"] = Optim(**(known | (optim or {})))
    sampled = dict(sampled) if sampled is not None else None
    if sampled is not None and "share" in sampled:
        own = toy_items(algorithm.batch, 8)
        sampled |= {"own": own, "prompts": [item.rows[0].prompt for item in own]}
    if sampled is not None:
        changes["rollout"] = rollout(n_prompts=8, prompts_per_buffer=prompts, **sampled)
    else:
        changes["items"] = items_for(algorithm, items)
    if case == "shared-prompts":
        changes["items"] = behind_long_prompts(changes["items"])
    folder.mkdir(parents=True, exist_ok=True)
    ranks = start_ranks(precision)
    return job(folder, algorithm, strategy=strategy, ranks=ranks, **changes)


def run_case(folder, case, held_out=0, stop=None, chunk=5, shown=False, **how) -> None:
    """Train in chunks of so many positions (None: as the engine would); with `held_out` items of
    validation data, up to a step, or with samples of the policy that are shown to people.
    """
    if shown:
        how["examples"] = examples()
    if held_out:
        items = toy_items(METHODS[case][0].batch, held_out, seed=3)
        how["validation"] = Validation(items, every=2, metric="loss", sign=-1)

    def ask(step, total, metrics, timing) -> None:
        if step == stop:
            os.kill(os.getpid(), signal.SIGINT)

    scorer = Fused(1, smallest=chunk, small=0) if chunk else Fused()
    try:
        with patch.dict(SCORERS, fused=lambda budget: scorer):
            trained = train(made(Path(folder), case, on_step=ask, **how))
        (Path(folder) / f"result-{everyone().rank}").write_text(" ".join(trained))
    except Interrupted:
        assert stop


def rows(folder) -> list[dict[str, float]]:
    """What was logged."""
    return [json.loads(row) for row in (folder / "metrics.jsonl").read_text().splitlines()]


def on_ranks(size, plan) -> subprocess.CompletedProcess[str]:
    """Run a plan on several processes, with the interpreter and environment of this one."""
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command = [*launch, "--nproc-per-node", str(size), __file__, json.dumps(plan)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)


if __name__ == "__main__":
    for entry in json.loads(sys.argv[1]):
        run_case(**entry)
    end(0)
