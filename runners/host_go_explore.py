"""Go-Explore's first phase on worlds that live on the host: the archive is the one of ``exploration/go_explore.py``, compiled for the CPU; worker
processes make whole rollouts (``runners/explorers.py``). What an archive keeps of a world is a number; the snapshots that the numbers stand for are here.
"""

from __future__ import annotations

import pickle
import time
import zlib
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from envs.base import HostEnvironment, Lanes, Transition, strong
from envs.builder import Failure, Refusal
from exploration.base import Explored
from exploration.rebinning import FIRST, rebuilt
from runners import devices, memory
from runners import metrics as m
from runners.base import Clock, HostExplorer
from runners.batching import all_numbers
from runners.dynamic_cells import Dynamic, beginning, due, looks, random, searched, seen, sorted_anew
from runners.dynamic_cells import told as told_cells
from runners.explorers import Explorers, Job, Recipe, Rolled, Snapshot
from runners.go_explore import Exploring
from runners.ray_workers import installed, ray_workers

START_OF_WORLD = -1  # the number of the snapshot that nobody needs


class Chosen(NamedTuple):
    """Where the rollouts of a batch begin, and what they do."""

    cells: jax.Array  # i32[L]
    parents: Any  # Trail [L]
    worlds: jax.Array  # i32[L]; numbers of snapshots
    score: jax.Array  # f32[L]
    depth: jax.Array  # i32[L]
    actions: jax.Array  # [T, L, ...]


def host_go_explore(env: HostEnvironment, pieces: Exploring, explore_steps: int, workers: int | None, cluster: str | None = None) -> HostExplorer:
    """Raises Refusal for worlds that no worker can put back, for agents that look before they act, and for a cluster without Ray."""
    spec, agent, archive = pieces.spec, pieces.agent, pieces.archive
    lanes = spec.lanes
    if env.single is None:
        raise Refusal(f"runner=go_explore returns to states, and the world {spec.name!r} cannot be put back ({env.unsaved or 'no single world'})")
    if cluster is not None:
        installed()
    if agent.learns_from != "anything":
        raise Refusal("on worlds of the host Go-Explore explores with agent=repeated_random or agent=random: workers make whole rollouts without the network")

    def init(key):
        no = jnp.zeros(lanes, jnp.int32)
        state = pieces.init(key, Lanes(no + START_OF_WORLD, (), no == 0, no.astype(jnp.float32), no, ()))
        kept = state.archive.kept
        return state._replace(archive=state.archive._replace(kept=kept._replace(world=kept.world.at[:].set(START_OF_WORLD))))

    def choose(state, clock):
        select_key, agent_key = jax.random.split(jax.random.fold_in(state.key, clock.iteration), 3)[:2]
        archived, starts = archive.select(state.archive, select_key, lanes)

        def act(memory, inputs):
            key, time = inputs
            memory, action, _ = agent.act(state.agent, key, (memory, (), jnp.full(lanes, time == 0), "explore"))
            return memory, action

        times = jnp.arange(explore_steps, dtype=jnp.int32)
        _, actions = jax.lax.scan(act, agent.start(state.agent, lanes), (jax.random.split(agent_key, explore_steps), times))
        kept = starts.lanes
        world = jnp.where(starts.fresh, START_OF_WORLD, kept.world)
        return archived, Chosen(starts.cells, kept.note, world, kept.episode_return, kept.episode_length, actions)

    def merge(state, archived, explored, depth, clock):
        insert_key = jax.random.split(jax.random.fold_in(state.key, clock.iteration), 3)[2]
        state, metrics = pieces.merge(state, archived, insert_key, explored, depth)
        metrics["frames/emulator"] = m.Last(metrics["steps/agent"].value.astype(jnp.float32) * env.frames_per_step)
        return state, metrics

    return HostExplorer(
        init, choose, merge, pieces.full, pieces.grow, archive.on_host(env), workers, cluster, explore_steps, spec, lanes * explore_steps, env, agent, archive
    )  # fmt: skip


