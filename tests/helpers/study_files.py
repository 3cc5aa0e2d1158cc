"""A study of two rows and the recipe of its world, as text."""

from __future__ import annotations

FACTS = """\
name: world
model: facts
threads: 1
stages:
  - name: sft
    algorithm: sft
    data: {name: facts.sft, with: {size: 64}}
    train: {steps: 6, batch_size: 8, lr: 3e-3}
  - name: answers
    stage: generate
    policy: sft
    data: {name: facts.prompts, with: {size: 16}}
    samples: 2
    sampling: {max_new_tokens: 8}
  - name: pairs
    stage: label
    data: answers
    judge: facts.annotator
    choose: bradley_terry
  - name: dpo
    algorithm: dpo
    policy: sft
    data: pairs
    train: {steps: 8, epochs: 8, batch_size: 4, lr: 1e-3}
evaluate:
  - benchmark: facts
    with: {size: 4}
    baseline: sft
    samples: 2
    sampling: {max_new_tokens: 8}
    kl_to: [sft]
"""

STUDY = """\
name: small
title: DPO against what it starts from
source: arXiv:2305.18290
measures:
  win: {label: win rate, better: higher}
  kl: {label: KL to SFT, unit: nats per answer}
  final: {label: steps to half the margin}
worlds:
  facts:
    about: the embedded world
    recipes: [world.yaml]
    seed: 3
    seeds: 2
    tuned: nothing was
    measures: {win: win_rate, kl: kl(sft)}
    rows: {plain: sft}
rows:
  - {row: plain, label: SFT}
  - {row: dpo, label: DPO, paper: {win: "61"}}
controls: [plain]
curves:
  - {metric: loss, rows: [dpo]}
derived:
  final: {metric: rewards/margin, fold: steps_to, of: dpo, share: 0.5}
claims:
  - {says: DPO beats what it starts from, measure: win, above: {dpo: plain}}
  - {says: it moves away, by: us, measure: kl, above: {dpo: 0}}
"""


def study_text() -> str:
    """The study, to be changed."""
    return STUDY
