"""The lens shows what the loss was given, and what plain transformers computes."""

from dataclasses import dataclass, replace

import pytest
import torch
import yaml
from extra_methods import Hinted
from lens_runs import SEEN, lens_run, registry
from tiny_models import score, tiny_llama, word_tokenizer
from transformers import AutoModelForCausalLM

from alignzoo import Algorithm, Role, TextBatch
from alignzoo.contract.errors import DataError, PluginError
from alignzoo.contract.stage import ModelRef
from alignzoo.contract.types import PromptSample, Response, TextSample, Tokens
from alignzoo.lens.answers import reader_of, rewards_of
from alignzoo.lens.gather import read_method
from alignzoo.lens.methods import Loaded, Method, load_method, module_of, stage_method
from alignzoo.lens.responses import Answered, answered, read_file
from alignzoo.lens.view import at_tokens, opening
from alignzoo.ops import log_prob
from alignzoo.recipe.options import build_options
from alignzoo.recipe.registry import load_plugins

ALIKE = {"rtol": 1e-4, "atol": 1e-6}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return lens_run(tmp_path_factory.mktemp("lens"))


@pytest.fixture(scope="module")
def plugins():
    return registry()


def looked_at(run, stage, plugins, rows=None):
    """The method's readings on the texts that the run learnt from, or on other rows."""
    loaded = load_method(stage_method(run, stage, stage, plugins), plugins, "cpu")
    if rows is None:
        rows = answered(read_file(run.parent / "t.jsonl", 9)[0], reader_of(loaded), 64)
    rewards, _ = rewards_of(loaded, rows, plugins)
    return read_method(loaded, rows, rewards, pad_id=2, size=2), rows


def seen_by(name, row, which=0):
    """What the loss was given at the n + 1 positions of a row."""
    ids = torch.tensor([*row.tokens.prompt, *row.tokens.response])
    calls = [c for c in SEEN if c[0] == name]
    for _, batch, signals in calls[which:]:
        for b, own in enumerate(batch):
            if torch.equal(own[: len(ids)], ids):
                start = len(row.tokens.prompt) - 1
                return {n: x[b, start : len(ids)] for n, x in signals.items()}
    raise AssertionError("the loss never saw this row")


@pytest.mark.parametrize(("stage", "which", "at"), [("aligned", 0, 0), ("official", 1, 1)])
def test_a_token_has_the_value_that_the_loss_was_given_at_the_stages_own_positions(
    run, plugins, stage, which, at
):
    found, rows = looked_at(run, stage, plugins)
    assert found.official == (stage == "official")
    for number, row in enumerate(rows):
        trained = seen_by("recorded", row, which)
        for quantity in (q for q in found.quantities if q.name.startswith("distil/")):
            shown = at_tokens(found, quantity, number, int(found.official))
            n = len(row.tokens.response)
            told = trained[quantity.name][at : n + at]
            if at:  # beyond the end a label is what pads, and the longest row of a batch has none
                shown, told = shown[:-1], told[:-1]
            torch.testing.assert_close(shown, told, **ALIKE)


def plain_log_probs(folder, ids):
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    with torch.no_grad():
        return model(input_ids=torch.tensor([ids])).logits[0].log_softmax(-1)


def test_every_number_at_a_token_is_that_of_plain_transformers(run, plugins):
    found, rows = looked_at(run, "aligned", plugins)
    folders = {"policy": "03-aligned", "teacher": "01-dpo", "anchor": "02-reverse"}
    for number, row in enumerate(rows):
        ids = [*row.tokens.prompt, *row.tokens.response]
        p = {r: plain_log_probs(run / "stages" / f / "model", ids) for r, f in folders.items()}
        at = slice(len(row.tokens.prompt) - 1, len(ids))  # the positions of all tokens, and the end
        policy, dpo, anchor = (p[role][at] for role in folders)
        tvd = (dpo.exp() - anchor.exp()).abs().sum(-1) / 2
        alpha = 2.0 * tvd + 1e-3
        teacher = (dpo + alpha[:, None] * (dpo - anchor)).log_softmax(-1)
        labels = torch.tensor(row.tokens.response)[:, None]
        expected = {
            "distil/tvd": tvd,
            "distil/alpha": alpha,
            "distil/beta_t": 0.1 / alpha,
            "distil/kl": (policy.exp() * (policy - teacher)).sum(-1),
            "entropy of policy": -(policy.exp() * policy).sum(-1),
            "KL(policy || anchor)": (policy.exp() * (policy - anchor)).sum(-1),
        }
        of_labels = {
            "distil/reward": 0.1 * (dpo - anchor)[:-1].gather(1, labels)[:, 0],
            "log policy/teacher": (policy - dpo)[:-1].gather(1, labels)[:, 0],
            "log p of policy": policy[:-1].gather(1, labels)[:, 0],
        }
        values = found.rows[number].values
        for name, x in expected.items():
            torch.testing.assert_close(values[name], x, rtol=1e-4, atol=1e-5)
        for name, x in of_labels.items():
            torch.testing.assert_close(values[name][:-1], x, rtol=1e-4, atol=1e-5)
        for name, log_p in {"policy": policy, "teacher": dpo, "synthetic teacher": teacher}.items():
            best = log_p.exp().topk(5)
            top = found.rows[number].top[name]
            torch.testing.assert_close(top.shares, best.values, rtol=1e-4, atol=1e-6)
            assert torch.equal(top.ids, best.indices)
            own = log_p.exp()[:-1].gather(1, labels)[:, 0]
            torch.testing.assert_close(top.own[:-1], own, rtol=1e-4, atol=1e-6)


