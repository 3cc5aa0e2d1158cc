"""What the client does when a server is absent, wrong or lost; no vLLM is needed for it."""

import importlib.util
import re
import socket
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest
import torch
from vllm_stand_in import CONTEXT, interpreter, stand_in

from alignzoo import DataError, Sampling, TrainingError
from alignzoo.testing import tiny_model
from alignzoo_vllm import VLLM

GREEDY = Sampling(max_new_tokens=4, temperature=0.0, stop_ids=(1,))
GENERATE = "/inference/v1/generate"


def started(address, **options):
    return closing(VLLM(address=address, **options).start(tiny_model(0)))


def weights(seed):
    return iter(tiny_model(seed).named_parameters())


def trainer(prompt, answer, seed=0):
    ids = torch.tensor([[*prompt, *answer]])
    with torch.no_grad():
        every = tiny_model(seed).eval()(ids).logits[0, len(prompt) - 1 : -1].log_softmax(-1)
    return every.gather(1, torch.tensor(answer)[:, None])[:, 0].tolist()


# --- a server that does as it should ----------------------------------------------------------


def test_a_running_server_is_given_the_weights_of_every_sync():
    with stand_in() as (policy, address), started(address) as session:
        for version, seed in enumerate((0, 1, 2)):
            session.sync(weights(seed), version)
            (done,) = session.generate([(5, 6, 7)], GREEDY, [3])
            expected = trainer((5, 6, 7), done.ids, seed)
            assert done.log_probs == pytest.approx(expected, abs=1e-5)
            assert done.ended == (done.ids[-1] == 1)
            assert policy.version.endswith(f"-{version}")


def test_an_engine_that_was_never_synced_samples_from_the_model_it_was_started_with():
    with stand_in() as (_, address), started(address) as session:
        (done,) = session.generate([(5, 6, 7)], GREEDY, [3])
        assert done.log_probs == pytest.approx(trainer((5, 6, 7), done.ids), abs=1e-5)


def test_a_request_says_all_of_the_sampling_and_a_seed_of_63_bits():
    sampling = Sampling(6, 0.7, 0.9, 5, 2, (1, 4))
    with stand_in() as (policy, address), started(address) as session:
        session.generate([(5, 6)], sampling, [2**63 + 11])
        (_, body) = policy.asked[-1]
    assert body["token_ids"] == [5, 6]
    assert body["model"] == "served"
    assert body["sampling_params"] == {
        "max_tokens": 6, "temperature": 0.7, "top_p": 0.9, "top_k": 5, "min_tokens": 2,
        "stop_token_ids": [1, 4], "seed": 11, "ignore_eos": True, "logprobs": 0,
        "detokenize": False,
    }  # fmt: skip


def test_weights_are_handed_over_in_a_folder_of_which_nothing_is_left(tmp_path):
    with stand_in() as (policy, address), started(address, folder=str(tmp_path)) as session:
        for version in range(3):
            session.sync(weights(version), version)
            (kept,) = tmp_path.glob("*/weights-*")
        place = [body["kwargs"]["weights_path"] for path, body in policy.asked if "rpc" in path]
        assert place[-1] == str(kept)
    assert list(tmp_path.iterdir()) == []


# --- a server that does wrong -----------------------------------------------------------------


def test_an_address_where_nobody_listens_is_told_before_anything_is_sampled():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{free.getsockname()[1]}"
        with pytest.raises(TrainingError, match=rf"the vLLM server at {address} is lost \(Conn"):
            VLLM(address=address).start(tiny_model())


