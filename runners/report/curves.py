"""What is compared: groups of members that differ in their seed only, and their metrics as arrays over steps."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from runners.compose import flatten
from runners.loggers.rows import measured
from runners.report.read import Run
from runners.rundir import ADDED, NOT_IN_HASH

MOST_POINTS = 100  # of a curve; a page is about a thousand pixels wide
ABSENT = "-"
FIRST = ("exploration", "agent", "env", "runner")


class Group(NamedTuple):
    """The members of one run with one setting: they differ in their seeds."""

    run: Run
    label: str  # unique in its world
    world: str
    hyper: dict[str, Any]  # what is swept inside the run
    members: tuple[int, ...]


class Curve(NamedTuple):
    steps: np.ndarray  # i64[P], environment steps per member
    values: np.ndarray  # f64[N, P]; NaN before the first value of a member, and after it was frozen


def differing_settings(runs: Sequence[Run]) -> dict[str, list[Any]]:
    """Setting -> its value in each run, for those settings only that are not the same in all."""
    flat = [flatten({k: v for k, v in run.config.items() if k not in NOT_IN_HASH and v != {} and (v or k not in ADDED)}) for run in runs]
    keys = sorted({key for entries in flat for key in entries})
    table = {key: [entries.get(key, ABSENT) for entries in flat] for key in keys}
    return {key: values for key, values in table.items() if any(value != values[0] for value in values)}


def world_names(runs: Sequence[Run]) -> list[str]:
    """The world of each run, with those of its settings that are not the same wherever it was used."""
    made = []
    for run in runs:
        alike = [run, *(other for other in runs if other is not run and other.world == run.world)]
        differ = {key: values[0] for key, values in differing_settings(alike).items() if key.startswith("env.")}
        made.append(" ".join([run.world, *(f"{key[4:]}={shown(value)}" for key, value in differ.items())]))
    return made


def labels(runs: Sequence[Run]) -> list[str]:
    """The shortest name that tells a run from the others in its world: its method, then settings that differ, then its directory."""
    method = [f"{run.part('agent')}-{run.part('exploration')}" if run.config else run.name for run in runs]
    alike = list(zip(world_names(runs), method, strict=True))
    made = []
    for i, run in enumerate(runs):
        rivals, words = [other for j, other in enumerate(runs) if j != i and alike[j] == alike[i]], [method[i]]
        while rivals:
            differ = differing_settings([run, *rivals])
            if not differ:
                words.append(run.name)
                break
            key = min(differ, key=importance)
            inside = key.startswith(("vmap.", "zip."))  # values of the members: they are in the names of the groups
            words.append(run.name if inside else f"{key.rpartition('.')[2]}={shown(differ[key][0])}")
            rivals = [other for other, value in zip(rivals, differ[key][1:], strict=True) if value == differ[key][0]]
        made.append(" ".join(words))
    return made


def importance(key: str) -> tuple[int, str]:
    """Sorts settings: those of the method first."""
    part = key.partition(".")[0]
    return (FIRST.index(part) if part in FIRST else len(FIRST), key)


def full_names(runs: Sequence[Run]) -> list[str]:
    """Labels that are unique over all worlds."""
    worlds = world_names(runs)
    return [f"{label} ({world})" if len(set(worlds)) > 1 else label for label, world in zip(labels(runs), worlds, strict=True)]


def shown(value: Any) -> str:
    """A value of a configuration as it would be typed."""
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, (list, tuple)):
        return "[" + ",".join(map(shown, value)) + "]"
    return {True: "true", False: "false", None: "null"}[value] if value is None or isinstance(value, bool) else str(value)


def groups(runs: Sequence[Run]) -> list[Group]:
    """Run by run, setting by setting."""
    made = []
    for run, label, world in zip(runs, labels(runs), world_names(runs), strict=True):
        by_setting: dict[str, list[int]] = {}
        hypers: dict[str, dict[str, Any]] = {}
        for member, about in run.members.items():
            hyper = {key: value for key, value in about.items() if key != "seed"}
            key = json.dumps(hyper, sort_keys=True)
            by_setting.setdefault(key, []).append(member)
            hypers[key] = hyper
        for key, members in by_setting.items():
            setting = " ".join(f"{k.partition('.')[2]}={shown(v)}" for k, v in hypers[key].items())
            made.append(Group(run, " ".join(filter(None, [label, setting])), world, hypers[key], tuple(members)))
    return made


def worlds(found: Sequence[Group]) -> dict[str, list[Group]]:
    """World -> its groups. Only runs in the same world, with the same settings of it, share an axis."""
    made: dict[str, list[Group]] = {}
    for group in found:
        made.setdefault(group.world, []).append(group)
    return made


def metrics(found: Sequence[Group]) -> list[str]:
    """Names of all metrics that have a number somewhere."""
    runs = {id(group.run): group.run for group in found}.values()
    return sorted({key for run in runs for row in run.rows for key, value in row.items() if measured(key) and is_number(value)})


def is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def curve(group: Group, metric: str) -> Curve | None:
    """The metric of each member over steps; None when there is no number. A null (nothing to average in that segment) keeps the
    value before it, but for a member that has no rows any more: it was frozen."""
    points: dict[int, dict[int, float]] = {member: {} for member in group.members}
    last = dict.fromkeys(group.members, -1)
    steps = set()
    for row in group.run.rows:
        if row["member"] in points and metric in row:
            steps.add(row["step"])
            last[row["member"]] = row["step"]
            if is_number(row[metric]):
                points[row["member"]][row["step"]] = float(row[metric])
    if not any(points.values()):
        return None
    axis = np.array(sorted(steps))
    if len(axis) > MOST_POINTS:
        axis = axis[np.unique(np.linspace(0, len(axis) - 1, MOST_POINTS).round().astype(int))]
    return Curve(axis, np.array([filled(points[member], axis, last[member]) for member in group.members]))


def filled(values: dict[int, float], axis: np.ndarray, last: int) -> np.ndarray:
    """f64[P]: the newest value at each step, NaN before the first and after the member's ``last`` row."""
    known = np.array(sorted(values)) if values else np.zeros(0, int)
    at = np.searchsorted(known, axis, side="right") - 1
    newest = np.array([values[step] for step in known] + [np.nan])
    return np.where((at >= 0) & (axis <= last), newest[at], np.nan)


def final(group: Group, metric: str) -> np.ndarray:
    """f64[N]: the last value of each member, NaN where it has none; the summary's where metrics.jsonl has no such metric."""
    newest = dict.fromkeys(group.members, np.nan)
    for row in group.run.rows:
        if row["member"] in newest and is_number(row.get(metric)):
            newest[row["member"]] = float(row[metric])
    told = (group.run.summary or {}).get("members", [])
    for member in group.members:
        if np.isnan(newest[member]) and member < len(told) and is_number(told[member].get("metrics", {}).get(metric)):
            newest[member] = float(told[member]["metrics"][metric])
    return np.array([newest[member] for member in group.members])


def relative(path: Path) -> str:
    """A path as a person in the current directory would type it."""
    try:
        return str(path.resolve().relative_to(Path.cwd()))
    except ValueError:
        return str(path)
