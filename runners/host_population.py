"""Searches over whole policies in worlds on the host: the search of ``runners/population.py``, compiled; worker processes make the episodes
(``runners/trials.py``). Every episode of a genome is the same, whoever makes it, so nothing depends on the number of workers.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from agents.base import Agent
from envs.base import HostEnvironment, Spec
from envs.builder import Refusal
from exploration.base import Population
from runners import devices, memory
from runners import metrics as m
from runners.base import Clock, HostSearch
from runners.batching import all_numbers
from runners.explorers import Explorers
from runners.host_go_explore import ExplorerBatch
from runners.trials import Attempt, Trial
from runners.tryout import judged


class Searching(NamedTuple):
    """The pieces of an iteration that ``runners/population.py`` makes for any world."""

    init: Callable
    ask: Callable  # (state, key, phase) -> (search, genomes, wanted)
    tell: Callable  # (state, search, genomes, wanted, Tried, key, phase) -> (state, metrics)
    full: Callable | None
    grow: Callable | None
    elites: Callable
    single_batch: bool


def host_population(
    env: HostEnvironment,
    pieces: Searching,
    search: Population,
    agent: Agent,
    spec: Spec,
    describe: Callable,
    limit: int,
    fixed_start: bool,
    workers: int | None,
) -> HostSearch:
    """Raises Refusal for worlds that no worker can start again, and for what only compiled worlds have."""
    if env.single is None:
        raise Refusal(f"runner=population starts a world again for every policy, and {spec.name!r} cannot be ({env.unsaved or 'no single world'})")
    if not fixed_start:
        raise Refusal("runner.fixed_start=false: a world on the host starts the same way for every policy; leave it out")
    if search.watch is not None:
        raise Refusal(f"pictures and paths of episodes need a world that is compiled, and {spec.name!r} lives on the host; use exploration.descriptor=truth")
    box, names = spec.info["descriptor"], tuple(search.phases)

    def key_of(state, clock, number):
        return jax.random.fold_in(jax.random.fold_in(state.key, clock.iteration), number)

    def tell(state, searching, genomes, wanted, attempts, clock, number, phase):
        tried = judged(attempts.total, attempts.place, attempts.area, attempts.steps, None, wanted, box)
        return pieces.tell(state, searching, genomes, wanted, tried, key_of(state, clock, number), phase)

    return HostSearch(
        init=pieces.init,
        phase=lambda state: jnp.int32(0) if search.turn is None else search.turn(state.search),
        ask=lambda state, clock, number, phase: pieces.ask(state, key_of(state, clock, number), phase),
        tell=tell,
        full=pieces.full or (lambda state: {}),
        grow=pieces.grow,
        elites=pieces.elites,
        phases=names,
        single_batch=pieces.single_batch,
        chunk=search.chunk,
        trial=Trial(env.single, agent.genome.act, describe, box.shape[0], limit, spec.name),
        workers=workers,
        spec=spec,
        steps_per_iteration=search.chunk * limit,
        env=env,
        agent=agent,
    )


class SearchBatch(ExplorerBatch):
    """The counterpart of ``runners/batching.py``'s ``Batch``: members one after the other, each with all the workers."""

    runner: HostSearch

    def _trace(self) -> dict[str, int]:
        clock, number = Clock(jax.ShapeDtypeStruct((), jnp.int32), jax.ShapeDtypeStruct((), jnp.float32)), jax.ShapeDtypeStruct((), jnp.int32)
        self._traced, hyper, peak = {}, self._hyper[0], 0

        def tell(phase, state, searching, genomes, wanted, attempts, accumulator, clock, number, hyper):
            state, metrics = self._make(hyper).tell(state, searching, genomes, wanted, attempts, clock, number, phase)
            checked = all_numbers(jax.tree.map(lambda x: x[None], state))[0]
            return state, m.combine(accumulator, metrics), checked

        def asking(phase):
            return lambda state, clock, number, hyper: self._make(hyper).ask(state, clock, number, phase)

        for phase in self.runner.phases:
            traced = jax.jit(asking(phase)).trace(self._shape, clock, number, hyper)
            searching, genomes, wanted = traced.out_info
            attempts = jax.eval_shape(lambda n=wanted.shape[0]: jax.tree.map(jnp.asarray, nothing(n, self.runner.trial.width)))
            inputs = (self._shape, searching, genomes, wanted, attempts)
            make = lambda state, *rest, phase=phase: self._make(hyper).tell(state, *rest, phase)[1]  # noqa: E731
            self._metrics = jax.eval_shape(make, *inputs, clock, number)
            told = jax.jit(lambda *given, phase=phase: tell(phase, *given)).trace(*inputs, self._metrics, clock, number, hyper)
            self._traced |= {f"ask {phase}": traced, f"tell {phase}": told}
            peak = max(peak, memory.peak_bytes(told.jaxpr.jaxpr))
        self._traced["phase"] = jax.jit(lambda state, hyper: self._make(hyper).phase(state)).trace(self._shape, hyper)
        self._traced["full"] = jax.jit(lambda state, hyper: self._make(hyper).full(state)).trace(self._shape, hyper)
        state = memory.tree_bytes(self._shape) * self.members
        return {"state": state, "peak": state + peak}

    def workers(self) -> Explorers:
        if self._explorers is None:
            number = self.runner.workers
            self._explorers = Explorers(self.runner.trial, devices.cores() if number is None else number)
        return self._explorers

    def start(self) -> None:
        self._states = [self._init(key, hyper) for key, hyper in zip(self._keys, self._hyper, strict=True)]
        for name, times in self.grown.items():
            for _ in range(times):
                self._states = [self._growing(name)(state, hyper) for state, hyper in zip(self._states, self._hyper, strict=True)]
        self._accumulators = [self._fresh() for _ in range(self.members)]

    def run(self, start: int, count: int, total: int) -> None:
        """``count`` iterations of every member, from iteration ``start`` of ``total``. Blocks until they are done."""
        for iteration in range(start, start + count):
            clock = Clock(np.int32(iteration), np.float32(iteration) / np.float32(total))
            for i in range(self.members):
                self._make_room(i)
                self._iterate(i, clock)

    def _iterate(self, i: int, clock: Clock) -> None:
        number, wanted = 0, (int(clock.iteration) + 1) * self.runner.chunk
        while number == 0 if self.runner.single_batch else int(self._states[i].record.evaluations) < wanted:
            self._batch(i, clock, np.int32(number))
            number += 1

    def _batch(self, i: int, clock: Clock, number: np.int32) -> None:
        state, hyper, programs = self._states[i], self._hyper[i], self._compiled
        phase = self.runner.phases[int(programs["phase"](state, hyper))]
        searching, genomes, wanted = programs[f"ask {phase}"](state, clock, number, hyper)
        rows = np.flatnonzero(np.asarray(wanted))
        made = self.workers().run([np.asarray(genomes)[row] for row in rows])
        attempts = nothing(len(wanted), self.runner.trial.width)
        for row, found in zip(rows, made, strict=True):
            for array, value in zip(attempts, found, strict=True):
                array[row] = value
        given = (state, searching, genomes, wanted, attempts, self._accumulators[i], clock, number, hyper)
        self._states[i], self._accumulators[i], sound = programs[f"tell {phase}"](*given)
        self._sound[i] = bool(sound)

    def take_metrics(self) -> list[dict[str, Any]]:
        found = [m.to_host(jax.tree.map(lambda x: np.asarray(x)[None], accumulator), 0) for accumulator in self._accumulators]
        self._accumulators = [self._fresh() for _ in range(self.members)]
        return found

    def evaluate(self, keys: Any) -> list[dict[str, Any]]:
        """An episode of the best policy of each member."""
        made = self.workers().run([np.asarray(state.agent) for state in self._states])
        found = [{"evaluation/return": float(one.total), "evaluation/length": float(one.steps)} for one in made]
        success = self.runner.spec.success_return
        return found if success is None else [row | {"evaluation/success": float(row["evaluation/return"] >= success)} for row in found]

    def host_snapshot(self) -> bytes:
        return b""

    def carried(self, hosts: list[tuple[bytes, int]]) -> bytes:
        return b""

    def restore(self, snapshot: Any, host: bytes | None = None, iteration: int = 0) -> None:
        states, accumulators = snapshot
        self._states = [jax.tree.map(lambda x, i=i: jnp.asarray(x[i]), states) for i in range(self.members)]
        self._accumulators = [jax.tree.map(lambda x, i=i: jnp.asarray(x[i]), accumulators) for i in range(self.members)]


def nothing(number: int, width: int) -> Attempt:
    """Of a batch, before any episode is made."""
    return Attempt(np.zeros(number, np.float32), np.zeros((number, width), np.float32), np.zeros(number, np.int32), np.zeros(number, np.int32))