NONSENSE = [
    ("/v1/models", b"<html>hello</html>", "says: b'<html>hello</html>'; start it as the README"),
    ("/v1/models", [1, 2], r"says: \[1, 2\]; start it as the README"),
    ("/v1/models", {"data": []}, "start it as the README"),
    ("/collective_rpc", (404, {"detail": "Not Found"}), "status 404: .*start it as the README"),
    ("/collective_rpc", (500, {"error": "reload failed"}), "status 500: .*reload failed.*run the"),
    ("/reset_prefix_cache", {"success": False}, "is busy with requests of another program"),
    ("/reset_prefix_cache", None, "says: None"),
    (GENERATE, {"choices": []}, "says: {'choices'"),
    (GENERATE, {"choices": [{"token_ids": [2]}]}, "says: {'choices'"),
    (GENERATE, b"not json", "says: b'not json'"),
    (GENERATE, b"", "says: None"),
]


@pytest.mark.parametrize(("path", "answer", "said"), NONSENSE)
def test_an_answer_that_makes_no_sense_is_a_sentence(path, answer, said):
    def say(asked, usual):
        return answer if asked == path else usual

    with (
        stand_in(say) as (_, address),
        pytest.raises(TrainingError, match=said),
        started(address) as session,
    ):
        session.sync(weights(0), 0)


def changed(answer, **choice):
    return {"choices": [answer["choices"][0] | choice]}


def test_a_server_that_keeps_a_part_of_the_old_weights_fails_the_proof_and_samples_nothing():
    with stand_in() as (policy, address), started(address) as session:
        session.sync(weights(0), 0)
        kept = policy.model.lm_head.weight.detach().clone()

        def stale(path, answer):
            if path == "/collective_rpc":  # 200, and the head is the old one, as vLLM does it
                policy.model.lm_head.weight.data.copy_(kept)
            return answer

        policy.say = stale
        with pytest.raises(TrainingError, match=r"does not sample from the weights .* \d.* nats"):
            session.sync(weights(1), 1)
        with pytest.raises(DataError, match="the last sync failed"):
            session.generate([(5, 6, 7)], GREEDY, [3])


def test_log_probs_after_temperature_and_top_k_fail_the_proof():
    def processed(path, answer):
        if path != GENERATE:
            return answer
        said = answer["choices"][0]["logprobs"]["content"]
        return changed(answer, logprobs={"content": [{"logprob": x["logprob"] / 2} for x in said]})

    refused = pytest.raises(TrainingError, match="does not sample from the weights")
    with stand_in(processed) as (_, address), started(address) as session, refused:
        session.sync(weights(0), 0)


def test_a_server_that_another_program_has_synced_is_found_out():
    with stand_in() as (policy, address), started(address) as session:
        session.sync(weights(0), 0)
        policy.version = "of another run"
        with pytest.raises(TrainingError, match="was given other weights by another program"):
            session.generate([(5, 6, 7)], GREEDY, [3])


def test_an_answer_cut_short_by_the_server_is_never_taken_for_a_whole_one():
    with stand_in() as (policy, address), started(address) as session:
        session.sync(weights(0), 0)

        def cut(path, answer):
            content = answer["choices"][0]["logprobs"]["content"][:1]
            return changed(answer, token_ids=[5], logprobs={"content": content})

        policy.say = cut
        with pytest.raises(TrainingError, match="says: "):
            session.generate([(5, 6, 7)], GREEDY, [3])


def test_a_server_that_does_not_answer_is_lost_after_the_deadline():
    with stand_in() as (policy, address), started(address, deadline=1.0) as session:
        session.sync(weights(0), 0)
        policy.say = lambda path, answer: "stall"
        begun = time.monotonic()
        with pytest.raises(TrainingError, match=r"gave no answer in 1 s; run the recipe again"):
            session.generate([(5, 6, 7)], GREEDY, [3])
        assert time.monotonic() - begun < 3


# --- what is refused before it is asked -------------------------------------------------------


