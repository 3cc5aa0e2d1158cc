"""How the bodies of models are run: the same values and gradients as one row at a time."""

from __future__ import annotations

import pytest
import torch
from family_models import NAMED, VOCABULARY, build
from torch.utils._python_dispatch import TorchDispatchMode

from alignzoo import Item, TextBatch, Tokens
from alignzoo.engine.scoring.scorer import ScoringModule, dense
from alignzoo.ops import log_prob

LENGTHS = (40, 39, 20, 19, 9)  # three groups
READING_IDS = ("gemma3n_text", "gemma4_text", "gemma3", "qwen2_5_vl")  # per layer, or for images
SCALING = ("gemma", "granite", "bloom", "gpt2")  # what was looked up, with positions or a norm


class LookUps(TorchDispatchMode):
    """Counts the gradients [V, H] of embeddings."""

    def __init__(self):
        super().__init__()
        self.n = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func is torch.ops.aten.embedding_dense_backward.default:
            self.n += args[2] == VOCABULARY and args[0].shape[-1] == 64
        return func(*args, **(kwargs or {}))


def text(lengths=LENGTHS, prompt=4, low=10, high=400):
    noise = torch.Generator().manual_seed(0)
    ids = [tuple(torch.randint(low, high, (n,), generator=noise).tolist()) for n in lengths]
    return TextBatch.collate([Item((Tokens(x[:prompt], x[prompt:]),)) for x in ids], 0)


def plain_rows(model, batch):
    """[B, S] log p of each label, by transformers itself on one unpadded row after the other."""
    rows = []
    for b, length in enumerate(batch.attention.sum(-1).tolist()):
        ids = batch.ids[b : b + 1, :length]
        steps = model(input_ids=ids, use_cache=False).logits.log_softmax(-1)[0, :-1]
        values = steps.gather(1, ids[0, 1:, None])[:, 0]
        rows.append(torch.nn.functional.pad(values, (0, batch.ids.shape[1] - length + 1)))
    return torch.stack(rows) * batch.mask


def gradients(model):
    found = {n: p.grad for n, p in model.named_parameters() if p.grad is not None}
    model.zero_grad(set_to_none=True)
    return found


@pytest.mark.parametrize("name", [*READING_IDS, *SCALING])
def test_one_look_up_for_all_passes_gives_what_single_rows_give(name):
    model, batch = build(NAMED[name], 1).double().eval(), text()
    expected = plain_rows(model, batch)
    expected.sum().backward()
    by_row = gradients(model)
    found = ScoringModule({"policy": model}, frozenset({"policy"}), dense)
    rows = found(batch, {"x": log_prob("policy")})["x"]
    with LookUps() as seen:
        rows.sum().backward()
    once = gradients(model)
    torch.testing.assert_close(rows, expected, rtol=1e-6, atol=1e-5)
    assert once.keys() == by_row.keys()
    for parameter in once:
        torch.testing.assert_close(once[parameter], by_row[parameter], rtol=1e-4, atol=1e-4)
    assert seen.n == {"gemma3n_text": 1 + 3}.get(name, 1)  # those per layer are as wide, by pass
