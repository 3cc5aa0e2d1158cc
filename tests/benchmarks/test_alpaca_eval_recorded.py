"""AlpacaEval 2 on recorded judgments: replies go in as a judge gave them, columns come out."""

import gzip
import json

import pytest
from alignzoo_alpaca_eval import AlpacaEval
from shared_data import shared

from alignzoo import Answer, Reply, Response

TEMPLATE = "Asked: {instruction}\n\nm: {output_1}\n\nM: {output_2}\n\nWhich is better?"
MODEL = "vicuna-7b"


@pytest.fixture(scope="module")
def section():
    return json.loads(shared("eval", "expected.json").read_text(encoding="utf-8"))["alpaca_eval"]


@pytest.fixture(scope="module")
def recorded():
    path = shared("eval", "alpaca_eval", f"{MODEL}.annotations.jsonl.gz")
    with gzip.open(path, "rt", encoding="utf-8") as file:
        return [json.loads(line) for line in file]


@pytest.fixture
def template(tmp_path):
    path = tmp_path / "template.txt"
    path.write_text(TEMPLATE, encoding="utf-8")
    return str(path)


def judged(bench, rows):
    """The columns of a model whose outputs and replies are on record."""
    outputs = {row["instruction"]: row for row in rows}
    prompts = list(bench.prompts(0))
    found = [outputs[prompt.prompt[0]["content"]] for prompt in prompts]
    pairs = zip(prompts, found, strict=True)
    answers = [Answer(prompt, Response(row["output"]), 0) for prompt, row in pairs]
    baseline = bench.baseline_answers(prompts)
    verdicts = {}
    for question in bench.questions(answers, baseline):
        reply = Reply(top_logprobs=found[question.index]["top_logprobs"])
        verdicts[question.id] = bench.verdict(question, reply)
    return bench.columns(answers, baseline, verdicts), verdicts


def test_recorded_replies_in_the_official_order_give_the_official_row(section, recorded, template):
    folder = str(shared("eval", "alpaca_eval"))
    bench = AlpacaEval(data=folder, template=template, orders="official")
    columns, verdicts = judged(bench, recorded)
    wanted = section[MODEL]
    rate, controlled = columns["win_rate"].estimate, columns["lc_win_rate"].estimate
    assert rate.value == pytest.approx(wanted["win_rate"], abs=1e-6)
    assert rate.error == pytest.approx(wanted["standard_error"], abs=1e-6)
    discrete = columns["discrete_win_rate"].estimate.value
    assert discrete == pytest.approx(wanted["discrete_win_rate"], abs=1e-6)
    lengths = columns["length"].values
    assert int(sum(lengths) / len(lengths)) == wanted["avg_length"]
    assert controlled.value == pytest.approx(
        wanted["published"]["length_controlled_winrate"], abs=0.02
    )
    assert controlled.low < controlled.value < controlled.high
    assert None not in verdicts.values() and len(verdicts) <= 805
    assert bench.settings()["length_control"] == "v1" and columns["lc_win_rate"].note == "C = 21.54"


@pytest.mark.parametrize("variant", ["noreg", "minimal"])
def test_the_variants_of_length_control_are_chosen_by_option(section, recorded, template, variant):
    wanted = section[MODEL][f"length_controlled_{variant}"]
    folder = str(shared("eval", "alpaca_eval"))
    bench = AlpacaEval(
        data=folder, template=template, orders="official", length_control=variant, C=wanted["C"]
    )
    found = judged(bench, recorded)[0]["lc_win_rate"]
    assert found.estimate.value == pytest.approx(wanted["length_controlled_winrate"], abs=0.02)
    assert "not the published number" in found.doc
