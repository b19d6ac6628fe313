"""``profile=true``: which part of an iteration takes what share of the time; shown at the end and kept in ``profile.json``.

On JAX worlds an iteration is one compiled program, so its parts cannot be timed inside it. ``Runner.parts`` gives programs that each do
a little more of it; each is compiled and timed on the members' newest states, and a part is the difference to the one before. On the
host the parts are timed as they happen.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import jax
from rich.console import Console
from rich.table import Table

REPEATS = 5


def growing(programs: dict[str, Any], inputs: tuple) -> dict[str, float]:
    """Seconds of each part, from compiled programs that each do a little more: the fastest of some calls, less that of the one before."""
    found, before = {}, 0.0
    for name, program in programs.items():
        seconds = []
        for _ in range(1 + REPEATS):
            begin = time.perf_counter()
            jax.block_until_ready(program(*inputs))
            seconds.append(time.perf_counter() - begin)
        fastest = min(seconds[1:])
        found[name] = max(0.0, fastest - before)
        before = max(before, fastest)
    return found


def shares(seconds: dict[str, float]) -> dict[str, float]:
    whole = sum(seconds.values()) or 1.0
    return {name: round(value / whole, 4) for name, value in seconds.items()}


def report(path: Path, seconds: dict[str, float], what: str) -> dict[str, float]:
    """Write ``profile.json`` and show the table on standard error; returns the shares."""
    found = shares(seconds)
    told = {"what": what, "seconds": {name: round(value, 6) for name, value in seconds.items()}, "share": found}
    (path / "profile.json").write_text(json.dumps(told, indent=1))
    table = Table(title=f"time per part, {what}")
    table.add_column("part")
    table.add_column("seconds", justify="right")
    table.add_column("share", justify="right")
    for name, value in seconds.items():
        table.add_row(name, f"{value:.4g}", f"{found[name]:.0%}")
    Console(stderr=True, highlight=False).print(table)
    return found
