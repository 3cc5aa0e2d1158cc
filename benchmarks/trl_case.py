"""One training run of TRL, in an environment that has it: what vs_trl.py starts, not for people.

    PEERS/bin/python -P benchmarks/trl_case.py CASE.json

The case names the trainer, its settings and its data; the last line printed holds the losses that
it logged, or why the trainer is not there.
"""

import importlib
import json
import sys
from pathlib import Path

import torch
from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer

COMMON = {
    "logging_steps": 1,
    "save_strategy": "no",
    "report_to": "none",
    "use_cpu": True,
    "bf16": False,
    "gradient_checkpointing": False,
    "seed": 0,
    "disable_tqdm": True,
    "learning_rate": 1e-6,
}


def length(completions, **rest):
    """The reward: characters of an answer."""
    return [float(len(text)) for text in completions]


def loaded(kind, folder):
    return kind.from_pretrained(folder, dtype=torch.float32)


def main(case):
    module = importlib.import_module(case["module"])
    trainer = getattr(module, case["trainer"], None)
    if trainer is None:
        return {"absent": f"{case['module']} has no {case['trainer']}"}
    settings = getattr(module, case["trainer"].replace("Trainer", "Config"))
    args = settings(output_dir=case["output"], **COMMON, **case["settings"])
    head = AutoModelForSequenceClassification if case["scalar"] else AutoModelForCausalLM
    more = {"num_labels": 1} if case["scalar"] else {}
    policy = head.from_pretrained(case["model"], dtype=torch.float32, **more)
    given = {}
    if case["teacher"]:
        given["teacher_model"] = loaded(AutoModelForCausalLM, case["teacher"])
    if case["rewarded"]:
        given["reward_funcs"] = length
    rows = [json.loads(line) for line in Path(case["data"]).read_text().splitlines()]
    tokenizer = AutoTokenizer.from_pretrained(case["model"], padding_side=case["padding"])
    made = trainer(
        model=policy,
        args=args,
        train_dataset=Dataset.from_list(rows),
        processing_class=tokenizer,
        **given,
    )
    made.train()
    return {"loss": [row["loss"] for row in made.state.log_history if "loss" in row]}


if __name__ == "__main__":
    torch.set_num_threads(1)
    try:
        told = main(json.loads(Path(sys.argv[1]).read_text()))
    except ModuleNotFoundError as error:
        told = {"absent": str(error)}
    print("\n" + json.dumps(told))
