"""All members of a run whose worlds live on the host: the counterpart of ``runners/batching.py``'s ``Batch``, with the same functions.

The worlds of all members are opened together and stepped together, [members x lanes]; the pieces of ``HostRunner`` are compiled once each,
vmapped over members. Learning that overlaps with stepping runs in a thread, from before the first step to after the last one.
"""

from __future__ import annotations

import operator
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from envs.base import strong
from envs.builder import Refusal
from runners import memory
from runners import metrics as m
from runners.base import Acting, Clock, HostRunner
from runners.batching import AXIS, all_numbers
from runners.host_source import Gathered, HostSource, fold_in, shapes_of
from runners.iteration import EVALUATION_LIMIT
from runners.steering import Steering

BEGINNING = 2**31 - 2**20  # takes an iteration's place in the key of what lanes begin with


class HostBatch:
    """``keys`` uint32 [M, 2]; ``hyper`` maps a configuration path to its values [M]. In this order: ``plan``, ``compile``, then ``start`` or
    ``restore``, then ``run`` and the rest, and ``close``."""

    def __init__(self, make_runner: Callable[[dict], HostRunner], keys: jax.Array, hyper: dict[str, Any], runner: HostRunner):
        self.members, self.runner = keys.shape[0], runner
        self.lanes, self.env = runner.spec.lanes, runner.env
        self._stepped = runner.steering.env if runner.steering else runner.env
        self._learning = 0.0  # seconds
        self.grown: dict[str, int] = {}
        self._keys = keys
        self._hyper = {name: jnp.asarray(values, jnp.float32) for name, values in hyper.items()}
        self._make = make_runner
        self._learner = ThreadPoolExecutor(1, "learner") if runner.learn else None
        self._source: HostSource | None = None
        self._watched: HostSource | None = None
        self._compiled: dict[str, Any] = {}
        self._states: Any = None
        self._sound: Any = None
        self._accumulator: Any = None

    def _vmapped(self, piece: str, axes: tuple) -> Callable:
        """A piece of every member's runner, over members; the last argument is the hyper-parameters."""

        def one(*inputs):
            *given, hyper = inputs
            return operator.attrgetter(piece)(self._make(hyper))(*given)

        return jax.vmap(one, in_axes=(*axes, 0), axis_name=AXIS)

    def plan(self) -> dict[str, int]:
        """Trace the programs. Returns the estimated bytes of all states ("state") and of everything at once ("peak")."""
        note = self.runner.steering.note if self.runner.steering else ()
        now, arrived, given = shapes_of(self._stepped, self.members, self.lanes, self.runner.steps, note)
        self._given = given
        init = self._vmapped("init", (0, 0))

        def start(keys, hyper, obs):  # one member after the other: see runners/batching.py
            def alone(inputs):
                return jax.tree.map(lambda leaf: leaf[0], init(*jax.tree.map(lambda leaf: leaf[None], inputs)))

            return strong(jax.lax.map(alone, (keys, obs, hyper)))

        finish_every = self._vmapped("finish", (0, 0, 0, 0, 0, 0, 0, 0, None))

        def finish(states, accumulator, *inputs):
            states, metrics, *rows = finish_every(states, *inputs)
            return states, m.combine(accumulator, metrics), rows

        def sound(states):
            return all_numbers(states._replace(replay=()) if self.runner.stored else states)  # a buffer takes longer to look through than a step takes

        number, clock = jax.ShapeDtypeStruct((), jnp.int32), Clock(jax.ShapeDtypeStruct((), jnp.int32), jax.ShapeDtypeStruct((), jnp.float32))
        self._traced = {"init": jax.jit(start).trace(self._keys, self._hyper, now.obs)}
        whole = self._traced["init"].out_info
        if self.runner.stored:
            whole = whole._replace(replay=jax.eval_shape(self._vmapped("stored", (0, 0)), whole, now.obs, self._hyper))
        states = self._on_device(whole)
        begin = self._vmapped("begin", (0, None))
        play, actions = jax.eval_shape(begin, states, clock, self._hyper)
        self._traced["begin"] = jax.jit(begin).trace(states, clock, self._hyper)
        learnt = None
        if self.runner.learn:
            drawn = jax.eval_shape(self._kept_program("draw"), whole.replay, whole.key, clock, self._hyper) if self.runner.keep else None
            learn, inputs = self._vmapped("learn", (0, 0, 0, None)), (states.agent, self._waiting(whole, drawn), states.key, clock, self._hyper)
            learnt = jax.eval_shape(learn, *inputs)
            self._traced["learn"] = jax.jit(learn).trace(*inputs)
        if self.runner.steps > 1:
            advance = self._vmapped("advance", (0, 0, None, 0, 0, 0))
            inputs = (states.agent, play, number, now, actions, arrived, self._hyper)
            self._traced["advance"] = jax.jit(advance, donate_argnums=(1,)).trace(*inputs)
        inputs = (play, now, actions, arrived, given, now, learnt, clock, self._hyper)
        metrics = jax.eval_shape(finish_every, states, *inputs)[1]
        self._template = whole, metrics
        self._traced["finish"] = jax.jit(finish, donate_argnums=(0, 1)).trace(states, metrics, *inputs)
        self._traced["sound"] = jax.jit(sound).trace(states)
        state = memory.tree_bytes(whole if jax.default_backend() == "cpu" else states)
        return {"state": state, "peak": max(state, memory.peak_bytes(self._traced["finish"].jaxpr.jaxpr))}

    def compile(self) -> None:
        self._compiled = {name: traced.lower().compile() for name, traced in self._traced.items()}

    # --- a replay that stays with the host ---------------------------------------------------------------------------

    def _on_device(self, states: Any) -> Any:
        """``states`` without what stays with the host."""
        return states._replace(replay=()) if self.runner.keep else states

    def _waiting(self, states: Any, drawn: Any) -> Any:
        """What learning that overlaps reads; ``drawn`` takes the place of a replay that stays with the host."""
        return states._replace(replay=drawn).waiting if self.runner.keep else states.waiting

    def _drawn(self, clock: Clock) -> Any:
        if not self.runner.keep:
            return None
        batches = self._kept_program("draw")(self._states.replay, on_processor(self._states.key), clock, self._hyper)
        return jax.device_put(batches, jax.local_devices()[0])

    def _kept_program(self, name: str) -> Callable:
        if name not in self._compiled:
            axes, donated = {"draw": ((0, 0, None), ()), "store": ((0, 0), (0,))}[name]
            self._compiled[name] = jax.jit(self._vmapped(f"keep.{name}", axes), donate_argnums=donated)
        return self._compiled[name]

    # --- worlds -------------------------------------------------------------------------------------------------------

    def _open(self) -> HostSource:
        if self._source is None and self.runner.steering:
            choose, judge = (jax.jit(self._vmapped(f"steering.rules.{name}", axes)) for name, axes in (("choose", (0, 0)), ("judge", (0, 0, 0, 0, 0))))
            rules = Steering(lambda *inputs: choose(*inputs, self._hyper), lambda *inputs: judge(*inputs, self._hyper))
            self._source = self.runner.steering.open(self.members, self.lanes, rules)
        elif self._source is None:
            self._source = HostSource(self.env, self.members, self.lanes)
        return self._source

    def _steered(self, source: HostSource, iteration: int, begin: bool = False) -> None:
        """Tell a source that is steered where its curriculum is; ``begin``: also where its lanes shall be."""
        if self.runner.steering:
            keys = fold_in(self._keys, iteration)
            source.steer(self._states.guide, keys)
            if begin:
                source.begin()
                self._states = self._states._replace(lanes=jax.tree.map(jnp.asarray, source.lanes))

    def _seeds(self, keys: Any, salt: int) -> list[int]:
        """A seed for every lane of every member."""
        sequences = [np.random.SeedSequence([salt, *np.asarray(key).tolist()]) for key in keys]
        return [int(seed) % 2**31 for sequence in sequences for seed in sequence.generate_state(self.lanes)]

    # --- the run ------------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Fresh worlds and states for every member."""
        source = self._open()
        self._states = self._compiled["init"](self._keys, self._hyper, source.reset(self._seeds(self._keys, 0)).obs)
        self._accumulator = m.empty(self._template[1])
        if self.runner.warm is not None:
            self._warm_up(source)
        self._steered(source, BEGINNING, begin=True)
        if self.runner.stored:
            place = processor() if self.runner.keep else jax.local_devices()[0]
            inputs = jax.device_put((self._states, source.lanes.obs), place)
            self._states = self._states._replace(replay=jax.jit(self._vmapped("stored", (0, 0)))(*inputs, self._hyper))

    def _warm_up(self, source: HostSource) -> None:
        warm = jax.jit(self._vmapped("warm", (0, 0, 0, 0, 0)), donate_argnums=(0,))
        generators = [np.random.default_rng([1, *np.asarray(key).tolist()]) for key in self._keys]
        for n in range(self.runner.warmup):
            actions = np.stack([random_actions(self.env.spec.action, generator, self.lanes) for generator in generators])
            before, actions, arrived = source.step(actions)
            self._states = warm(self._states, fold_in(self._keys, 2**31 - 2 - n), before, actions, arrived, self._hyper)
        self._states = self._states._replace(lanes=jax.tree.map(jnp.asarray, source.lanes))

    def run(self, start: int, count: int, total: int) -> None:
        """``count`` iterations of every member, from iteration ``start`` of ``total``. Blocks until they are done."""
        source, last = self._open(), self.runner.steps - 1
        for iteration in range(start, start + count):
            clock = Clock(np.int32(iteration), np.float32(iteration) / np.float32(total))
            self._steered(source, iteration)
            learnt, agent = None, self._states.agent
            if self._learner:
                inputs = (agent, self._waiting(self._states, self._drawn(clock)), self._states.key, clock, self._hyper)
                learnt = self._learner.submit(self._compiled["learn"], *inputs)
            states = self._on_device(self._states)
            play, actions = self._compiled["begin"](states, clock, self._hyper)
            gathered = Gathered(self._given)
            for t in range(last):
                before, actions, arrived = source.step(actions)
                play, actions = self._compiled["advance"](agent, play, np.int32(t), before, actions, arrived, self._hyper)
                gathered.write(t, before, arrived)  # while the device computes
            before, actions, arrived = source.step(actions)
            gathered.write(last, before, arrived)
            begin = time.perf_counter()
            inputs = (play, before, actions, arrived, gathered.steps, source.lanes, learnt and learnt.result(), clock, self._hyper)
            replay = self._states.replay if self.runner.keep else None
            self._states, self._accumulator, rows = self._compiled["finish"](states, self._accumulator, *inputs)
            if self.runner.keep:
                self._states = self._states._replace(replay=self._kept_program("store")(replay, on_processor(rows[0]), self._hyper))
            jax.block_until_ready(self._accumulator)
            self._learning += time.perf_counter() - begin
        self._sound = self._compiled["sound"](self._on_device(self._states))

    def sound(self) -> np.ndarray:
        """bool[M]: whether each member's state was free of NaN after the last ``run``."""
        return np.asarray(self._sound)

    def take_metrics(self) -> list[dict[str, Any]]:
        """Each member's metrics since the last call, as Python numbers."""
        host, self._accumulator = jax.device_get(self._accumulator), m.empty(self._template[1])
        return [m.to_host(host, i) for i in range(self.members)]

    def evaluate(self, keys: Any, acting: Acting | None = None) -> list[dict[str, Any]]:
        """Each member's evaluation: one episode per lane in worlds of its own, which stay open; ``keys`` uint32 [M, 2].
        ``acting``: other states than its own."""
        if self._watched is None:
            self._watched = HostSource(self.env, self.members, self.lanes)
        if "watch" not in self._compiled:
            self._compiled["start"] = jax.jit(self._vmapped("start", (0, 0, 0)))
            self._compiled["watch"] = jax.jit(self._vmapped("watch", (0, 0, 0, 0, 0, 0)))
        source, keys = self._watched, jnp.asarray(keys)
        acting = acting or Acting(self._states.agent, self._states.bonus)
        carry, actions = self._compiled["start"](acting, keys, source.reset(self._seeds(keys, 3)).obs, self._hyper)
        finished = np.zeros(source.shape, bool)
        returns, lengths = np.zeros(source.shape, np.float32), np.zeros(source.shape, np.int32)
        for t in range(self.runner.spec.max_steps or EVALUATION_LIMIT):
            before, actions, arrived = source.step(actions)
            returns = np.where(finished, returns, before.episode_return + arrived.reward)
            lengths = np.where(finished, lengths, before.episode_length + 1)
            finished |= arrived.terminated | arrived.truncated
            if finished.all():
                break
            carry, actions = self._compiled["watch"](acting, carry, fold_in(keys, t), before, actions, arrived, self._hyper)
        limit, found = self.runner.spec.success_return, []
        for i in range(self.members):
            found.append({"evaluation/return": float(returns[i].mean()), "evaluation/length": float(lengths[i].mean())})
            if limit is not None:
                found[-1]["evaluation/success"] = float((returns[i] >= limit).mean())
        return found

    def profile(self, iteration: int, total: int) -> tuple[dict[str, float], str]:
        """(seconds of each part since the start of this process, what was timed)."""
        return {**self._open().spent, "learning": self._learning}, "the whole run; learning that overlaps with stepping is not in learning"

    def policies(self) -> list[dict[str, Any]]:
        """What acts, of every member: the states of agent and bonus, as numpy arrays."""
        host = jax.device_get({"agent": self._states.agent, "bonus": self._states.bonus})
        return [jax.tree.map(lambda x: x[i], host) for i in range(self.members)]  # noqa: B023

    # --- checkpoints --------------------------------------------------------------------------------------------------

    def snapshot(self) -> Any:
        """(states, accumulators), as numpy arrays with a leading axis over all members."""
        return jax.device_get((self._states, self._accumulator))

    def carried(self, hosts: list[tuple[bytes | None, int]]) -> bytes | None:
        """Worlds are not carried over from other runs: members begin new episodes."""

    def prepare_for(self, grown: dict[str, int]) -> None:
        """Nothing grows here."""

    def template(self) -> Any:
        return self._template

    def visits(self) -> np.ndarray | None:
        """Where the members were, u32[M, rows, columns]; None in worlds that are no maps."""
        kept = self._states.record.visits
        return None if kept is None else np.asarray(kept)

    def host_snapshot(self) -> bytes | None:
        """The worlds, as bytes; None where they cannot be saved."""
        return self._open().save()

    def restore(self, snapshot: Any, host: bytes | None = None, iteration: int = 0) -> None:
        """Go on from a snapshot. Worlds that were not saved start new episodes, with seeds that the iteration decides."""
        states, accumulator = snapshot
        self._states, self._accumulator = jax.tree.map(jnp.asarray, (self._on_device(states), accumulator))
        if self.runner.keep:
            self._states = self._states._replace(replay=on_processor(states.replay))
        source = self._open()
        lanes = source.reset(self._seeds(self._keys, 0 if host else 4 + iteration))
        if host:
            source.load(host, snapshot[0].lanes)
        else:
            self._states = self._states._replace(lanes=jax.tree.map(jnp.asarray, lanes))
            self._steered(source, BEGINNING - iteration, begin=True)

    def close(self) -> None:
        for source in (self._source, self._watched):
            if source:
                source.close()
        self._source = self._watched = None
        if self._learner:
            self._learner.shutdown()


