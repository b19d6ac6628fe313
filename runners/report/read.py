"""A run directory as the report sees it: everything that can be read, and a line for each thing that cannot.

Unfinished runs and those of older versions have fewer files; only what is damaged is a problem.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from envs.builder import Refusal
from runners.rundir import read_config


class Run(NamedTuple):
    path: Path
    config: dict[str, Any]  # resolved; {} when it cannot be read
    starts: list[dict[str, Any]]  # of manifest.json: command, versions, commit, machine
    rows: list[dict[str, Any]]  # of metrics.jsonl, in order
    summary: dict[str, Any] | None  # None: not finished
    visits: np.ndarray | None  # u32[M, rows, columns], of grid worlds
    problems: list[str]  # one line each

    @property
    def name(self) -> str:
        return self.path.name

    @property
    def steps(self) -> int:
        """Environment steps per member so far."""
        return max((row["step"] for row in self.rows), default=(self.summary or {}).get("steps", 0))

    @property
    def members(self) -> dict[int, dict[str, Any]]:
        """Member -> {"seed": 3, "exploration.scale": 0.5, ...}: who it is, from its first row of metrics."""
        found: dict[int, dict[str, Any]] = {}
        for row in self.rows:
            if row["member"] not in found:
                found[row["member"]] = {k: v for k, v in row.items() if k == "seed" or (k.partition(".")[0] in SWEPT and "/" not in k)}
        return dict(sorted(found.items()))

    def part(self, name: str) -> str:
        """'deep_sea', 'ppo', 'counts': the last word of a part's import path; '?' when the configuration is lost."""
        return str(self.config.get(name, {}).get("_target_", "?")).rpartition(".")[2]

    @property
    def world(self) -> str:
        return str(self.config.get("env", {}).get("id") or self.part("env"))

    @property
    def state(self) -> str:
        if self.summary is not None:
            return "finished"
        total = self.config.get("total_steps")
        return f"unfinished: {self.steps:,} of {total:,} steps" if isinstance(total, int) else "unfinished"


SWEPT = ("env", "agent", "runner", "exploration")
START = {"command": list, "versions": Mapping, "plan": Mapping}


def read_run(path: Path) -> Run:
    """Raises Refusal when ``path`` is not a run at all; whatever else is wrong becomes one of its problems."""
    problems: list[str] = []
    config: dict[str, Any] = {}
    try:
        config = read_config(path)
    except Refusal as error:
        if not (path / "metrics.jsonl").exists():
            raise
        problems.append(str(error))
    config = fitting(config, dict.fromkeys(SWEPT, Mapping), path / "config.yaml", problems)
    rows = read_rows(path, problems)
    manifest = fitting(read_json(path / "manifest.json", problems) or {}, {"starts": list}, path / "manifest.json", problems)
    starts = [fitting(start, START, path / "manifest.json", problems) for start in manifest.get("starts", []) if isinstance(start, Mapping)]
    summary = read_json(path / "summary.json", problems)
    if summary is not None:
        summary = fitting(summary, {"members": list, "steps": int}, path / "summary.json", problems)
        if not all(isinstance(member, Mapping) and isinstance(member.get("metrics"), Mapping) for member in summary.get("members", [])):
            problems.append(f"{path}/summary.json: its members are damaged and left out")
            del summary["members"]
    if not rows:
        problems.append(f"{path}: no metrics yet")
    return Run(path, config, starts, rows, summary, read_visits(path / "visits.npz", problems), problems)


def fitting(found: Mapping[str, Any], kinds: Mapping[str, type], file: Path, problems: list[str]) -> dict[str, Any]:
    """``found`` without the entries that are not of the kind that they should be."""
    wrong = [key for key, kind in kinds.items() if key in found and not isinstance(found[key], kind)]
    if wrong:
        problems.append(f"{file}: {', '.join(wrong)} {'are' if len(wrong) > 1 else 'is'} damaged and left out")
    return {key: value for key, value in found.items() if key not in wrong}


def read_json(path: Path, problems: list[str]) -> dict[str, Any] | None:
    """An object of a JSON file; None when the file is absent or damaged."""
    try:
        found = json.loads(path.read_text())
        if not isinstance(found, dict):
            raise ValueError("not an object")
        return found
    except FileNotFoundError:
        return None
    except (OSError, ValueError, RecursionError) as error:
        problems.append(f"{path} cannot be read and is left out: {first_line(error)}")
        return None


def read_rows(path: Path, problems: list[str]) -> list[dict[str, Any]]:
    """The lines of metrics.jsonl that are rows. A last line without its end is being written, and no problem."""
    file = path / "metrics.jsonl"
    try:
        text = file.read_text(errors="replace")
    except FileNotFoundError:
        return []
    except OSError as error:
        problems.append(f"{file} cannot be read and is left out: {first_line(error)}")
        return []
    rows, bad = [], []
    *lines, unfinished = text.split("\n")
    for number, line in enumerate(lines, 1):
        row = parsed(line)
        if row is None:
            bad.append(number)
        else:
            rows.append(row)
    if (row := parsed(unfinished)) is not None:
        rows.append(row)
    if bad:
        more = f" and {len(bad) - 1} more" if len(bad) > 1 else ""
        problems.append(f"{file}: line {bad[0]}{more} cannot be read and {'are' if more else 'is'} left out")
    return rows


def parsed(line: str) -> dict[str, Any] | None:
    try:
        row = json.loads(line)
    except ValueError:
        return None
    whole = isinstance(row, dict) and isinstance(row.get("step"), int) and isinstance(row.get("member"), int) and row["member"] >= 0
    return row if whole else None


def read_visits(path: Path, problems: list[str]) -> np.ndarray | None:
    """``visits`` u32[M, rows, columns] of a grid world; None where there are none."""
    if not path.exists():
        return None
    try:
        with open(path, "rb") as file, np.load(file) as archive:
            visits = archive["visits"]
        if visits.ndim != 3:
            raise ValueError(f"visits has the shape {visits.shape}, not [members, rows, columns]")
        return visits if visits.size else None
    except Exception as error:  # numpy raises OSError, ValueError, KeyError, EOFError, zipfile and zlib errors for damaged archives
        problems.append(f"{path} cannot be read and is left out: {first_line(error)}")
        return None


def first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