def test_the_reward_of_dpo_is_beta_times_the_log_ratio_and_the_page_opens_with_it(run, plugins):
    found, rows = looked_at(run, "dpo", plugins)
    assert opening(found).name == "reward" and opening(found).unit == "nats"
    for number, row in enumerate(rows):
        ids = [*row.tokens.prompt, *row.tokens.response]
        labels = torch.tensor(row.tokens.response)[:, None]
        at = slice(len(row.tokens.prompt) - 1, len(ids) - 1)
        own = plain_log_probs(run / "stages/01-dpo/model", ids)[at].gather(1, labels)[:, 0]
        other = plain_log_probs(run.parent / "model", ids)[at].gather(1, labels)[:, 0]
        shown = at_tokens(found, opening(found), number, 0)
        torch.testing.assert_close(shown, 0.1 * (own - other), rtol=1e-4, atol=1e-6)


def test_advantages_are_those_that_the_loss_was_given_for_the_same_buffer(run, plugins):
    _, ids, signals = next(c for c in SEEN if c[0] == "recorded-grpo")
    loaded = load_method(stage_method(run, "grpo", "grpo", plugins), plugins, "cpu")
    reader = reader_of(loaded)
    rows = []
    for b in range(len(ids)):
        at = signals["response"][b].nonzero()[:, 0]
        start, end = int(at[0]), int(at[-1]) + 1
        tokens = Tokens(tuple(ids[b, :start].tolist()), tuple(ids[b, start:end].tolist()))
        ended = tokens.response[-1] in reader.ends
        body = tokens.response[:-1] if ended else tokens.response
        text = reader.continuation(tokens.prompt, body)
        response = Response(text, tokens.response, ended)
        rows.append(Answered(f"row {b}", "", PromptSample("x"), response, tokens))
    found, _ = looked_at(run, "grpo", plugins, rows)
    (advantage,) = [q for q in found.quantities if q.name == "advantage"]
    assert advantage.origin == "prepare"
    sizes = []
    for number, row in enumerate(rows):
        start = len(row.tokens.prompt) - 1
        told = signals["advantage"][number, start : start + len(row.tokens.response)]
        torch.testing.assert_close(
            at_tokens(found, advantage, number, 0), told, rtol=1e-4, atol=1e-5
        )
        sizes.append(float(told.abs().max()))
    assert max(sizes) > 0.1


def test_what_a_row_says_does_not_depend_on_the_rows_beside_it(run, plugins):
    together, rows = looked_at(run, "official", plugins)
    for number in range(len(rows)):
        alone, _ = looked_at(run, "official", plugins, rows[number : number + 1])
        for name, x in alone.rows[0].values.items():
            told = together.rows[number].values[name]
            torch.testing.assert_close(x, told, equal_nan=True, **ALIKE)


ROWS = [
    Answered("row 1", "", PromptSample("x"), Response("x"), Tokens((2, 3), (4, 5, 6, 1))),
    Answered("row 2", "", PromptSample("x"), Response("x"), Tokens((3,), (7, 1))),
]


def any_method(cls):
    """A method on tiny models that nobody has trained."""
    heads = {role: kind.head for role, kind in cls.roles.items()}
    models = {role: tiny_llama(head, seed=n) for n, (role, head) in enumerate(heads.items())}
    algorithm = build_options(cls, cls.example_options)
    module = module_of(algorithm, models)
    method = Method(cls.name, algorithm, {role: ModelRef(role) for role in heads})
    return Loaded(method, module, word_tokenizer(), {}, (), 12)


@pytest.mark.parametrize("name", sorted(load_plugins().algorithms))
def test_every_signal_of_every_installed_method_is_shown_at_some_token(name):
    loaded = any_method(load_plugins().algorithms[name])
    rows = [  # what methods ask of a row: a hint, and whose it is to learn from
        replace(row, prompt=PromptSample("x", {"hint": "owl", "teacher": number}))
        for number, row in enumerate(ROWS)
    ]
    found = read_method(loaded, rows, [1.0, 2.0], pad_id=1)
    algorithm = loaded.method.algorithm
    own = {q.name.partition("/")[0] for q in found.quantities}
    assert own >= algorithm.signals().keys() | algorithm.snapshots().keys()
    for quantity in found.quantities:
        shown = torch.cat([at_tokens(found, quantity, row, 0) for row in range(len(ROWS))])
        assert shown.isfinite().any(), quantity


