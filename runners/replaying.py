"""Learning from a replay buffer, wherever the world lives: what is stored, what a batch becomes, and the batches of an iteration."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from agents.base import RewardStream, Rollout, Sample, Signal
from agents.replay import Drawn, Replay
from envs.base import Key, PyTree, Transition
from envs.builder import Refusal
from runners import metrics as m
from runners.base import Clock
from runners.iteration import Iteration


class Replaying(NamedTuple):
    """A state has ``agent``, ``bonus``, ``record`` and ``replay``."""

    kept: Callable[[Transition], Transition]  # what is stored of a transition
    random: Callable[[Clock], jax.Array]  # whether the iteration's actions are uniformly random, bool[]
    lessons: Callable  # (state, key, clock, updates_bonus=True) -> (state, sums of metrics, number of batches)
    finish: Callable  # (state, rollout just made, key, clock) -> (state, metrics): fresh rewards, lessons, records


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

    def update(state, key: Key, progress):
        """One batch -> (state, metrics)."""
        draw_key, learn_key, bonus_key = jax.random.split(key, 3)
        drawn = buffer.draw(state.replay, draw_key, batch_size, importance_exponent)
        sample, streams, steps = prepared(pieces, state.agent, state.bonus, drawn)
        signal = Signal(streams, progress, regulariser=pieces.regulariser(state.agent, state.bonus))
        agent_state, learnt = agent.learn(state.agent, learn_key, (sample, signal))
        stored = state.replay
        if prioritized:
            if learnt.priorities is None:
                raise Refusal("runner.prioritized=true needs an agent that gives priorities; set it to false")
            stored = buffer.prioritise(stored, drawn.places, learnt.priorities)
        bonus_state, found = bonus.update(state.bonus, bonus_key, (steps, learnt.payload))
        metrics = learnt.metrics | {f"bonus/{name}": value for name, value in found.items()}
        return state._replace(agent=agent_state, bonus=bonus_state, replay=stored), jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), metrics)

    def lessons(state, key: Key, clock: Clock):
        """No batch before learning starts: the loop runs zero times, so that the buffer goes through no branch, which would copy it."""
        count = jnp.where(clock.iteration + 1 >= first_learning, updates, 0)
        zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), jax.eval_shape(update, state, key, clock.progress)[1])

        def one(i, carry):
            state, totals = carry
            state, found = update(state, jax.random.fold_in(key, i), clock.progress)
            return state, jax.tree.map(jnp.add, totals, found)

        return *jax.lax.fori_loop(0, count, one, (state, zeros)), count

    def finish(state, batch: Rollout, key: Key, clock: Clock):
        bonus_state, assessed, metrics = pieces.assess(state.agent, state.bonus, batch)
        state, totals, count = lessons(state._replace(bonus=bonus_state), key, clock)
        record, found = pieces.updated(state.record, assessed, clock)
        metrics |= found | {name: m.Mean(total, count.astype(jnp.float32)) for name, total in totals.items()}
        metrics["replay/rows"] = m.Last(buffer.size(state.replay))
        return state._replace(record=record), m.typed(metrics)

    return Replaying(kept, random, lessons, finish)


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
