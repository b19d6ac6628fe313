"""``farlands demonstrate RUN``: trajectories of an archive, replayed from the world's own start, as a file of demonstrations.

    scripts/farlands demonstrate runs/NAME [member=0] [which=best|end|longest|all|map|curves] [every=100] [out=FILE]

Each is made again, action by action, and counts only when it gives the score that the archive has for it, in as many steps. ``which=best`` (the
highest score), ``end`` (the best that ended an episode) and ``longest`` (of most steps) are written, with rewards and a snapshot of the world every so
many steps; ``all`` replays the trajectory of every cell and writes nothing; ``map`` draws the archive of a game with rooms (``runners/archive_map.py``)
or of a JAX world that is a map (``runners/maze_map.py``), and ``curves`` what it held over the frames of its emulators.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from envs.builder import Integer, Refusal, closest
from exploration.go_explore import END, NEVER, START, Cells
from exploration.trajectories import walked
from runners import maze_map
from runners.archive_map import curves, draw, places_of
from runners.base import HostExplorer, Runner
from runners.explorers import Explorers, Job, Recipe
from runners.progress import Reporter
from runners.rundir import read_config, read_metrics
from runners.stored import newest

SETTINGS = {"member": 0, "which": "best", "every": 100, "out": None}
WHOLE = {"member": Integer(0), "every": Integer(1)}
WHICH = ("best", "end", "longest", "all", "map", "curves")
TOGETHER = 64  # trajectories replayed by one call


class Explored(NamedTuple):
    """The archive of a member of a run."""

    runner: Runner | HostExplorer
    cells: Cells  # numpy
    host: bytes | None  # the worlds of all members


def demonstrate(arguments: Sequence[str]) -> dict[str, Any]:
    """Replays, and writes what was asked for; returns what it found. Raises Refusal."""
    run, settings = parse(arguments)
    if settings["which"] == "curves":
        out = Path(settings["out"] or run / "pictures" / f"archive-curves-{settings['member']}.png")
        return {"run_dir": str(run), "picture": str(out), "points": curves(out, read_metrics(run), settings["member"], run.name)}
    runner, cells, host = read(run, settings["member"])
    if settings["which"] == "map":
        return mapped(run, settings, runner, cells, host)
    if settings["which"] == "all" and isinstance(runner, HostExplorer):
        number, exact = every_cell(cells), replayed_along_the_tree(runner, cells)
        return {"run_dir": str(run), "member": settings["member"], "which": "all", "trajectories": len(number), "replay_exactly": exact}
    longest = int(np.argmax(np.where(cells.length == NEVER, -1, cells.length)))
    number = {"best": [int(cells.best)], "end": [END], "longest": [longest], "all": every_cell(cells)}[settings["which"]]
    if cells.length[number[0]] == NEVER:
        raise Refusal(f"{run}: no rollout has ended an episode yet; use which=best")
    ways = [way_to(cells, i) for i in number]
    exact, rewards = replayed(runner, cells, number, ways)
    told = {"run_dir": str(run), "member": settings["member"], "which": settings["which"], "trajectories": len(number), "replay_exactly": int(sum(exact))}
    if settings["which"] == "all":
        return told
    out = Path(settings["out"] or run / "demonstrations" / f"member-{settings['member']}-{settings['which']}.npz")
    score, steps = float(cells.score[number[0]]), len(ways[0])
    if not exact[0]:
        raise Refusal(f"{run}: this trajectory does not replay: the archive says {score:g}, the world gave {float(np.sum(rewards[0])):g}; nothing was written")
    at, snapshots = snapshots_of(runner, cells, number[0], ways[0], settings["every"])
    out.parent.mkdir(parents=True, exist_ok=True)
    draft = out.with_name(f".draft-{out.name}")
    meta = json.dumps({"world": runner.spec.name, "score": score, "steps": steps, "config": read_config(run)["env"]})
    origin = np.asarray(cells.kept.note.origin[number[0]])
    with open(draft, "wb") as file:
        np.savez_compressed(file, actions=ways[0], rewards=rewards[0], origin=origin, snapshot_steps=at, **snapshots, meta=np.asarray(meta))
    os.replace(draft, out)
    return told | {"file": str(out), "score": score, "steps": steps, "snapshots": len(at)}


def parse(arguments: Sequence[str]) -> tuple[Path, dict[str, Any]]:
    runs = [a for a in arguments if "=" not in a]
    if len(runs) != 1:
        raise Refusal("demonstrate takes one run directory and settings, as: scripts/farlands demonstrate runs/NAME member=0 which=best")
    found: dict[str, Any] = dict(SETTINGS)
    for key, value in (a.split("=", 1) for a in arguments if "=" in a):
        if key not in SETTINGS:
            raise Refusal(f"demonstrate {key}={value}: there is no setting {key!r}{closest(key, SETTINGS)}")
        if key in WHOLE and not (value.isdecimal() and WHOLE[key].accepts(int(value))):
            raise Refusal(f"demonstrate {key}={value}: {key} must be {WHOLE[key].describe()}")
        if key == "which" and value not in WHICH:
            raise Refusal(f"demonstrate which={value}: which must be best, end, longest, all, map or curves")
        found[key] = int(value) if key in WHOLE else value
    return Path(runs[0]), found


def read(run: Path, member: int) -> Explored:
    """The newest undamaged archive of a run. Raises Refusal where there is none."""

    def has_archive(runner, shapes) -> None:
        if not hasattr(shapes, "archive"):
            raise Refusal(f"{run} has no archive; demonstrate is for runs with exploration=go_explore")

    stored = newest(run, member, has_archive)
    return Explored(stored.runner, stored.state.archive, stored.host)


def mapped(run: Path, settings: dict[str, Any], runner: Runner | HostExplorer, cells: Cells, host: bytes | None) -> dict[str, Any]:
    out, best = Path(settings["out"] or run / "pictures" / f"archive-{settings['member']}.png"), float(cells.score[int(cells.best)])
    if isinstance(runner, Runner):
        number = maze_map.draw(out, runner, cells, f"{runner.spec.name}: {int(cells.size) - 2:,} cells, best score {best:,.3g}")
        return {"run_dir": str(run), "picture": str(out), "cells": number}
    places = places_of(cells, host, settings["member"], runner)
    rooms = len({room for room, _, _ in places.values()})
    title = f"{runner.spec.name}: {len(places):,} cells in {rooms} rooms, best score {best:,.0f}"
    draw(out, cells, places, runner.spec.name, title)
    return {"run_dir": str(run), "picture": str(out), "cells": len(places), "rooms": rooms}


def every_cell(cells: Cells) -> list[int]:
    return [i for i in range(int(cells.size)) if i != START and cells.length[i] != NEVER]


def way_to(cells: Cells, cell: int) -> np.ndarray:
    tree, note = cells.tree, cells.kept.note
    return walked(tree.actions, tree.parent_row, tree.parent_steps, int(note.row[cell]), int(note.steps[cell]))


def replayed(runner: Runner | HostExplorer, cells: Cells, numbers: list[int], ways: list[np.ndarray]) -> tuple[list[bool], list[np.ndarray]]:
    """(whether each gives the archive's score in as many steps, the rewards of each)."""
    reporter, rewards = Reporter(len(numbers), 1, len(numbers) > TOGETHER), []
    replay = HostReplay(runner) if isinstance(runner, HostExplorer) else DeviceReplay(runner, cells, max(map(len, ways)))
    try:
        for at in range(0, len(numbers), TOGETHER):
            rewards += replay(numbers[at : at + TOGETHER], ways[at : at + TOGETHER])
            reporter.advance(len(rewards), "")
    finally:
        reporter.close()
        replay.close()
    scores = [float(np.cumsum(part, dtype=np.float32)[-1]) if len(part) else 0.0 for part in rewards]
    found = zip(numbers, ways, rewards, scores, strict=True)
    return [len(part) == len(way) and np.isclose(score, cells.score[i], rtol=1e-6, atol=1e-6) for i, way, part, score in found], rewards


def replayed_along_the_tree(runner: HostExplorer, cells: Cells) -> int:
    """How many cells the replay of the whole tree gives exactly. Every row is made once, from where the replay of its parent was, the first ones from the
    world's own start, so ways that share a beginning share its replay."""
    tree, note, numbers = cells.tree, cells.kept.note, every_cell(cells)
    wanted: dict[int, set[int]] = {}
    for i in numbers:
        row, steps = int(note.row[i]), int(note.steps[i])
        while row >= 0 and steps not in wanted.setdefault(row, set()):
            wanted[row].add(steps)
            row, steps = int(tree.parent_row[row]), int(tree.parent_steps[row])
    generation: dict[int, int] = {}
    for row in sorted(wanted):  # parents come first
        generation[row] = generation.get(int(tree.parent_row[row]), -1) + 1
    found: dict[tuple[int, int], tuple[bytes, np.float32, int]] = {}  # place in the tree -> (world, score, steps since the start)
    workers, reporter = Explorers(Recipe(runner.env.single, runner.cell, None, runner.spec.name), os.cpu_count() or 1), Reporter(len(wanted), 1)
    done = 0
    try:
        for level in range(max(generation.values(), default=-1) + 1):
            rows = [row for row in generation if generation[row] == level]
            starts = [found.get((int(tree.parent_row[row]), int(tree.parent_steps[row])), (None, np.float32(0), 0)) for row in rows]
            ways = [tree.actions[row, : max(wanted[row])] for row in rows]
            jobs = [Job(start[0], 0.0, way, keeps=False, after=tuple(wanted[row])) for row, start, way in zip(rows, starts, ways, strict=True)]
            for row, start, rolled in zip(rows, starts, workers.run(jobs), strict=True):
                scores = np.cumsum(np.concatenate([[start[1]], rolled.rewards]), dtype=np.float32)
                found |= {(row, t + 1): (world, scores[t + 1], start[2] + t + 1) for t, world, _ in rolled.snapshots}
            done += len(rows)
            reporter.advance(done, f"generation {level + 1} of the tree")
    finally:
        reporter.close()
        workers.close()
    ends = [found.get((int(note.row[i]), int(note.steps[i]))) for i in numbers]
    return sum(bool(end and end[1] == cells.score[i] and end[2] == cells.length[i]) for end, i in zip(ends, numbers, strict=True))


class HostReplay:
    def __init__(self, runner: HostExplorer):
        self.workers = Explorers(Recipe(runner.env.single, runner.cell, None, runner.spec.name), os.cpu_count() or 1)

    def __call__(self, numbers: list[int], ways: list[np.ndarray]) -> list[np.ndarray]:
        return [rolled.rewards for rolled in self.workers.run([Job(None, 0.0, way, keeps=False) for way in ways])]

    def close(self) -> None:
        self.workers.close()


class DeviceReplay:
    def __init__(self, runner: Runner, cells: Cells, longest: int):
        self.longest, self.cells, env = longest, cells, runner.env

        def one(origin, actions):
            world, _ = env.reset(origin)

            def step(world, action):
                world, seen = env.step(world, jax.random.PRNGKey(0), action)
                return world, seen.reward

            return jax.lax.scan(step, world, actions)[1]

        self.replay = jax.jit(jax.vmap(one))

    def __call__(self, numbers: list[int], ways: list[np.ndarray]) -> list[np.ndarray]:
        actions = np.zeros((len(ways), self.longest, *ways[0].shape[1:]), ways[0].dtype)
        for place, way in zip(actions, ways, strict=True):
            place[: len(way)] = way
        rewards = np.asarray(self.replay(jnp.asarray(self.cells.kept.note.origin[numbers]), actions), np.float32)
        return [part[: len(way)] for part, way in zip(rewards, ways, strict=True)]

    def close(self) -> None:
        """Nothing is open."""


def snapshots_of(runner: Runner | HostExplorer, cells: Cells, cell: int, way: np.ndarray, every: int) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """(steps after which the world was kept, what was kept, by name): of emulators as bytes, of JAX worlds the arrays of their states."""
    at = np.arange(0, len(way) + 1, every)
    if isinstance(runner, HostExplorer):
        world = runner.env.single()
        world.reset()
        kept = [world.save()]
        for t, action in enumerate(way, start=1):
            world.step(action)
            if t % every == 0:
                kept.append(world.save())
        return at, {"snapshots": np.frombuffer(b"".join(kept), np.uint8), "snapshot_ends": np.cumsum([len(part) for part in kept])}
    env = runner.env
    start, _ = env.reset(jnp.asarray(cells.kept.note.origin[cell]))

    @jax.jit
    def states(world, actions):
        def step(world, action):
            world, _ = env.step(world, jax.random.PRNGKey(0), action)
            return world, world

        return jax.lax.scan(step, world, actions)[1]

    later = states(start, jnp.asarray(way)) if len(way) else jax.tree.map(lambda x: jnp.zeros((0, *jnp.shape(x)), x.dtype), start)
    whole = jax.tree.map(lambda first, rest: np.concatenate([np.asarray(first)[None], np.asarray(rest)])[at], start, later)
    return at, {f"snapshot_{n}": leaf for n, leaf in enumerate(jax.tree.leaves(whole))}
