"""Go-Explore's first phase on JAX worlds: choose cells of an archive, return to their states, explore, and merge what was found.

One iteration is a batch: ``lanes`` cells are chosen, a lane returns to each by putting its state back (a *virtual* return: no step is made), the agent
explores for ``explore_steps`` steps or until its episode ends, and the archive takes all rollouts in. The agent (``agent=repeated_random``) does not
learn. A lane whose episode ended waits for the others, as published; ``steps/agent`` counts the steps that were made, ``steps/virtual`` those
that going there from the start would have taken.

Evaluation plays the archive's best trajectory from the world's own start.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from agents.base import Agent
from envs.base import Environment, HostEnvironment, PyTree, Spec, any_member, sample_action
from envs.builder import Integer, Optional, Refusal, Text, options
from exploration.base import Archive, Explored
from exploration.go_explore import nowhere
from runners import metrics as m
from runners.base import HostExplorer, Runner
from runners.iteration import EVALUATION_LIMIT, MAX_CELLS, evaluation_metrics
from runners.source import jax_source

LONGEST = 2**16  # actions of the best trajectory that a policy keeps


class Best(NamedTuple):
    """The best trajectory so far, as a policy."""

    actions: jax.Array  # [longest, ...]
    length: jax.Array  # i32[]
    score: jax.Array  # f32[]; the archive's, of its last cell


class Progress(NamedTuple):
    """What has happened so far."""

    steps: jax.Array  # u32[]; that agents made
    virtual: jax.Array  # f32[]; that returning would have taken
    episodes: jax.Array  # i32[]; that ended
    first_success: jax.Array  # u32[]; steps until an episode first succeeded, 0 before
    visits: jax.Array | None  # u32[rows, columns]; where steps ended, in worlds that are maps


class GoExploreState(NamedTuple):
    key: jax.Array  # the member's key; never changes
    agent: PyTree
    bonus: Best
    archive: PyTree
    record: Progress


class Exploring(NamedTuple):
    """What an iteration is made of, wherever the world lives."""

    spec: Spec
    agent: Agent
    archive: Archive
    init: Callable  # (key, fresh starts Lanes [L]) -> state
    merge: Callable  # (state, chosen archive, key, Explored, depth i32[L] of the cells) -> (state, metrics)
    full: Callable
    grow: Callable


@options(
    lanes=Integer(1, 2**20),
    explore_steps=Integer(1, 2**20),
    workers=Optional(Integer(0, 1024)),
    cluster=Optional(Text("local, auto, or the address of a Ray cluster")),
)
def go_explore(
    env: Environment | HostEnvironment,
    make_agent: Callable,
    make_archive: Callable,
    *,
    lanes=100,
    explore_steps=100,
    workers=None,
    cluster=None,
    axis=None,
) -> Runner | HostExplorer:
    """Runner for ``make_agent(spec)`` and ``make_archive(spec)``.

    lanes: rollouts of a batch. explore_steps: steps of a rollout, at most. workers: processes that make the rollouts of a world on the host (None: as
    many as there are cores; 0: this process). cluster: None, or the Ray cluster that they are on (``runners/ray_workers.py``). The results depend on neither.
    """
    if isinstance(env, HostEnvironment):
        from runners.host_go_explore import host_go_explore

        spec = env.spec._replace(lanes=lanes, on_host=True, deterministic=env.spec.deterministic or bool(env.settled and env.settled()))
        return host_go_explore(env, exploring(spec, make_agent, make_archive, explore_steps), explore_steps, workers, cluster)
    pieces = exploring(env.spec._replace(lanes=lanes, axis=axis), make_agent, make_archive, explore_steps)
    source = jax_source(env, lanes, axis, note=jax.tree.map(lambda x: x[0], nowhere(1)))
    spec, agent, archive, longest = pieces.spec, pieces.agent, pieces.archive, longest_of(pieces.spec)

    def init(key):
        source_key, state_key = jax.random.split(key)
        return pieces.init(state_key, source.init(source_key))

    def explore(state, key, insert_key):
        """(archive, key, what a batch of rollouts met, depth of the cells they began in)."""
        select_key, reset_key, loop_key = jax.random.split(key, 3)
        chosen, starts = archive.select(state.archive, select_key, lanes)
        begun = starts.lanes._replace(first=jnp.zeros(lanes, bool))
        begun = source.restart(begun, reset_key, starts.fresh)
        origin = jnp.where(starts.fresh[:, None], jax.random.split(reset_key, lanes), begun.note.origin)
        begun = begun._replace(note=begun.note._replace(origin=origin))

        def one(carry, inputs):
            key, time = inputs
            now, memory, active = carry
            act_key, step_key = jax.random.split(key)
            memory, action, _ = agent.act(state.agent, act_key, (memory, now.obs, jnp.full(lanes, time == 0), "explore"))
            now, transition = source.step(now, step_key, action)
            return (now, memory, active & ~transition.done), (now, transition, active)

        carry = (begun, agent.start(state.agent, lanes), jnp.ones(lanes, bool))
        times = jnp.arange(explore_steps, dtype=jnp.int32)
        _, (reached, steps, valid) = jax.lax.scan(one, carry, (jax.random.split(loop_key, explore_steps), times))
        return chosen, insert_key, Explored(starts.cells, begun.note, reached, steps, valid), begun.episode_length

    def step(state, clock):
        explore_key, insert_key = jax.random.split(jax.random.fold_in(state.key, clock.iteration))
        return pieces.merge(state, *explore(state, explore_key, insert_key))

    def start(state, key):
        return (source.init(key), agent.start(state.agent, lanes))

    def watch(state, carry, key):
        now, memory = carry
        act_key, step_key, reset_key = jax.random.split(key, 3)
        memory, action, _ = agent.act(state.agent, act_key, (memory, now.obs, now.first, "explore"))
        time = now.episode_length
        known = (time < state.bonus.length).reshape(lanes, *[1] * (action.ndim - 1))
        action = jnp.where(known, state.bonus.actions[jnp.minimum(time, longest - 1)], action)
        now, transition = source.step(now, step_key, action)
        return (source.restart(now, reset_key, transition.done), memory), transition

    def evaluate(state, key):
        """The best trajectory from fresh starts, as far as it goes or until the episode ends."""
        world_key, loop_key = jax.random.split(key)
        best = state.bonus

        def advance(loop):
            t, carry, finished, returns, lengths = loop
            carry, transition = watch(state, carry, jax.random.fold_in(loop_key, t))
            returns = jnp.where(finished, returns, transition.info["episode_return"])
            lengths = jnp.where(finished, lengths, transition.info["episode_length"])
            return t + 1, carry, finished | transition.done, returns, lengths

        def unfinished(loop):
            return any_member((loop[0] < best.length) & ~loop[2], axis)

        zero = (jnp.int32(0), start(state, world_key), jnp.zeros(lanes, bool), jnp.zeros(lanes, jnp.float32), jnp.zeros(lanes, jnp.int32))

        def bounded(loop):
            moved = advance(loop)
            keep = loop[0] >= best.length  # a member whose trajectory is over while others go on
            return jax.tree.map(lambda a, b: jnp.where(keep, b, a), moved, loop)

        _, _, _, returns, lengths = jax.lax.while_loop(unfinished, bounded, zero)
        exact = jnp.mean((returns == best.score).astype(jnp.float32))
        return evaluation_metrics(returns, lengths, spec) | {"evaluation/replays": exact}

    return Runner(init, step, evaluate, spec, lanes * explore_steps, env, start, watch, None, agent, full=pieces.full, grow=pieces.grow)


def longest_of(spec: Spec) -> int:
    return min(spec.max_steps or EVALUATION_LIMIT, LONGEST)


def exploring(spec: Spec, make_agent: Callable, make_archive: Callable, explore_steps: int) -> Exploring:
    """The pieces for a world's ``spec`` with lanes. Raises Refusal where there is no archive."""
    archive, agent = make_archive(spec), make_agent(spec)
    if not isinstance(archive, Archive):
        raise Refusal("runner=go_explore needs an archive; use exploration=go_explore, or another runner")
    lanes, axis, longest = spec.lanes, spec.axis, longest_of(spec)
    mapped = spec.grid is not None and spec.grid[0] * spec.grid[1] <= MAX_CELLS and not spec.on_host

    def init(key, starts):
        member_key, agent_key, archive_key = jax.random.split(key, 3)
        one = sample_action(spec.action, key, 1)[0]
        actions = jnp.broadcast_to(one, (explore_steps, *one.shape))
        best = Best(jnp.zeros((longest, *one.shape), one.dtype), jnp.int32(0), -jnp.inf)
        visits = jnp.zeros(spec.grid, jnp.uint32) if mapped else None
        record = Progress(jnp.uint32(0), jnp.float32(0), jnp.int32(0), jnp.uint32(0), visits)
        return GoExploreState(member_key, agent.init(agent_key), best, archive.init(archive_key, (starts, actions)), record)

    def merge(state, chosen, key, explored: Explored, depth):
        archived, happened = archive.insert(chosen, key, explored)
        report = archive.report(archived)
        best = jax.lax.cond(
            any_member(improves(state.bonus, report), axis),
            lambda: Best(*archive.best(archived, longest), report["score"]),
            lambda: state.bonus,
        )
        record, metrics = told(state.record, explored, depth)
        metrics |= {f"archive/{name}": m.Last(value) for name, value in report.items()}
        metrics |= {f"archive/{name}": value for name, value in happened.items()}
        return state._replace(archive=archived, bonus=best, record=record), m.typed(metrics)

    def improves(best: Best, report):
        return (report["score"] > best.score) | (report["score"] == best.score) & (report["best_length"] < best.length)

    def told(record: Progress, explored: Explored, depth):
        steps, valid = explored.steps, explored.valid
        ended = steps.done & valid
        returns, lengths = steps.info["episode_return"], steps.info["episode_length"]
        found = {"episode/return": m.mean(returns, ended), "episode/length": m.mean(lengths, ended)}
        first = record.first_success
        if spec.success_return is not None:
            success = ended & (returns >= spec.success_return)
            found["episode/success"] = m.mean(returns >= spec.success_return, ended)
            before = jnp.cumsum(jnp.sum(valid, axis=1, dtype=jnp.uint32))  # steps made until then in this batch
            at = record.steps + before[jnp.argmax(jnp.any(success, axis=1))]
            first = jnp.where((first == 0) & jnp.any(success), at, first)
            found["episode/first_success_step"] = m.Last(first, first > 0)
        visits = record.visits
        if mapped:
            row, column = jnp.moveaxis(steps.info["position"], -1, 0)
            visits = visits.at[row, column].add(valid.astype(jnp.uint32), mode="drop")
            cells = jnp.sum(visits > 0, dtype=jnp.int32)
            found["episode/cells"] = m.Last(cells)
            if spec.num_cells:
                found["episode/coverage"] = m.Last(cells / spec.num_cells)
        made = record.steps + jnp.sum(valid, dtype=jnp.uint32)
        virtual = record.virtual + jnp.sum(depth, dtype=jnp.float32)
        new = Progress(made, virtual, record.episodes + jnp.sum(ended, dtype=jnp.int32), first, visits)
        found |= {"episode/count": m.Last(new.episodes), "steps/agent": m.Last(made), "steps/virtual": m.Last(virtual)}
        return new, found

    def full(state):
        return archive.full(state.archive, lanes, explore_steps)

    def grow(state, what):
        return state._replace(archive=archive.grow(state.archive, what))

    return Exploring(spec, agent, archive, init, merge, full, grow)
