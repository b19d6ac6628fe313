"""The run directory: one folder per resolved configuration, found again by the same command.

    runs/<name>-<hash>/ config.yaml manifest.json metrics.jsonl summary.json checkpoints/

Every file is written whole to a neighbour and renamed, but for ``metrics.jsonl``, which grows by flushed lines.
"""

from __future__ import annotations

import fcntl
import hashlib
import importlib.metadata
import json
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import yaml

from envs.builder import Refusal
from runners.compose import COMMAND, flatten

ROOT = Path(__file__).resolve().parent.parent
# settings that say where and how a run goes, not what it computes
NOT_IN_HASH = ("run_dir", "overwrite", "checkpoint", "distributed", "logger", "profile", "after", "export", "phase")
NOT_IN_HASH += ("runner.workers", "runner.cluster", "runner.demonstrations")
ADDED = ("stop_at", "stop_when", "continues", "zip")  # settings that older runs lack; where they say nothing, a run keeps the name that it had without them


def digest(config: Mapping[str, Any]) -> str:
    """Eight hexadecimal digits that identify what a configuration computes."""
    return hashlib.sha256(json.dumps(decisive(config), sort_keys=True, default=str).encode()).hexdigest()[:8]


def decisive(config: Mapping[str, Any]) -> dict[str, Any]:
    """The part of a configuration that decides what is computed."""
    kept = {key: value for key, value in config.items() if key not in NOT_IN_HASH and (value or key not in ADDED)}
    if isinstance(kept.get("runner"), Mapping):
        kept["runner"] = {key: value for key, value in kept["runner"].items() if f"runner.{key}" not in NOT_IN_HASH}
    return kept


def write_atomically(path: Path, text: str) -> None:
    draft = path.with_name(f".{path.name}.draft")
    try:
        with open(draft, "w") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        draft.rename(path)
    except OSError:
        draft.unlink(missing_ok=True)
        raise