class Kept(NamedTuple):
    """What one member has on the host."""

    worlds: dict[int, bytes]  # compressed snapshots, by number
    next: int
    rooms: dict[int, int]  # room -> steps until it was first entered
    dynamic: Dynamic | None = None  # where cells have a representation that is searched for


class ExplorerBatch:
    """The counterpart of ``runners/batching.py``'s ``Batch``: members one after the other, each with all the workers."""

    def __init__(self, make_runner: Callable[[dict], HostExplorer], keys: jax.Array, hyper: dict[str, Any], runner: HostExplorer):
        self.members, self.runner, self._make, self._keys = keys.shape[0], runner, make_runner, keys
        self._hyper = [{name: jnp.float32(values[i]) for name, values in hyper.items()} for i in range(self.members)]
        self.grown: dict[str, int] = {}
        self.say: Callable[[str], None] = lambda line: None
        self._states: list[Any] = []
        self._kept: list[Kept] = []
        self._accumulators: list[Any] = []
        self._sound = np.ones(self.members, bool)
        self._explorers: Explorers | None = None
        self._searching = [0.0] * self.members  # seconds since the last line of metrics

    # --- programs -----------------------------------------------------------------------------------------------------

    def plan(self) -> dict[str, int]:
        one = self._keys[0], self._hyper[0]
        self._init = jax.jit(lambda key, hyper: strong(self._make(hyper).init(key)))
        self._shape = jax.eval_shape(self._init, *one)
        return self._trace()

    def _trace(self) -> dict[str, int]:
        clock = Clock(jax.ShapeDtypeStruct((), jnp.int32), jax.ShapeDtypeStruct((), jnp.float32))
        explored, depth = self._explored_shapes()

        def merge(state, archived, accumulator, explored, depth, clock, hyper):
            state, metrics = self._make(hyper).merge(state._replace(archive=archived), archived, explored, depth, clock)
            members = jax.tree.map(lambda x: x[None], state._replace(archive=()))
            return state, m.combine(accumulator, metrics), all_numbers(members)[0], self._make(hyper).full(state)

        def choose(state, clock, hyper):
            return self._make(hyper).choose(state, clock)

        archived, _ = jax.eval_shape(choose, self._shape, clock, self._hyper[0])
        metrics = jax.eval_shape(
            lambda state, *rest: self._make(self._hyper[0]).merge(state, *rest)[1], self._shape, archived, explored, depth, clock
        )
        self._metrics = metrics
        self._traced = {
            "choose": jax.jit(choose).trace(self._shape, clock, self._hyper[0]),
            "merge": jax.jit(merge, donate_argnums=(1, 2)).trace(
                self._shape._replace(archive=()), archived, metrics, explored, depth, clock, self._hyper[0]
            ),
            "full": jax.jit(lambda state, hyper: self._make(hyper).full(state)).trace(self._shape, self._hyper[0]),
        }
        state = memory.tree_bytes(self._shape) * self.members
        return {"state": state, "peak": state + memory.peak_bytes(self._traced["merge"].jaxpr.jaxpr)}

    def _explored_shapes(self):
        def shapes(state, clock, hyper):
            _, chosen = self._make(hyper).choose(state, clock)
            return explored_of(chosen, jax.tree.map(jnp.asarray, nothing(chosen.actions)))

        return jax.eval_shape(shapes, self._shape, Clock(jnp.int32(0), jnp.float32(0)), self._hyper[0])

    def compile(self) -> None:
        self._compiled = {name: traced.lower().compile() for name, traced in self._traced.items()}

    # --- the run ------------------------------------------------------------------------------------------------------

    def start(self) -> None:
        self._states = [self._init(key, hyper) for key, hyper in zip(self._keys, self._hyper, strict=True)]
        for name, times in self.grown.items():
            for _ in range(times):
                self._states = [self._growing(name)(state, hyper) for state, hyper in zip(self._states, self._hyper, strict=True)]
        self._accumulators = [self._fresh() for _ in range(self.members)]
        search = self.runner.archive.search
        self._kept = [Kept({}, 0, {}, beginning() if search else None) for _ in range(self.members)]

    def _fresh(self):
        return jax.tree.map(jnp.asarray, m.empty(self._metrics))

    def workers(self) -> Explorers:
        if self._explorers is None:
            runner, env = self.runner, self.runner.env
            recipe, number = Recipe(env.single, runner.cell, env.rooms, runner.spec.name), runner.workers
            if runner.cluster is not None and number != 0:
                crew, number = ray_workers(recipe, runner.cluster, number, devices.cores())
                self._explorers = Explorers(recipe, number, crew)
            else:
                self._explorers = Explorers(recipe, devices.cores() if number is None else number)
        return self._explorers

    def run(self, start: int, count: int, total: int) -> None:
        """``count`` iterations of every member, from iteration ``start`` of ``total``. Blocks until they are done."""
        for iteration in range(start, start + count):
            clock = Clock(np.int32(iteration), np.float32(iteration) / np.float32(total))
            for i in range(self.members):
                self._search_cells(i, iteration)
                self._make_room(i)
                self._iterate(i, clock)

    def _search_cells(self, i: int, iteration: int) -> None:
        """Make the archive of a member again under a better representation, when it is time."""
        settings, kept, state = self.runner.archive.search, self._kept[i], self._states[i]
        made = int(state.record.steps)
        if settings is None or not due(settings, kept.dynamic, made, int(state.archive.size)):
            return
        begin = time.monotonic()
        known, found = searched(settings, kept.dynamic, made, random(state.key, iteration, 1))
        known, records, keys = sorted_anew(known, state.archive, self.runner.cell, settings.resets)
        while len(keys) + FIRST > self._states[i].archive.seen.shape[0]:
            self._grow("cells")
        archive = rebuilt(self._states[i].archive, records, keys, settings.follows_score)
        self._states[i], self._kept[i] = self._states[i]._replace(archive=archive), kept._replace(dynamic=known)
        seconds = time.monotonic() - begin
        self._searching[i] += seconds
        sizes = " x ".join(map(str, found.sizes))
        self.say(f"cells are now {sizes} (objective {found.before:.3f} -> {found.objective:.3f}, {seconds:.0f} s): {len(keys):,} cells")

    def _make_room(self, i: int) -> None:
        while True:
            lacks = [name for name, some in self._compiled["full"](self._states[i], self._hyper[i]).items() if some]
            if not lacks:
                return
            self._grow(lacks[0])

    def _grow(self, name: str) -> None:
        self.say(f"no room for more {name}: doubling it; compiling")
        self._states = [self._growing(name)(state, hyper) for state, hyper in zip(self._states, self._hyper, strict=True)]
        self._shape = jax.eval_shape(lambda x: x, self._states[0])
        try:
            memory.refuse_if_too_large(self._trace()["peak"], self.members)
        except Refusal as error:
            raise Failure(f"room for {name} must double, but {error}; what was saved is kept, to go on with more memory") from None
        self.grown[name] = self.grown.get(name, 0) + 1
        self.compile()

    def _growing(self, name: str) -> Callable:
        return jax.jit(lambda state, hyper: self._make(hyper).grow(state, name))

    def _iterate(self, i: int, clock: Clock) -> None:
        state, kept = self._states[i], self._kept[i]
        archived, chosen = self._compiled["choose"](state, clock, self._hyper[i])
        told = jax.tree.map(np.asarray, chosen)
        starts = [None if world == START_OF_WORLD else zlib.decompress(kept.worlds[int(world)]) for world in told.worlds]
        jobs = [Job(starts[lane], float(told.score[lane]), compact(told.actions[:, lane])) for lane in range(len(starts))]
        if kept.dynamic:
            wanted = looks(self.runner.archive.search, state.key, int(clock.iteration), len(jobs), self.runner.explore_steps)
            jobs = [job._replace(representation=kept.dynamic.representation, looks=steps) for job, steps in zip(jobs, wanted, strict=True)]
        rolled = self.workers().run(jobs)
        gathered, snapshots = gather(told, rolled, kept.next)
        steps_before = int(state.record.steps)
        explored, depth = explored_of(chosen, gathered)
        state, self._accumulators[i], sound, _ = self._compiled["merge"](
            state._replace(archive=()), archived, self._accumulators[i], explored, depth, clock, self._hyper[i]
        )
        self._states[i], self._sound[i] = state, bool(sound)
        worlds = np.asarray(state.archive.kept.world)[: int(state.archive.size)]
        alive = set(worlds.tolist()) | (kept.dynamic.former.keys() if kept.dynamic else set())
        for number in [number for number in kept.worlds if number not in alive]:
            del kept.worlds[number]
        kept.worlds.update({number: zlib.compress(found.world, 1) for number, found in snapshots.items() if number in alive})
        if kept.dynamic:
            pictures = kept.dynamic.pictures
            pictures.update({number: found.picture for number, found in snapshots.items() if number in alive})
            for number in pictures.keys() - alive:
                del pictures[number]
            seen(self.runner.archive.search, kept.dynamic, rolled)
        for part in rolled:
            for room in part.rooms[np.sort(np.unique(part.rooms, return_index=True)[1])]:
                if room >= 0:
                    kept.rooms.setdefault(int(room), steps_before)
        self._kept[i] = kept._replace(next=kept.next + len(snapshots))

    def sound(self) -> np.ndarray:
        return self._sound

    def take_metrics(self) -> list[dict[str, Any]]:
        found = []
        for i, accumulator in enumerate(self._accumulators):
            row = m.to_host(jax.tree.map(lambda x: np.asarray(x)[None], accumulator), 0)
            if self.runner.env.rooms:
                row["archive/rooms"] = len(self._kept[i].rooms)
            if self._kept[i].dynamic:
                row |= told_cells(self._kept[i].dynamic, self._searching[i])
                self._searching[i] = 0.0
            found.append(row)
            self._accumulators[i] = self._fresh()
        return found

    def evaluate(self, keys: Any) -> list[dict[str, Any]]:
        """The best trajectory of each member, from the world's own start."""
        found = []
        for state in self._states:
            best = jax.tree.map(np.asarray, state.bonus)
            [rolled] = self.workers().run([Job(None, 0.0, compact(best.actions[: int(best.length)]), keeps=False)])
            score, length = float(np.cumsum(rolled.rewards, dtype=np.float32)[-1]) if len(rolled.rewards) else 0.0, len(rolled.rewards)
            exact = float(score == float(best.score) and length == int(best.length))
            found.append({"evaluation/return": score, "evaluation/length": float(length), "evaluation/replays": exact})
            if self.runner.spec.success_return is not None:
                found[-1]["evaluation/success"] = float(score >= self.runner.spec.success_return)
        return found

    def policies(self) -> list[dict[str, Any]]:
        return [jax.device_get({"agent": state.agent, "bonus": state.bonus}) for state in self._states]

    def visits(self) -> None:
        """Emulators have no map."""

    # --- checkpoints --------------------------------------------------------------------------------------------------

    def snapshot(self) -> Any:
        host = [jax.device_get((state, accumulator)) for state, accumulator in zip(self._states, self._accumulators, strict=True)]
        return jax.tree.map(lambda *parts: np.stack(parts), *host)

    def template(self) -> Any:
        return jax.tree.map(lambda s: jax.ShapeDtypeStruct((self.members, *s.shape), s.dtype), (self._shape, self._metrics))

    def host_snapshot(self) -> bytes:
        """The worlds that cells stand for, compressed, as bytes."""
        return pickle.dumps([tuple(kept) for kept in self._kept])

    def carried(self, hosts: list[tuple[bytes, int]]) -> bytes:
        """The worlds of these members of other runs."""
        return pickle.dumps([pickle.loads(host)[member] for host, member in hosts])

    def prepare_for(self, grown: dict[str, int]) -> None:
        for name, times in grown.items():
            for _ in range(times - self.grown.get(name, 0)):
                self._shape = jax.eval_shape(self._growing(name), self._shape, self._hyper[0])
        if grown != self.grown:
            self._trace()
            self.grown = dict(grown)
            self.compile()

    def restore(self, snapshot: Any, host: bytes | None = None, iteration: int = 0) -> None:
        states, accumulators = snapshot
        self._states = [jax.tree.map(lambda x, i=i: jnp.asarray(x[i]), states) for i in range(self.members)]
        self._accumulators = [jax.tree.map(lambda x, i=i: jnp.asarray(x[i]), accumulators) for i in range(self.members)]
        self._kept = [Kept(*kept) for kept in pickle.loads(host)]

    def close(self) -> None:
        if self._explorers:
            self._explorers.close()
            self._explorers = None


