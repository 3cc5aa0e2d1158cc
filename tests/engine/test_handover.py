"""Weights that are handed over to another program are all of the model's, and its own."""

import shutil

import pytest
import torch
from torch import distributed
from torch.testing._internal.distributed.fake_pg import FakeStore
from transformers import AutoModelForCausalLM

from alignzoo import DataError, Handover, PluginError, TrainingError
from alignzoo.testing import tiny_model

PROMPT, ANSWER = (5, 6, 7), (2, 9, 4, 1)


def expected(model):
    ids = torch.tensor([[*PROMPT, *ANSWER]])
    with torch.no_grad():
        every = model.eval()(ids).logits[0, len(PROMPT) - 1 : -1].log_softmax(-1)
    return every.gather(1, torch.tensor(ANSWER)[:, None])[:, 0].tolist()


def handed(model):
    found = Handover.of(model, torch.float32)
    found.take(model.named_parameters(), 1)
    return found


@pytest.mark.parametrize("tied", [True, False])
def test_a_written_model_is_the_trainers_with_a_head_of_its_own(tmp_path, tied):
    model = tiny_model(1)
    if not tied:
        model.config.tie_word_embeddings = False
        model = type(model)(model.config)
    found = handed(model)
    again = AutoModelForCausalLM.from_pretrained(found.write(tmp_path))
    assert again.lm_head.weight.data_ptr() != again.model.embed_tokens.weight.data_ptr()
    assert expected(again) == pytest.approx(expected(model), abs=1e-6)
    assert found.log_probs(PROMPT, ANSWER) == pytest.approx(expected(model), abs=1e-6)
    assert (expected(again) != expected(tiny_model(2))) is True


def test_a_later_head_follows_the_embeddings(tmp_path):
    model = tiny_model(1)
    found = handed(model)
    with torch.no_grad():
        model.get_input_embeddings().weight.mul_(1.5)
    found.take(model.named_parameters(), 2)
    again = AutoModelForCausalLM.from_pretrained(found.write(tmp_path))
    assert expected(again) == pytest.approx(expected(model), abs=1e-6)


def test_only_the_newest_folder_is_kept(tmp_path):
    found = handed(tiny_model(1))
    found.write(tmp_path)
    newest = found.write(tmp_path)
    assert list(tmp_path.iterdir()) == [newest]


def test_every_process_of_a_group_writes_for_a_server_of_its_own(tmp_path):
    distributed.init_process_group("fake", store=FakeStore(), rank=1, world_size=2)
    try:
        place = handed(model := tiny_model(1)).write(tmp_path)
    finally:
        distributed.destroy_process_group()
    assert torch.equal(
        AutoModelForCausalLM.from_pretrained(place).lm_head.weight, model.lm_head.weight
    )


def test_a_checkpoint_that_was_not_written_is_told_and_not_handed_over(tmp_path, monkeypatch):
    found = handed(tiny_model(1))
    monkeypatch.setattr(type(found.plain), "save_pretrained", lambda *given, **more: None)
    with pytest.raises(PluginError, match="transformers wrote no checkpoint"):
        found.write(tmp_path)


def test_a_handover_draws_no_random_number():
    torch.manual_seed(3)
    before = torch.random.get_rng_state()
    handed(model := tiny_model(0))
    torch.manual_seed(3)
    Handover.of(model, torch.float32)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_bf16_arithmetic_around_it_does_not_round_the_proof():
    found = handed(model := tiny_model(1))
    wanted = expected(model)
    with torch.autocast("cpu", torch.bfloat16):
        assert found.log_probs(PROMPT, ANSWER) == pytest.approx(wanted, abs=1e-6)


@pytest.mark.parametrize(
    ("change", "name"),
    [
        (
            lambda w: {k: x for k, x in w.items() if "layers.1" not in k},
            "model.layers.1.input_",
        ),
        (lambda w: w | {"base.lora_A.weight": torch.zeros(1)}, "base.lora_A.weight"),
    ],
)
def test_weights_that_are_not_those_of_the_plain_model_are_refused(change, name):
    model = tiny_model(1)
    streamed = change(dict(model.named_parameters()))
    with pytest.raises(PluginError, match=f"not those of a plain Qwen2ForCausalLM .'{name}"):
        Handover.of(model, torch.float32).take(streamed.items(), 1)


def test_a_weight_that_is_not_finite_is_named():
    model = tiny_model(1)
    model.model.norm.weight.data[3] = torch.nan
    with pytest.raises(TrainingError, match=r"'model.norm.weight' .* lower the learning rate"):
        Handover.of(model, torch.float32).take(model.named_parameters(), 4)
    with pytest.raises(TrainingError, match="look at the model it started from"):
        Handover.of(model, torch.float32).take(model.named_parameters(), 0)


def test_a_folder_without_room_is_told_with_both_sizes(tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)._replace(free=1)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    with pytest.raises(DataError, match=r"room for 0\.0 GiB and .* take 0\.0; name another place"):
        handed(tiny_model(1)).write(tmp_path)