class RunDirectory:
    """An opened (locked) run directory. Only one process writes to a run at a time."""

    def __init__(self, path: Path):
        self.path = path
        self.checkpoints = path / "checkpoints"
        self.metrics = path / "metrics.jsonl"
        self.watchers: list[Callable[[list], None]] = []  # get the rows that were added to metrics.jsonl
        self._lock = None
        self._file = None

    @classmethod
    def open(cls, path: Path, config: Mapping[str, Any], overwrite: bool) -> RunDirectory:
        """Open or make the directory for ``config``; refuse one that belongs to another configuration or process."""
        refuse_unusable(path, config, overwrite)
        directory = cls(path)
        try:
            path.mkdir(parents=True, exist_ok=True)
            directory._lock = open(path / ".lock", "w")
        except OSError as error:
            raise Refusal(f"run_dir={path}: {error.strerror}; choose another with run_dir=...") from None
        try:
            fcntl.flock(directory._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise Refusal(f"{path} is being written by another process; wait for it, or choose another with run_dir=...") from None
        if overwrite:
            for item in path.iterdir():
                if item.name != ".lock":
                    shutil.rmtree(item) if item.is_dir() else item.unlink()
        if not (path / "config.yaml").exists():
            write_atomically(path / "config.yaml", yaml.safe_dump(dict(config), sort_keys=False))
        return directory

    def close(self) -> None:
        for handle in (self._file, self._lock):
            if handle:
                handle.close()

    def write_summary(self, summary: Mapping[str, Any]) -> None:
        write_atomically(self.path / "summary.json", json.dumps(summary, indent=1))

    def write_manifest(self, plan: Mapping[str, Any]) -> None:
        """Where and with what the run is made; every start of the process adds an entry."""
        path = self.path / "manifest.json"
        try:
            history = list(json.loads(path.read_text())["starts"]) if path.exists() else []
        except (ValueError, KeyError, TypeError):
            path.rename(path.with_suffix(".damaged"))
            history = []
        entry = {"command": sys.argv, "machine": platform.node(), "platform": platform.platform(), "python": platform.python_version()}
        entry |= {"versions": versions(), "commit": commit(), "plan": dict(plan)}
        write_atomically(path, json.dumps({"starts": [*history, entry]}, indent=1))

    def append(self, rows: list[Mapping[str, Any]]) -> None:
        """Add lines to metrics.jsonl, flushed; then the watchers get them."""
        if self._file is None:
            self._file = open(self.metrics, "a")
        self._file.write("".join(json.dumps(row) + "\n" for row in rows))
        self._file.flush()
        for watcher in self.watchers:
            watcher(rows)

    def truncate_metrics(self, keep: Callable[[dict], bool]) -> None:
        """Keep the lines for which ``keep`` holds; a half-written last line is dropped."""
        if self._file is not None:
            self._file.close()
            self._file = None
        kept = [row for row in read_metrics(self.path) if keep(row)]
        write_atomically(self.metrics, "".join(json.dumps(row) + "\n" for row in kept))


def read_config(path: Path) -> dict[str, Any]:
    """The configuration of a run. Raises Refusal for a folder without one, and for one that is not a run's."""
    try:
        config = yaml.safe_load((path / "config.yaml").read_text())
    except (FileNotFoundError, NotADirectoryError):
        raise Refusal(f"{path} is not a run: it has no config.yaml; '{COMMAND} list runs' shows those in runs/") from None
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise Refusal(f"{path}/config.yaml cannot be read: {' '.join(str(error).split())[:200]}") from None
    lacking = [part for part in ("env", "agent", "exploration", "runner") if not isinstance(config, dict) or part not in config]
    if lacking:
        raise Refusal(f"{path}/config.yaml is not the configuration of a run: it has no {lacking[0]}")
    return config


def read_summary(path: Path) -> dict[str, Any] | None:
    """The results of a finished run; None while it is not finished. Raises Refusal when the file is damaged."""
    file = path / "summary.json"
    try:
        summary = json.loads(file.read_text()) if file.is_file() else None
        if summary is not None and not isinstance(summary, dict):
            raise ValueError("not an object")
        return summary
    except OSError:
        return None
    except ValueError as error:
        raise Refusal(f"{file} is damaged ({error}); delete it, and '{COMMAND} resume {path}' writes it anew from the last checkpoint") from None


def refuse_unusable(path: Path, config: Mapping[str, Any], overwrite: bool) -> None:
    """Refuse a place that cannot become, or is not, the directory of this run; changes nothing there."""
    try:
        there = next(p for p in (path, *path.absolute().parents) if p.exists())
        if not there.is_dir():
            raise Refusal(f"run_dir={path}: {there} is a file; choose another with run_dir=...")
        if not os.access(there, os.W_OK | os.X_OK):
            raise Refusal(f"run_dir={path}: {there} cannot be written; choose another with run_dir=...")
        filled = there == path and any(item.name != ".lock" for item in path.iterdir())
        if filled and not (path / "config.yaml").exists():
            raise Refusal(f"{path} is not empty and is not a run; choose another run_dir")
    except OSError as error:
        raise Refusal(f"run_dir={str(path)[:100]}: {error.strerror}; choose another with run_dir=...") from None
    if filled and overwrite:
        read_config(path)  # only a run is ever deleted
    elif filled:
        refuse_another_configuration(path, config)


def refuse_another_configuration(path: Path, config: Mapping[str, Any]) -> None:
    differing = differences(read_config(path), config)
    if differing:
        key, old, new = differing[0]
        more = f" (and {len(differing) - 1} more)" if len(differing) > 1 else ""
        raise Refusal(f"{path} holds another run: {key} is {old!r} there and {new!r} here{more}; choose another run_dir, or overwrite=true")


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The lines of metrics.jsonl, without those that are no rows: a half-written one at the end, or damage."""
    rows = []
    file = path / "metrics.jsonl"
    for line in file.read_text(errors="replace").splitlines() if file.exists() else []:
        try:
            row = json.loads(line)
        except ValueError:
            continue
        if isinstance(row, dict) and "step" in row:
            rows.append(row)
    return rows


def step_of(line: str) -> int:
    """The step of a line of metrics.jsonl; 0 where it is no row."""
    try:
        return int(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):
        return 0


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[tuple[str, Any, Any]]:
    """(key, old value, new value) of what a run computes, where they differ."""
    a, b = (flatten(decisive(c)) for c in (old, new))
    missing = "nothing"
    return [(key, a.get(key, missing), b.get(key, missing)) for key in sorted({*a, *b}) if a.get(key, missing) != b.get(key, missing)]


def versions() -> dict[str, str]:
    names = ("jax", "jaxlib", "flax", "optax", "gymnasium", "gymnax", "xminigrid", "hydra-core", "numpy", "orbax-checkpoint")
    found = {}
    for name in names:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def commit() -> str | None:
    """The checkout's commit, with + when tracked files differ from it; None outside git."""
    try:
        head = subprocess.run(["git", "-C", str(ROOT), "rev-parse", "HEAD"], capture_output=True, text=True, timeout=5, check=True).stdout.strip()
        dirty = subprocess.run(["git", "-C", str(ROOT), "status", "--porcelain", "-uno"], capture_output=True, text=True, timeout=5).stdout.strip()
        return head + ("+" if dirty else "")
    except (OSError, subprocess.SubprocessError):
        return None