def compact(actions: np.ndarray) -> np.ndarray:
    """Actions as workers are sent them."""
    return np.ascontiguousarray(actions)


class Gathered(NamedTuple):
    """Rollouts side by side, [T, L, ...]; zeros after their ends."""

    rewards: np.ndarray
    cells: np.ndarray  # u32[T, L, 2]
    terminated: np.ndarray
    truncated: np.ndarray
    worlds: np.ndarray  # i32; numbers of snapshots
    score: np.ndarray  # f32; of the episode so far
    valid: np.ndarray


def nothing(actions: Any) -> Gathered:
    shape = actions.shape[:2]
    no = np.zeros(shape, bool)
    score = np.zeros(shape, np.float32)
    return Gathered(score, np.zeros((*shape, 2), np.uint32), no, no.copy(), np.full(shape, START_OF_WORLD, np.int32), score.copy(), no.copy())


def gather(chosen: Chosen, rolled: list[Rolled], number: int) -> tuple[Gathered, dict[int, Snapshot]]:
    """(the rollouts side by side, their snapshots by number, from ``number`` on)."""
    found, snapshots = nothing(chosen.actions), {}
    for lane, part in enumerate(rolled):
        steps = len(part.cells)
        found.rewards[:steps, lane], found.cells[:steps, lane], found.valid[:steps, lane] = part.rewards, part.cells, True
        found.terminated[steps - 1, lane], found.truncated[steps - 1, lane] = part.terminated, part.truncated
        found.score[:steps, lane] = np.cumsum(np.concatenate([chosen.score[lane : lane + 1], part.rewards]), dtype=np.float32)[1:]
        for kept in part.snapshots:
            found.worlds[kept.step, lane] = number
            snapshots[number] = kept
            number += 1
    return found, snapshots


def explored_of(chosen: Chosen, found: Gathered) -> tuple[Explored, jax.Array]:
    """(what ``merge`` is given, depth of the cells that the rollouts began in)."""
    time, lanes = found.valid.shape
    length = jnp.asarray(chosen.depth)[None] + jnp.arange(1, time + 1, dtype=jnp.int32)[:, None]
    no = jnp.zeros((time, lanes), bool)
    reached = Lanes(jnp.asarray(found.worlds), (), no, jnp.asarray(found.score), length, ())
    info = {"episode_return": jnp.asarray(found.score), "episode_length": length}
    steps = Transition((), jnp.asarray(chosen.actions), jnp.asarray(found.rewards), (), jnp.asarray(found.terminated), jnp.asarray(found.truncated), no, info)
    return Explored(chosen.cells, chosen.parents, reached, steps, jnp.asarray(found.valid), jnp.asarray(found.cells)), chosen.depth
