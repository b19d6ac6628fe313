"""A program of a sweep: one job, one run, several members. Light: jax is not imported."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from envs.builder import Refusal
from runners import rundir

Combination = dict[str, str]  # key -> value, as texts of the command line


@dataclass
class Program:
    """One job: a run with several members."""

    words: list[str]  # of its command line
    combinations: list[Combination]  # that it makes
    run: str  # the run's directory
    members: int
    steps: int  # environment steps, of all members
    peak: int | None = None  # bytes, estimated
    refused: str | None = None  # why it cannot be run
    metrics: list[str] | None = None  # that it will have, where that is known

    def as_json(self) -> dict[str, Any]:
        return asdict(self)

    def finished(self) -> bool:
        try:
            return rundir.read_summary(Path(self.run)) is not None
        except Refusal:
            return False

    def begun(self) -> int:
        """Environment steps that its members have made, as far as its metrics say."""
        try:
            with open(Path(self.run) / "metrics.jsonl", "rb") as file:
                file.seek(max(0, file.seek(0, 2) - 65536))
                rows = file.read().decode(errors="replace").splitlines()
            return min(self.steps, max((rundir.step_of(row) for row in rows), default=0) * self.members)
        except OSError:
            return 0
