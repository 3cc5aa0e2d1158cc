"""What DPO, reverse DPO and the pair metrics give for a golden case."""

import torch
from alignzoo_dpo import DPO, IPO
from golden_cases import check_aligned, fit, known_keys, pair_batch
from logit_models import evaluate, metrics, read

from alignzoo.ops import implicit_reward, log_prob, pair_metrics, sequence_mean, sequence_sum

SIDES = ("chosen", "rejected")


def dpo_of(hparams):
    known = {"beta", "label_smoothing", "loss_type", "ipo_length_normalised", "reverse"}
    known_keys(hparams, known, "hparams")
    assert not hparams.get("ipo_length_normalised"), "length-normalised IPO is not delivered"
    method = {"sigmoid": DPO, "ipo": IPO}[hparams["loss_type"]]
    return method(beta=hparams["beta"], label_smoothing=hparams["label_smoothing"])


def pair_tables(case, batch, order, **keys):
    """{role: [2I, S, V]} with the rows in the batch's order."""
    width = batch.ids.shape[1]
    return {
        role: torch.cat([fit(case.tensor(side, key), width) for side in order])
        for role, key in keys.items()
    }


def check_dpo(case, scorer):
    """DPO and IPO; of a reversed case the data's rejected side is the preferred one."""
    reverse = case.hparams.get("reverse", False)
    order = SIDES[::-1] if reverse else SIDES
    known_keys(case.inputs, {"prompt_lens", "hparams", *SIDES}, "inputs")
    batch = pair_batch(case, *order)
    rows = dict(zip(order, (batch.chosen, batch.rejected), strict=True))
    for side in SIDES:
        check_aligned(case, batch, rows[side], side)
    algorithm = dpo_of(case.hparams)
    tables = pair_tables(case, batch, order, policy="policy_logits", reference="ref_logits")
    run = evaluate(algorithm, batch, tables, scorer)
    logged = {name.removeprefix("rewards/"): x.value for name, x in run.loss.metrics.items()}
    accuracy = metrics(algorithm, run.loss)["rewards/accuracy"]
    got = {"loss": run.total}
    for side in SIDES:
        got |= dpo_side(case, run, side, rows[side])
    if reverse:
        return got | {
            "preferred_rewards": logged["chosen"],
            "dispreferred_rewards": logged["rejected"],
            "reward_accuracy_reversed": accuracy,
        }
    return got | {
        "chosen_rewards": logged["chosen"],
        "rejected_rewards": logged["rejected"],
        "reward_margins": logged["margin"],
        "reward_accuracy": accuracy,
    }


def dpo_side(case, run, side, rows):
    """What is expected of the rows of one column of the data set."""
    mask, policy, reference = (
        x[rows] for x in (run.batch.mask, run.signals["policy"], run.signals["reference"])
    )
    grad = run.signals["policy"].grad[rows]  # [I, S]: dL/dS at every response token, else 0
    by_sequence = sequence_mean(grad, mask)
    assert torch.allclose(grad, by_sequence[:, None] * mask)
    return {
        f"policy_{side}_logps": sequence_sum(policy, mask),
        f"ref_{side}_logps": sequence_sum(reference, mask),
        f"{side}_logratios": implicit_reward(1.0, policy, reference, mask),
        f"grad_policy_{side}_logps": by_sequence,
        f"grad_{side}_policy_logits": fit(
            run.gradient()[rows], len(case.inputs[side]["input_ids"][0])
        ),
    }


def check_reward_metrics(case, scorer):
    """Vanilla and contrastive rewards, their accuracies and margins."""
    known_keys(case.inputs, {"prompt_lens", "hparams", *SIDES}, "inputs")
    known_keys(case.hparams, {"beta0"}, "hparams")
    batch, beta0 = pair_batch(case), case.hparams["beta0"]
    check_aligned(case, batch, batch.chosen, "chosen")
    check_aligned(case, batch, batch.rejected, "rejected")
    keys = {"dpo": "dpo_logits", "vanilla": "ref_logits", "contrastive": "reverse_logits"}
    tables = pair_tables(case, batch, SIDES, **keys)
    log_probs = read({role: log_prob(role) for role in keys}, batch, tables, scorer)
    got = {}
    for kind in ("vanilla", "contrastive"):
        reward = implicit_reward(beta0, log_probs["dpo"], log_probs[kind], batch.mask)
        logged = pair_metrics(reward, batch)
        per_token = beta0 * sequence_mean(log_probs["dpo"] - log_probs[kind], batch.mask)
        got |= {
            f"{kind}_chosen": logged["rewards/chosen"].value,
            f"{kind}_rejected": logged["rewards/rejected"].value,
            f"{kind}_accuracy": logged["rewards/accuracy"].value.mean(),
            f"{kind}_margin": logged["rewards/margin"].value.mean(),
            f"{kind}_token_averaged_chosen": per_token[batch.chosen].mean(),
        }
    return got
