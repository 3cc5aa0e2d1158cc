"""Where a paper and its released code differ; test_docs.py and docs/make.py read it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Entry:
    """One difference; `base` are options that both readings need."""

    method: str
    topic: str
    paper: str
    code: str
    other: Mapping[str, Any]
    base: Mapping[str, Any] = field(default_factory=dict)


R = {"r": 2.0}
LEDGER = (
    Entry(
        "aligndistil",
        "total variation distance",
        "Eq. 16 has the factor 1/2",
        "the released code leaves it out, so alpha_t reaches 2r",
        {"tvd": "l1"},
        R,
    ),
    Entry(
        "aligndistil",
        "which logits count",
        "those that predict the response, first token in, after-EOS out",
        "the released code reads the logits that sit on the response, one position late",
        {"positions": "official"},
        R,
    ),
    Entry(
        "aligndistil",
        "weight of a token's KL",
        "beta_t inside the sum (printed outside in Eq. 18/19, though it depends on t)",
        "no weight",
        {"beta_weighting": "none"},
        R,
    ),
    Entry(
        "aligndistil",
        "length normalisation",
        "1/n per sequence (Eq. 18)",
        "sum over tokens (Eq. 10 and 21)",
        {"reduction": "sequence_sum"},
        R,
    ),
    Entry(
        "aligndistil",
        "teacher",
        "contrastive (Eq. 15/17)",
        "interpolation with the initial model (Eq. 11), the ablation of Table 2",
        {"reward": "vanilla"},
        R,
    ),
    Entry(
        "tdpo1",
        "positions of the sequence KL",
        "aligned with the log-probabilities",
        "the fork masks one position late",
        {"positions": "official"},
    ),
    Entry(
        "tdpo2",
        "positions of the sequence KL",
        "aligned with the log-probabilities",
        "the fork masks one position late",
        {"positions": "official"},
    ),
    Entry(
        "ppo",
        "average of the losses",
        "per sequence, then over sequences",
        "over all tokens of the batch (newer OpenRLHF, TRL)",
        {"reduction": "token_mean"},
    ),
    Entry(
        "ppo",
        "KL estimator in the token reward",
        "k1 = log pi - log pi_ref, may be negative",
        "k3 = exp(-d) - 1 + d, never negative",
        {"kl_estimator": "k3"},
    ),
    Entry(
        "bandit",
        "KL term of Eq. 42",
        "in the reward, so that it regularises",
        "as printed; its expected gradient is zero",
        {"kl_mode": "literal"},
    ),
    Entry(
        "bandit",
        "KL term of Eq. 42",
        "in the reward, so that it regularises",
        "the token-level KL of Eq. 43",
        {"kl_mode": "exact_token_kl"},
    ),
)
