"""Judge quality: alpaca_eval's definitions by hand, on its numbers, and through the command."""

from __future__ import annotations

import json
import math
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import ClassVar

import pytest
from parity_human_agreement import FOLDER, check, close
from shared_data import shared

from alignzoo import AskedJudge, Capabilities, Judge, Reply, Score, Usage, hookimpl, option
from alignzoo.cli.evaluating import judge_quality
from alignzoo.cli.evaluating.judge_quality import Wish, eval_judge_command
from alignzoo.contract.errors import AlignzooError, DataError
from alignzoo.judging.quality.crossannotations import read_pairs
from alignzoo.judging.quality.examine import Examination, examine
from alignzoo.judging.quality.figures import (
    HumanPair,
    Labels,
    agreement_interval,
    correlation,
    estimate,
    has_list,
    human_quality,
    longest,
    quality,
)
from alignzoo.recipe.registry import load_plugins

SHORT, LONG = "x" * 10, "y" * 50
PANDALM = "pandalm_human_crossannotations.jsonl"


def pair(key, *preferences, one=SHORT, two=LONG, generators=()):
    return HumanPair(str(key), f"instruction {key}", one, two, tuple(preferences), generators)


def labels(*said):
    return Labels({str(key): given for key, given in enumerate(said)})


# --- definitions -------------------------------------------------------------------------------


def test_agreement_is_one_minus_the_distance_to_the_peoples_most_frequent_label():
    pairs = [pair(0, 1.0, 1.0, 2.0), pair(1, 2.0, 2.0, 2.0), pair(2, 1.5, 1.5, 1.0)]
    assert quality(pairs, labels((1.0,), (1.0,), (2.0,))).agreement == pytest.approx(50)
    assert quality(pairs, labels((1.0,), (1.75,), (1.5,))).agreement == pytest.approx(275 / 3)


def test_agreement_averages_over_the_repeats_of_a_judge():
    pairs = [pair(0, 1.0, 1.0), pair(1, 2.0, 2.0)]
    assert quality(pairs, labels((1.0, 2.0), (2.0,))).agreement == pytest.approx(50)  # 100 and 0


def test_a_pair_the_judge_gave_no_label_to_is_in_no_mean_and_is_not_counted_as_parsed():
    pairs = [pair(0, 1.0, 1.0), pair(1, 2.0, 2.0)]
    row = quality(pairs, labels((1.0,), ()))
    assert (row.agreement, row.parsed) == (100, 1)


def test_one_of_several_most_frequent_labels_is_drawn_and_always_the_same():
    assert estimate((1.0, 2.0)) == estimate((2.0, 1.0))
    assert estimate((1.0, 1.5, 2.0)) in (1.0, 1.5, 2.0)
    assert estimate((1.0, 2.0, 2.0)) == 2.0


def test_labels_that_are_shares_are_estimated_by_their_median():
    assert estimate((1.2, 1.3, 2.0)) == 1.3
    assert estimate((1.2, 1.3)) == pytest.approx(1.25)


def test_bias_and_variance_need_a_judge_that_was_asked_more_than_once():
    pairs = [pair(0, 1.0, 1.0, 1.0), pair(1, 2.0, 2.0, 2.0)]
    once = quality(pairs, labels((2.0,), (2.0,)))
    assert (once.bias, once.variance) == (None, None)
    thrice = quality(pairs, labels((2.0, 2.0, 1.0), (2.0, 2.0, 2.0)))
    assert thrice.bias == pytest.approx(50)  # the mode of the first pair is wrong by one
    first_left_out = abs(2.0 - estimate((2.0, 1.0)))  # twice, by symmetry
    assert thrice.variance == pytest.approx(100 * (2 * first_left_out / 2 + 1 / 2) / 3)


def test_the_peoples_row_is_each_of_them_against_the_others():
    row = human_quality([pair(0, 1.0, 1.0, 1.0), pair(1, 1.0, 1.0, 1.0), pair(2, 2.0, 2.0, 2.0)])
    assert (row.agreement, row.bias, row.variance, row.parsed) == (100, 0, 0, 9)


def test_correlations_compare_the_generators_win_rates():
    pairs = [
        pair(0, 1.0, 1.0, generators=("weak",)),
        pair(1, 1.5, 1.5, generators=("middle",)),
        pair(2, 2.0, 2.0, generators=("strong",)),
    ]
    agreeing = quality(pairs, labels((1.0,), (1.1,), (2.0,)))
    assert agreeing.spearman == pytest.approx(1)
    assert agreeing.pearson == pytest.approx(0.9078, abs=1e-4)
    assert quality(pairs, labels((2.0,), (1.5,), (1.0,))).spearman == pytest.approx(-1)