@pytest.mark.parametrize(
    ("prompt", "sampling", "said"),
    [
        ((), GREEDY, "no tokens"),
        ((13,), GREEDY, "holds id 13, but the model's vocabulary has 13"),
        ((5,) * CONTEXT, GREEDY, f"make {CONTEXT + 4}, but the model's context is {CONTEXT}"),
        ((5,), Sampling(4, stop_ids=(99,)), "not in the model's vocabulary"),
        ((5,), Sampling(4, temperature=0.001), "vLLM has 0, or 0.01 and more"),
    ],
)
def test_what_vllm_would_change_in_silence_or_die_of_is_refused(prompt, sampling, said):
    refused = pytest.raises(DataError, match=said)
    with stand_in() as (policy, address), started(address) as session, refused:
        session.generate([prompt], sampling, [0])
    assert [path for path, _ in policy.asked] == ["/v1/models"]


def test_several_processes_may_not_share_an_address(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(DataError, match="several processes need a server each"):
        VLLM(address="http://localhost:1").start(tiny_model())


def test_a_server_that_is_to_sleep_needs_a_gpu():
    with pytest.raises(DataError, match="sleeps only on a GPU"):
        VLLM(sleep=True).start(tiny_model())


# --- an environment without vLLM --------------------------------------------------------------


def without_vllm():
    if importlib.util.find_spec("vllm"):
        pytest.skip("vLLM is installed beside alignzoo")
    return sys.executable


@pytest.mark.parametrize(
    ("python", "said"),
    [
        (without_vllm, f"{sys.executable} has no package vllm"),
        (lambda: "/nowhere/bin/python", "No such file or directory: '/nowhere/bin/python'"),
        (lambda: "/bin/false", "/bin/false ended with exit status 1"),
    ],
)
def test_an_interpreter_without_vllm_is_told_and_nothing_is_started(tmp_path, python, said):
    engine = VLLM(python=python(), folder=str(tmp_path))
    for ask in (engine.check_here, lambda: engine.start(tiny_model())):
        with pytest.raises(DataError) as caught:
            ask()
        assert said in str(caught.value)
        assert "$ALIGNZOO_VLLM_PYTHON must be an interpreter that has vLLM" in str(caught.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("dies", "said"),
    [
        ("no such GPU", "log: RuntimeError: no such GPU | keeper"),
        ("", "log: ModuleNotFoundError: No module named 'vllm.entrypoints' | keeper"),
    ],
)
def test_a_server_that_dies_at_its_start_is_told_with_its_own_words(tmp_path, dies, said):
    (place := tmp_path / "handed").mkdir()
    engine = VLLM(python=interpreter(tmp_path / "env", dies=dies), folder=str(place))
    begun = time.monotonic()
    with pytest.raises(TrainingError) as caught, closing(engine.start(tiny_model())) as session:
        session.sync(weights(0), 0)
    assert said in str(caught.value)
    assert "the vLLM server ended before it was ready" in str(caught.value)  # not "in 600 s"
    assert time.monotonic() - begun < 30
    assert list(place.iterdir()) == []


# --- what counts for a result -----------------------------------------------------------------


def test_neither_place_nor_patience_is_part_of_a_result(tmp_path):
    ours, theirs = interpreter(tmp_path / "ours"), interpreter(tmp_path / "theirs")
    here, there = VLLM(python=ours), VLLM(python=theirs, folder="f", deadline=1, startup=1)
    assert here.identity() == there.identity()
    assert VLLM(address="http://h:1").identity() == VLLM(address="http://i:2").identity()
    assert VLLM(python=ours, dtype="bfloat16").identity() != here.identity()
    assert VLLM(python=ours, arguments="--quantization fp8").identity() != here.identity()


def test_the_version_of_the_server_is_part_of_a_result(tmp_path):
    older, newer = (interpreter(tmp_path / v, version=v) for v in ("0.32.0", "0.32.1"))
    assert "vllm 0.32.0" in VLLM(python=older).identity()["server"]
    assert VLLM(python=older).identity() != VLLM(python=newer).identity()


def test_the_plugin_imports_no_vllm_and_no_http_library():
    text = "".join(file.read_text() for file in Path(__file__).parent.glob("[!t]*.py"))
    assert not re.search(r"^\s*(import|from) (vllm|httpx)\b", text, re.MULTILINE)
