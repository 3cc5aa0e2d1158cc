"""Every broken recipe gives one line per problem: file, line, column, path, cause."""

from textwrap import dedent

import pytest
from broken_recipes import EVALUATIONS, HEAD, SFT, STAGES
from recipe_plugins import registry

from alignzoo.contract.errors import RecipeError
from alignzoo.recipe.file import load_recipe
from alignzoo.recipe.registry import BrokenPlugin

BROKEN = BrokenPlugin("their_plugin", "theirs", "ImportError: no module named x", "")


def problems(tmp_path, text, overrides=(), plugins=None, name="recipe.yaml"):
    """The lines a user sees, without the folder."""
    path = tmp_path / name
    path.write_bytes(text if isinstance(text, bytes) else dedent(text).lstrip("\n").encode())
    with pytest.raises(RecipeError) as error:
        load_recipe(path, plugins or registry(), overrides)
    assert error.value.problems
    return [str(problem).replace(f"{tmp_path}/", "") for problem in error.value.problems]


@pytest.mark.parametrize("what", STAGES)
def test_a_broken_stage_gives_one_line_with_place_and_cause(tmp_path, what):
    stage, line = STAGES[what]
    assert problems(tmp_path, HEAD + stage) == [f"recipe.yaml:{line}"]


@pytest.mark.parametrize("what", EVALUATIONS)
def test_a_broken_evaluation_gives_one_line_with_place_and_cause(tmp_path, what):
    block, line = EVALUATIONS[what]
    stages = f"{SFT}  - {{name: s, stage: generate, data: toys}}\n"
    head = HEAD.replace("stages:\n", "stages:\n" + stages)
    text = f"{head}evaluate: [{block}]\n"
    assert problems(tmp_path, text) == [f"recipe.yaml:{line}"]


def test_an_evaluation_without_models_needs_a_train_stage(tmp_path):
    text = "name: x\nmodel: m\nstages: []\nevaluate:\n  - benchmark: quiz\n"
    assert problems(tmp_path, text) == [
        "recipe.yaml:5:5: evaluate.0: no stage trains a language model; say `models: [initial]`"
    ]


def test_an_unknown_way_to_compute_attention_is_refused_with_the_known_ones(tmp_path):
    text = "name: x\nmodel: toy-model\nattn_implementation: flash\nstages: []\n"
    assert problems(tmp_path, text)[:1] == [
        "recipe.yaml:3:22: attn_implementation: must be 'eager', 'sdpa', 'flex_attention', "
        "'flash_attention_2', 'flash_attention_3' or 'flash_attention_4', not 'flash'"
    ]


def test_all_problems_are_reported_at_once_in_the_order_of_the_text(tmp_path):
    text = """
        name: many problems
        model: toy-model
        sede: 3
        stages:
          - name: a
            algorithm: margin
            with: {betta: 1, beta: -1}
            data: {name: toys, limit: 0}
            policy: b
          - name: b
            algorithm: copi
            data: toys
            train: {lr: fast, batch_size: 4, micro_batch_size: 5}
        evaluate:
          - {benchmark: quiz, models: [a, c], samples: none}
    """
    found = problems(tmp_path, text, overrides=["stages.b.train.schedule=cosin"])
    assert [line.split(": ")[:2] for line in found] == [
        ["recipe.yaml:1:7", "name"],
        ["recipe.yaml:3:1", "sede"],
        ["recipe.yaml:7:12", "stages.0.with.betta"],
        ["recipe.yaml:7:28", "stages.0.with.beta"],
        ["recipe.yaml:8:31", "stages.0.data.limit"],
        ["recipe.yaml:9:13", "stages.0.policy"],
        ["recipe.yaml:11:16", "stages.1.algorithm"],
        ["recipe.yaml:13:17", "stages.1.train.lr"],
        ["recipe.yaml:13:56", "stages.1.train.micro_batch_size"],
        ["recipe.yaml:15:35", "evaluate.0.models.1"],
        ["recipe.yaml:15:48", "evaluate.0.samples"],
        ["--set stages.b.train.schedule=cosin", "stages.1.train.schedule"],
    ]


