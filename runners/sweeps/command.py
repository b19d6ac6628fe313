"""``train -m``: plan the programs of a sweep, show the plan, run them through a launcher, and say what became of them.

The same command finds the same plan: what is finished is left alone, what was begun goes on, what failed is tried again.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import multiprocessing
import os
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

from envs.builder import Refusal
from runners import rundir
from runners.sweeps import grid, settings, tables
from runners.sweeps.jobs import end_with_parent
from runners.sweeps.launch import launch
from runners.sweeps.program import Combination, Program
from runners.sweeps.watch import Watch

RUNS = Path("runs")
ESTIMATED = 24  # programs of which the memory is estimated before the first one starts; tracing takes seconds each


def sweep(words: Sequence[str]) -> int:
    """Run a sweep; 0 when every job finished, 1 otherwise, 130 after Ctrl-C. Refuses mistakes before the first job."""
    try:
        return swept(words)
    except Waits as waits:
        print(f"farlands: {waits}", file=sys.stderr)
        return 0


def swept(words: Sequence[str]) -> int:
    """``sweep``. Raises Waits."""
    own = next((word for word in words if word.lstrip("+").startswith("distributed.")), None)
    if own:
        raise Refusal(f"{own}: a sweep's launcher gives its jobs their processes, as hydra/launcher=submitit_slurm hydra.launcher.tasks_per_node=2")
    given, chosen, launcher = settings.split(words)
    single, axes = grid.read(given)
    place = folder_of(words)
    if chosen["search"] != "grid":
        from runners.sweeps.search import search

        return search(single, axes, chosen, launcher, place)
    programs: list[Program] = []
    try:
        with Planner(First(place, chosen, launcher)) as plan:
            programs = plan(single, grid.combinations(axes), chosen["max_members"])
        tables.show_plan(programs, RUNS, launcher)
        if chosen["dry"]:
            return 1 if any(program.refused for program in programs) else 0
        run(programs, place, chosen, launcher)
    except KeyboardInterrupt:
        concluded(programs, place)
        print("farlands: interrupted; the same command goes on", file=sys.stderr)
        return 130
    return concluded(programs, place)


class Waits(Exception):
    """A plan that was only to be shown begins with runs that decide what comes after them."""


class First:
    """Makes the runs that others come ``after``, as programs of their own, through the launcher of the sweep."""

    def __init__(self, place: Path, chosen: dict[str, Any], launcher: Sequence[str]):
        self.folder, self.chosen, self.launcher = place / "before", chosen, launcher

    def __call__(self, programs: Sequence[Program]) -> list[str]:
        """What became of them, as ``outcomes``. Raises Waits where nothing is to be run."""
        if all(program.finished() for program in programs):
            return [""] * len(programs)
        print("first, what others come after:", file=sys.stderr)
        tables.show_plan(programs, RUNS, self.launcher)
        if self.chosen["dry"]:
            raise Waits("what comes after these is planned when they are finished")
        run(programs, self.folder, self.chosen, self.launcher)
        return outcomes(programs, self.folder)


class Planner:
    """Plans in a process of its own: planning needs jax, on the CPU, which must not be set up where jobs are started from (launchers fork)."""

    first: Callable[[Sequence[Program]], list[str]]  # makes the runs that what is planned comes after, when there are any (``First``)

    def __init__(self, first: First | None = None):
        if first is not None:
            self.first = first

    def __enter__(self) -> Planner:
        self.pool = ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), initializer=jax_for_planning)
        return self

    def __exit__(self, *_) -> None:
        self.pool.shutdown(cancel_futures=True)

    def __call__(self, words: Sequence[str], combinations: Sequence[Combination], max_members: int | None, before: Sequence[Program] = ()) -> list[Program]:
        """The programs of a grid, when what they come after has been run; those for which that failed are refused. Raises Refusal."""
        combinations = list(combinations)
        given, missing = self._after(list(words), combinations)
        made: list[Program] = []
        for why in [None, *sorted(set(missing) - {None})]:
            chosen = [(one, more) for one, more, found in zip(combinations, given, missing, strict=True) if found == why]
            if chosen:
                programs = self.pool.submit(planned, list(words), [one for one, _ in chosen], max_members, list(before), [more for _, more in chosen]).result()
                made += [dataclasses.replace(program, refused=why or program.refused) for program in programs]
        return made

    def _after(self, words: list[str], combinations: list[Combination]) -> tuple[list[list[str]], list[str | None]]:
        """For each combination further words, with what was made for it first, and why that is missing."""
        asked = self.pool.submit(commands_before, words, combinations).result()
        commands = list(dict.fromkeys(tuple(command) for command in asked if command))
        if not commands:
            return [[]] * len(combinations), [None] * len(combinations)
        programs = [program for command in commands for program in self.pool.submit(planned, list(command), [{}], None, [], None).result()]
        told = dict(zip(commands, zip(programs, self.first(programs), strict=True), strict=True))
        found: list[tuple[list[str], str | None]] = []
        for combination, command in zip(combinations, asked, strict=True):
            program, why = told[tuple(command)] if command else (None, "")
            if program is None or why:
                found.append(([], f"what comes first failed: {why}" if why else None))
            else:
                found.append(self.pool.submit(handed_on, words, combination, program.run).result())
        return [more for more, _ in found], [why for _, why in found]


def jax_for_planning() -> None:
    os.environ["JAX_PLATFORMS"] = "cpu"
    end_with_parent()
    from runners import devices

    devices.prepare(1)


def commands_before(words: list[str], combinations: Sequence[Combination]) -> list[list[str] | None]:
    """For each combination the command line of what is to be run first."""
    from runners import phases
    from runners.compose import compose
    from runners.sweeps import planner

    return [phases.command_before(compose([*words, *planner.texts(combination)])) for combination in combinations]


def handed_on(words: list[str], combination: Combination, run: str) -> tuple[list[str], str | None]:
    """(further words for a combination, why there are none), now that ``run`` is finished."""
    from runners import phases
    from runners.compose import compose
    from runners.sweeps import planner

    try:
        return phases.handed_on(compose([*words, *planner.texts(combination)]), {**(rundir.read_summary(Path(run)) or {}), "run_dir": run}), None
    except Refusal as error:
        return [], str(error)


def planned(
    words: Sequence[str], combinations: Sequence[Combination], max_members: int | None, before: Sequence[Program], given: list[list[str]] | None
) -> list[Program]:
    """The programs of a grid, with the memory that they need; cut smaller where they would need more than is free, unless ``max_members`` says how large."""
    from runners.memory import available_bytes
    from runners.sweeps import planner

    free = available_bytes()
    while True:
        programs = planner.plan(words, combinations, max_members, RUNS, before, given)
        fits = [planner.estimate(program, free) for program in programs[:ESTIMATED]]
        smaller = [most for program, most in zip(programs, fits, strict=False) if most is not None and most < program.members]
        if max_members is not None or not smaller:
            return programs
        max_members = min(smaller)


def folder_of(words: Sequence[str]) -> Path:
    """Where a sweep keeps its plan and what its jobs said; one for each command line."""
    decides = sorted(w for w in words if not w.startswith(("hydra", "sweep.dry", "sweep.retries")))
    return RUNS / "sweeps" / hashlib.sha256(json.dumps(decides).encode()).hexdigest()[:8]


def run(programs: Sequence[Program], place: Path, chosen: dict[str, Any], launcher: Sequence[str], batch: int = 0) -> None:
    """Write the plan and run what is not finished. Returns when no job is running any more."""
    folder = place if not batch else place / f"batch-{batch}"
    folder.mkdir(parents=True, exist_ok=True)
    plan = {"command": sys.argv[1:], "cwd": str(Path.cwd()), "retries": chosen["retries"], "aloud": settings.launcher_of(launcher) == "basic"}
    rundir.write_atomically(folder / "plan.json", json.dumps({**plan, "programs": [program.as_json() for program in programs]}, indent=1))
    left = [i for i, program in enumerate(programs) if not program.finished() and not program.refused]
    done = sum(program.finished() for program in programs)
    if done:
        print(f"{done} of {len(programs)} programs are finished already", file=sys.stderr)
    for i in left:
        (folder / f"{i:03d}.json").unlink(missing_ok=True)
    print(f"what the jobs say is in {folder}/NNN.log", file=sys.stderr)
    with Watch(programs, aloud=plan["aloud"]):
        launch(folder / "plan.json", left, launcher)


def outcomes(programs: Sequence[Program], folder: Path) -> list[str]:
    """What became of every program: "" for a finished one, else why it is not."""
    found = []
    for i, program in enumerate(programs):
        if program.finished():
            found.append("")
            continue
        try:
            said = json.loads((folder / f"{i:03d}.json").read_text())["reason"]
        except (OSError, ValueError, KeyError):
            said = None
        found.append(program.refused or said or "did not end")
    return found


def concluded(programs: Sequence[Program], folder: Path) -> int:
    """The closing table, and the JSON object that closes standard output."""
    found = outcomes(programs, folder)
    tables.show_outcome(programs, found)
    runs = [program.run for program, why in zip(programs, found, strict=True) if not why]
    print(json.dumps({"sweep": str(folder), "programs": len(programs), "failed": sum(map(bool, found)), "runs": runs}))
    return 1 if any(found) else 0
