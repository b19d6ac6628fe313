"""Workers that make whole rollouts in worlds of their own: nothing is random in them, so who makes a rollout, where, and when, changes nothing.

Workers are processes of this machine, or actors of a Ray cluster (``runners/ray_workers.py``). One that dies is replaced and its rollout made again;
only when the same rollout kills three workers, the run ends.
"""

from __future__ import annotations

import multiprocessing
import signal
from collections.abc import Callable, Sequence
from multiprocessing.connection import wait
from typing import Any, NamedTuple

import cloudpickle
import numpy as np

from envs.base import HostWorld
from envs.builder import Failure
from exploration.representation import packed

ATTEMPTS = 3


class Job(NamedTuple):
    start: bytes | None  # a snapshot; None: the world's own start
    score: float  # of the episode so far
    actions: np.ndarray  # [T, ...]
    keeps: bool = True  # whether snapshots are wanted where cells are met
    after: tuple[int, ...] = ()  # numbers of steps after which snapshots are wanted in any case
    representation: tuple[int, ...] = ()  # what the cells are at present, for a function of cells that takes it; the pictures of what is kept come back
    looks: tuple[int, ...] = ()  # steps whose pictures are wanted


class Snapshot(NamedTuple):
    step: int
    world: bytes
    picture: bytes | None  # packed; where cells have a representation that changes


class Rolled(NamedTuple):
    """A rollout of n <= T steps."""

    rewards: np.ndarray  # f32[n]
    cells: np.ndarray  # u32[n, 2]; fingerprints
    terminated: bool  # at the last step
    truncated: bool
    snapshots: list[Snapshot]  # where a cell was first met in this rollout, or met with a higher score, or where they were asked for
    rooms: np.ndarray  # i32[n]; -1 where the world has no rooms
    pictures: list[bytes]  # of the steps that were asked for, packed; ends of episodes have none


class Recipe(NamedTuple):
    """What a worker is made of."""

    world: Callable[[], HostWorld]
    cell: Callable[..., bytes]  # (look, *representation) -> fingerprint
    room: Callable[[Callable[[str], Any]], int] | None
    name: str

    def perform(self, world: HostWorld, job: Job) -> Rolled:
        return roll(world, self, job)


def roll(world: HostWorld, recipe: Recipe, job: Job) -> Rolled:
    """Go to where the job starts and act until its actions are used up or the episode ends."""
    world.reset() if job.start is None else world.load(job.start)
    score, best, snapshots = np.float32(job.score), {}, []
    rewards, cells, rooms, pictures = np.zeros(len(job.actions), np.float32), [], [], []

    def kept(t: int) -> Snapshot:
        return Snapshot(t, world.save(), packed(world.look("grey")) if job.representation else None)

    terminated = truncated = False
    for t, action in enumerate(job.actions):
        rewards[t], terminated, truncated = world.step(action)
        score += rewards[t]
        rooms.append(-1 if recipe.room is None else recipe.room(world.look))
        if t + 1 in job.after:
            snapshots.append(kept(t))
        if terminated or truncated:
            cells.append(bytes(8))
            break
        cell = recipe.cell(world.look, *job.representation)
        cells.append(cell)
        if t in job.looks:
            pictures.append(packed(world.look("grey")))
        if job.keeps and (cell not in best or score > best[cell]):
            best[cell] = score
            snapshots.append(kept(t))
    fingerprints = np.frombuffer(b"".join(cells), np.uint32).reshape(-1, 2)
    return Rolled(rewards[: len(cells)], fingerprints, bool(terminated), bool(truncated), snapshots, np.asarray(rooms, np.int32), pictures)


class Lost(Exception):
    """A worker died."""


class Crew(NamedTuple):
    """Where workers live. ``take`` and ``give`` raise Lost."""

    start: Callable[[], Any]  # -> a worker, which may still be on its way
    there: Callable[[Any], bool]  # whether it has come, once that is decided; False: there is no place for it
    give: Callable[[Any, Job], None]
    ready: Callable[[list[Any]], list[int]]  # workers that have jobs -> the places of some that may be taken from; waits
    take: Callable[[Any], tuple[bool, Any]]  # -> (True, Rolled) or (False, what the world said)
    bury: Callable[[Any], None]  # a worker that died
    close: Callable[[list[Any]], None]


