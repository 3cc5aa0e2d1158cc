"""What the methods on pairs and single answers beside DPO give for a golden case."""

import torch
from alignzoo_cpo import CPO, CPOSimPO
from alignzoo_orpo import ORPO
from alignzoo_reward_model import RewardModel
from alignzoo_reward_model.algorithm import last_token
from alignzoo_simpo import HingeSimPO, SimPO
from alignzoo_tdpo import TDPO1, TDPO2
from golden_cases import check_aligned, fit, known_keys, pair_batch
from golden_dpo import SIDES, pair_tables
from logit_models import evaluate, metrics, reduced

from alignzoo.ops import implicit_reward, sequence_mean, sequence_sum

ONLY_POLICY = {"policy": "policy_logits"}


def checked_pairs(case):
    """The batch of a pair file, whose masks are those the file gives."""
    known_keys(case.inputs, {"prompt_lens", "hparams", *SIDES}, "inputs")
    batch = pair_batch(case)
    check_aligned(case, batch, batch.chosen, "chosen")
    check_aligned(case, batch, batch.rejected, "rejected")
    return batch


def gradients(case, run):
    """{expected name: gradient by the policy's logits} of both sides."""
    rows = (run.batch.chosen, run.batch.rejected)
    return {
        f"grad_{side}_policy_logits": fit(
            run.gradient()[some], len(case.inputs[side]["input_ids"][0])
        )
        for side, some in zip(SIDES, rows, strict=True)
    }


def by_side(name, x, batch):
    """{name with the side: its rows of x [B]}."""
    rows = (batch.chosen, batch.rejected)
    return {name.format(side): x[some] for side, some in zip(SIDES, rows, strict=True)}


def rewards(run):
    """The logged rewards of each pair."""
    return {f"{side}_rewards": run.loss.metrics[f"rewards/{side}"].value for side in SIDES}


# --- SimPO ---------------------------------------------------------------------------------------


def simpo_of(hparams):
    known_keys(
        hparams, {"beta", "gamma_beta_ratio", "gamma", "label_smoothing", "loss_type"}, "hparams"
    )
    beta, ratio = hparams["beta"], hparams["gamma_beta_ratio"]
    assert hparams["gamma"] == beta * ratio
    method = {"sigmoid": SimPO, "hinge": HingeSimPO}[hparams["loss_type"]]
    return method(beta=beta, gamma_ratio=ratio, label_smoothing=hparams["label_smoothing"])


def check_simpo(case, scorer):
    batch, algorithm = checked_pairs(case), simpo_of(case.hparams)
    tables = pair_tables(case, batch, SIDES, **ONLY_POLICY)
    run = evaluate(algorithm, batch, tables, scorer)
    policy = run.signals["policy"]
    by_token = policy.grad * batch.mask.sum(
        -1, keepdim=True
    )  # dL/dA = n dL/dl(t), the same for all
    grad = sequence_mean(by_token, batch.mask)
    assert torch.allclose(by_token, grad[:, None] * batch.mask)
    return {
        "loss": run.total,
        "per_pair_loss": run.loss.terms.value,
        "reward_margins": run.loss.metrics["rewards/margin"].value,
        "reward_accuracy": metrics(algorithm, run.loss)["rewards/accuracy"],
        **by_side("{}_avg_logps", sequence_mean(policy, batch.mask), batch),
        **by_side("grad_{}_avg_logps", grad, batch),
        **rewards(run),
        **gradients(case, run),
    }


# --- TDPO ----------------------------------------------------------------------------------------


def tdpo_of(case, **more):
    known_keys(case.hparams, {"beta", "alpha"}, "hparams")
    beta, alpha = case.hparams["beta"], case.hparams["alpha"]
    if case.file == "tdpo1":
        assert alpha is None, "TDPO1 does not weight the divergences"
        return TDPO1(beta=beta, **more)
    return TDPO2(beta=beta, alpha=alpha, **more)


