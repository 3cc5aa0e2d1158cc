"""Adapters of one base: the losses of models apart, for the memory of one."""

import json
from dataclasses import replace

import pytest
import torch
from adapter_jobs import (
    IDS,
    NAMES,
    STEADY,
    adapted,
    larger_model,
    logits,
    lora_job,
    losses,
    method,
    noisy,
    peft_adapter,
    peft_model,
    stored_bytes,
)
from alignzoo_dpo import DPO
from family_models import NAMED, build
from safetensors.torch import load_file, save_file

from alignzoo import TextBatch
from alignzoo.contract.errors import AlignzooError
from alignzoo.engine.layout.optim import Optim
from alignzoo.engine.models.adapters import (
    Adapted,
    Lora,
    dressed,
    merged,
    plain_weights,
    save_adapter,
)
from alignzoo.engine.scoring.fused import Fused
from alignzoo.engine.scoring.scorer import ScoringModule
from alignzoo.engine.train.loop import train
from alignzoo.engine.train.rails import Rails
from alignzoo.testing import tiny_model, toy_items

# --- against peft -------------------------------------------------------------------------------


def distil_loss(models, items, r=2.0, beta=0.1, epsilon=1e-3):
    """Eq. 18 of arXiv:2503.02832 with Eq. 15 and 16, a row at a time."""
    rows = []
    for item in items:
        (row,) = item.rows
        ids = torch.tensor([row.prompt + row.response])
        at = slice(len(row.prompt) - 1, ids.shape[1] - 1)
        z = {name: model(input_ids=ids).logits[0, at] for name, model in models.items()}
        dpo, anchor = z["teacher"].detach().log_softmax(-1), z["anchor"].detach().log_softmax(-1)
        alpha = r * (dpo.exp() - anchor.exp()).abs().sum(-1) / 2 + epsilon
        target = (dpo + alpha[:, None] * (dpo - anchor)).log_softmax(-1)
        policy = z["policy"].log_softmax(-1)
        rows.append((beta / alpha * (policy.exp() * (policy - target)).sum(-1)).mean())
    return torch.stack(rows).mean()


def test_eight_steps_of_aligndistil_have_the_losses_of_three_separate_peft_models(tmp_path):
    items = toy_items(TextBatch, 5)
    parts = adapted(tmp_path / "adapters")
    optim = Optim(steps=8, batch_size=5, micro_batch_size=2, epochs=8, **STEADY)
    train(lora_job(tmp_path / "run", parts=parts, items=items, optim=optim))
    save_adapter(dressed(tiny_model(), parts["policy"], 0), tmp_path / "adapters" / "policy", None)
    apart = {n: peft_model(tmp_path / "adapters" / n, learns=n == "policy") for n in NAMES}
    own = [p for p in apart["policy"].parameters() if p.requires_grad]
    adamw = torch.optim.AdamW(own, lr=1e-2, betas=(0.9, 0.95), weight_decay=0.0)
    expected = []
    for _ in range(8):
        loss = distil_loss(apart, items)
        loss.backward()
        adamw.step()
        adamw.zero_grad()
        expected.append(loss.item())
    assert losses(tmp_path / "run") == pytest.approx(expected, abs=1e-5)
    assert expected[-1] < 0.9 * expected[0]  # it learns


def test_three_adapters_of_rank_8_weigh_at_most_115_percent_of_one_model(tmp_path):
    parts = adapted(tmp_path, larger_model, r=8)
    prepared = lora_job(tmp_path / "run", parts=parts, load=lambda role: larger_model())
    models = prepared.models(sorted(NAMES))
    one = stored_bytes(larger_model())
    assert one > 12e6
    assert one < stored_bytes(*models.values()) <= 1.15 * one
    trains = [name for name, p in models["policy"].named_parameters() if p.requires_grad]
    assert len(trains) == 2 * 7 * 4  # A and B of 7 layers in each of 4 blocks
    assert all(".lora_" in name for name in trains)


def test_a_run_says_which_roles_are_adapters_of_one_base_and_what_they_weigh(tmp_path):
    said = []
    parts = adapted(tmp_path, larger_model, r=8)
    optim = Optim(steps=1, batch_size=2)
    train(
        lora_job(
            tmp_path / "run",
            parts=parts,
            load=lambda role: larger_model(),
            optim=optim,
            rails=Rails(say=said.append),
        )
    )
    assert "anchor, policy, teacher: adapters of one base, 1.13 times its weights" in said
    still = sum(p.numel() for p in larger_model().parameters())
    assert f"policy: learns an adapter of 139,264 parameters, {still:,} stay" in said


def test_roles_of_other_bases_hold_nothing_together(tmp_path):
    parts = adapted(tmp_path / "adapters")
    parts["anchor"] = replace(parts["anchor"], base="another")
    models = lora_job(tmp_path / "run", parts=parts).models(NAMES)
    held = {role: {p.data_ptr() for p in model.parameters()} for role, model in models.items()}
    assert held["policy"] & held["teacher"]
    assert not held["anchor"] & (held["policy"] | held["teacher"])


def test_a_role_without_an_adapter_is_the_base_bit_for_bit_whatever_the_policy_learns(tmp_path):
    parts = {"policy": Adapted("base", new=Lora()), "reference": Adapted("base")}
    models = lora_job(tmp_path / "run", DPO(), parts).models(("policy", "reference"))
    assert torch.equal(logits(models["policy"]), logits(tiny_model()))  # B is 0
    noisy(models["policy"])
    assert torch.equal(logits(models["reference"]), logits(tiny_model()))
    assert not torch.equal(logits(models["policy"]), logits(tiny_model()))


