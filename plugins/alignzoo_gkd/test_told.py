"""What a teacher is told, and which answers it teaches: SDFT, OPSD, SDPO, two teachers."""

import math

import pytest
import torch

from alignzoo import Case, Follow, GroupBatch, PromptSample, Response
from alignzoo.testing import check_algorithm
from alignzoo_gkd import MOPD, OPSD, SDFT, SDPO

CHAT = ({"role": "system", "content": "Be brief."}, {"role": "user", "content": "Which {hint}?"})


def case(prompt="Which colour?", hint="It is blue.", **more):
    return Case(PromptSample(prompt, {"hint": hint, "demo": "Red, I think."}), **more)


def test_a_teacher_reads_the_hint_before_the_prompt():
    assert SDFT().view("told", case()) == "It is blue.\n\nWhich colour?"


def test_a_template_and_an_entry_of_meta_say_what_it_reads():
    method = SDFT(template="{prompt} Example: {hint} Now you.", hint="demo")
    assert method.view("told", case()) == "Which colour? Example: Red, I think. Now you."


def test_of_a_chat_the_last_message_changes_and_braces_in_it_stay():
    seen = SDFT().view("told", case(CHAT, "Say {prompt}."))
    assert seen == (CHAT[0], {"role": "user", "content": "Say {prompt}.\n\nWhich {hint}?"})
    assert CHAT[1]["content"] == "Which {hint}?"


@pytest.mark.parametrize("template", ["{hint}", "{prompt}", "hint prompt"])
def test_a_template_without_room_for_both_is_refused(template):
    with pytest.raises(ValueError, match="template has no"):
        SDFT(template=template)


def test_a_hint_that_is_no_text_or_not_there_is_refused():
    with pytest.raises(TypeError, match=r"meta\.hint is a list, not a text"):
        SDFT().view("told", case(hint=["blue"]))
    with pytest.raises(KeyError, match="secret"):
        SDFT(hint="secret").view("told", case())


def test_a_teacher_stays_follows_or_is_the_policy():
    assert OPSD().moving() == {} == SDFT(follow=0).moving()
    assert SDFT().moving() == {"teacher": Follow("policy", mix=0.05)}
    assert SDPO(follow=1).moving()["teacher"].shares


# Two prompts, three answers each; rows go answer by answer: (p0, y0), (p1, y0), (p0, y1), ...
SEEN = torch.ones(6, 2, dtype=torch.bool)
SCORE = torch.tensor([0.0, 0.9, 3.0, 0.0, 1.0, 0.5])  # prompt 0: 0, 3, 1; prompt 1: .9, 0, .5
BATCH = GroupBatch.of(3)(SEEN.long(), SEEN, SEEN & (torch.arange(2) > 0), SCORE, torch.ones(6))
TAUGHT = [True, False, False, False, False, False]  # the failure beside a success


def test_failed_answers_beside_a_success_are_taught_and_their_teacher_reads_the_best():
    method = SDPO()
    assert method.taught(BATCH).tolist() == TAUGHT
    answers = tuple(Response(text) for text in ("no", "best", "good"))
    for n in range(2):
        scores = tuple(SCORE.view(3, 2)[:, n].tolist())
        for k in range(3):
            seen = method.view("told", case(answer=k, sampled=answers, scores=scores))
            taught = TAUGHT[2 * k + n]
            assert seen == ("best\n\nWhich colour?" if taught else "Which colour?")


def test_a_lower_bar_makes_more_successes():
    assert SDPO(success=0.9).taught(BATCH).tolist() == [True, False, False, True, False, True]


def test_only_taught_answers_count_in_the_loss():
    loss = torch.tensor([[2.0, 9.0]] + [[0.0, 9.0]] * 5, dtype=torch.float64)
    given = {"distil/loss": loss, "distil/kl": 2 * loss}
    found = SDPO().loss(BATCH, given, {})
    term = found.terms
    assert (term.value * term.weights).sum() / term.weights.sum() == 2.0
    logged = {n: (x.value * x.weight).sum() / x.weight.sum() if x.weight is not None
              else x.value.mean() for n, x in found.metrics.items()}  # fmt: skip
    assert {n: x.item() for n, x in logged.items()} == pytest.approx(
        {
            "kl_full/teacher_seq": 4.0,
            "kl_full/teacher_token": 4.0,
            "taught": 1 / 6,
            "success": 1 / 3,
        }
    )


def test_a_teacher_speaks_of_its_own_rows():
    own = torch.tensor([[0.0, math.log(3)]], dtype=torch.float64)  # the first teacher: 1/4, 3/4
    other = torch.zeros(1, 2, dtype=torch.float64)
    outputs = {"policy": other, "teacher_0": own, "teacher_1": other}
    first, second = (MOPD().signals()[f"teacher_{k}"] for k in range(2))
    kl = 0.5 * math.log(2) + 0.5 * math.log(2 / 3)
    assert first.reduce(outputs, torch.tensor([0]))["loss"].item() == pytest.approx(kl)
    assert second.reduce(outputs, torch.tensor([0]))["loss"].item() == 0
    seen = torch.ones(2, 3, dtype=torch.bool)
    batch = MOPD.batch(seen.long(), seen, seen & (torch.arange(3) > 0), torch.tensor([0.0, 1.0]))
    assert first.mask(batch).tolist() == [[True, True, False], [False] * 3]
    assert second.mask(batch).tolist() == [[False] * 3, [True, True, False]]


@pytest.mark.parametrize("method", [SDFT(), OPSD(), SDPO(follow=1), MOPD()], ids=lambda m: m.name)
def test_the_contract_is_kept(method):
    check_algorithm(method)