def test_correlations_of_one_generator_or_of_a_judge_without_opinion_are_unknown():
    one = [pair(0, 1.0, generators=("a",)), pair(1, 2.0, generators=("a",))]
    assert quality(one, labels((1.0,), (2.0,))).pearson is None
    two = [pair(0, 1.0, generators=("a",)), pair(1, 2.0, generators=("b",))]
    assert quality(two, labels((2.0,), (2.0,))).spearman is None
    assert correlation([1, 2, 3], [3, 2, 1]) == pytest.approx(-1)


def test_only_a_difference_of_more_than_thirty_characters_makes_an_output_longer():
    near, far = "z" * 40, "z" * 41
    pairs = [pair(0, 1.0, one=SHORT, two=near), pair(1, 1.0, one=SHORT, two=far)]
    assert quality(pairs, labels((1.0,), (2.0,))).longer == 1  # the first is no difference
    assert quality(pairs, labels((1.0,), (1.5,))).longer is None  # and the second a tie
    assert quality(pairs, labels((2.0,), (1.0,))).longer == 0


def test_lists_are_recognised_where_a_line_begins_with_a_mark():
    for text in ("* a", "intro\n- a", "• a", "1. a", "2) a", "a. b", "  - (x", "- \n\n a"):
        assert has_list(text), text
    for text in ("a - b", "1.", "-", "a.b", "1 a", ""):
        assert not has_list(text), text


def test_lists_count_only_where_one_output_has_one_and_the_other_has_none():
    pairs = [pair(0, 1.0, one="- a", two="a"), pair(1, 1.0, one="- a", two="* b")]
    assert quality(pairs, labels((1.0,), (2.0,))).lists == 1
    assert quality(pairs, labels((2.0,), (2.0,))).lists == 0


def test_the_interval_of_a_judge_without_a_fault_is_wilsons_and_of_no_judge_nothing():
    pairs = [pair(key, 1.0, 1.0) for key in range(20)]
    wilson = (pytest.approx(83.887, abs=0.001), 100)
    assert agreement_interval(pairs, labels(*[(1.0,)] * 20)) == wilson
    half = agreement_interval(pairs, labels(*[(1.0,), (2.0,)] * 10))
    assert half[0] < 50 < half[1] and agreement_interval(pairs, Labels({})) is None


def test_a_judge_that_said_nothing_has_no_figures():
    row = quality([pair(0, 1.0)], Labels({}))
    assert (row.agreement, row.first, row.longer, row.parsed) == (None, None, None, 0)


# --- files -------------------------------------------------------------------------------------


def write(path, rows):
    path.write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")
    return path


def label(instruction, preference, **more):
    texts = {"instruction": instruction, "output_1": SHORT, "output_2": LONG}
    return {**texts, "preference": preference, **more}


def test_the_rows_of_one_pair_are_its_labels_and_superfluous_ones_are_left_out(tmp_path):
    rows = [label(i, p) for i in "abc" for p in (1, 2, 0)] + [label("a", 1), label("d", 1)]
    found = read_pairs(write(tmp_path / "f.jsonl", rows))
    assert [(p.instruction, p.preferences) for p in found] == [(i, (1.0, 2.0, 1.5)) for i in "abc"]
    assert len(read_pairs(tmp_path / "f.jsonl", labels=1)) == 4


def test_a_missing_label_does_not_count_as_a_label(tmp_path):
    rows = [label("a", 1), label("a", None), label("b", 1), label("b", 2)]
    assert [p.instruction for p in read_pairs(write(tmp_path / "f.jsonl", rows))] == ["b"]


def test_generators_of_a_second_file_count_on_the_eval_split_and_with_enough_labels(tmp_path):
    rows = [label(f"i{i}", 2, datasplit="eval" if i else "train") for i in range(102)]
    names = [label(f"i{i}", 1, generator="much") for i in range(102)]
    names += [label(f"i{i}", 1, generator="little") for i in range(50)]
    first = write(tmp_path / "f.jsonl", rows)
    found = read_pairs(first, generators=write(tmp_path / "g.jsonl", names))
    assert [p.generators for p in found] == [()] + [("much",)] * 101
    fewer = read_pairs(first, generators=write(tmp_path / "h.jsonl", names[:101]))
    assert {p.generators for p in fewer} == {()}


