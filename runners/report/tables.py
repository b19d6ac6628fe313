"""Tables of the report, as headings and rows of text."""

from __future__ import annotations

import shlex
import statistics
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from runners.compose import COMMAND
from runners.report.curves import Group, differing_settings, final, is_number, relative, shown
from runners.report.read import Run
from runners.report.statistics import estimate


class Table(NamedTuple):
    headings: list[str]
    rows: list[list[str]]


def overview(groups: Sequence[Group]) -> Table:
    """One row per run and setting: what it is, how far it is, and its main results."""
    headings = ["run", "world", "return, IQM [95%]", "evaluation return, IQM [95%]", "success at the end", "first success at step, median", "seeds", "state"]
    headings += ["steps per member", "steps/s, all members", "stepping time", "agent", "exploration", "commit", "versions"]
    rows = []
    for group in groups:
        run, last = group.run, run_time(group.run)
        found = [interval(final(group, "episode/return")), interval(final(group, "evaluation/return")), successes(group), first_success(group)]
        times = [f"{last['rate']:,.0f}", duration(last["seconds"])] if last else ["", ""]
        made = [run.part("agent"), run.part("exploration"), provenance(run, "commit"), provenance(run, "versions")]
        rows.append([group.label, group.world, *found, str(len(group.members)), state(group), f"{run.steps:,}", *times, *made])
    return Table(headings, rows)


def results(groups: Sequence[Group]) -> Table:
    """For papers: one row per method, a column per world; the return of evaluations where there are some."""
    names = list(dict.fromkeys(group.world for group in groups))
    cells: dict[str, dict[str, str]] = {}
    for group in groups:
        known = [interval(final(group, metric)) for metric in ("evaluation/return", "episode/return")]
        cells.setdefault(group.label, {})[group.world] = next(filter(None, known), "") + f" ({len(group.members)})"
    body = [[label, *(some.get(name, "") for name in names)] for label, some in cells.items()]
    return Table(["method", *(f"{name}, return (seeds)" for name in names)], body)


def state(group: Group) -> str:
    """Whether the run is finished, and how many of the group's members were frozen."""
    members = (group.run.summary or {}).get("members", [])
    frozen = sum(member < len(members) and members[member].get("frozen_at_step") is not None for member in group.members)
    said = group.run.state + (f"; {frozen} frozen (a number became NaN)" if frozen else "")
    return said + ("; resumed with new episodes: its worlds cannot be saved" if restarted(group.run) else "")


def restarted(run: Run) -> bool:
    """Whether a run was stopped and went on in worlds that could not be saved: it is then not what an uninterrupted one would be."""
    plans = [start.get("plan") for start in run.starts]
    return len(plans) > 1 and any(isinstance(plan, Mapping) and plan.get("worlds_saved") is False for plan in plans)


def run_time(run: Run) -> dict[str, float] | None:
    """Seconds spent stepping, over all starts, and steps per second of all members together."""
    timed = [row for row in run.rows if is_number(row.get("time/seconds")) and row["time/seconds"] > 0]
    if not timed:
        return None
    seconds = timed[-1]["time/seconds"]
    return {"seconds": seconds, "rate": timed[-1]["step"] * len(run.members) / seconds}


def duration(seconds: float) -> str:
    """'42.0 s', '3:20 min', '2:05 h'."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}:{rest:02d} min" if minutes < 60 else f"{minutes // 60}:{minutes % 60:02d} h"


def interval(values: np.ndarray) -> str:
    """'0.731 [0.512, 0.934]'; without an interval for a single seed; empty without values."""
    known = values[~np.isnan(values)]
    if not known.size:
        return ""
    middle, low, high, _ = (float(x[0]) for x in estimate(known[:, None]))
    middle, low, high = (round(x, 3) + 0.0 for x in (middle, low, high))  # no -0.000
    text = f"{middle:.3f}" if np.isnan(low) else f"{middle:.3f} [{low:.3f}, {high:.3f}]"
    return text + (f" of {known.size} seeds" if known.size < values.size else "")


def successes(group: Group) -> str:
    """The share of successful episodes at the end, mean over the seeds, and how many seeds solved the world where it says so."""
    rate, solved = final(group, "episode/success"), world_solved(group)
    parts = [] if np.isnan(rate).all() else [f"{np.nanmean(rate):.0%}"]
    return ", ".join(parts + ([] if solved is None else [f"solved by {solved} of {len(group.members)}"]))


def world_solved(group: Group) -> int | None:
    found = final(group, "world/solved")
    return None if np.isnan(found).all() else int(np.nansum(found > 0))


def first_success(group: Group) -> str:
    """Median over the seeds that succeeded; empty where the world does not know success."""
    if not any("episode/first_success_step" in row for row in group.run.rows):
        return ""
    steps = final(group, "episode/first_success_step")
    known = steps[~np.isnan(steps)]
    return f"{statistics.median(known):,.0f} ({known.size} of {steps.size} seeds)" if known.size else f"none of {steps.size} seeds"


def provenance(run: Run, what: str) -> str:
    """The commit, or the versions of the packages, of every start of a run, each once."""
    found = [start.get(what) for start in run.starts]
    if what == "commit":
        texts = [commit[:10] + ("+ changes" if commit.endswith("+") else "") for commit in found if isinstance(commit, str)]
    else:
        texts = [", ".join(f"{k} {v}" for k, v in versions.items() if k in ("jax", "jaxlib", "flax")) for versions in found if isinstance(versions, dict)]
    return "; then ".join(dict.fromkeys(texts))


def differences(runs: Sequence[Run], names: Sequence[str]) -> Table | None:
    """The settings that are not the same in all runs, and nothing else; None when there are none."""
    known = [(name, run) for name, run in zip(names, runs, strict=True) if run.config]
    found: dict[str, list[Any]] = differing_settings([run for _, run in known])
    return Table(["setting", *(name for name, _ in known)], [[key, *map(shown, values)] for key, values in found.items()]) if found else None


def commands(run: Run) -> list[str]:
    """What was typed, start by start, with the name of the program in place of its path."""
    typed = [start["command"] for start in run.starts if isinstance(start.get("command"), list) and start["command"]]
    return list(dict.fromkeys(f"{COMMAND} {shlex.join(map(str, command[1:]))}" for command in typed))


def places(runs: Sequence[Run]) -> Table:
    """Where each run was made, with all package versions of its last start."""
    rows = []
    for run in runs:
        start = run.starts[-1] if run.starts else {}
        plan = start.get("plan", {})
        device = f"{plan['batching']} on {plan['devices']} device(s)" if {"batching", "devices"} <= set(plan) else ""
        compiling = f"{plan['compile_seconds']:g} s" if "compile_seconds" in plan else ""
        packages = ", ".join(f"{name} {version}" for name, version in start.get("versions", {}).items())
        machine = f"{start.get('machine', '')}, {start.get('platform', '')}".strip(", ")
        rows.append([relative(run.path), str(len(run.starts)), machine, device, compiling, str(start.get("python", "")), packages])
    return Table(["directory", "starts", "machine", "members by", "compiling", "Python", "packages"], rows)
