"""Weights & Biases: one wandb run per member, in one group.

The step of wandb is the environment step. The id of a run is derived from the run directory and the member, so a resumed run
goes on in the same place. Online, wandb says at which step it stands, and rows before that are not sent again. Offline, nothing
can be added to a recorded directory; every start records the whole run anew from the rows that stand, and removes the recording
that it replaces.
"""

from __future__ import annotations

import hashlib
import re
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from runners.loggers.rows import Labels, numbers

INIT_SECONDS = 30.0  # how long to wait for the server before the run goes on without it
FINISH_SECONDS = 120.0  # the same at the end, for uploads
KINDS = {"pictures": (".png", ".jpg", ".jpeg"), "videos": (".mp4", ".gif", ".webm")}


def identity(run: Path, member: int) -> str:
    """The wandb id of a member: the same whenever this directory's run goes on."""
    return hashlib.sha256(f"{run.resolve()} {member}".encode()).hexdigest()[:16]


def member_of(file: Path) -> int:
    """Whose picture or video a file is: 3 for 'member3.png' and 'member-3-start.mp4'; the first member's when the name does not say."""
    found = re.search(r"member[-_=]?(\d+)", file.name)
    return int(found.group(1)) if found else 0


class WandbRuns:
    """The wandb runs of all members. ``configs``: the configuration of each member, with its own values in it."""

    name = "logger.wandb"

    def __init__(self, run: Path, labels: Labels, configs: Sequence[Mapping[str, Any]], options: Mapping[str, Any]):
        self.run, self.labels, self.configs, self.options = run, labels, configs, options
        self.open: list[Any] = []
        self.first: list[int] = []  # per member, the first step that wandb does not have yet

    def start(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Open the wandb runs and give them the rows that they lack."""
        import wandb

        wandb.setup(wandb.Settings(silent=True))
        mode, name = self.options["mode"], lambda key: None if self.options[key] is None else str(self.options[key])
        for member, (label, config) in enumerate(zip(self.labels, self.configs, strict=True)):
            if mode == "offline":
                for old in (self.run / "wandb").glob(f"offline-run-*-{identity(self.run, member)}"):
                    shutil.rmtree(old)
            made = wandb.init(
                mode=mode,
                id=identity(self.run, member),
                resume="allow" if mode == "online" else None,
                reinit="create_new",
                dir=self.run,
                project=name("project"),
                entity=name("entity"),
                group=name("group") or self.run.name,
                name=f"{self.run.name} {label}",
                config=dict(config),
                settings=wandb.Settings(
                    silent=True,
                    console="off",
                    x_disable_stats=True,  # of this process, which is the same for all members
                    init_timeout=INIT_SECONDS,
                    finish_timeout=FINISH_SECONDS,
                    finish_timeout_raises=True,
                ),
            )
            self.open.append(made)
            self.first.append(made.step)
        self.append(rows)

    def append(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Rows of one step become one wandb row, sent when the next step comes."""
        for row in rows:
            if row["step"] >= self.first[row["member"]]:
                self.open[row["member"]].log(numbers(row), step=row["step"])

    def close(self, finished: bool) -> None:
        """Close all runs; one that was stopped is not marked as finished."""
        if finished:
            self.log_media()
        while self.open:
            self.open.pop().finish(exit_code=0 if finished else 1)

    def log_media(self) -> None:
        """What stands in RUN/pictures and RUN/videos, at the last step."""
        import wandb

        for folder, suffixes in KINDS.items():
            for file in sorted((self.run / folder).glob("*")):
                if file.suffix.lower() in suffixes and member_of(file) < len(self.open):
                    made = wandb.Image(str(file)) if folder == "pictures" else wandb.Video(str(file), format=file.suffix[1:].lower())
                    self.open[member_of(file)].log({f"{folder}/{file.stem}": made})
