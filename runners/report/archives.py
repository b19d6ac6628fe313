"""The maps of archives that ``farlands demonstrate`` and ``farlands elites`` have drawn of a run, and the commands that draw them."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import NamedTuple

from runners.compose import COMMAND
from runners.report.curves import relative
from runners.report.read import Run


class Drawn(NamedTuple):
    """Pictures of an archive that a command of its own draws."""

    metric: str  # of the runs that have such an archive
    files: str  # under pictures/
    command: str
    invitation: str
    caption: str


DRAWN = (
    Drawn("archive/cells", "archive-[0-9]*.png", "demonstrate {} which=map", "Where the cells of games with rooms and of maps are:", "Cells of {}, {}"),
    Drawn("search/coverage", "elites-[0-9]*.png", "elites {}", "What the search keeps, and where it has been:", "What {} keeps, {}"),
)


def archive_maps(run: Run) -> list[tuple[Path, str]]:
    """(picture, caption) of a run's archives."""
    found = [(png, kind.caption) for kind in DRAWN for png in sorted((run.path / "pictures").glob(kind.files))]
    return [(png, caption.format(run.name, f"member {png.stem.split('-')[1]}, as it was when drawn")) for png, caption in found]


def how_to_draw(run: Run) -> list[tuple[str, str]]:
    """(what it shows, the command) of the maps that could be drawn of a run and have not been."""
    missing = [kind for kind in DRAWN if any(kind.metric in row for row in run.rows) and not any((run.path / "pictures").glob(kind.files))]
    return [(kind.invitation, f"{COMMAND} {kind.command.format(shlex.quote(str(relative(run.path))))}") for kind in missing]
