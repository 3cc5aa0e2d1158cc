"""What AlignDistil gives for a golden case: the paper's form and the released code's."""

import dataclasses

import torch
from alignzoo_aligndistil import AlignDistil
from golden_cases import fit, known_keys, text_batch
from logit_models import evaluate, metrics

from alignzoo import RolloutBatch, TextBatch
from alignzoo.contract.types import Item, Tokens
from alignzoo.ops import sequence_mean

VARIANTS = {
    "aligndistil": ("contrastive", "adaptive"),
    "theorem1_contrast": ("contrastive", "constant"),
    "theorem1_adaptive": ("vanilla", "adaptive"),
    "theorem1": ("vanilla", "constant"),
}
DISTIL_HPARAMS = {"variant", "beta0", "epsilon", "temperature", "tvd_norm", "r", "beta"} | {
    "weight_beta0_over_beta",
    "length_normalise",
    "beta_weighting",
    "normalisation",
}
LOGITS = {"policy": "policy_logits", "teacher": "dpo_logits", "anchor": "anchor_logits"}


def distil_of(hparams, **more):
    known_keys(hparams, DISTIL_HPARAMS, "hparams")
    reward, extrapolation = VARIANTS[hparams["variant"]]
    per_sequence = "sequence_mean" if hparams.get("length_normalise", True) else "sequence_sum"
    return AlignDistil(
        reward=reward,
        extrapolation=extrapolation,
        r=hparams.get("r"),
        beta=hparams.get("beta"),
        beta0=hparams["beta0"],
        epsilon=hparams["epsilon"],
        temperature=hparams["temperature"],
        tvd=hparams["tvd_norm"],
        beta_weighting=hparams.get("beta_weighting", "per_token"),
        reduction=hparams.get("normalisation", per_sequence),
        **more,
    )


def distil_rows(run):
    """The method's per-token rows, without their prefix."""
    return {k.removeprefix("distil/"): x.detach() for k, x in run.signals.items()}


def constant_weight(case, row):
    """The weight that a constant case states is the alpha that the method used."""
    stated = case.hparams.get("weight_beta0_over_beta")
    counted = row["alpha"][row["alpha"] > 0]
    assert stated is None or torch.allclose(counted, torch.full_like(counted, stated))


def check_paper(case, scorer):
    if case.name == "theorem1_identity":
        return theorem1_identity(case)
    known = {"input_ids", "attention_mask", "prompt_lens", "position_mask", "hparams"}
    known_keys(case.inputs, known | set(LOGITS.values()), "inputs")
    batch, width = text_batch(case), len(case.inputs["input_ids"][0])
    assert torch.equal(fit(batch.mask, width), case.bools("position_mask"))
    tables = {role: fit(case.tensor(key), batch.ids.shape[1]) for role, key in LOGITS.items()}
    algorithm = distil_of(case.hparams)
    run = evaluate(algorithm, batch, tables, scorer)
    row, logged = distil_rows(run), metrics(algorithm, run.loss)
    constant_weight(case, row)
    return {
        "loss": run.total,
        "alternative_losses": {
            f"{weighting}/{reduction}": evaluate(
                dataclasses.replace(algorithm, beta_weighting=weighting, reduction=reduction),
                batch,
                tables,
                scorer,
            ).total
            for weighting in ("per_token", "none")
            for reduction in ("sequence_mean", "token_mean", "sequence_sum")
        },
        "grad_policy_logits": fit(run.gradient(), width),
        "teacher_logprobs_row_last": fit(teacher_log_probs(algorithm, batch, tables), width)[-1],
        "metrics": {
            "alpha_mean": logged["alpha/mean"],
            "alpha_max": logged["alpha/max"],
            "tvd_mean": logged["tvd/mean"],
            "kl_to_dpo_seq": logged["kl_full/teacher_seq"],
            "kl_to_dpo_token": logged["kl_full/teacher_token"],
            "token_averaged_reward": logged["reward/token_avg"],
            "sequence_reward": logged["reward/seq"],
            "response_length": batch.response.sum(-1).double().mean(),
        },
        "tvd": fit(row["tvd"], width),
        "alpha": fit(row["alpha"], width),
        "beta_t": fit(row["beta_t"], width),
        "token_kl_to_teacher": fit(row["kl"], width),
    }


def teacher_log_probs(algorithm, batch, tables):
    """[B, S, V] log-probabilities of the teacher: KL(point mass on v || teacher) = -log p(v).

    Zero outside the mask.
    """
    shape = tables["policy"].shape
    at_each = {role: x.flatten(0, 1).repeat_interleave(shape[-1], 0) for role, x in tables.items()}
    point = torch.eye(shape[-1], dtype=at_each["policy"].dtype).repeat(shape[0] * shape[1], 1)
    labels = torch.zeros(len(point), dtype=torch.int64)
    distances = algorithm.rows(at_each | {"policy": 1e4 * point}, labels)["kl"].view(shape)
    return -distances * batch.mask[..., None]