def test_a_stage_with_faults_still_counts_as_a_stage(tmp_path):
    text = (
        HEAD
        + "  - {name: a, algorithm: 3}\n  - {name: b, algorithm: margin, policy: a, data: toys}"
    )
    assert problems(tmp_path, text) == [
        "recipe.yaml:4:5: stages.0.data: is missing",
        "recipe.yaml:4:26: stages.0.algorithm: must be text, not 3",
    ]


def test_a_broken_plugin_is_named_where_a_recipe_may_need_it(tmp_path):
    text = HEAD + "  - {name: a, algorithm: theirs, data: toys}"
    assert problems(tmp_path, text, plugins=registry(BROKEN)) == [
        "recipe.yaml:4:26: stages.0.algorithm: unknown algorithm 'theirs' "
        "(their_plugin does not load: ImportError: no module named x)"
    ]


# --- the file --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("name: [a\nmodel: b\n", "recipe.yaml:2:6: not YAML: "),
        ("name: 'a\n", "recipe.yaml:2:1: not YAML: "),
        ("name: a\n\tmodel: b\n", "recipe.yaml:2:1: not YAML: "),
        ("name: a\n---\nname: b\n", "recipe.yaml:2:1: not YAML: "),
        ("", "recipe.yaml:1:1: is empty"),
        ("# nothing here\n", "recipe.yaml:1:1: is empty"),
        ("- a\n", "recipe.yaml:1:1: a recipe is a block of keys"),
        ("just words\n", "recipe.yaml:1:1: a recipe is a block of keys"),
        (b"name: a\nmodel: \xff\n", "recipe.yaml:2:8: byte 0xff is not UTF-8"),
        ("name: a\nmodel: b\x07\n", "recipe.yaml:2:9: character 0x07 is not allowed"),
        ("name: a\nx: *nowhere\n", "recipe.yaml:2:4: not YAML: "),
        ("name: &a [*a]\n", "recipe.yaml:1:7: name.0: an alias refers to a block that holds it"),
        ("x: " + "[" * 5000, "recipe.yaml: is nested too deeply"),
        ("? [a, b]\n: c\nname: d\n", "recipe.yaml:1:3: a key must be text"),
        ("#" * 2_000_000, "recipe.yaml: is larger than"),
    ],
)
def test_text_that_is_no_recipe_is_one_sentence_with_a_place(tmp_path, text, line):
    assert any(problem.startswith(line) for problem in problems(tmp_path, text))


def test_a_bomb_of_aliases_is_refused_quickly(tmp_path):
    lines = ["a0: &a0 [1, 1, 1, 1, 1, 1, 1, 1, 1, 1]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 12)]
    (problem,) = problems(tmp_path, "\n".join(lines))
    assert "aliases expand to more than 50,000 values" in problem


def test_a_missing_file_and_a_folder_are_said_to_be_so(tmp_path):
    for path, cause in ((tmp_path / "no.yaml", "No such file"), (tmp_path, "Is a directory")):
        with pytest.raises(RecipeError, match=cause):
            load_recipe(path, registry())


# --- overrides -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("override", "line"),
    [
        (
            "stages.sft.with.wieght=2",
            ": stages.0.with.wieght: unknown option; did you mean 'weight'? "
            "(copy takes: weight, kind, cap, betas, steps, names, copy)",
        ),
        ("seed=x", ": seed: must be a whole number, not 'x'"),
        ("seed", ": write it as key.path=value"),
        ("=3", ": write it as key.path=value"),
        ("stages.sfd.policy=x", ": stages: there is no 'sfd' here; did you mean 'sft'?"),
        ("stages.7.policy=x", ": stages: there is no '7' here"),
        ("name.x=1", ": name: is a value, nothing can be set inside it"),
        ("stages.sft.policy=sft", ": stages.0.policy: stage 'sft' cannot use itself; "
         "name an earlier stage"),
    ],
)  # fmt: skip
def test_a_wrong_override_is_reported_as_it_was_given(tmp_path, override, line):
    assert problems(tmp_path, HEAD + SFT, [override]) == [f"--set {override}{line}"]


def test_an_override_that_is_not_yaml_is_reported_as_it_was_given(tmp_path):
    (problem,) = problems(tmp_path, HEAD + SFT, ["seed=["])
    assert problem.startswith("--set seed=[: not YAML: ")
