"""The runs of a folder, read again only where their files have changed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from envs.builder import Refusal
from runners.compose import flatten
from runners.report.curves import Group, groups, shown
from runners.report.read import Run, read_run
from runners.rundir import NOT_IN_HASH

READ = ("config.yaml", "metrics.jsonl", "summary.json", "manifest.json", "visits.npz")
MEDIA = {".png": "image", ".gif": "image", ".svg": "image", ".mp4": "video", ".webm": "video", ".html": "page"}


class Runs:
    """``folder``'s runs, also those in folders inside it; what cannot be read is left out and said."""

    def __init__(self, folder: Path):
        self.folder = folder
        self._read: dict[Path, tuple[tuple, Run]] = {}

    def all(self) -> list[Run]:
        """Newest first."""
        paths = sorted({file.parent for pattern in ("*/config.yaml", "*/*/config.yaml") for file in self.folder.glob(pattern)})
        found = [run for path in paths if (run := self.one(path)) is not None]
        self._read = {path: kept for path, kept in self._read.items() if path in set(paths)}
        return sorted(found, key=lambda run: -changed(run.path))

    def one(self, path: Path) -> Run | None:
        stamp = stamp_of(path)
        if path not in self._read or self._read[path][0] != stamp:
            try:
                self._read[path] = stamp, read_run(path)
            except (Refusal, OSError):
                return None
        return self._read[path][1]

    def chosen(self, names: list[str]) -> list[Run]:
        """Runs by their places inside the folder, in the given order."""
        return [run for name in names if inside(name) and (run := self.one(self.folder / name)) is not None]

    def place(self, run: Run) -> str:
        """Where a run is inside the folder: what it is called on the page."""
        return str(run.path.relative_to(self.folder))


def inside(name: str) -> bool:
    """Whether ``name`` leads to something inside a folder and not out of it. (Links that somebody has put there may lead anywhere.)"""
    return not Path(name).is_absolute() and ".." not in Path(name).parts


def stamp_of(path: Path) -> tuple:
    """Changes when a file of the run does."""
    made = []
    for name in READ:
        try:
            stat = (path / name).stat()
            made.append((stat.st_mtime_ns, stat.st_size))
        except OSError:
            made.append(None)
    return tuple(made)


def changed(path: Path) -> float:
    """When something was last measured, in seconds since the epoch."""
    return max((p.stat().st_mtime for name in ("metrics.jsonl", "config.yaml") if (p := path / name).exists()), default=0.0)


def row(runs: Runs, run: Run) -> dict[str, Any]:
    """A run as a line of the table."""
    newest = run.rows[-1] if run.rows else {}
    returns = [r["evaluation/return"] for r in run.rows if r.get("evaluation/return") is not None] or [
        r["episode/return"] for r in run.rows if r.get("episode/return") is not None
    ]
    last = returns[-len(run.members) :] if run.members else []
    return {
        "run": runs.place(run),
        "world": run.world,
        "agent": run.part("agent"),
        "exploration": run.part("exploration"),
        "members": len(run.members),
        "steps": run.steps,
        "state": run.state.partition(":")[0],
        "return": sum(last) / len(last) if last else None,
        "steps/s": newest.get("time/steps_per_second"),
    }


def settings(run: Run) -> dict[str, str]:
    """Every setting of a run that decides its results, as text."""
    return {key: shown(value) for key, value in flatten({k: v for k, v in run.config.items() if k not in NOT_IN_HASH}).items()}


def matches(run: Run, place: str, words: str) -> bool:
    """Whether a run fits a filter: every word is in its name or parts, or is ``key=value`` of a setting (the key may be shortened to its last word)."""
    flat = settings(run)
    text = " ".join([place, run.world, run.part("agent"), run.part("exploration"), run.state]).lower()
    for word in words.lower().split():
        key, equals, value = word.partition("=")
        if equals:
            named = [v.lower() for k, v in flat.items() if k.lower() == key or k.lower().rpartition(".")[2] == key]
            if value not in named:
                return False
        elif word not in text:
            return False
    return True


def value_of(group: Group, key: str) -> str:
    """What a group has for a setting, swept inside its run or not."""
    if key in group.hyper:
        return shown(group.hyper[key])
    return settings(group.run).get(key, "-")


def comparable(chosen: list[Run]) -> list[str]:
    """Settings that are not the same in all groups of the chosen runs."""
    found = groups(chosen)
    keys = sorted({key for run in chosen for key in settings(run)} | {key for group in found for key in group.hyper})
    apart = ("vmap", "zip", "seeds")
    return [key for key in keys if not key.startswith(apart) and len({value_of(group, key) for group in found}) > 1]


def media(run: Run) -> list[tuple[str, str]]:
    """(path inside the run, kind) of its pictures, videos and pages."""
    files = sorted(file for file in run.path.rglob("*") if file.suffix.lower() in MEDIA and "checkpoints" not in file.parts)
    return [(str(file.relative_to(run.path)), MEDIA[file.suffix.lower()]) for file in files]
