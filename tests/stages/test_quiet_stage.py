"""A recipe on a noisy mixture of experts: what is off is told once, and its config is kept."""

import json

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import MixtralConfig, MixtralForCausalLM, PreTrainedTokenizerFast

WORDS = ["<pad>", "<end>", "<unk>", "Tom", "saw", "a", "tree", "cat", "."]
RECIPE = """
name: quiet
model: {model}
stages:
  - name: it
    algorithm: dpo
    data: {{name: {data}, max_length: 16}}
    train: {{steps: 2, batch_size: 2, lr: 1e-9, aux_loss: {aux}}}
"""


def noisy_folder(folder):
    tokenizer = Tokenizer(models.WordLevel({w: n for n, w in enumerate(WORDS)}, "<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token="<end>", unk_token="<unk>"
    ).save_pretrained(folder)
    torch.manual_seed(0)
    config = MixtralConfig(
        vocab_size=len(WORDS),
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=2,
        max_position_embeddings=32,
        num_local_experts=2,
        attention_dropout=0.5,
        router_jitter_noise=0.25,
        output_router_logits=True,
        pad_token_id=0,
        bos_token_id=None,
        eos_token_id=1,
    )
    MixtralForCausalLM(config).save_pretrained(folder)
    return folder


def test_a_noisy_mixture_trains_as_one_function_and_says_what_is_off(tmp_path, cli):
    model, data = noisy_folder(tmp_path / "model"), tmp_path / "data.jsonl"
    row = {"prompt": "Tom saw", "chosen": " a tree .", "rejected": " a cat"}
    data.write_text((json.dumps(row) + "\n") * 2)
    for aux in ("false", "true"):
        recipe = tmp_path / f"{aux}.yaml"
        recipe.write_text(RECIPE.format(model=model, data=data, aux=aux))
        run = tmp_path / aux
        status, printed, complained = cli("run", recipe, "--output", run)
        said = printed + complained
        assert status == 0, said
        off = "it: off, so that all roles are one function: attention_dropout 0.5, router_jitter"
        assert said.count(off) == 1
        assert said.count("load-balancing loss of the router") == (aux == "false")
        rows = [json.loads(x) for x in next(run.rglob("metrics.jsonl")).read_text().splitlines()]
        own = "loss/method" if aux == "true" else "loss"
        assert all(abs(row[own] - 0.6931472) < 1e-6 for row in rows)
        saved = next(run.rglob("model/config.json"))
        before, after = (json.loads(x.read_text()) for x in (model / "config.json", saved))
        for name in ("attention_dropout", "router_jitter_noise", "output_router_logits"):
            assert after[name] == before[name]