def test_an_adapter_of_peft_is_read_as_peft_reads_it(tmp_path):
    folder = peft_adapter(tmp_path / "a", 3)
    ours = dressed(tiny_model(), Adapted("base", folder=folder), 0)
    assert torch.equal(logits(ours), logits(peft_model(folder)))
    assert not any(p.requires_grad for p in ours.parameters())


def test_what_is_written_is_read_by_peft_and_is_the_same_file_every_time(tmp_path):
    model = noisy(dressed(tiny_model(), Adapted("base", new=Lora(4, 8.0, ("q_proj",))), 0))
    for name in ("one", "two"):
        save_adapter(model, tmp_path / name, "org/base")
    assert torch.equal(logits(peft_model(tmp_path / "one")), logits(model))
    config = json.loads((tmp_path / "one" / "adapter_config.json").read_text())
    assert (config["r"], config["lora_alpha"], config["target_modules"]) == (4, 8.0, ["q_proj"])
    assert config["base_model_name_or_path"] == "org/base"
    for file in (tmp_path / "one").iterdir():
        assert file.read_bytes() == (tmp_path / "two" / file.name).read_bytes()


@pytest.mark.parametrize("name", ["qwen2 tied", "gpt2", "falcon", "phimoe", "gemma3", "zamba2"])
def test_the_merged_model_of_a_family_computes_what_base_and_adapter_do(name):
    base = build(NAMED[name], 0).float().eval()
    names, plain = [n for n, _ in base.named_parameters()], logits(base)
    model = noisy(dressed(base, Adapted("base", new=Lora()), 0))
    mine, found = logits(model), merged(model)
    assert (logits(found) - mine).abs().max() <= 1e-5 * mine.abs().max()
    assert (mine - plain).abs().max() > 0.1
    assert [n for n, _ in found.named_parameters()] == names
    assert [n for n, _ in plain_weights(model, model.named_parameters())] == names


def test_every_adapted_layer_of_a_model_with_towers_is_one_that_text_goes_through():
    model = dressed(build(NAMED["gemma3"], 0).float(), Adapted("base", new=Lora()), 0)
    noisy(model)(input_ids=IDS, use_cache=False).logits.logsumexp(-1).sum().backward()
    learns = {n: p for n, p in model.named_parameters() if p.requires_grad}
    assert learns
    assert all(p.grad is not None and bool(p.grad.any()) for p in learns.values())


# --- traps --------------------------------------------------------------------------------------


@pytest.mark.parametrize("trainable", [{"policy"}, {"policy", "anchor"}])
def test_recomputed_activations_meet_the_adapter_of_their_forward_pass(tmp_path, trainable):
    found = []
    for recomputes in (False, True):
        models = lora_job(tmp_path / "run").models(sorted(NAMES))
        for role in trainable:
            if recomputes:
                models[role].gradient_checkpointing_enable({"use_reentrant": False})
            for name, p in noisy(models[role]).named_parameters():
                p.requires_grad_(".lora_" in name)
        module = ScoringModule(models, frozenset(trainable), Fused())
        batch = TextBatch.collate(toy_items(TextBatch, 5), 0)
        signals = method().signals()
        rows = module(batch, signals)
        if recomputes:
            assert any(part.training for part in models["policy"].modules())
        sum(x.sum() for x in rows.values() if x.requires_grad).backward()
        found.append([p.grad for p in module.parameters() if p.requires_grad])
    assert len(found[0]) == 28 * len(trainable)
    assert any(bool(x.any()) for x in found[0] if x is not None)
    for x, y in zip(*found, strict=True):
        assert (x is None and y is None) or torch.equal(x, y)


# --- refusals -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("targets", "what"),
    [
        (("wqkv",), "'wqkv': unknown"),
        (("q_proj", "lm_head"), "'lm_head': lm_head is no linear layer inside"),
        (("embed_tokens",), "'embed_tokens': model.embed_tokens is no linear layer inside"),
        (("self_attn",), "'self_attn': model.layers.0.self_attn is no linear layer inside"),
    ],
)
def test_a_target_that_is_no_linear_layer_is_refused_with_the_names_that_are(targets, what):
    with pytest.raises(AlignzooError) as error:
        dressed(tiny_model(), Adapted("base", new=Lora(targets=targets)), 0)
    known = "Qwen2ForCausalLM has: down_proj, gate_proj, k_proj, o_proj, q_proj, up_proj, v_proj"
    assert f"adapter.lora.targets: {what} ({known})" in str(error.value)


@pytest.mark.parametrize(("name", "what"), [("deepseek_v3", "experts"), ("mamba", "out_proj")])
def test_layers_that_peft_would_adapt_otherwise_are_refused(name, what):
    with pytest.raises(AlignzooError, match=f"adapter.lora.targets: .*{what}"):
        dressed(build(NAMED[name], 0).float(), Adapted("base", new=Lora()), 0)


def test_an_adapter_that_does_not_fit_its_base_is_refused(tmp_path):
    folder = peft_adapter(tmp_path / "a", 1)
    file = folder / "adapter_model.safetensors"
    tensors = load_file(file)
    tensors.pop(min(tensors))
    save_file(tensors, file)
    with pytest.raises(AlignzooError, match="does not fit its base"):
        dressed(tiny_model(), Adapted("base", folder=folder), 0)