def check_tdpo(case, scorer):
    batch, algorithm = checked_pairs(case), tdpo_of(case)
    tables = pair_tables(case, batch, SIDES, **ONLY_POLICY, reference="ref_logits")
    run = evaluate(algorithm, batch, tables, scorer)
    policy, reference = run.signals["policy"], run.signals["reference"]
    ratio = implicit_reward(1.0, policy, reference, batch.mask)
    shifted = evaluate(tdpo_of(case, positions="official"), batch, tables, scorer)
    return {
        "loss": run.total,
        "per_pair_loss": run.loss.terms.value,
        "reward_accuracy": metrics(algorithm, run.loss)["rewards/accuracy"],
        "aligndistil_fork_loss_with_shifted_kl": shifted.total,
        **{f"{s}_seq_forward_kl": run.loss.metrics[f"kl_full/{s}"].value for s in SIDES},
        **by_side("{}_logratio_sum", ratio, batch),
        **by_side("{}_logps", sequence_sum(policy, batch.mask), batch),
        **rewards(run),
        **gradients(case, run),
    }


# --- ORPO, CPO -----------------------------------------------------------------------------------


def check_orpo(case, scorer):
    known_keys(case.hparams, {"beta"}, "hparams")
    batch, algorithm = checked_pairs(case), ORPO(beta=case.hparams["beta"])
    run = evaluate(algorithm, batch, pair_tables(case, batch, SIDES, **ONLY_POLICY), scorer)
    terms = reduced([run.loss])
    return {
        "loss": run.total,
        "nll_loss": terms["nll"],
        "odds_ratio_term": -terms["odds_ratio"],
        "mean_log_sigmoid": -run.loss.terms["odds_ratio"].value.mean(),
        "mean_log_odds": metrics(algorithm, run.loss)["log_odds_ratio"],
        **by_side("{}_avg_logps", sequence_mean(run.signals["policy"], batch.mask), batch),
        **gradients(case, run),
    }


def cpo_of(hparams):
    known_keys(hparams, {"beta", "cpo_alpha", "simpo_gamma", "loss_type"}, "hparams")
    beta, gamma = hparams["beta"], hparams["simpo_gamma"]
    if hparams["loss_type"] == "simpo":
        return CPOSimPO(beta=beta, nll_weight=hparams["cpo_alpha"], gamma_ratio=gamma / beta)
    assert (hparams["loss_type"], gamma) == ("sigmoid", None)
    return CPO(beta=beta, nll_weight=hparams["cpo_alpha"])


def check_cpo(case, scorer):
    batch, algorithm = checked_pairs(case), cpo_of(case.hparams)
    run = evaluate(algorithm, batch, pair_tables(case, batch, SIDES, **ONLY_POLICY), scorer)
    terms = reduced([run.loss])
    score = algorithm.score(run.signals["policy"], batch.mask)
    return {
        "loss": run.total,
        "preference_loss": terms["preference"],
        "nll_loss": terms["nll"] / algorithm.nll_weight,
        **by_side("{}_logps", score, batch),
        **rewards(run),
        **gradients(case, run),
    }


# --- reward model --------------------------------------------------------------------------------


def graded_pairs(case):
    """Attention alone matters; every token is number 0 and belongs to the response."""
    attention = torch.cat([case.bools(f"{side}_attention_mask") for side in SIDES])
    margin = case.inputs["margin"]
    given = torch.zeros(len(attention) // 2) if margin is None else case.tensor("margin")
    return RewardModel.batch(attention.long() * 0, attention, attention, given)


def check_reward_model(case, scorer):
    """Both forms of the loss are one number here, so `loss_type` chooses nothing."""
    sides = {f"{side}_{what}" for side in SIDES for what in ("values", "attention_mask")}
    known_keys(case.inputs, {"margin", "hparams", *sides}, "inputs")
    known_keys(case.hparams, {"loss_type"}, "hparams")
    assert case.hparams["loss_type"] in ("sigmoid", "logexp")
    algorithm, batch = RewardModel(), graded_pairs(case)
    assert torch.equal(last_token(batch).sum(-1), torch.ones(len(batch.ids)))
    values = torch.cat([case.tensor(f"{side}_values") for side in SIDES])[..., None]
    run = evaluate(algorithm, batch, {"policy": values}, scorer)
    grad = run.gradient()[..., 0]
    return {
        "loss": run.total,
        "accuracy": metrics(algorithm, run.loss)["rewards/accuracy"],
        **rewards(run),
        **by_side("grad_{}_values", grad, batch),
    }
