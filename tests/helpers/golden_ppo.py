"""What PPO gives for a golden case, which states log-probabilities and values, not logits."""

import dataclasses

import torch
from alignzoo_ppo import PPO
from golden_cases import fit, known_keys
from logit_models import evaluate, metrics, reduced

from alignzoo import RolloutBatch
from alignzoo.ops import KL_ESTIMATORS, generalised_advantage, sequence_mean

GIVEN = ("old_logprobs", "ref_logprobs", "new_logprobs", "old_values", "new_values")


def ppo_of(hparams):
    known = {"gamma", "lam", "kl_coef", "clip_eps", "value_clip", "reward_clip_range"}
    known_keys(hparams, known | {"kl_estimator", "whiten_advantages"}, "hparams")
    low, high = hparams["reward_clip_range"] or (None, None)
    assert high is None or low == -high, "the reward is clipped symmetrically"
    same = ("gamma", "lam", "kl_coef", "value_clip", "kl_estimator", "whiten_advantages")
    return PPO(clip=hparams["clip_eps"], reward_clip=high, **{key: hparams[key] for key in same})


def rollouts(case):
    """A column of prompt, then the actions; every token is number 0."""
    response = torch.nn.functional.pad(case.bools("action_mask"), (1, 0))
    attention = response.clone()
    attention[:, 0] = True
    reward = case.tensor("rewards")
    other = torch.ones_like(reward)
    return RolloutBatch(response.long() * 0, attention, response, reward, other, other)


def of_log_probs(x):
    """[B, S, 2] logits that give token 0 the negative log-probability x [B, T]."""
    return fit(torch.stack([x, torch.log(-torch.expm1(x))], dim=-1), x.shape[1] + 1)


def of_values(x):
    """[B, S, 1] outputs of a scalar head."""
    return fit(x, x.shape[1] + 1)[..., None]


def tables_of(case, when):
    """{role: table} of the trained roles as they are, or were at the rollout.

    Some of the stated log-probabilities are positive; PPO sees only their differences, so all of
    them are lowered alike.
    """
    log_probs = {name: case.tensor(name) for name in GIVEN[:3]}
    top = torch.stack(list(log_probs.values())).max() + 0.5
    return {
        "policy": of_log_probs(log_probs[f"{when}_logprobs"] - top),
        "reference": of_log_probs(log_probs["ref_logprobs"] - top),
        "critic": of_values(case.tensor(f"{when}_values")),
    }


def check_ppo(case, scorer):
    known_keys(case.inputs, {*GIVEN, "rewards", "action_mask", "hparams"}, "inputs")
    algorithm, batch = ppo_of(case.hparams), rollouts(case)
    now, start = tables_of(case, "new"), tables_of(case, "old")
    run = evaluate(algorithm, batch, now, scorer, start)
    terms = reduced([run.loss])
    plain = dataclasses.replace(algorithm, whiten_advantages=False)
    by_token = dataclasses.replace(algorithm, reduction="token_mean")
    rewards = algorithm.token_rewards(batch, run.signals)
    zeros = torch.zeros_like(rewards)
    kl = KL_ESTIMATORS[algorithm.kl_estimator](run.signals["old"] - run.signals["reference"])
    actions = {
        "kl": kl,
        "token_rewards": rewards,
        "advantages": evaluate(plain, batch, now, scorer, start).prepared["advantage"],
        "returns": run.prepared["return"],
        "normalised_advantages": run.prepared["advantage"],
        "grad_new_logprobs": run.signals["policy"].grad,
        "grad_new_values": run.signals["value"].grad,
        "discounted_returns_no_critic": generalised_advantage(
            rewards, zeros, batch.mask, algorithm.gamma, lam=1.0
        ),
    }
    return {name: x[:, :-1] for name, x in actions.items()} | {
        "policy_loss": terms["policy"],
        "value_loss": terms["value"],
        "policy_loss_token_mean": reduced([evaluate(by_token, batch, now, scorer, start).loss])[
            "policy"
        ],
        "clip_fraction": metrics(algorithm, run.loss)["clip_fraction"],
        "kl_mean_per_sequence": sequence_mean(kl, batch.mask),
    }
