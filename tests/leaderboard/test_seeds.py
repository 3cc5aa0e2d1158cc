"""A recipe over several seeds: means, and the spread that one run cannot know."""

import pytest

from alignzoo.leaderboard import Cell, Row, Section
from alignzoo.leaderboard.seeds import markdown, over_seeds, rows_of


def section(**wins):
    rows = tuple(
        Row("run", model, "id", 10, 1, False, {"win_rate": Cell(x, x - 0.1, x + 0.1)})
        for model, x in wins.items()
    )
    return Section("id", "facts", {}, "sft", {"win_rate": "wins"}, {"win_rate": 1}, rows)


def test_means_and_standard_errors_are_over_seeds_and_the_best_model_comes_first():
    runs = [[section(dpo=0.6, ppo=0.9)], [section(ppo=0.7, dpo=0.62)], [section(dpo=0.64, ppo=0.8)]]
    (table,) = over_seeds(runs)
    assert list(table.values) == ["ppo", "dpo"]
    assert table.values["dpo"]["win_rate"] == (0.6, 0.62, 0.64)
    assert rows_of(table)[1] == ("dpo", "0.620 ±0.012")
    assert "over seeds 3, 4, 5" in markdown([table], [3, 4, 5])


def test_one_seed_or_seeds_that_agree_know_nothing_of_the_spread():
    (one,) = over_seeds([[section(dpo=0.6)]])
    (two,) = over_seeds([[section(dpo=0.6)], [section(dpo=0.6)]])
    assert rows_of(one) == rows_of(two) == [("dpo", "0.600")]


def test_a_model_that_one_seed_lacks_is_left_out():
    (table,) = over_seeds([[section(dpo=0.6, ppo=0.9)], [section(dpo=0.7)]])
    assert list(table.values) == ["dpo"]


@pytest.mark.slow
def test_run_with_seeds_repeats_the_recipe_and_writes_the_table(cli, tmp_path):
    recipe = tmp_path / "small.yaml"
    recipe.write_text(
        "name: small\nmodel: facts\nthreads: 1\nstages:\n"
        "  - name: sft\n    algorithm: sft\n    data: {name: facts.sft, with: {size: 64}}\n"
        "    train: {batch_size: 32, lr: 1e-3}\n"
        "evaluate:\n  - {benchmark: facts, with: {size: 8}, sampling: {max_new_tokens: 8}}\n"
    )
    status, out, err = cli("run", recipe, "--seeds", 2, "--output", tmp_path / "runs")
    assert status == 0, err
    assert "mean ± standard error over seeds 0-1" in out
    left = {path.name for path in (tmp_path / "runs").iterdir()}
    assert left == {"seed-0", "seed-1", "seeds.md", "report.html", "report.json"}
