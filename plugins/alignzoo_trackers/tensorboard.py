"""TensorBoard: event files in the run's folder, a folder per stage."""

from __future__ import annotations

import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from alignzoo import Tracker
from alignzoo_trackers.series import Series, absent
from alignzoo_trackers.watching import Watcher

FLUSH = 10.0  # seconds until points are on the disk


@dataclass(frozen=True)
class TensorBoard(Tracker):
    """Event files in `RUN/trackers/tensorboard/STAGE`; `tensorboard --logdir runs` shows all runs.

    Values are written as float64; each curve's description is the metric's meaning with its unit.
    """

    name = "tensorboard"

    def lacks(self) -> str:
        """Tensorboard itself; TensorFlow is not needed."""
        return absent("tensorboard")

    def watch(self) -> Watcher:
        """A watcher that writes event files."""
        return Watcher(self.name, EventFiles)


@dataclass
class EventFiles:
    """The event files of one stage; opened again they are written anew, from the first step."""

    series: Series
    writer: Any = field(init=False)
    told: set[str] = field(default_factory=set)  # tags whose meaning stands in the file

    def __post_init__(self) -> None:
        """Begin an empty folder: the watcher gives every point that there is."""
        from tensorboard.summary.writer.event_file_writer import EventFileWriter

        folder = self.series.folder / "trackers" / "tensorboard" / self.series.name
        shutil.rmtree(folder, ignore_errors=True)
        self.writer = EventFileWriter(str(folder), flush_secs=FLUSH)

    def held(self, metric: str) -> int:
        """Nothing: the files are new."""
        return -1

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """One event with all values of a step."""
        from tensorboard.compat.proto.summary_pb2 import Summary
        from tensorboard.compat.proto.tensor_pb2 import TensorProto

        parts = [
            Summary.Value(
                tag=name,
                tensor=TensorProto(dtype="DT_DOUBLE", double_val=[x]),
                metadata=self._metadata(name),
            )
            for name, x in values.items()
        ]
        self._add(step, Summary(value=parts))

    def attach(self, files: Sequence[Path]) -> None:
        """Texts, which the Text tab renders as Markdown; pages stay in the run's folder."""
        from tensorboard.compat.proto.summary_pb2 import Summary, SummaryMetadata
        from tensorboard.compat.proto.tensor_pb2 import TensorProto

        kind = SummaryMetadata(plugin_data=SummaryMetadata.PluginData(plugin_name="text"))
        for file in (file for file in files if file.suffix != ".html"):
            text = TensorProto(dtype="DT_STRING", string_val=[file.read_bytes()])
            part = Summary.Value(tag=file.name, tensor=text, metadata=kind)
            self._add(0, Summary(value=[part]))

    def close(self, *, failed: bool) -> None:
        """Write what waits."""
        self.writer.close()

    def _metadata(self, name: str) -> Any:
        """What the first value of a tag says of it."""
        from tensorboard.compat.proto.summary_pb2 import SummaryMetadata

        if name in self.told:
            return None
        self.told.add(name)
        kind = SummaryMetadata.PluginData(plugin_name="scalars")
        return SummaryMetadata(plugin_data=kind, summary_description=self.series.meaning(name))

    def _add(self, step: int, summary: Any) -> None:
        from tensorboard.compat.proto.event_pb2 import Event

        self.writer.add_event(Event(wall_time=time.time(), step=step, summary=summary))
