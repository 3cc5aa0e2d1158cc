"""What can be typed: names, arguments and help. Bodies import, so that `--help` stays instant."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from alignzoo.cli.authoring.commands import new
from alignzoo.cli.judge_words import evaluate_judge
from alignzoo.cli.lens_words import lens
from alignzoo.cli.report_words import report
from alignzoo.cli.study_words import reproduce
from alignzoo.cli.terminal.plain import PLAIN
from alignzoo.cli.terminal.stopping import before_work

app = typer.Typer(**PLAIN)  # type: ignore[arg-type]
app.add_typer(new, name="new")

RecipeName = Annotated[str, typer.Argument(help="A YAML file, or the name of a bundled recipe.")]
Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Change a value: stages.NAME.train.lr=1e-5."),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
ModelName = Annotated[
    str, typer.Argument(help="A run's folder, RUN/STAGE, a model's folder, or a hub name.")
]


def _version(wanted: bool) -> None:
    if wanted:
        from alignzoo import __version__

        print(f"alignzoo {__version__}")
        raise typer.Exit()


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """LLM alignment: methods as plug-ins on one engine.

    Begin with `alignzoo run aligndistil_onpolicy`: minutes on a CPU, and no download. Exit status:
    0 done, 1 failed, 2 bad recipe or usage, 130 interrupted.
    """


@app.command(short_help="Train and evaluate what a recipe says.")
def run(
    recipe: RecipeName,
    *,
    overrides: Overrides = None,
    output: Annotated[
        Path | None, typer.Option(help="Folder of the run.  [default: runs/NAME-HASH]")
    ] = None,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Begin anew: reuse nothing, delete this run's results.")
    ] = False,
    rejudge_failed: Annotated[
        bool, typer.Option("--rejudge-failed", help="Ask anew where no verdict could be read.")
    ] = False,
    seeds: Annotated[
        int, typer.Option(min=1, help="Repeat with so many seeds and print means over them.")
    ] = 1,
    sweep: Annotated[
        list[str] | None,
        typer.Option(metavar="KEY=A,B", help="A run for each value, and one leaderboard."),
    ] = None,
    processes: Annotated[
        int | None,
        typer.Option(min=1, help="Workers on this machine: on GPUs, one for each."),
    ] = None,
    machines: Annotated[
        int, typer.Option(min=1, help="Start the same command on each, with its --machine-rank.")
    ] = 1,
    machine_rank: Annotated[int | None, typer.Option(min=0, help="Its number, from 0.")] = None,
    main_address: Annotated[str | None, typer.Option(help="HOST:PORT of machine 0.")] = None,
) -> None:
    """Train and evaluate what a recipe says; a repeated run goes on where the last one stopped."""
    with before_work():
        from alignzoo.cli.doing.launching import launched_command
        from alignzoo.cli.doing.running import Asked
        from alignzoo.launch.wish import Wish

        sets, sweeps = tuple(overrides or ()), tuple(sweep or ())
        asked = Asked(recipe, sets, output, fresh, seeds, sweeps, rejudge_failed)
        wish = Wish(processes, machines, machine_rank, main_address)
        raise typer.Exit(launched_command(asked, wish))


@app.command(short_help="Check a recipe and print its stages.")
def plan(
    recipe: RecipeName,
    overrides: Overrides = None,
    output: Annotated[Path | None, typer.Option(help="Folder of the run, as in `run`.")] = None,
    *,
    memory: Annotated[
        bool, typer.Option("--memory", help="Predict the memory of every train stage instead.")
    ] = False,
    gpus: Annotated[
        int | None, typer.Option(min=1, help="With --memory: so many GPUs.  [default: the CPU]")
    ] = None,
    gpu_memory: Annotated[
        str | None, typer.Option(help="With --memory: of each GPU, such as 80G; what does not fit.")
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option(help="With --memory: a folder with the config.json of models not here."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Check a recipe and print its stages: what is cached, the models each holds, the steps.

    With --memory: the peak of every train stage on one device, by what it is for. Exit status 1 if
    one does not fit, with what would.
    """
    from alignzoo.cli.doing.memory import Wish, memory_command
    from alignzoo.cli.doing.running import plan_command

    wish = Wish(gpus, gpu_memory, config)
    if memory:
        memory_command(recipe, overrides or [], wish, as_json=as_json)
    else:
        wish.refuse()
        plan_command(recipe, overrides or [], output, as_json=as_json)