def processor() -> jax.Device:
    """The host's own. Raises Refusal where jax was told to do without."""
    try:
        return jax.local_devices(backend="cpu")[0]
    except RuntimeError:
        raise Refusal("runner.buffer=host needs jax's CPU beside the accelerator, and JAX_PLATFORMS leaves it out; add it, as JAX_PLATFORMS=cuda,cpu") from None


def on_processor(tree: Any) -> Any:
    return jax.device_put(tree, processor())


def random_actions(space: Any, generator: np.random.Generator, lanes: int) -> np.ndarray:
    """Uniform actions [lanes, ...] of a Discrete or Box space; unbounded sides count as -1 and 1."""
    if hasattr(space, "n"):
        return generator.integers(int(space.start), int(space.start + space.n), lanes).astype(np.int32)
    low, high = np.where(np.isfinite(space.low), space.low, -1.0), np.where(np.isfinite(space.high), space.high, 1.0)
    return generator.uniform(low, high, (lanes, *space.shape)).astype(np.float32)


def refuse_batching(batching: str) -> None:
    """Host worlds are stepped for all members together, in one program."""
    if batching not in ("auto", "vmap"):
        several = "several devices are used by a process each, as distributed.processes=2 (docs/sweeps.md)"
        raise Refusal(f"batching={batching}: worlds on the host are stepped for all members of a process together; use batching=vmap or auto; {several}")
