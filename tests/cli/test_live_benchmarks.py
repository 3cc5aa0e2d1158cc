"""The whole command against an endpoint that says what judges really said: the official numbers."""

import gzip
import json
import subprocess
import sys

import parity_mt_bench
import pytest
from alignzoo_alpaca_eval.benchmark import AlpacaEval
from alignzoo_arena_hard.benchmark import ArenaHard
from alignzoo_judges.test_end_to_end import can_serve, transformers_serve
from alignzoo_mt_bench.benchmark import MTBench
from eval_data import CHATML, CONFIG
from judge_server import MODEL, serving, stats_of
from shared_data import shared

from alignzoo.judging.outputs import match, read_outputs


def expected(part):
    return json.loads(shared("eval", "expected.json").read_text(encoding="utf-8"))[part]


def lines(path):
    opened = gzip.open if path.suffix == ".gz" else open
    with opened(path, "rt", encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def write_lines(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def evaluate(tmp_path, outputs, name, replies, options):
    """`alignzoo eval` through HTTP; the only row of its table that is not the baseline."""
    with serving("--replies", write_lines(tmp_path / "replies.jsonl", replies)) as url:
        judge = ["--judge", "openai", "--set", f"judge.with.model={MODEL}",
                 "--set", f"judge.with.url={url}"]  # fmt: skip
        words = ["eval", outputs, "--benchmark", name, *judge, "--json"]
        words += [word for key, value in options.items() for word in ("--set", f"{key}={value}")]
        words += ["--output", tmp_path / "run"]
        command = [sys.executable, "-m", "alignzoo.cli", *map(str, words)]
        done = subprocess.run(command, check=False, capture_output=True, text=True, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        asked = sum(stats_of(url)["calls"].values())
    ((row,),) = (section["rows"] for section in json.loads(done.stdout))
    return row, asked


def test_alpaca_eval_through_http(tmp_path):
    folder = shared("eval", "alpaca_eval")
    rows = lines(folder / "gemma-2b-it.annotations.jsonl.gz")
    outputs = tmp_path / "model_outputs.json"
    keys = ("instruction", "output", "generator")
    outputs.write_text(json.dumps([{key: row[key] for key in keys} for row in rows]))
    template = tmp_path / "template.txt"
    template.write_text(CHATML)
    benchmark = AlpacaEval(str(folder), str(template), "official")
    prompts = list(benchmark.prompts(0))
    answers = match(read_outputs(outputs), prompts, "gemma")
    questions = benchmark.questions(answers, benchmark.baseline_answers(prompts))
    said = {row["instruction"]: row["top_logprobs"] for row in rows}
    replies = [
        {"messages": q.messages, "text": "m",
         "top_logprobs": said[prompts[q.index].prompt[0]["content"]]}
        for q in questions
    ]  # fmt: skip
    options = {"with.data": folder, "with.template": template, "with.orders": "official"}
    row, asked = evaluate(tmp_path, outputs, "alpaca_eval", replies, options)
    official = expected("alpaca_eval")["gemma-2b-it"]
    assert row["model"] == "gemma-2b-it", "the file says who wrote it"
    assert row["cells"]["win_rate"]["mean"] == pytest.approx(official["win_rate"], abs=1e-6)
    assert row["cells"]["win_rate"]["error"] == pytest.approx(official["standard_error"], abs=1e-6)
    by_C = official["lc_v1"]["lc_by_C"].values()
    found = row["cells"]["lc_win_rate"]["mean"]
    assert min(abs(found - value) for value in by_C) < 0.005
    assert found == pytest.approx(official["published"]["length_controlled_winrate"], abs=0.2)
    assert 805 <= asked <= 805 + 3  # and the probes


def test_mt_bench_through_http(tmp_path):
    folder = shared("eval", parity_mt_bench.FOLDER)
    benchmark = MTBench(str(folder), parity_mt_bench.OFFICIAL)
    ((model, recorded),) = parity_mt_bench.recorded_prompts(shared("eval")).items()
    answers = parity_mt_bench.recovered_answers(recorded, benchmark, shared("eval"))
    outputs = write_lines(
        tmp_path / "answers.jsonl",
        [
            {"question_id": int(a.sample.meta["id"]), "model_id": model,
             "choices": [{"index": 0, "turns": list(a.turns)}]}
            for a in answers
        ],
    )  # fmt: skip
    judged = [row for file in (folder / "model_judgment").iterdir() for row in lines(file)]
    said = {
        f"{row['question_id']}/{row['turn']}": row["judgment"]
        for row in judged
        if row["model"] == model
    }
    replies = [
        {"messages": q.messages, "text": said[q.id]} for q in benchmark.questions(answers, None)
    ]
    options = {"with.data": folder, "with.references": parity_mt_bench.OFFICIAL}
    row, _ = evaluate(tmp_path, outputs, "mt_bench", replies, options)
    official = expected("mt_bench")["dontpanic_gpt-4_single.jsonl"]["models"][model]
    for name in ("first_turn", "second_turn", "average"):
        assert row["cells"][name]["mean"] == pytest.approx(official[name], abs=1e-9)


def test_arena_hard_through_http(tmp_path):
    folder = shared("eval", "arena_hard")
    data = tmp_path / "data"
    data.mkdir()
    for name in ("question.jsonl", "model_answer"):
        (data / name).symlink_to(folder / name)
    (data / "judge_config.yaml").write_text(json.dumps(CONFIG))
    model = "gpt-3.5-turbo-0125"  # none of its answers equals the baseline's
    outputs = folder / "model_answer" / f"{model}.jsonl"
    benchmark = ArenaHard(data=str(data))
    prompts = list(benchmark.prompts(0))
    answers = match(read_outputs(outputs), prompts, model)
    questions = list(benchmark.questions(answers, benchmark.baseline_answers(prompts)))
    (judgments,) = (folder / "model_judgment").glob(f"*/{model}.jsonl")
    said = {row["question_id"]: row["games"] for row in lines(judgments)}
    games = [(q, said[prompts[q.index].meta["id"]][1 - q.candidate]) for q in questions]
    replies = [{"messages": q.messages, "text": game["judgment"]} for q, game in games]
    row, _ = evaluate(tmp_path, outputs, "arena_hard", replies, {"with.data": data})
    official = expected("arena_hard")
    score = official["raw"]["leaderboard"][model]["score"]
    assert row["cells"]["score"]["mean"] == pytest.approx(score, abs=0.06)  # printed with one digit
    alone = official["style_control_each_model_alone"][model]["score"]
    assert row["cells"]["style_controlled"]["mean"] == pytest.approx(alone, abs=0.05)


@pytest.mark.slow
def test_a_real_served_model_judges_what_a_real_model_wrote(tmp_path):
    if not can_serve():
        pytest.skip("needs transformers[serving], here or in ALIGNZOO_SERVE_PYTHON")
    model = shared("models", "stories260k")
    starts = ("Once upon a time", "One day, Lily", "Tom and his dog", "The cat was sad")
    prompts = write_lines(tmp_path / "prompts.jsonl", [{"prompt": text} for text in starts])
    template = tmp_path / "template.txt"
    template.write_text("{prompt}\n\n{first}\n\n{second}\n\nOnce")
    theirs = write_lines(
        tmp_path / "theirs.jsonl", [{"prompt": text, "output": " ..."} for text in starts]
    )
    with transformers_serve(tmp_path / "serve.log") as url:
        words = ["eval", model, "--baseline", theirs, "--benchmark", "pairwise", "--json",
                 "--judge", "openai", "--output", tmp_path / "run"]  # fmt: skip
        options = {
            "with.prompts_file": prompts, "with.template": template, "with.max_tokens": 32,
            "sampling.max_new_tokens": 24, "min_parsed": 0,
            "judge.with.model": model, "judge.with.url": url, "judge.with.concurrency": 2,
        }  # fmt: skip
        words += [word for key, value in options.items() for word in ("--set", f"{key}={value}")]
        command = [sys.executable, "-m", "alignzoo.cli", *map(str, words)]
        done = subprocess.run(command, check=False, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    (section,) = json.loads(done.stdout)
    (row,) = (row for row in section["rows"] if not row["is_baseline"])
    assert row["counts"]["judged"] == 8
    judged = [lines(path) for path in (tmp_path / "run/evaluations").rglob("judgments.jsonl")]
    replies = [one["reply"] for one in max(judged, key=len)]
    assert len(replies) == 8 and all(reply.strip() for reply in replies)
