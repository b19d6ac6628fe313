"""Views of a run: what shows the rows of ``metrics.jsonl`` elsewhere (TensorBoard, wandb), chosen by the ``logger`` settings.

``metrics.jsonl`` is the record; a view can be made again from it at any time, and is at every start. So a view that fails says
so in one line and is left out, and the run goes on. What a view needs is imported when it is chosen, not before.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from envs.builder import FLAG, Choice, Optional, Refusal, Text
from runners.loggers.tensorboard import TensorBoard
from runners.loggers.wandb_runs import WandbRuns
from runners.rundir import read_metrics

SETTINGS = {
    "logger.console": FLAG,
    "logger.tensorboard": FLAG,
    "logger.wandb.mode": Choice(("offline", "online", "disabled")),
    "logger.wandb.project": Text("a name"),
    "logger.wandb.entity": Optional(Text("a name")),
    "logger.wandb.group": Optional(Text("a name")),
}


def without() -> dict[str, Any]:
    """The ``logger`` entry of a configuration that has none: no view but the console."""
    return {"console": True, "tensorboard": False, "wandb": {"mode": "disabled", "project": "farlands", "entity": None, "group": None}}


def refuse_missing(logger: Mapping[str, Any]) -> None:
    """Refuse a view whose package is not installed, before anything runs."""
    for wanted, chosen, package, command in (
        ("logger.tensorboard=true", logger["tensorboard"], "tensorboard", "pip install -e '.[tensorboard]'"),
        (f"logger.wandb.mode={logger['wandb']['mode']}", logger["wandb"]["mode"] != "disabled", "wandb", "pip install -e ."),
    ):
        if chosen and importlib.util.find_spec(package) is None:
            raise Refusal(f"{wanted} needs the package {package!r}, which is not installed; add it with: {command}")


class Views:
    """The open views of one run. ``say`` takes the line about a view that failed."""

    def __init__(self, chosen: Sequence[Any], say: Callable[[str], None]):
        self.chosen, self.say = list(chosen), say

    @classmethod
    def open(cls, run: Path, config: Mapping[str, Any], members: Sequence[Mapping[str, Any]], labels: Sequence[str], say: Callable[[str], None]) -> Views:
        """Start the views that ``config`` chooses with the rows that ``run`` holds. ``members``: the configuration of each member."""
        logger, chosen = config["logger"], []
        labels = [f"member={i} {label}" for i, label in enumerate(labels)]
        if logger["tensorboard"]:
            chosen.append(TensorBoard(run, labels, (run / "config.yaml").stat().st_mtime))
        if logger["wandb"]["mode"] != "disabled":
            chosen.append(WandbRuns(run, labels, members, logger["wandb"]))
        views = cls(chosen, say)
        if chosen:
            rows = read_metrics(run)
            views._each("start", rows)
        return views

    def append(self, rows: Sequence[Mapping[str, Any]]) -> None:
        self._each("append", rows)

    def close(self, finished: bool) -> None:
        """Close all views; may be called twice, the first call counts."""
        self._each("close", finished)
        self.chosen = []

    def _each(self, move: str, argument: Any) -> None:
        for view in list(self.chosen):
            try:
                getattr(view, move)(argument)
            except Exception as error:  # whatever a network, a disk or a foreign package does, the run is worth more than its view
                reason = (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
                self.say(f"{view.name} failed and is left out from here on: {reason}. The run goes on; metrics.jsonl has everything")
                self.chosen.remove(view)
