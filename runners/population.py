"""Searches over whole policies: ask for genomes, try each for an episode, tell what came of it.

One iteration is a chunk of evaluations: whole batches of the method's, until at least ``chunk`` are made. Where a method has several phases, members wait for
those whose turn is another one. ``total_steps`` counts as if every episode lasted to the world's limit; ``search/steps`` counts the steps that were made,
``search/evaluations`` the episodes.

What the search keeps (``archive/*``) is one thing, what it has ever seen another (``search/*``): a grid over the descriptor's box, with the best return in each
cell, over all evaluations, the same for every method. The evaluation plays the best policy so far.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from gymnasium import spaces

from agents.base import Agent
from envs.base import Environment, HostEnvironment, PyTree, any_member
from envs.builder import FLAG, Anything, Integer, Optional, Real, Refusal, Sizes, Text, options
from exploration.base import Population
from exploration.grid_archive import cell_of, check_cells
from runners import metrics as m
from runners.base import HostSearch, Runner
from runners.host_population import Searching, host_population
from runners.iteration import EVALUATION_LIMIT, evaluation_metrics
from runners.source import jax_source
from runners.tryout import described, tryout


class SearchRecord(NamedTuple):
    """What has happened so far."""

    evaluations: jax.Array  # u32[]
    steps: jax.Array  # u32[]
    invalid: jax.Array  # u32[]; evaluations whose return or descriptor was NaN
    outside: jax.Array  # u32[]; descriptors outside their box
    phases: jax.Array  # u32[phases]; evaluations of each phase
    best: jax.Array  # f32[]
    areas: jax.Array | None  # f32[areas]; best return of those that met each reward area
    seen: jax.Array  # f32[phases, cells]; best return in each cell of the grid of results, by phase, -inf where nothing ended
    visits: jax.Array | None  # u32[second, first]; evaluations that ended in each cell, as a picture: the first number to the right, the second upwards


class PopulationState(NamedTuple):
    key: jax.Array  # the member's key; never changes
    agent: PyTree  # the best policy so far
    bonus: PyTree
    search: PyTree
    record: SearchRecord


@options(
    lanes=Integer(1, 2**16),
    cells=Sizes(),
    lowest=Real(),
    descriptor=Text("auto, or the import path of a function"),
    box=Anything(),
    fixed_start=FLAG,
    workers=Optional(Integer(0, 1024)),
)
def population(
    env: Environment | HostEnvironment,
    make_agent: Callable,
    make_population: Callable,
    *,
    lanes: int = 1,
    cells: Sequence[int] = (50, 50),
    lowest: float = 0.0,
    descriptor: str = "auto",
    box: Any = None,
    fixed_start: bool = True,
    workers: int | None = None,
    axis: str | None = None,
) -> Runner | HostSearch:
    """Runner for ``make_agent(spec)`` and ``make_population(spec)``.

    Args:
      lanes: worlds in which the best policy is evaluated and watched.
      cells: of the grid of results, a number per dimension of the descriptor.
      lowest: the return that counts nothing in the QD score, which is the sum over the cells of (best return - lowest).
      descriptor, box: what a policy's behaviour is, and its bounds; see ``runners/tryout.py``.
      fixed_start: all evaluations of a member share their random numbers, so that a genome always gives the same.
      workers: processes that try the policies in a world on the host (None: as many as there are cores; 0: this process). Results do not depend on them.
    """
    axis = None if isinstance(env, HostEnvironment) else axis  # there members are one after the other
    spec, describe = described(env.spec._replace(lanes=lanes, axis=axis), descriptor, box)
    check_cells(cells, spec.info["descriptor"], "runner.cells")
    agent: Agent = make_agent(spec)
    if agent.genome is None:
        raise Refusal("runner=population searches over the weights of a policy; use agent=controller or agent=open_loop, or another runner")
    search: Population = make_population(spec._replace(genome=agent.genome.space))
    if not isinstance(search, Population):
        raise Refusal("runner=population needs a population to search with; use exploration=novelty_search or map_elites, or another runner")
    attempt = None if isinstance(env, HostEnvironment) else tryout(env, agent, spec, describe, fixed_start, search.watch)
    grid_box, number, limit = spec.info["descriptor"], math.prod(cells), spec.max_steps or EVALUATION_LIMIT
    areas = int(spec.info["area"].n) - 1 if isinstance(spec.info.get("area"), spaces.Discrete) else 0
    names = list(search.phases)

    def init(key):
        member_key, agent_key, search_key = jax.random.split(key, 3)
        zero = jnp.uint32(0)
        best, seen = jnp.full(areas, -jnp.inf) if areas else None, jnp.full((len(names), number), -jnp.inf)
        visits = jnp.zeros((cells[1], cells[0]), jnp.uint32) if len(cells) == 2 else None
        record = SearchRecord(zero, zero, zero, zero, jnp.zeros(len(names), jnp.uint32), -jnp.inf, best, seen, visits)
        return PopulationState(member_key, agent.init(agent_key), (), search.init(search_key), record)

    def always(state):
        return jax.random.fold_in(state.key, jnp.uint32(2**32 - 1))  # no iteration has that number

    def batch(state, key, phase):
        """One batch of the phase: (state, metrics)."""
        searching, genomes, wanted = asked(state, key, phase)
        tried = attempt(genomes, wanted, always(state) if fixed_start else jax.random.split(key, 3)[1])
        return taken_in(state, searching, genomes, wanted, tried, key, phase)

    def asked(state, key, phase):
        return search.ask(state.search, jax.random.split(key, 3)[0], phase)

    def taken_in(state, searching, genomes, wanted, tried, key, phase):
        """(state, metrics) after what the genomes gave."""
        searching, happened = search.tell(searching, jax.random.split(key, 3)[2], (phase, genomes, tried.evaluation))
        record, metrics = told(state.record, tried, wanted, names.index(phase))
        at = jnp.argmax(tried.evaluation.fitness)
        better = tried.evaluation.fitness[at] > state.record.best
        policy = jax.tree.map(lambda a, b: jnp.where(better, a, b), agent.genome.decode(genomes[at]), state.agent)
        metrics |= kept(searching) | {f"population/{name}": numbered(value) for name, value in happened.items()}
        return state._replace(agent=policy, search=searching, record=record), m.typed(metrics)

    def numbered(value):
        """Counts are shown as they are, other numbers as means."""
        return m.Last(value) if jnp.issubdtype(jnp.result_type(value), jnp.integer) else value

    def told(record: SearchRecord, tried, wanted, phase: int):
        evaluation = tried.evaluation
        made = jnp.sum(wanted, dtype=jnp.uint32)
        cell = jnp.where(evaluation.valid, cell_of(evaluation.descriptor, grid_box, cells), number)
        new = SearchRecord(
            record.evaluations + made,
            record.steps + jnp.sum(tried.steps).astype(jnp.uint32),
            record.invalid + jnp.sum(wanted & ~evaluation.valid, dtype=jnp.uint32),
            record.outside + jnp.sum(tried.outside, dtype=jnp.uint32),
            record.phases.at[phase].add(made),
            jnp.maximum(record.best, jnp.max(evaluation.fitness)),
            record.areas.at[jnp.where(evaluation.area > 0, evaluation.area - 1, areas)].max(evaluation.fitness, mode="drop") if areas else None,
            record.seen.at[phase, cell].max(evaluation.fitness, mode="drop"),
            visited(record.visits, evaluation, cell),
        )
        highest = jnp.max(new.seen, axis=0)
        reached = ~jnp.isneginf(highest)
        metrics = {
            "episode/return": m.mean(jnp.where(evaluation.valid, evaluation.fitness, 0.0), evaluation.valid),
            "episode/length": m.mean(tried.steps, wanted),
            "search/evaluations": m.Last(new.evaluations),
            "search/steps": m.Last(new.steps),
            "search/coverage": m.Last(jnp.mean(reached)),
            "search/qd_score": m.Last(jnp.sum(jnp.where(reached, highest - lowest, 0.0))),
            "search/best": m.Last(new.best, jnp.isfinite(new.best)),
            "search/invalid": m.Last(new.invalid),
            "search/outside": m.Last(new.outside),
        }
        metrics |= {f"search/area_{area + 1}": m.Last(jnp.maximum(new.areas[area], 0.0)) for area in range(areas)}
        if len(names) > 1:
            metrics |= {f"search/share_{name}": m.Last(new.phases[i] / jnp.maximum(new.evaluations, 1)) for i, name in enumerate(names)}
            metrics |= {f"search/coverage_{name}": m.Last(jnp.mean(~jnp.isneginf(new.seen[i]))) for i, name in enumerate(names)}
        return new, metrics

    def visited(visits, evaluation, cell):
        if visits is None:
            return None
        across, up = jnp.unravel_index(jnp.minimum(cell, number - 1), cells)
        return visits.at[cells[1] - 1 - up, across].add(evaluation.valid.astype(jnp.uint32))

    def kept(searching):
        elites = search.elites(searching)
        cell = jnp.where(elites.filled, cell_of(elites.descriptor, grid_box, cells), number)
        reached = jnp.zeros(number, bool).at[cell].set(True, mode="drop")
        return {"archive/size": m.Last(jnp.sum(elites.filled, dtype=jnp.int32)), "archive/coverage": m.Last(jnp.mean(reached))}

    def refreshed(state, key):
        """Members whose descriptor is to be learnt anew, with it; for the others nothing changes."""
        wanted = search.due(state.search)

        def learn():
            new = search.refresh(state.search, key)
            return jax.tree.map(lambda a, b: jnp.where(wanted, a, b), new, state.search)

        return state._replace(search=jax.lax.cond(any_member(wanted, axis), learn, lambda: state.search))

    single_batch = len(names) == 1 and search.phases[names[0]] >= search.chunk
    full = None if search.full is None else lambda state: search.full(state.search)
    grow = None if search.grow is None else lambda state, what: state._replace(search=search.grow(state.search, what))

    def elites(state):
        return search.elites(state.search)

    if isinstance(env, HostEnvironment):
        pieces = Searching(init, asked, taken_in, full, grow, elites, single_batch)
        return host_population(env, pieces, search, agent, spec, describe, limit, fixed_start, workers)

    def step(state, clock):
        key = jax.random.fold_in(state.key, clock.iteration)
        if search.due is not None:
            state = refreshed(state, jax.random.fold_in(key, jnp.uint32(2**32 - 2)))
        if single_batch:
            return batch(state, key, names[0])
        wanted = (clock.iteration.astype(jnp.uint32) + 1) * jnp.uint32(search.chunk)  # evaluations when this iteration is over, so that no surplus adds up

        def unfinished(carry):
            return any_member(carry[0].record.evaluations < wanted, axis)

        def round_of_phases(carry):
            for index, phase in enumerate(names):
                carry = while_turn(carry, key, index, phase, wanted)
            return carry

        metrics = m.empty(jax.eval_shape(lambda: batch(state, key, names[0])[1]))
        metrics = jax.tree.map(lambda x: jnp.asarray(x), metrics)
        state, metrics, _ = jax.lax.while_loop(unfinished, round_of_phases, (state, metrics, jnp.int32(0)))
        return state, metrics

    def while_turn(carry, key, index, phase, wanted):
        """Batches of a phase, in the members whose turn it is, as long as it is and the iteration lasts."""

        def active(carry):
            mine = True if search.turn is None else search.turn(carry[0].search) == index
            return mine & (carry[0].record.evaluations < wanted)

        def one(carry):
            state, metrics, count = carry
            new, found = batch(state, jax.random.fold_in(key, count), phase)
            here = active(carry)
            chosen = jax.tree.map(lambda a, b: jnp.where(here, a, b), (new, m.combine(metrics, found)), (state, metrics))
            return *chosen, count + here

        return jax.lax.while_loop(lambda carry: any_member(active(carry), axis), one, carry)

    source = jax_source(env, lanes, axis)

    def start(state, key):
        return source.init(key), agent.start(state.agent, lanes)

    def watch(state, carry, key):
        now, memory = carry
        act_key, step_key, reset_key = jax.random.split(key, 3)
        memory, action, _ = agent.act(state.agent, act_key, (memory, now.obs, now.first, "greedy"))
        now, transition = source.step(now, step_key, action)
        return (source.restart(now, reset_key, transition.done), memory), transition

    def evaluate(state, key):
        best = jnp.broadcast_to(state.agent, (lanes, *state.agent.shape))
        tried = attempt(best, jnp.ones(lanes, bool), always(state) if fixed_start else key)
        return evaluation_metrics(tried.evaluation.fitness, tried.steps, spec)

    return Runner(init, step, evaluate, spec, search.chunk * limit, env, start, watch, None, agent, full=full, grow=grow, elites=elites)
