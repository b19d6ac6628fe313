"""Members side by side: how one member's pure functions become a program for all of them.

=========  ==================================================================================================================
``vmap``   one program, members are a leading axis. Fast on an accelerator; agrees with single runs within rounding.
``shard``  the same, members spread over the local devices; on a CPU over its cores (each a device of its own). Where they do not divide,
           some are computed twice and one of the two is forgotten.
``lanes``  the same, the lanes of every member spread over the local devices, its learner copied to all: for few members with many lanes.
``map``    one member's program called for each member in turn: bit-equal to single runs, by construction.
=========  ==================================================================================================================

Every program is compiled ahead of time, so a second compilation is impossible: a changed shape is an error instead. The
number of iterations is an argument of the compiled loop, so one program serves segments of any length, and cutting a run
into other segments changes nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from envs.base import strong
from envs.builder import Failure, Refusal
from runners import memory, profile
from runners import metrics as m
from runners.base import Clock, Runner

AXIS = "members"
BATCHINGS = ("vmap", "shard", "lanes", "map")


def member_functions(make_runner: Callable[[dict], Runner]):
    """Pure functions of one member, each taking that member's traced hyper-parameters."""

    def init(key, hyper):
        return make_runner(hyper).init(key)

    def step(state, hyper, clock):
        return make_runner(hyper).step(state, clock)

    def evaluate(state, key, hyper):
        return m.typed(make_runner(hyper).evaluate(state, key))

    def lacking(state, hyper):
        runner = make_runner(hyper)
        return runner.full(state) if runner.full else {}

    return init, step, evaluate, lacking


def vectorised(make_runner, across: str | None = None):
    """(init, segment, evaluate, step, grow) over a leading member axis, in one program. ``across``: the axis of devices with members of their own."""
    init_one, step_one, evaluate_one, lacking_one = member_functions(make_runner)
    steps = jax.jit(jax.vmap(step_one, in_axes=(0, 0, None), axis_name=AXIS))  # jit: traced once, for ``plan`` and ``segment``

    def init(keys, hyper):
        # one member after the other: several QR decompositions in one vmapped program hang some versions of jaxlib on a CPU
        alone = jax.vmap(init_one, axis_name=AXIS)
        states = jax.lax.map(lambda x: jax.tree.map(lambda leaf: leaf[0], alone(*jax.tree.map(lambda leaf: leaf[None], x))), (keys, hyper))
        return strong(states)

    def segment(states, accumulator, hyper, start, count, total):
        def body(carry):
            i, states, accumulator, _ = carry
            iteration = start + i
            clock = Clock(iteration, iteration.astype(jnp.float32) / total.astype(jnp.float32))
            states, metrics = steps(states, hyper, clock)
            return i + 1, states, m.combine(accumulator, metrics), lacking(states, hyper)

        def goes_on(carry):
            i, _, _, lacks = carry
            return (i < count) & ~sum(lacks.values(), start=jnp.zeros((), bool))

        done, states, accumulator, lacks = jax.lax.while_loop(goes_on, body, (jnp.zeros_like(count), states, accumulator, lacking(states, hyper)))
        each = jax.tree.leaves(states)[0].shape[:1]
        return states, accumulator, all_numbers(states), *jax.tree.map(lambda x: jnp.broadcast_to(x, each), (done, lacks))

    def lacking(states, hyper) -> dict[str, jax.Array]:
        """What some member lacks room for in another iteration, name -> bool[]; {} for most runners."""
        found = jax.vmap(lacking_one, axis_name=AXIS)(states, hyper)
        found = {name: jnp.any(lacks) for name, lacks in found.items()}
        return {name: jax.lax.pmax(lacks.astype(jnp.int32), across) > 0 for name, lacks in found.items()} if across else found

    def grow(what):
        return jax.vmap(lambda state, hyper: make_runner(hyper).grow(state, what), axis_name=AXIS)

    def evaluate(states, keys, hyper):
        return jax.vmap(evaluate_one, axis_name=AXIS)(states, keys, hyper)

    return init, segment, evaluate, steps, grow