@pytest.mark.parametrize(
    ("row", "words"),
    [
        (label("a", 3), "preference is 3"),
        (label("a", "x"), 'preference is "x"'),
        ({"instruction": "a", "output_1": "b"}, "output_2 is null, not a text"),
        ({"prompt": "a"}, "neither alpaca_eval's form"),
    ],
)
def test_a_row_that_cannot_be_used_is_named_with_its_line(tmp_path, row, words):
    with pytest.raises(DataError, match=r"f\.jsonl:2: ") as error:
        read_pairs(write(tmp_path / "f.jsonl", [label("a", 1), row]))
    assert words in str(error.value)


# --- the official numbers ----------------------------------------------------------------------


def expected():
    return json.loads(shared("eval", "expected.json").read_text())[FOLDER]


def test_every_number_of_the_official_program_is_reproduced():
    section = expected()
    every = {(FOLDER, name, title) for name, row in section.items() for title in row}
    assert check(shared("eval"), section) == every


# --- the command -------------------------------------------------------------------------------


@dataclass(frozen=True)
class Longer(Judge):
    """Prefers the longer output, of two equally long ones the second of the pair."""

    name = "longer"
    file: str = option(doc="where the pairs are")

    def score(self, answers):
        """Characters, and half a one for output_2."""
        pairs = read_pairs(shared("eval", FOLDER, self.file))
        return [
            Score(len(a.response.text) + 0.5 * (a.response.text == pairs[i].output_2))
            for a in answers
            for i in [a.sample.meta["id"]]
        ]


@pytest.fixture
def judges(monkeypatch):
    """The zoo with one more judge."""
    module = ModuleType("more_judges")
    module.__file__ = __file__
    module.register_judges = hookimpl(lambda: [Longer])
    monkeypatch.setattr(judge_quality, "load_plugins", lambda: load_plugins([module]))


def examined(capsys, *args, **more):
    assert eval_judge_command(*args, as_json=True, **more) == 0
    return json.loads(capsys.readouterr().out)


def test_the_command_reproduces_the_row_of_the_longest_output(judges, capsys):
    file = shared("eval", FOLDER, PANDALM)
    options = [f"judge.with.file={PANDALM}"]
    found = examined(capsys, file, "longer", options, "pairwise", None)
    assert found["counts"] == {"judged": 1998, "parsed": 1998, "failed": 0}
    for title, value in expected()["longest"].items():
        if not title.startswith("Time"):
            assert close(found["rows"]["longer"][title], value), title
    assert all(close(found["rows"]["humans"][t], x) for t, x in expected()["humans"].items())


def replies(pairs, path):
    """What a judge said to people's pairs, as words about both orders; None is babble."""
    rows = []
    said = [json.loads(line) for line in path.read_text().splitlines()]
    words = {1.0: ("SECOND", "FIRST"), 2.0: ("FIRST", "SECOND"), 1.5: ("TIE", "TIE")}
    for number, row in zip(range(len(pairs)), said, strict=True):
        for order, word in enumerate(words.get(row["preference"], ("?", "?")), 1):
            usage = {"prompt_tokens": 100, "completion_tokens": 10}
            text = "I cannot say." if word == "?" else f"Hm.\nVerdict: {word}"
            rows.append({"id": f"{number}/{order}", "text": text, "usage": usage})
    return rows


def test_recorded_replies_give_the_official_row_of_their_judge(capsys, tmp_path):
    rows = [json.loads(line) for line in shared("eval", FOLDER, PANDALM).read_text().splitlines()]
    for row in rows:  # pairs of equal texts would share one reply, and these were judged apart
        row["instruction"] += f" ({row['idx']})"
    file = write(tmp_path / "pairs.jsonl", rows)
    pairs = read_pairs(file)
    recorded = shared("eval", FOLDER, "judge_gpt-3.5-turbo.jsonl")
    replay = write(tmp_path / "replies.jsonl", replies(pairs, recorded))
    found = examined(capsys, file, "replay", [f"judge.with.path={replay}"], "pairwise", None)
    assert found["counts"] == {"judged": 1998, "parsed": 1948, "failed": 50}
    for title, value in expected()["gpt-3.5-turbo"].items():
        if not title.startswith(("Time", "Price")):
            assert close(found["rows"]["replay"][title], value), title


@pytest.fixture
def few(tmp_path):
    rows = [label(i, p) for i in "abcd" for p in (2, 2, 1)]
    return write(tmp_path / "pairs.jsonl", rows)


def spoken(few, tmp_path, texts):
    rows = [{"id": f"{i}/{k}{tail}", "text": text} for (i, k, tail), text in texts.items()]
    return [f"judge.with.path={write(tmp_path / 'replies.jsonl', rows)}"]


