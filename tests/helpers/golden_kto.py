"""What KTO gives for a golden case: matched rows, and mismatched ones for the KL estimate."""

import torch
from alignzoo_kto import KTO
from golden_cases import check_aligned, fit, known_keys, tokens
from logit_models import evaluate

from alignzoo import Item, LabelledBatch
from alignzoo.ops import implicit_reward, sequence_sum

PARTS = ("target", "kl")
LOGITS = {"policy": "policy_logits", "reference": "ref_logits"}


def kto_of(hparams):
    known_keys(hparams, {"beta", "desirable_weight", "undesirable_weight"}, "hparams")
    return KTO(**hparams)


def labelled_batch(case):
    """Matched and mismatched rows with the labels of the matched ones."""
    rows = [
        [
            tokens(ids, attended, int(n))
            for ids, attended, n in zip(
                case.ints(part, "input_ids"),
                case.ints(part, "attention_mask"),
                case.ints("prompt_lens"),
                strict=True,
            )
        ]
        for part in PARTS
    ]
    labels = case.inputs["labels"]
    items = [Item(row, {"desirable": label}) for *row, label in zip(*rows, labels, strict=True)]
    return LabelledBatch.collate(items, pad_id=0)


def check_kto(case, scorer):
    known_keys(case.inputs, {"labels", "prompt_lens", "hparams", *PARTS}, "inputs")
    algorithm, batch = kto_of(case.hparams), labelled_batch(case)
    for part, rows in zip(PARTS, (batch.matched, batch.mismatched), strict=True):
        check_aligned(case, batch, rows, part)
    width = batch.ids.shape[1]
    tables = {
        role: torch.cat([fit(case.tensor(part, key), width) for part in PARTS])
        for role, key in LOGITS.items()
    }
    run = evaluate(algorithm, batch, tables, scorer)
    return {"loss": run.total, **kto_values(run), **kto_gradients(case, run)}


def kto_values(run):
    """Log-probabilities, the estimate z0 and the rewards."""
    batch, signals, logged = run.batch, run.signals, run.loss.metrics
    policy, reference = signals["policy"], signals["reference"]
    start = implicit_reward(1.0, signals["start"], reference, batch.mask)
    ratio = implicit_reward(1.0, policy, reference, batch.mask)
    given = {
        name: logged[f"rewards/{name}"].value[logged[f"rewards/{name}"].weight > 0]
        for name in ("desirable", "undesirable")
    }
    return {
        "kl_estimate": signals["z0"][0],
        "kl_per_pair_logratio": start[batch.mismatched],
        "policy_logps": sequence_sum(policy, batch.mask)[batch.matched],
        "ref_logps": sequence_sum(reference, batch.mask)[batch.matched],
        "logratios": ratio[batch.matched],
        **{f"{name}_rewards": x for name, x in given.items()},
    }


def kto_gradients(case, run):
    grad, batch = run.gradient(), run.batch
    width = len(case.inputs["target"]["input_ids"][0])
    return {
        "grad_policy_logits": fit(grad[batch.matched], width),
        "grad_kl_policy_logits_is_zero": not grad[batch.mismatched].any(),
    }
