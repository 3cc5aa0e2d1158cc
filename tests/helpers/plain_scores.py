"""What transformers itself says of a batch, on one unpadded row after the other."""

from __future__ import annotations

import torch


def plain_rows(model, batch):
    """[B, S] log p of each label."""
    rows = []
    for b, length in enumerate(batch.attention.sum(-1).tolist()):
        ids = batch.ids[b : b + 1, :length]
        steps = model(input_ids=ids, use_cache=False).logits.log_softmax(-1)[0, :-1]
        values = steps.gather(1, ids[0, 1:, None])[:, 0]
        rows.append(torch.nn.functional.pad(values, (0, batch.ids.shape[1] - length + 1)))
    return torch.stack(rows) * batch.mask
