"""The maps of archives that ``farlands demonstrate`` and ``farlands elites`` have drawn of a run, and the command that draws them."""

from __future__ import annotations

import shlex
from pathlib import Path

from runners.compose import COMMAND
from runners.report.curves import relative
from runners.report.read import Run

DRAWN_BY = {"archive/cells": ("archive", "demonstrate {run} which=map"), "search/coverage": ("elites", "elites {run}")}  # a metric of such runs


def archive_maps(run: Run) -> list[Path]:
    """Pictures of a run's archives, one per member that was drawn."""
    found = sorted((run.path / "pictures").glob("*.png"))
    return [png for png in found for name, _ in DRAWN_BY.values() if png.stem.rpartition("-")[0] == name and png.stem.rpartition("-")[2].isdecimal()]


def how_to_draw(run: Run) -> str | None:
    """The command that draws a map of a run's archive; None for runs without archives."""
    for metric, (_, command) in DRAWN_BY.items():
        if any(metric in row for row in run.rows):
            return f"{COMMAND} {command.format(run=shlex.quote(str(relative(run.path))))}"
    return None
