"""TensorBoard: one folder of event files per member, a scalar per number of ``metrics.jsonl``. No TensorFlow.

Event files only grow, and a resumed run goes back to its checkpoint; so every start writes them anew from the rows that
stand. Values are float32, as TensorBoard's scalars are. A file is opened for each write: nothing stays open, and any number of
members is fine.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from runners.loggers.rows import Labels, numbers


class TensorBoard:
    """Event files under ``RUN/tensorboard/``."""

    name = "logger.tensorboard"

    def __init__(self, run: Path, labels: Labels, begun: float):
        """``begun``: when the run was made, in seconds of the epoch; the wall time of a row is that and its stepping time."""
        self.folder, self.labels, self.begun = run / "tensorboard", labels, begun
        self.seconds: dict[int, float] = {}  # newest stepping time per member
        self.file = f"events.out.tfevents.{time.time():.6f}.farlands"

    def start(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Begin anew with the rows that stand."""
        if self.folder.exists():
            shutil.rmtree(self.folder)
        self.append(rows)

    def append(self, rows: Sequence[Mapping[str, Any]]) -> None:
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.compat.proto.summary_pb2 import Summary
        from tensorboard.summary.writer.record_writer import RecordWriter

        of_member: dict[int, list[Event]] = {}
        for row in rows:
            seconds = self.seconds[row["member"]] = row.get("time/seconds") or self.seconds.get(row["member"], 0.0)
            values = [Summary.Value(tag=tag, simple_value=value) for tag, value in numbers(row).items()]
            event = Event(wall_time=self.begun + seconds, step=row["step"], summary=Summary(value=values))
            of_member.setdefault(row["member"], []).append(event)
        for member, events in of_member.items():
            path = self.folder / self.labels[member].replace("/", "_").replace(" ", "_") / self.file
            if not path.exists():
                path.parent.mkdir(parents=True, exist_ok=True)
                events.insert(0, Event(wall_time=self.begun, file_version="brain.Event:2"))
            with open(path, "ab") as file:
                writer = RecordWriter(file)
                for event in events:
                    writer.write(event.SerializeToString())

    def close(self, finished: bool) -> None:
        """Everything is on disk already."""