class Explorers:
    """``number`` workers of a crew, processes where none is given; 0: this process makes the rollouts.

    A recipe has a ``world``, a ``name``, and ``perform(world, job)``: ``Recipe`` here, or ``Trial`` of ``runners/trials.py``.
    """

    def __init__(self, recipe: Any, number: int, crew: Crew | None = None):
        self.recipe = recipe
        self._world: HostWorld | None = None
        self.replaced = 0  # workers that died
        self._crew = crew or processes(recipe)
        self._workers = dict(enumerate([self._crew.start() for _ in range(number)]))
        self._workers = {place: worker for place, worker in self._workers.items() if self._crew.there(worker)}
        if number and not self._workers:
            self.close()
            raise Failure(f"none of {number} workers of the world {recipe.name} found a place")

    def run(self, jobs: Sequence[Job]) -> list[Rolled]:
        """All of them, in their order. Raises Failure when a world does."""
        if not self._workers:
            self._world = self._world or self.recipe.world()
            return [self.recipe.perform(self._world, job) for job in jobs]
        found: list[Any] = [None] * len(jobs)
        waiting, attempts, at = list(range(len(jobs)))[::-1], [0] * len(jobs), {}

        def employ() -> None:
            """Every worker that is free gets a job, as long as there are jobs."""
            for number in list(self._workers):
                if number in self._workers and number not in at and waiting:
                    at[number] = waiting.pop()
                    attempts[at[number]] += 1
                    try:
                        self._crew.give(self._workers[number], jobs[at[number]])
                    except Lost:
                        lost(number)

        def lost(number: int) -> None:
            """Another takes its place, if there is room for one; else those that are left do the work."""
            job = at.pop(number)
            self._crew.bury(self._workers.pop(number))
            if attempts[job] == ATTEMPTS:
                raise Failure(f"{ATTEMPTS} worker processes of the world {self.recipe.name} died of the same rollout; were they killed for memory?")
            waiting.append(job)
            self.replaced += 1
            worker = self._crew.start()
            if self._crew.there(worker):
                self._workers[number] = worker
            elif not self._workers:
                raise Failure(f"all workers of the world {self.recipe.name} died, and there is no place for another")
            employ()

        employ()
        while at:
            busy = list(at)
            for number in [busy[place] for place in self._crew.ready([self._workers[number] for number in busy])]:
                try:
                    good, answer = self._crew.take(self._workers[number])
                except Lost:
                    lost(number)
                    continue
                if not good:
                    raise Failure(f"the world {self.recipe.name}: {answer}")
                found[at.pop(number)] = answer
            employ()
        return found

    def close(self) -> None:
        self._crew.close(list(self._workers.values()))
        self._workers = {}


def answered(world: HostWorld | None, recipe: Any, job: Any) -> tuple[HostWorld | None, tuple[bool, Any]]:
    """(the worker's world, made if there was none; what it answers)."""
    try:
        world = world or recipe.world()
        return world, (True, recipe.perform(world, job))
    except Exception as error:  # whatever a world raises
        return world, (False, f"{type(error).__name__}: {error}")


# --- processes of this machine -----------------------------------------------------------------------------------------


def _worker(recipe: bytes, pipe: Any) -> None:
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    recipe, world = cloudpickle.loads(recipe), None
    while True:
        try:
            job = pipe.recv()
            if job is None:
                return
            world, answer = answered(world, recipe, job)
            pipe.send(answer)
        except (EOFError, ConnectionResetError, BrokenPipeError):  # the main process is gone
            return


def processes(recipe: Any) -> Crew:
    pickled = cloudpickle.dumps(recipe)
    context = multiprocessing.get_context("forkserver")  # a fork of this process, which runs jax's threads, might hang
    context.set_forkserver_preload(["runners.explorers"])

    def start():
        ours, theirs = context.Pipe()
        process = context.Process(target=_worker, args=(pickled, theirs), daemon=True)
        process.start()
        theirs.close()
        return ours, process

    def give(worker, job):
        try:
            worker[0].send(job)
        except (BrokenPipeError, ConnectionResetError):
            raise Lost from None

    def ready(workers):
        heard = wait([pipe for pipe, _ in workers])
        return [place for place, (pipe, _) in enumerate(workers) if pipe in heard]

    def take(worker):
        try:
            return worker[0].recv()
        except (EOFError, ConnectionResetError):
            raise Lost from None

    def close(workers):
        for pipe, process in workers:
            try:
                pipe.send(None)
            except OSError:
                pass
            process.join(2)
            if process.is_alive():
                process.kill()

    return Crew(start, lambda worker: True, give, ready, take, lambda worker: worker[0].close(), close)