def test_a_number_that_a_method_asks_of_rows_and_they_lack_is_named(plugins):
    found = read_method(any_method(plugins.algorithms["mopd"]), ROWS, None, pad_id=1)
    assert any("it needs the number 'teacher' of every row" in note for note in found.notes)


def test_a_signal_that_sits_on_the_last_token_is_shown_there(plugins):
    loaded = any_method(plugins.algorithms["reward_model"])
    found = read_method(loaded, ROWS, None, pad_id=1)
    (reward,) = found.quantities
    assert reward.at == (1,) and found.distributions == ()
    shown = at_tokens(found, reward, 0, 0)
    assert shown.isnan().tolist() == [True, True, True, False]
    ids = [*ROWS[0].tokens.prompt, *ROWS[0].tokens.response]
    assert shown[-1].item() == pytest.approx(score(loaded.module.by_role["policy"], ids), rel=1e-5)


def test_a_role_that_sees_another_prompt_is_read_behind_it():
    loaded = any_method(Hinted)
    sample = TextSample("the fox ", Response("sees a berry"), {"hint": "owl"})
    rows = answered([("row 1", sample)], reader_of(loaded), 64)
    found = read_method(loaded, rows, None, pad_id=1)
    response = rows[0].tokens.response
    behind, plain = [word_tokenizer()(text)["input_ids"] for text in ("owl the fox", "the fox")]
    with torch.no_grad():
        p = {
            name: loaded.module.by_role[role](input_ids=torch.tensor([[*prompt, *response]]))
            .logits[0, len(prompt) - 1 : -1]
            .log_softmax(-1)
            for name, role, prompt in (
                ("teacher", "teacher", behind),
                ("policy", "policy", plain),
                ("other", "teacher", plain),
            )
        }
    labels = torch.tensor(response)[:, None]
    told = at_tokens(found, next(q for q in found.quantities if q.name == "told"), 0, 0)
    torch.testing.assert_close(told, p["teacher"].gather(1, labels)[:, 0], rtol=1e-4, atol=1e-5)
    assert (told - p["other"].gather(1, labels)[:, 0]).abs().max() > 1e-3
    distance = at_tokens(found, next(q for q in found.quantities if q.name == "kl"), 0, 0)
    expected = (p["teacher"].exp() * (p["teacher"] - p["policy"])).sum(-1)
    torch.testing.assert_close(distance, expected, rtol=1e-4, atol=1e-5)
    top = found.rows[0].top["teacher"]
    best = p["teacher"].exp().topk(5).values
    torch.testing.assert_close(top.shares[:-1], best, rtol=1e-4, atol=1e-6)


def test_a_row_of_which_a_method_makes_no_view_is_refused():
    loaded = any_method(Hinted)
    rows = answered([("f:7", TextSample("the fox", Response("sees")))], reader_of(loaded), 64)
    with pytest.raises(DataError, match="f:7: 'hinted' makes no view 'hint'"):
        read_method(loaded, rows, None, pad_id=1)


@pytest.mark.parametrize(("name", "folder"), [("twin", "stages/01-it/model"), ("mirrored", "m")])
def test_a_role_that_moved_is_the_trained_one_or_told_to_be_read_as_it_started(
    tmp_path, plugins, name, folder
):
    for place in ("m", "stages/01-it/model"):
        (tmp_path / place).mkdir(parents=True)
    stage = {"name": "it", "algorithm": name, "data": {"name": "x"}}
    made = {"name": "r", "model": str(tmp_path / "m"), "stages": [stage]}
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(made))
    method = stage_method(tmp_path, "it", "r/it", plugins)
    assert method.refs["teacher"].name == str(tmp_path / folder)
    moved = "r/it: role 'teacher' takes on 0.5 of policy after every step; a stage does not keep it"
    assert [note.startswith(moved) for note in method.notes] == [True] * (name == "mirrored")


@dataclass(frozen=True)
class Wide(Algorithm[TextBatch]):
    """A method whose `shown` returns one value per row."""

    name = "wide"
    batch = TextBatch
    roles = {"policy": Role(trainable=True)}

    def signals(self):
        return {"policy": log_prob("policy")}

    def shown(self, signals):
        return {"mean": signals["policy"].mean(-1)}


def test_a_method_that_shows_something_else_than_values_of_tokens_is_told():
    with pytest.raises(PluginError, match=r"'wide': `shown` must return values \[B, S\].*'mean'"):
        read_method(any_method(Wide), ROWS, None, pad_id=1)


def test_advantages_that_need_unknown_rewards_are_left_out_aloud(plugins):
    found = read_method(any_method(plugins.algorithms["grpo"]), ROWS, None, pad_id=1)
    assert "advantage" not in {q.name for q in found.quantities}
    assert found.notes == ("grpo: what `prepare` makes is not shown: it needs the reward of every "
                           "response",)  # fmt: skip