def theorem1_identity(case):
    """E[reward] - beta KL(pi || ref) == -beta KL(pi || teacher) + beta log Z, at every position."""
    known_keys(case.inputs, {"policy_logits", "dpo_logits", "ref_logits", "hparams"}, "inputs")
    known_keys(case.hparams, {"beta0", "beta"}, "hparams")
    algorithm = AlignDistil(reward="vanilla", extrapolation="constant", **case.hparams)
    names = {"policy": "policy_logits", "teacher": "dpo_logits", "anchor": "ref_logits"}
    outputs = {role: case.tensor(key) for role, key in names.items()}
    labels = torch.zeros(len(outputs["policy"]), dtype=torch.int64)
    row, beta = algorithm.rows(outputs, labels), algorithm.beta
    objective = row["expected"] - beta * row["kl_anchor"]
    return {
        "rlhf_token_objective": objective,
        "token_kl_to_teacher": row["kl"],
        "log_partition": objective / beta + row["kl"],
    }


def check_offpolicy(case, scorer):
    known = {"input_ids", "attention_mask", "prompt_lens", "position_mask", "hparams"}
    known_keys(case.inputs, known | set(LOGITS.values()), "inputs")
    width = len(case.inputs["input_ids"][0])
    right = fit(text_batch(case).mask, width)
    batch = TextBatch(
        case.ints("input_ids"), case.bools("attention_mask"), case.bools("position_mask")
    )
    return distil_official(case, scorer, batch) | {"position_mask_recommended": right}


def check_onpolicy(case, scorer):
    known = {"sequences", "attention_mask", "action_mask", "padded_prompt_len", "position_mask"}
    known_keys(case.inputs, known | {"hparams"} | set(LOGITS.values()), "inputs")
    ids, attention = case.ints("sequences"), case.bools("attention_mask")
    right = left_padded(masks_of_rollouts(case, ids, attention), attention)
    zeros = torch.zeros(len(ids))
    batch = RolloutBatch(ids, attention, case.bools("position_mask"), zeros, zeros, zeros)
    got = distil_official(case, scorer, batch) | {"position_mask_recommended": right}
    got["metrics"]["response_length"] = case.bools("action_mask").sum(-1).double().mean()
    got["metrics"]["total_length"] = attention.sum(-1).double().mean()
    return got


def masks_of_rollouts(case, ids, attention):
    """[B, S] mask of the batch that the engine would collate from these prompts and responses."""
    start, actions = case.inputs["padded_prompt_len"], case.bools("action_mask")
    items = [
        Item(
            (Tokens(tuple(row[:start][seen[:start]].tolist()), tuple(row[start:][acts].tolist())),)
        )
        for row, seen, acts in zip(ids, attention, actions, strict=True)
    ]
    return TextBatch.collate(items, pad_id=0).mask


def left_padded(mask, attention):
    """Rows shifted to where the left-padded layout of `attention` has them."""
    padding = attention.long().argmax(-1)
    wide = fit(mask, attention.shape[1])
    return torch.stack([row.roll(int(n)) for row, n in zip(wide, padding, strict=True)])


def distil_official(case, scorer, batch):
    """The loss core of the released code; `batch.response` holds its positions."""
    algorithm = distil_of(case.hparams, positions="official")
    tables = {role: case.tensor(key) for role, key in LOGITS.items()}
    run = evaluate(algorithm, batch, tables, scorer)
    row, logged = distil_rows(run), metrics(algorithm, run.loss)
    constant_weight(case, row)
    everywhere = dataclasses.replace(batch, response=torch.ones_like(batch.response))
    full = distil_rows(evaluate(algorithm, everywhere, tables, scorer))
    own = evaluate(algorithm, batch, tables | {"policy": tables["teacher"]}, scorer)
    return {
        "loss": run.total,
        "grad_policy_logits": run.gradient(),
        "tvd_half": full["tvd"],
        "alpha": full["alpha"],
        "beta_t": full["beta_t"],
        "metrics": {
            "mean_weight": sequence_mean(row["alpha"], batch.response).mean(),
            "expected_reward": logged["reward/expected"],
            "dpo_model_expected_reward": metrics(algorithm, own.loss)["reward/expected"],
            "seq_reward": logged["reward/seq"],
            "token_reward": logged["reward/token_avg"],
            "seq_tea_kl": logged["kl_full/teacher_seq"],
            "token_tea_kl": logged["kl_full/teacher_token"],
            "seq_init_kl": logged["kl_full/anchor_seq"],
            "token_init_kl": logged["kl_full/anchor_token"],
        },
    }
