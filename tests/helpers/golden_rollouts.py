"""What RTO, token-level REINFORCE and the bandit give for a golden case."""

import dataclasses

import torch
from alignzoo_bandit import Bandit
from alignzoo_reinforce import Reinforce
from alignzoo_rto import RTO, RTOv3
from golden_cases import fit, known_keys
from golden_ppo import of_log_probs, of_values
from logit_models import evaluate, metrics, reduced

from alignzoo import RolloutBatch
from alignzoo.ops import sequence_sum

VERSIONS = {"v2": RTO, "v3": RTOv3}
LOG_PROBS = {"policy": "policy_logprobs", "teacher": "dpo_logprobs", "reference": "ref_logprobs"}
LOGITS = {"policy": "policy_logits", "teacher": "dpo_logits", "anchor": "reverse_logits"}


def rollouts(case, labels=None):
    """A column of prompt, then the actions; the files say what each position predicts."""
    actions = case.bools("action_mask")
    response = torch.nn.functional.pad(actions, (1, 0))
    attention = response.clone()
    attention[:, 0] = True
    ids = response.long() * 0 if labels is None else torch.nn.functional.pad(labels, (1, 0))
    zeros = torch.zeros(len(actions), dtype=case.dtype)
    reward = case.tensor("rewards") if "rewards" in case.inputs else zeros
    return RolloutBatch(ids, attention, response, reward, zeros, zeros)


# --- RTO ---------------------------------------------------------------------------------------


def rto_of(hparams):
    same = {"beta1", "beta2", "gamma", "lam"}
    known_keys(hparams, same | {"version", "dpo_reward_clip", "reward_clip_range"}, "hparams")
    low, high = hparams["reward_clip_range"]
    assert low == -high, "the reward is clipped symmetrically"
    version = VERSIONS[hparams["version"]]
    reward = {"reward_clip": high} if version is RTOv3 else {}
    limit = hparams["dpo_reward_clip"] or None  # 0 is the official way to say none
    return version(token_clip=limit, **{key: hparams[key] for key in same}, **reward)


def tables_of(case):
    """{role: table}; log-probabilities are lowered alike, only their differences count."""
    log_probs = {role: case.tensor(name) for role, name in LOG_PROBS.items()}
    top = torch.stack(list(log_probs.values())).max() + 0.5
    return {role: of_log_probs(x - top) for role, x in log_probs.items()} | {
        "critic": of_values(case.tensor("values"))
    }


def check_rto(case, scorer):
    known = {*LOG_PROBS.values(), "values", "rewards", "action_mask", "hparams"}
    known_keys(case.inputs, known, "inputs")
    algorithm, batch = rto_of(case.hparams), rollouts(case)
    plain = dataclasses.replace(algorithm, whiten_advantages=False)
    run = evaluate(plain, batch, tables_of(case), scorer)
    rewards = algorithm.token_rewards(batch, run.signals)
    actions = {
        "dpo_token_rewards": algorithm.dpo_rewards(run.signals),
        "kl": run.signals["old"] - run.signals["reference"],
        "token_rewards": rewards,
        "advantages": run.prepared["advantage"],
        "returns": run.prepared["return"],
    }
    return {name: x[:, :-1] for name, x in actions.items()} | {
        "sequence_reward": sequence_sum(rewards, batch.mask)
    }


# --- policy gradient on the contrastive reward -------------------------------------------------


def scored(case, algorithm, scorer):
    """One pass on the logits of a case."""
    known_keys(case.inputs, {*LOGITS.values(), "labels", "action_mask", "hparams"}, "inputs")
    batch = rollouts(case, case.ints("labels"))
    width = batch.ids.shape[1]
    tables = {role: fit(case.tensor(name), width) for role, name in LOGITS.items()}
    return evaluate(algorithm, batch, tables, scorer)


def check_reinforce(case, scorer):
    known_keys(case.hparams, {"gamma", "beta0", "beta"}, "hparams")
    algorithm = Reinforce(**case.hparams)
    run = scored(case, algorithm, scorer)
    terms, mask = reduced([run.loss]), run.batch.mask
    actions = {
        "token_rewards": algorithm.token_rewards(run.signals),
        "returns": run.loss.metrics["return"].value * mask,
        "token_kl_to_dpo": run.signals["kl"],
        "grad_policy_logits": run.gradient(),
    }
    return {name: x[:, :-1] for name, x in actions.items()} | {
        "loss": run.total,
        "pg_loss": terms["policy"],
        "kl_loss": terms["kl"],
        "token_averaged_reward": metrics(algorithm, run.loss)["reward/token_avg"],
    }


def check_bandit(case, scorer):
    known_keys(case.hparams, {"beta0", "beta", "kl_mode"}, "hparams")
    algorithm = Bandit(**case.hparams)
    run = scored(case, algorithm, scorer)
    return {
        "loss": run.total,
        "sequence_reward": run.loss.metrics["reward/seq"].value,
        "sequence_logratio_to_dpo": run.loss.metrics["kl_k1/teacher_seq"].value,
        "grad_policy_logits": run.gradient()[:, :-1],
        "token_averaged_reward": metrics(algorithm, run.loss)["reward/token_avg"],
    }