def test_orders_that_disagree_are_a_tie_and_half_a_pair_is_no_label(few, tmp_path, capsys):
    first, second = "Verdict: FIRST", "Verdict: SECOND"
    said = {
        (0, 1, ""): first, (0, 2, ""): second,  # output_2, shown first and second, is better
        (1, 1, ""): first, (1, 2, ""): first,  # whatever stands first
        (2, 1, ""): first, (2, 2, ""): "I like both.",
        (3, 1, ""): second, (3, 2, ""): first,
    }  # fmt: skip
    found = examined(capsys, few, "replay", spoken(few, tmp_path, said), "pairwise", None)
    row = found["rows"]["replay"]
    assert (row["# parsed"], row["Proba. prefer 1"]) == (3, pytest.approx(0.5))
    assert row["Human agreement"] == pytest.approx(100 * (1 + 0.5 + 0) / 3)


def test_repeats_give_the_judge_a_variance_and_a_bias(few, tmp_path, capsys):
    said = {(i, 1, tail): "Verdict: FIRST" for i in range(4) for tail in ("", "#2")}
    said[0, 1, "#2"] = "Verdict: SECOND"
    options = [*spoken(few, tmp_path, said), "with.orders=one"]
    found = examined(capsys, few, "replay", options, "pairwise", None, wish=Wish(repeats=2))
    row = found["rows"]["replay"]
    assert row["# parsed"] == 8
    assert row["Variance"] == pytest.approx(25)
    assert math.isfinite(row["Bias"])


def test_the_table_has_people_judge_and_longest_side_by_side(few, tmp_path, capsys, cli):
    said = {(i, k, ""): "Verdict: TIE" for i in range(4) for k in (1, 2)}
    options = [w for o in spoken(few, tmp_path, said) for w in ("--set", o)]
    status, out, err = cli("eval-judge", few, "--judge", "replay", *options)
    assert status == 0, err
    lines = [line.split() for line in out.splitlines()]
    assert ["humans", "replay", "longest"] in lines
    assert ["#", "parsed", "12", "4", "4"] in lines
    assert "8 questions judged, 8 parsed, 0 failed" in out


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"annotations": "absent.json"}, "absent.json: no such file; `hf download"),
        ({"judge": "nobody"}, "nobody"),
        ({"benchmark": "facts"}, "facts has a judge of its own"),
        ({"options": ["judge.with.path=absent.jsonl"]}, "absent.jsonl"),
    ],
)
def test_what_is_wrong_is_said_in_a_sentence(few, tmp_path, change, words):
    given = {"annotations": few, "judge": "replay", "benchmark": "pairwise"} | change
    with pytest.raises(AlignzooError) as error:
        eval_judge_command(
            Path(given["annotations"]),
            given["judge"],
            given.get("options", ["judge.with.path=none.jsonl"]),
            given["benchmark"],
            None,
            as_json=False,
        )
    assert words in str(error.value)


def test_a_judge_of_whom_nothing_can_be_read_is_an_error_that_shows_what_it_said(few, tmp_path):
    said = {(i, k, ""): "Bananas." for i in range(4) for k in (1, 2)}
    with pytest.raises(AlignzooError, match=r"not one of 8 replies holds a verdict.*Bananas"):
        eval_judge_command(
            few, "replay", spoken(few, tmp_path, said), "pairwise", None, as_json=True
        )


@dataclass(frozen=True)
class Polite(AskedJudge):
    """Always says the first; five tokens each, a price of its own."""

    name = "polite"
    asked: ClassVar[list[str]] = []
    capabilities: ClassVar = Capabilities("polite-1")

    def identity(self):
        return {"model": "polite-1"}

    @asynccontextmanager
    async def connect(self):
        yield self

    async def replies(self, questions):
        self.asked.extend(question.id for question in questions)
        return [Reply("Verdict: FIRST", usage=Usage(4, 1)) for _ in questions]

    def cost(self, usage):
        return 0.01 * usage.completion_tokens


def test_a_second_examination_asks_nobody_and_still_knows_the_price(tmp_path, monkeypatch):
    monkeypatch.setenv("ALIGNZOO_CACHE", str(tmp_path))
    benchmark = load_plugins().benchmarks["pairwise"]()
    examination = Examination(benchmark, [pair(i, 1.0, 2.0) for i in range(5)])
    first = examine(examination, Polite())
    assert (first.judged, first.parsed, first.model) == (10, 10, "polite-1")
    assert first.labels.price == pytest.approx(0.02)  # two questions per pair
    assert first.labels.seconds > 0
    second = examine(examination, Polite())
    assert len(Polite.asked) == 10
    assert second.labels == replace(first.labels, seconds=None)


def test_the_longest_of_two_equal_outputs_is_the_second():
    assert longest([pair(0, 1.0, one="ab", two="cd")]).of == {"0": (2.0,)}