@app.command("list")
def list_(
    kind: Annotated[
        str | None,
        typer.Argument(
            help="algorithms, datasets, judges, benchmarks, engines, stages, trackers or recipes."
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """List what is installed."""
    from alignzoo.cli.looking.catalogue import list_command

    list_command(kind, as_json=as_json)


@app.command(short_help="Explain one thing: equation, options, metrics.")
def show(name: Annotated[str, typer.Argument(help="Of anything that `list` prints.")]) -> None:
    """Explain one thing: equation, options, roles, signals, metrics."""
    from alignzoo.cli.looking.describe import show_command

    show_command(name)


@app.command(short_help="Check this installation.")
def doctor() -> None:
    """Check this installation: versions, device, plug-ins, cache. Exit status 1 if broken."""
    from alignzoo.cli.looking.doctor import doctor_command

    raise typer.Exit(doctor_command())


@app.command("eval", short_help="Measure models, or anybody's outputs, with a benchmark.")
def evaluate(
    targets: Annotated[
        list[str],
        typer.Argument(
            help="Runs (all trained stages), RUN/STAGE, folders, hub names, or files of outputs."
        ),
    ],
    benchmark: Annotated[str, typer.Option(help="A name from `alignzoo list benchmarks`.")],
    *,
    judge: Annotated[
        list[str] | None,
        typer.Option(
            help="A name from `alignzoo list judges`, or '{name: ..., with: {...}}'; "
            "several make a panel."
        ),
    ] = None,
    baseline: Annotated[str | None, typer.Option(help="Target to compare the others with.")] = None,
    limit: Annotated[
        int | None, typer.Option(min=1, help="Only the first so many prompts.")
    ] = None,
    samples: Annotated[int, typer.Option(min=1, help="Answers per prompt.")] = 1,
    options: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="with.size=100, sampling.top_p=0.9, judge.with.model=NAME, ...",
        ),
    ] = None,
    seed: Annotated[
        int | None,
        typer.Option(
            min=0, max=2**32 - 1, help="Seed.  [default: the seed of the first model's run]"
        ),
    ] = None,
    output: Annotated[Path | None, typer.Option(help="Folder for the results.")] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show the first questions and the cost; ask nobody.")
    ] = False,
    rejudge_failed: Annotated[
        bool, typer.Option("--rejudge-failed", help="Ask anew where no verdict could be read.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Measure models, or files of anybody's outputs, with a benchmark and print the table."""
    with before_work():
        from alignzoo.cli.evaluating.measuring import Manner, Measurement, eval_command

        wanted = Measurement(
            targets, benchmark, judge or [], baseline, samples, limit, options or [], seed
        )
        raise typer.Exit(eval_command(wanted, output, Manner(dry_run, rejudge_failed, as_json)))


app.command("eval-judge", short_help="Measure a judge against people.")(evaluate_judge)


@app.command(short_help="Put the results of several runs into one table.")
def leaderboard(
    runs: Annotated[list[Path], typer.Argument(help="Runs, folders of them, and bundles.")],
    as_json: Json = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print CSV.")] = False,
    html: Annotated[
        Path | None, typer.Option(help="Write a page to read, sort and compare answers in.")
    ] = None,
    prompts: Annotated[int, typer.Option(min=1, help="Prompts per table on the page.")] = 100,
) -> None:
    """Put the results of several runs into one table per comparable benchmark."""
    from alignzoo.cli.doing.running import leaderboard_command

    leaderboard_command(runs, as_json=as_json, as_csv=as_csv, html=html, prompts=prompts)


@app.command(short_help="Write a run's results as one file to send.")
def bundle(
    run: Annotated[Path, typer.Argument(help="Folder of a run.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="A file: results.json.")],
) -> None:
    """Write figures, recipe, versions and digests; no weights, no answers, no paths."""
    from alignzoo.cli.doing.bundling import bundle_command

    bundle_command(run, output)


@app.command(short_help="Draw curves of runs for a paper.")
def plot(
    runs: Annotated[list[str], typer.Argument(help="Runs, RUN/STAGE, or folders of runs.")],
    *,
    y: Annotated[str, typer.Option(help="A metric, as in metrics.jsonl.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="FILE.pdf, .svg or .png.")],
    x: Annotated[str, typer.Option(help="step, flops, kl, or another metric.")] = "step",
    bands: Annotated[
        bool, typer.Option("--bands", help="Fold seeds of one recipe: mean and standard error.")
    ] = False,
) -> None:
    """Draw a metric of every stage that logged it, over steps, training FLOPs or KL."""
    from alignzoo.cli.looking.plotting import plot_command

    plot_command(runs, x, y, output, bands=bands)


app.command(short_help="Show what happened in runs, as one page.")(report)
app.command(short_help="Test the claims of a study over seeds.")(reproduce)


@app.command(short_help="Answer prompts, or hold a conversation.")
def generate(
    model: ModelName,
    prompt: Annotated[str | None, typer.Argument(help="Without one: a conversation.")] = None,
    *,
    prompts: Annotated[
        Path | None, typer.Option(help="A file of prompts: .jsonl, .parquet, or .txt, one a line.")
    ] = None,
    samples: Annotated[int, typer.Option(min=1, help="Answers per prompt.")] = 1,
    max_new_tokens: Annotated[
        int | None, typer.Option(min=1, help="[default: 256, less where the context ends]")
    ] = None,
    temperature: Annotated[float, typer.Option(min=0.0, help="0 is greedy.")] = 1.0,
    top_p: Annotated[float, typer.Option(min=0.0, max=1.0, help="1 is off.")] = 1.0,
    top_k: Annotated[int, typer.Option(min=0, help="0 is off.")] = 0,
    stop: Annotated[
        list[str] | None, typer.Option(help="A token that ends an answer.  [default: the model's]")
    ] = None,
    seed: Annotated[int, typer.Option()] = 0,
    plain: Annotated[
        bool, typer.Option("--plain", help="Continue the text; use no chat template.")
    ] = False,
    engine: Annotated[
        str, typer.Option(help="What samples: NAME, or '{name: NAME, with: {KEY: VALUE}}'.")
    ] = "transformers",
) -> None:
    """Answer a prompt or a file of prompts (printed as JSON lines), or hold a conversation."""
    from alignzoo.cli.doing.generating import Wish, generate_command

    decoding = {"temperature": temperature, "top_p": top_p, "top_k": top_k, "stop": stop or []}
    wish = Wish(model, decoding, max_new_tokens, samples, seed, plain, engine)
    generate_command(wish, prompt, prompts)


app.command(short_help="Colour the tokens of responses by what methods say of them.")(lens)


@app.command(short_help="Try whether a plug-in keeps its contract.")
def check(
    target: Annotated[str, typer.Argument(help="A name from `alignzoo list`, a folder or a file.")],
    options: Annotated[
        list[str] | None,
        typer.Option("--with", metavar="KEY=VALUE", help="An option of the plug-in: r=2."),
    ] = None,
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="The same as in recipes: with.r=2."),
    ] = None,
    as_json: Annotated[Path | None, typer.Option("--json", help="Also write JSON there.")] = None,
    processes: Annotated[
        int,
        typer.Option(
            min=1, help="Also train an algorithm on so many: the losses are those of one."
        ),
    ] = 1,
    strategies: Annotated[
        list[str] | None,
        typer.Option(
            "--strategy", metavar="NAME", help="How they share: ddp, fsdp2 (both), zero2, zero3."
        ),
    ] = None,
    index: Annotated[
        bool, typer.Option("--index", help="The file is an index of plug-in packages.")
    ] = False,
) -> None:
    """Try every promise of the contract on tiny models; exit code 1 if one is broken."""
    if index:
        from alignzoo.cli.authoring.index import index_command

        raise typer.Exit(index_command(Path(target)))
    from alignzoo.cli.authoring.checking import Asked, check_command, parse_options

    asked = Asked(parse_options(options or [], overrides or []), processes, strategies or ())
    raise typer.Exit(check_command(target, asked, as_json))


@app.command(short_help="Write a trained model as a plain folder.")
def export(
    model: Annotated[str, typer.Argument(help="RUN or RUN/STAGE.")],
    folder: Annotated[Path, typer.Argument(help="A new folder.")],
    dtype: Annotated[
        str | None,
        typer.Option(help="fp32 or bf16: how to round weights.  [default: recipe's precision]"),
    ] = None,
    adapter: Annotated[
        bool, typer.Option("--adapter", help="The adapter alone, as peft reads it over its base.")
    ] = False,
) -> None:
    """Write a trained model as a plain transformers folder with a model card."""
    from alignzoo.cli.doing.export import export_command

    export_command(model, folder, dtype, adapter=adapter)


@app.command("recipe-schema", short_help="Print the JSON Schema of recipes.")
def recipe_schema(
    output: Annotated[Path | None, typer.Option(help="A file.  [default: print it]")] = None,
) -> None:
    """Print the JSON Schema of recipes, installed plug-ins included, for editors."""
    from alignzoo.cli.looking.catalogue import schema_command

    schema_command(output)