def all_numbers(state, largest: int = 2**24) -> jax.Array:
    """bool[M]: whether no floating-point number of the member's state is NaN.

    Infinities pass: they are honest sentinels (an empty cell's score), and one in a loss or a weight makes a NaN in the next update.
    Leaves of more than ``largest`` numbers per member (replay buffers) are not read: what they feed is."""
    leaves = [x for x in jax.tree.leaves(state) if jnp.issubdtype(x.dtype, jnp.floating) and x[0].size <= largest]
    every = jnp.ones(jax.tree.leaves(state)[0].shape[0], bool)
    return jnp.stack([every, *(~jnp.any(jnp.isnan(x.reshape(x.shape[0], -1)), axis=1) for x in leaves)]).all(axis=0)


class Batch:
    """All members of a run: their states, and the compiled programs that move them on.

    ``keys`` uint32 [M, 2]; ``hyper`` maps a configuration path to its values [M] (traced hyper-parameters).
    In this order: ``plan`` (traces, estimates memory), ``compile``, then ``start`` or ``restore``, then ``run`` and the rest.
    """

    def __init__(self, make_runner: Callable[[dict], Runner], keys: jax.Array, hyper: dict[str, Any], batching: str):
        self.members, self.batching, self._make = keys.shape[0], batching, make_runner
        self._init, self._segment, self._evaluate, self._step, self._grow_by = vectorised(make_runner, "devices" if batching == "shard" else None)
        self.grown: dict[str, int] = {}  # how often room for what was doubled
        self.say: Callable[[str], None] = lambda line: None
        self._sharding: Callable[[Any], NamedSharding | None] = lambda leaf: None  # where an array belongs
        self._sharded: Callable | None = None
        devices, self._first = 1, {name: values[0] for name, values in hyper.items()}
        if batching == "shard":
            devices = self._shard()
        elif batching == "lanes":
            runner = make_runner(self._first)
            if runner.full or runner.elites:
                raise Refusal("batching=lanes cuts lanes apart, and an archive merges what all of them found; use batching=shard or auto")
            self._spread(runner.spec.lanes)
        self._computed = np.arange(-(-self.members // devices) * devices) % self.members  # which member each place of the program computes
        keys, hyper = keys[self._computed], {k: jnp.asarray(v, jnp.float32)[self._computed] for k, v in hyper.items()}
        # groups of members that share one call of the program: all of them, or one by one
        size = self._size = 1 if batching == "map" else len(self._computed)
        self._groups = [
            (self._place(keys[i : i + size]), self._place({k: v[i : i + size] for k, v in hyper.items()})) for i in range(0, len(self._computed), size)
        ]
        self._states: list[Any] = []
        self._accumulators: list[Any] = []
        self._sound: list[Any] = []
        self._compiled_evaluate = None

    def _shard(self) -> int:
        """Spread the programs over the local devices; how many these are."""
        devices = jax.local_devices()
        mesh = Mesh(np.array(devices), ("devices",))
        each, whole = PartitionSpec("devices"), PartitionSpec()
        self._sharding = lambda leaf: NamedSharding(mesh, each)

        def shard(function, axes):
            """``function``, each device with its members; ``axes`` are those of vmap: 0 where an input has members, None where not."""
            takes = tuple(whole if axis is None else each for axis in axes)
            return jax.shard_map(function, mesh=mesh, in_specs=takes, out_specs=each, check_vma=False)

        self._sharded = shard
        self._init = shard(self._init, (0, 0))
        self._segment = shard(self._segment, (0, 0, 0, None, None, None))
        self._evaluate = shard(self._evaluate, (0, 0, 0))
        return len(devices)

    def _spread(self, lanes: int) -> None:
        """Put what has a lane axis behind that of the members on all devices, a part of it on each, and copies of all else; the compiler cuts the program."""
        devices = jax.local_devices()
        if lanes % len(devices):
            raise Refusal(f"batching=lanes: runner.lanes={lanes} do not divide among {len(devices)} devices; set it to a multiple of {len(devices)}")
        mesh = Mesh(np.array(devices), ("devices",))
        parts, copies = NamedSharding(mesh, PartitionSpec(None, "devices")), NamedSharding(mesh, PartitionSpec())
        self._sharding = lambda leaf: parts if len(leaf.shape) > 1 and leaf.shape[1] == lanes else copies

    def _place(self, tree):
        return jax.tree.map(lambda leaf: jax.device_put(leaf, self._sharding(leaf)), tree)

    def plan(self) -> dict[str, int]:
        """Trace the programs. Returns the estimated bytes of all states ("state") and of everything at once ("peak")."""
        keys, hyper = self._groups[0]
        self._traced_init = jax.jit(self._init).trace(keys, hyper)
        return self._trace(self._shaped(self._traced_init.out_info))

    def _trace(self, states) -> dict[str, int]:
        hyper = self._groups[0][1]
        clock = Clock(jax.ShapeDtypeStruct((), jnp.int32), jax.ShapeDtypeStruct((), jnp.float32))
        _, metrics = jax.eval_shape(self._step, states, hyper, clock)
        self._template = states, self._shaped(metrics)
        number = jax.ShapeDtypeStruct((), jnp.int32)
        kept = jax.tree.map(lambda shape: shape.sharding, self._template)  # a state comes back to where it was
        outside = {"out_shardings": (*kept, None, None, None)} if self.batching == "lanes" else {}
        self._traced_segment = jax.jit(self._segment, donate_argnums=(0, 1), **outside).trace(*self._template, hyper, number, number, number)
        one = memory.tree_bytes(states)
        others = one * (len(self._groups) - 1)
        return {"state": one + others, "peak": max(one, memory.peak_bytes(self._traced_segment.jaxpr.jaxpr)) + others}

    def _shaped(self, tree):
        return jax.tree.map(lambda s: jax.ShapeDtypeStruct(s.shape, s.dtype, sharding=self._sharding(s)), tree)

    def compile(self) -> None:
        self._run = self._traced_segment.lower().compile()

    def start(self) -> None:
        """Fresh states for every member."""
        init = self._traced_init.lower().compile()
        self._states = [init(keys, hyper) for keys, hyper in self._groups]
        for name, times in self.grown.items():
            program = self._growing(name)
            for _ in range(times):
                self._states = [program(states, hyper) for states, (_, hyper) in zip(self._states, self._groups, strict=True)]
        if self.batching == "lanes":
            self._states = [self._place(states) for states in self._states]
        self._accumulators = [self._fresh() for _ in self._groups]

    def _fresh(self):
        return self._place(m.empty(self._template[1]))

    def run(self, start: int, count: int, total: int) -> None:
        """``count`` iterations of every member, from iteration ``start`` of ``total``. Blocks until they are done."""
        left, self._sound = [count] * len(self._groups), [None] * len(self._groups)
        while any(left):
            lacks = set()
            for g, (_, hyper) in enumerate(self._groups):
                if left[g]:
                    clock = (np.int32(start + count - left[g]), np.int32(left[g]), np.int32(total))
                    self._states[g], self._accumulators[g], self._sound[g], done, lacking = self._run(self._states[g], self._accumulators[g], hyper, *clock)
                    left[g] -= int(done[0])
                    lacks |= {name for name, some in lacking.items() if left[g] and some[0]}
            for name in sorted(lacks):
                self._grow(name)
        jax.block_until_ready(self._sound)

    def _grow(self, name: str) -> None:
        """Double the room for ``name`` in all members; compiles the program anew, for the larger state."""
        program = self._growing(name)
        shapes = self._shaped(jax.eval_shape(program, self._template[0], self._groups[0][1]))
        self.say(f"no room for more {name}: doubling it; compiling")
        try:
            memory.refuse_if_too_large(self._trace(shapes)["peak"] + memory.tree_bytes(self._states), self.members)
        except Refusal as error:
            raise Failure(f"room for {name} must double, but {error}; what was saved is kept, to go on with more memory") from None
        for g, (_, hyper) in enumerate(self._groups):
            self._states[g] = program(self._states[g], hyper)
        self.grown[name] = self.grown.get(name, 0) + 1
        self._compiled_evaluate = None
        self.compile()

    def _growing(self, name: str) -> Callable:
        grow = self._grow_by(name)
        return jax.jit(self._sharded(grow, (0, 0)) if self._sharded else grow)

    def carried(self, hosts: list[tuple[bytes | None, int]]) -> bytes | None:
        """What worlds on the host left of other runs, for these members; here worlds are part of the states."""

    def prepare_for(self, grown: dict[str, int]) -> None:
        """Be ready for ``restore`` of a state whose rooms were doubled so often."""
        shapes = self._template[0]
        for name, times in grown.items():
            for _ in range(times - self.grown.get(name, 0)):
                shapes = self._shaped(jax.eval_shape(self._growing(name), shapes, self._groups[0][1]))
        if grown != self.grown:
            self._trace(shapes)
            self.grown, self._compiled_evaluate = dict(grown), None
            self.compile()

    def sound(self) -> np.ndarray:
        """bool[M]: whether each member's state was free of NaN after the last ``run``."""
        return np.concatenate([np.asarray(s) for s in self._sound])[: self.members]

    def take_metrics(self) -> list[dict[str, Any]]:
        """Each member's metrics since the last call, as Python numbers."""
        host = jax.device_get(self._accumulators)
        self._accumulators = [self._fresh() for _ in self._groups]
        return self._split(host)

    def _split(self, groups):
        return [m.to_host(group, i) for group in groups for i in range(self._size)][: self.members]

    def evaluate(self, keys: jax.Array) -> list[dict[str, Any]]:
        """Each member's evaluation in worlds of its own; ``keys`` uint32 [M, 2]. Compiles on first use."""
        keys = np.asarray(keys)[self._computed]
        parts = [self._place(keys[i : i + self._size]) for i in range(0, len(keys), self._size)]
        if self._compiled_evaluate is None:
            self._compiled_evaluate = jax.jit(self._evaluate).lower(self._states[0], parts[0], self._groups[0][1]).compile()
        return self._split(jax.device_get([self._compiled_evaluate(s, k, h) for s, k, (_, h) in zip(self._states, parts, self._groups, strict=True)]))

    def profile(self, iteration: int, total: int) -> tuple[dict[str, float], str]:
        """(seconds of each part of an iteration of one group of members, what was timed); see ``runners/profile.py``."""
        clock = Clock(jnp.int32(iteration), jnp.float32(iteration / total))
        hyper = self._groups[0][1]

        def program(name):
            def one(state, hyper, clock):
                return self._make(hyper).parts()[name](state, clock)

            every = jax.vmap(one, in_axes=(0, 0, None), axis_name=AXIS)
            return jax.jit(self._sharded(every, (0, 0, None)) if self._sharded else every)

        names = self._make({name: values[0] for name, values in hyper.items()}).parts()
        seconds = profile.growing({name: program(name) for name in names}, (self._states[0], hyper, clock))
        return seconds, f"an iteration of {self._size} members"

    def policies(self) -> list[dict[str, Any]]:
        """What acts, of every member: the fields of ``Acting``, as numpy arrays."""
        names = ("agent", "bonus", "guide")[: 2 + self._make(self._first).guided]
        host = jax.device_get([{name: getattr(states, name) for name in names} for states in self._states])
        return [jax.tree.map(lambda x: x[i], group) for group in host for i in range(self._size)][: self.members]  # noqa: B023

    def visits(self) -> np.ndarray | None:
        """Where the members were, u32[M, rows, columns]; None for runners that do not keep it."""
        kept = [getattr(states, "record", None) and states.record.visits for states in self._states]
        return None if kept[0] is None else np.concatenate([np.asarray(visits) for visits in kept])[: self.members]

    def host_snapshot(self) -> None:
        """The worlds are part of the states."""

    def close(self) -> None:
        """Nothing is open."""

    def snapshot(self) -> Any:
        """Everything needed to continue: (states, accumulators), as numpy arrays with a leading axis over all members."""
        host = jax.device_get([(s, a) for s, a in zip(self._states, self._accumulators, strict=True)])
        whole = jax.tree.map(lambda *parts: np.concatenate(parts), *host) if len(host) > 1 else host[0]
        return jax.tree.map(lambda x: x[: self.members], whole)

    def template(self) -> Any:
        """Shapes and dtypes of ``snapshot``."""
        return jax.tree.map(lambda s: jax.ShapeDtypeStruct((self.members, *s.shape[1:]), s.dtype), self._template)

    def restore(self, snapshot: Any, host: bytes | None = None, iteration: int = 0) -> None:
        """Go on from a snapshot; ``host`` and ``iteration`` are for worlds that live elsewhere (runners/host_batch.py)."""
        places = [self._computed[i : i + self._size] for i in range(0, len(self._computed), self._size)]
        whole = len(places) == 1 and len(places[0]) == self.members
        parts = [snapshot] if whole else [jax.tree.map(lambda x: x[place], snapshot) for place in places]  # noqa: B023
        placed = [self._place(part) for part in parts]
        self._states, self._accumulators = [p[0] for p in placed], [p[1] for p in placed]
