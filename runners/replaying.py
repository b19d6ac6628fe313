"""Learning from a replay buffer, wherever the world lives: what is stored, what a batch becomes, and the batches of an iteration."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from agents.base import RewardStream, Rollout, Sample, Signal
from agents.replay import Drawn, Replay, ReplayState
from envs.base import Key, PyTree, Transition
from envs.builder import Refusal
from runners import metrics as m
from runners.base import Clock
from runners.iteration import Iteration


class Lesson(NamedTuple):
    """What is left of learning from one batch."""

    metrics: dict
    steps: Transition  # [B]; as the bonus is given them
    payload: PyTree
    places: jax.Array  # i32[B]
    priorities: jax.Array | None  # f32[B]


class Ahead(NamedTuple):
    """Lessons that were learnt while the iteration's steps were made."""

    agent: PyTree
    totals: dict  # sums of metrics
    rows: Lesson  # [updates, ...]
    count: jax.Array  # i32[]; lessons


class Replaying(NamedTuple):
    """A state has ``agent``, ``bonus``, ``record`` and ``replay``."""

    kept: Callable[[Transition], Transition]  # what is stored of a transition
    random: Callable[[Clock], jax.Array]  # whether the iteration's actions are uniformly random, bool[]
    ahead: Callable  # (agent state, (bonus state, replay), key, clock) -> Ahead: the lessons, from a buffer without this iteration's steps
    draws: Callable  # (replay, key) -> Drawn [updates, B]: the batches that ``ahead`` with that key would draw; it takes them in place of the replay
    prioritised: Callable  # (replay, Ahead) -> replay; the priorities that were learnt ahead
    finish: Callable  # (state, rollout just made, key, clock, Ahead or None) -> (state, metrics): fresh rewards, lessons, records


