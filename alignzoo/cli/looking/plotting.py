"""`alignzoo plot`: curves of runs in a file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from alignzoo.cli.terminal.lazily import unloaded_torch_hidden
from alignzoo.cli.terminal.outputs import check_outputs
from alignzoo.contract.errors import PluginError
from alignzoo.contract.logged import logged
from alignzoo.recipe.registry import load_plugins
from alignzoo.studies.plots.bands import fold
from alignzoo.studies.plots.curves import Log, curves, read_logs
from alignzoo.studies.plots.draw import check_output, draw

WORDS = {
    "step": "optimiser step",
    "flops": "training FLOPs (6 N D)",
    "kl": "KL [nats]",
}


def plot_command(runs: Sequence[str], x: str, y: str, output: Path, *, bands: bool) -> None:
    """Draw one metric of every stage that logged it."""
    check_output(output)
    check_outputs({"--output": output})
    found = curves(read_logs(runs), x, y)
    lines = fold(found) if bands else [curve for _, curve in found]
    first = found[0][0]
    labels = (WORDS.get(x) or _labelled(x, first), _labelled(y, first))
    with unloaded_torch_hidden():  # which matplotlib would load to ask what its tensors are
        draw(lines, *labels, output)
    print(f"{output}: {y} over {x}, {len(lines)} curve{'s' if len(lines) > 1 else ''}")


def _labelled(metric: str, log: Log) -> str:
    """A metric with the unit that its method declares, where the method is installed."""
    try:
        declared = load_plugins().find("algorithm", str(log.block["algorithm"])).metrics
    except PluginError:
        declared = {}
    own = metric.removeprefix("validation/")
    known = declared.get(own) or logged(own)
    return f"{metric} [{known.unit}]" if known and known.unit else metric
