"""From combinations to programs: settings whose numbers may be traced become members of one program, all else compiles apart."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from envs.builder import Refusal
from runners.checks import PARTS, check_swept
from runners.compose import compose, get
from runners.experiment import experiment
from runners.goals import EVALUATED
from runners.rundir import digest
from runners.sweeps.program import Combination, Program


@dataclass
class Group:
    """Combinations that one program could run: their texts that decide the program, and the numbers that do not."""

    static: list[str]
    points: list[Combination] = field(default_factory=list)  # the numbers
    combinations: list[Combination] = field(default_factory=list)


def plan(
    words: Sequence[str],
    combinations: Sequence[Combination],
    max_members: int | None,
    runs: Path,
    before: Sequence[Program] = (),
    given: Sequence[list[str]] | None = None,
) -> list[Program]:
    """Programs that together make all ``combinations`` of the settings beside ``words``, and go on with what ``before`` made of them. ``given``: further words
    for each of them, of what a phase before has made (``runners/phases.py``). Raises Refusal for the first that is wrong."""
    groups: dict[tuple, Group] = {}
    for combination, more in zip(combinations, given or [[]] * len(combinations), strict=True):
        checked = experiment(compose([*words, *texts(combination), *more])).config
        numbers = {key for key in combination if traced(checked, key)}
        static = texts({key: value for key, value in combination.items() if key not in numbers}) + more
        group = groups.setdefault((*static, *sorted(numbers)), Group(static))
        group.points.append({key: value for key, value in combination.items() if key in numbers})
        group.combinations.append(combination)
    made = [program for group in groups.values() for program in programs([*words, *group.static], group, max_members, runs)]
    return [going_on(program, before, runs) for program in made] if before else made


def going_on(made: Program, before: Sequence[Program], runs: Path) -> Program:
    """``made``, from where the programs ``before`` have brought its members."""
    parents = [earlier.run for earlier in before if any(combination in earlier.combinations for combination in made.combinations)]
    return program([*made.words, f"continues=[{','.join(parents)}]"], made.combinations, runs)


def texts(combination: Combination) -> list[str]:
    return [f"{key}={value}" for key, value in combination.items()]


def traced(config: dict[str, Any], key: str) -> bool:
    """Whether ``key`` is a number that may differ between members of one program, with the value that it has in ``config``."""
    value = get(config, key)
    if key.partition(".")[0] not in PARTS or isinstance(value, bool) or not isinstance(value, (int, float)):
        return False
    if key.startswith("env.") and not worlds_may_differ(config):
        return False
    try:
        check_swept(config, key, [value])
    except Refusal:
        return False
    return True


def worlds_may_differ(config: dict[str, Any]) -> bool:
    """Worlds on the host are opened once for all members."""
    from envs.base import Environment
    from runners.experiment import make_world

    return isinstance(make_world(config), Environment)


def programs(words: list[str], group: Group, max_members: int | None, runs: Path) -> list[Program]:
    """A group cut into programs of at most ``max_members``: points apart first, then seeds."""
    config = experiment(compose(words + texts(group.points[0]))).config
    seeds = config["seeds"]
    each = len(experiment(config).members)  # of one point: seeds, times what vmap and zip make
    points = max(1, max_members // each) if max_members else len(group.points)
    parts = [seeds] if not max_members or each <= max_members else chunks(seeds, max(1, max_members * len(seeds) // each))
    made = []
    for place in range(0, len(group.points), points):
        chunk, of = group.points[place : place + points], group.combinations[place : place + points]
        for part in parts:
            chosen = [w for w in words if not w.startswith("seeds=")] + [f"seeds=[{','.join(map(str, part))}]"] if len(parts) > 1 else words
            made.append(program([*chosen, *folded(chunk)], of, runs))
    return made


def chunks(items: list, size: int) -> list[list]:
    return [items[i : i + size] for i in range(0, len(items), size)]


def folded(points: list[Combination]) -> list[str]:
    """Several points in the words of one run: plain for one, ``vmap`` for a grid of them, ``zip`` for others."""
    if len(points) == 1:
        return texts(points[0])
    values = {key: list(dict.fromkeys(point[key] for point in points)) for key in points[0]}
    grid = [dict(zip(values, combination, strict=True)) for combination in itertools.product(*values.values())]
    if grid == points:
        varied = {key: several for key, several in values.items() if len(several) > 1}
        alone = texts({key: several[0] for key, several in values.items() if len(several) == 1})
        return alone + [f"vmap.{key}=[{','.join(several)}]" for key, several in varied.items()]
    return [f"zip.{key}=[{','.join(point[key] for point in points)}]" for key in points[0]]


def program(words: list[str], combinations: list[Combination], runs: Path) -> Program:
    made = experiment(compose(words))
    members = len(made.members)
    steps = made.config["stop_at"] or made.config["total_steps"]
    return Program(words, combinations, str(runs / f"{made.name}-{digest(made.config)}"), members, members * steps)


def estimate(made: Program, free: int) -> int | None:
    """Fill in the memory that a program needs, and its metrics. Returns how many members would fit into ``free`` bytes, where it needs more.
    Traces: seconds."""
    from runners.train import assemble

    try:
        planned = experiment(compose(made.words))
        batch, _, _ = assemble(planned, "vmap")
        made.peak = int(batch.plan()["peak"])
        made.metrics = sorted({*batch.template()[1], *(EVALUATED if planned.config["evaluations"] else ())})
    except Refusal as error:
        made.refused = str(error)
        return None
    except (MemoryError, OverflowError) as error:
        made.refused = f"a size is too large ({(str(error).splitlines() or ['no memory'])[0]})"
        return None
    except Exception as error:  # a user's module: the others run all the same
        made.refused = f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"
        return None
    return None if made.peak <= free else max(1, int(0.9 * free / made.peak * made.members))