def replaying(
    pieces: Iteration,
    buffer: Replay,
    *,
    per_iteration: int,
    updates: int,
    batch_size: int,
    learning_starts: int,
    random_steps: int,
    prioritized: bool,
    importance_exponent: Any,
) -> Replaying:
    """The functions of an iteration of ``per_iteration`` environment steps and ``updates`` batches; arguments as those of ``off_policy``."""
    agent, bonus = pieces.agent, pieces.bonus
    first_learning, last_random = -(-learning_starts // per_iteration), -(-random_steps // per_iteration)
    fields = (*bonus.info.needs, *bonus.info.learns_from)
    names = {field[5:] for field in fields if field.startswith("info.")}

    def kept(transition):
        return transition._replace(info={name: value for name, value in transition.info.items() if name in names})

    def random(clock):
        return clock.iteration < last_random

    def batch_of(stored, key: Key) -> Drawn:
        return buffer.draw(stored, jax.random.split(key)[0], batch_size, importance_exponent)

    def lesson(agent_state, bonus_state, drawn: Drawn, key: Key, progress):
        """One batch -> (agent state, Lesson)."""
        learn_key = jax.random.split(key)[1]
        sample, streams, steps = prepared(pieces, agent_state, bonus_state, drawn)
        signal = Signal(streams, progress, regulariser=pieces.regulariser(agent_state, bonus_state))
        agent_state, learnt = agent.learn(agent_state, learn_key, (sample, signal))
        if prioritized and learnt.priorities is None:
            raise Refusal("runner.prioritized=true needs an agent that gives priorities; set it to false")
        metrics = jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), learnt.metrics)
        return agent_state, Lesson(metrics, steps, learnt.payload, drawn.places, learnt.priorities if prioritized else None)

    def told(bonus_state, stored, key: Key, found: Lesson):
        """What buffer and bonus take from a lesson -> (bonus state, buffer, metrics)."""
        if prioritized and isinstance(stored, ReplayState):
            stored = buffer.prioritise(stored, found.places, found.priorities)
        bonus_state, metrics = bonus.update(bonus_state, key, (found.steps, found.payload))
        return bonus_state, stored, {f"bonus/{name}": jnp.asarray(value, jnp.float32) for name, value in metrics.items()}

    def zeros(function, *inputs):
        return jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), jax.eval_shape(function, *inputs))

    def added(totals, found):
        return jax.tree.map(jnp.add, totals, found)

    def lessons(state, key: Key, clock: Clock) -> tuple[PyTree, dict, jax.Array]:
        """One after the other. No batch before learning starts: the loop runs zero times, so the buffer goes through no branch, which would copy it."""

        def update(state, key):
            lesson_key, bonus_key = jax.random.split(key)
            agent_state, found = lesson(state.agent, state.bonus, batch_of(state.replay, lesson_key), lesson_key, clock.progress)
            bonus_state, stored, metrics = told(state.bonus, state.replay, bonus_key, found)
            return state._replace(agent=agent_state, bonus=bonus_state, replay=stored), found.metrics | metrics

        def one(i, carry):
            state, totals = carry
            state, found = update(state, jax.random.fold_in(key, i))
            return state, added(totals, found)

        count = jnp.where(clock.iteration + 1 >= first_learning, updates, 0)
        return *jax.lax.fori_loop(0, count, one, (state, zeros(update, state, key)[1])), count

    def lesson_key(key: Key, i):
        return jax.random.split(jax.random.fold_in(key, i))[0]

    def draws(stored, key: Key) -> Drawn:
        return jax.lax.map(lambda i: batch_of(stored, lesson_key(key, i)), jnp.arange(updates))

    def prioritised(stored, learnt: Ahead):
        if not prioritized:
            return stored
        return jax.lax.fori_loop(0, learnt.count, lambda i, kept: buffer.prioritise(kept, learnt.rows.places[i], learnt.rows.priorities[i]), stored)

    def ahead(agent_state, waiting, key: Key, clock: Clock) -> Ahead:
        bonus_state, source = waiting

        def drawn(i):
            return jax.tree.map(lambda x: x[i], source) if isinstance(source, Drawn) else batch_of(source, lesson_key(key, i))

        def one(i, carry):
            agent_state, totals, rows = carry
            agent_state, found = lesson(agent_state, bonus_state, drawn(i), lesson_key(key, i), clock.progress)
            rows = jax.tree.map(lambda every, new: every.at[i].set(new), rows, found._replace(metrics={}))
            return agent_state, added(totals, found.metrics), rows

        first = zeros(lambda: lesson(agent_state, bonus_state, drawn(0), key, clock.progress))[1]
        rows = jax.tree.map(lambda x: jnp.zeros((updates, *x.shape), x.dtype), first._replace(metrics={}))
        count = jnp.where(clock.iteration >= max(first_learning, 1), updates, 0)
        return Ahead(*jax.lax.fori_loop(0, count, one, (agent_state, first.metrics, rows)), count)

    def catch_up(state, key: Key, learnt: Ahead) -> tuple[PyTree, dict, jax.Array]:
        """What ``lessons`` returns, after lessons that were learnt ahead."""

        def one(i, carry):
            bonus_state, stored, totals = carry
            bonus_state, stored, found = told(bonus_state, stored, jax.random.split(jax.random.fold_in(key, i))[1], row(i))
            return bonus_state, stored, added(totals, found)

        def row(i):
            return jax.tree.map(lambda x: x[i], learnt.rows)

        start = zeros(lambda: told(state.bonus, state.replay, key, row(0)))[2]
        bonus_state, stored, totals = jax.lax.fori_loop(0, learnt.count, one, (state.bonus, state.replay, start))
        return state._replace(agent=learnt.agent, bonus=bonus_state, replay=stored), learnt.totals | totals, learnt.count

    def finish(state, batch: Rollout, key: Key, clock: Clock, learnt: Ahead | None = None):
        bonus_state, assessed, metrics = pieces.assess(state.agent, state.bonus, batch)
        state = state._replace(bonus=bonus_state)
        state, totals, count = lessons(state, key, clock) if learnt is None else catch_up(state, key, learnt)
        record, found = pieces.updated(state.record, assessed, clock)
        metrics |= found | {name: m.Mean(total, count.astype(jnp.float32)) for name, total in totals.items()}
        if isinstance(state.replay, ReplayState):
            metrics["replay/rows"] = m.Last(buffer.size(state.replay))
        return state._replace(record=record), m.typed(metrics)

    return Replaying(kept, random, ahead, draws, prioritised, finish)


def prepared(pieces: Iteration, agent_state: PyTree, bonus_state: PyTree, drawn: Drawn) -> tuple[Sample, tuple[RewardStream, ...], Transition]:
    """(what the agent learns from, its reward streams summed over each window, the first steps as the bonus is given them [B])."""
    streams, steps = pieces.rescore(agent_state, bonus_state, drawn.steps)
    age = jnp.arange(drawn.within.shape[1])
    summed = tuple(
        s._replace(
            reward=jnp.sum(jnp.where(drawn.within, s.reward * jnp.asarray(s.discount, jnp.float32) ** age, 0.0), axis=1),
            discount=jnp.asarray(s.discount, jnp.float32) ** drawn.length,
        )
        for s in streams
    )
    first = jax.tree.map(lambda x: x[:, 0], steps)
    terminated = jnp.any(drawn.steps.terminated & drawn.within, axis=1)
    return Sample(drawn.obs, first.action, drawn.next_obs, terminated, drawn.weights, drawn.extras), summed, first
