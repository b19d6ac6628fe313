"""Plans and outcomes of sweeps as people read them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from runners.progress import clock, plural, readable
from runners.sweeps.program import Program


def show_plan(programs: Sequence[Program], runs: Path, launcher: Sequence[str]) -> None:
    """The programs, on standard error: members, steps, memory, and the time that runs of this kind took before."""
    seconds = [expected(program, runs) for program in programs]
    combinations, members = sum(len(p.combinations) for p in programs), sum(p.members for p in programs)
    times = f"about {clock(sum(s for s in seconds if s is not None))}" if all(s is not None for s in seconds) else "time unknown: no such run has finished here"
    by = " ".join(launcher) or "one after the other"
    title = f"{plural(combinations, 'setting')}, {plural(members, 'member')} in {plural(len(programs), 'program')}, {by}; {times}"
    table = made(title, "program", "members", "steps", "memory", "time", "settings")
    for i, (program, time) in enumerate(zip(programs, seconds, strict=True)):
        memory = "refused" if program.refused else "-" if program.peak is None else readable(program.peak)
        table.add_row(str(i), str(program.members), f"{program.steps:,}", memory, "-" if time is None else clock(time), Text(" ".join(program.words)))
    console(stderr=True).print(table)
    for i, program in enumerate(programs):
        if program.refused:
            console(stderr=True).print(Text(f"program {i} cannot be run: {program.refused}"))


def show_outcome(programs: Sequence[Program], outcomes: Sequence[str]) -> None:
    table = made("programs", "program", "settings", "outcome")
    for i, (program, why) in enumerate(zip(programs, outcomes, strict=True)):
        table.add_row(str(i), Text(" ".join(program.words)), Text(f"failed: {why}" if why else program.run))
    console().print(table)


def made(title: str, *headings: str) -> Table:
    table = Table(title=title, title_justify="left")
    for heading in headings:
        table.add_column(heading, overflow="fold", justify="right" if heading in ("members", "steps", "memory", "time") else "left")
    return table


def console(stderr: bool = False) -> Console:
    found = Console(stderr=stderr, highlight=False)
    if not found.is_terminal:
        found.width = 160
    return found


def expected(program: Program, runs: Path) -> float | None:
    """Seconds that the program would take at the rate of the newest finished run of the same world, agent and bonus; None where there is none."""
    name = Path(program.run).name.rpartition("-")[0]
    newest = max(runs.glob(f"{name}-*/summary.json"), key=lambda file: file.stat().st_mtime, default=None)
    try:
        rate = json.loads(newest.read_text())["steps_per_second"] if newest else 0.0
        return program.steps / rate if rate else None
    except (OSError, ValueError, KeyError, TypeError):
        return None
