"""On-policy training on worlds that live on the host: the iteration of ``runners/on_policy.py``, cut where the worlds step.

``overlap``: while rollout i is collected, the agent learns from rollout i - 1; the policy that acts in rollout i has learnt from the
rollouts before i - 1. The lag is a fixed part of the method, and the rollout that waits is part of the state: timing changes no result.
Scores and updates of the bonus keep their place. The first iteration learns nothing, and the last rollout is not learnt from.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from agents.base import Learnt, Rollout
from envs.base import HostEnvironment, Lanes, PyTree, Transition
from runners import metrics as m
from runners.base import Arrived, HostRunner, Steps
from runners.iteration import Assessed, Iteration, Record


class HostOnPolicyState(NamedTuple):
    key: jax.Array  # the member's key; never changes
    lanes: Lanes  # its worlds live on the host: ``world`` is empty, and observations are as they arrived
    memory: PyTree
    agent: PyTree
    bonus: PyTree
    record: Record
    waiting: Assessed | None  # with overlap: the rollout that was not learnt from yet


class Play(NamedTuple):
    """A rollout in the making: what is made on the device. What the worlds give is gathered on the host (``Steps``)."""

    memory: PyTree
    bonus: PyTree
    saw: PyTree  # what the agent saw when it chose the action that is being executed; () where that is the observation
    extras: PyTree
    rows: Any  # (action, extras, note), each [T, N, ...]; written up to here
    keys: jax.Array  # uint32[T, 2, 2]; for observing step t, and for acting after it


def host_on_policy(env: HostEnvironment, pieces: Iteration, *, lanes: int, rollout: int, evaluation_mode: str, overlap: bool) -> HostRunner:
    """The runner of ``runners.on_policy.on_policy`` for a host world."""
    agent, bonus, spec, augments = pieces.agent, pieces.bonus, pieces.spec, pieces.bonus.info.augments

    def fresh(obs) -> Lanes:
        return Lanes((), obs, jnp.ones(lanes, bool), jnp.zeros(lanes, jnp.float32), jnp.zeros(lanes, jnp.int32))

    def transition(before: Lanes, action, arrived: Arrived) -> Transition:
        total, length = before.episode_return + arrived.reward, before.episode_length + 1
        info = {**arrived.info, "episode_return": total, "episode_length": length}
        ends = (arrived.terminated, arrived.truncated)
        return Transition(env.decode(before.obs), action, arrived.reward, env.decode(arrived.obs), *ends, before.first, info)

    def choose(agent_state, memory, bonus_state, obs, first, key, mode):
        saw = pieces.seen(bonus_state, env.decode(obs))
        memory, action, extras = agent.act(agent_state, key, (memory, saw, first, mode))
        return memory, saw if augments else (), action, extras

    def observed(agent_state, bonus_state, key, made: Transition, saw):
        """(bonus state, what is noted of the step: the whole of it where the agent saw more than the worlds gave)."""
        bonus_state, made = pieces.observed(agent_state, bonus_state, key, made, saw if augments else made.obs)
        return bonus_state, made if augments else made.annotations

    def keys(key, clock):
        """(rollout, learn, update) of an iteration."""
        return jax.random.split(jax.random.fold_in(key, clock.iteration), 3)

    def init(key, obs):
        agent_key, bonus_key, member_key = jax.random.split(key, 3)
        agent_state, now = agent.init(agent_key), fresh(obs)
        bonus_state = bonus.init(bonus_key)
        state = HostOnPolicyState(member_key, now, agent.start(agent_state, lanes), agent_state, bonus_state, pieces.fresh_record(), None)
        return state._replace(waiting=empty_rollout(state)) if overlap else state

    def warm(state, key, before, action, arrived):
        bonus_state, _ = bonus.observe(state.bonus, key, pieces.shown(state.agent, transition(before, action, arrived)))
        return state._replace(bonus=bonus.reset(bonus_state, arrived.terminated | arrived.truncated))

    def example(obs: PyTree) -> Arrived:
        """Something of the shapes in which the worlds' steps arrive."""
        flag, number = jnp.zeros(lanes, bool), jnp.zeros(lanes, jnp.float32)
        info = {name: jnp.zeros((lanes, *(space.shape or ())), jax.dtypes.canonicalize_dtype(space.dtype)) for name, space in spec.info.items()}
        return Arrived(obs, number, flag, flag, info, obs)

    def row_shapes(state, saw, action, extras):
        def row():
            made = transition(state.lanes, action, example(state.lanes.obs))
            return action, extras, observed(state.agent, state.bonus, state.key, made, saw)[1]

        return jax.eval_shape(row)

    def zeros(shapes, *lead):
        return jax.tree.map(lambda x: jnp.zeros((*lead, *x.shape), x.dtype), shapes)

    def empty_rollout(state) -> Assessed:
        """A rollout of zeros, for the place where one will wait."""

        def whole():
            memory, saw, action, extras = choose(state.agent, state.memory, state.bonus, state.lanes.obs, state.lanes.first, state.key, "explore")
            made = jax.eval_shape(lambda: transition(state.lanes, action, example(state.lanes.obs)))
            rows = zeros(row_shapes(state, saw, action, extras), rollout)
            steps = rows[2] if augments else zeros(made, rollout)._replace(annotations=rows[2])
            last_obs = pieces.seen(state.bonus, env.decode(state.lanes.obs))
            return pieces.assess(state.agent, state.bonus, Rollout(steps, rows[1], state.memory, memory, last_obs, state.lanes.first))[1]

        return zeros(jax.eval_shape(whole))

    def begin(state, clock):
        step_keys = jax.random.split(keys(state.key, clock)[0], (rollout, 2))  # of observing and acting in every step, made at once
        now = state.lanes
        memory, saw, action, extras = choose(state.agent, state.memory, state.bonus, now.obs, now.first, step_keys[-1, 1], "explore")
        return Play(memory, state.bonus, saw, extras, zeros(row_shapes(state, saw, action, extras), rollout), step_keys), action

    def settle(agent_state, play: Play, t, before: Lanes, action, arrived: Arrived) -> Play:
        """Write step t."""
        bonus_state, note = observed(agent_state, play.bonus, play.keys[t, 0], transition(before, action, arrived), play.saw)
        row = (action, play.extras, note)
        rows = jax.tree.map(lambda all_rows, new: jax.lax.dynamic_update_index_in_dim(all_rows, new, t, 0), play.rows, row)
        return play._replace(bonus=bonus_state, rows=rows)

    def advance(agent_state, play: Play, t, before: Lanes, action, arrived):
        play = settle(agent_state, play, t, before, action, arrived)
        done = arrived.terminated | arrived.truncated
        memory, saw, action, extras = choose(agent_state, play.memory, play.bonus, arrived.following, done, play.keys[t, 1], "explore")
        return play._replace(memory=memory, saw=saw, extras=extras), action

    def learn(agent_state, waiting, key, clock):
        return pieces.learn(agent_state, keys(key, clock)[1], (waiting, clock.progress))

    def finish(state, play: Play, before: Lanes, action, arrived, given: Steps, last: Lanes, learnt, clock):
        _, learn_key, update_key = keys(state.key, clock)
        play = settle(state.agent, play, rollout - 1, before, action, arrived)
        actions, extras, notes = play.rows
        if augments:
            steps = notes
        else:
            ends = (given.terminated, given.truncated, given.first)
            steps = Transition(env.decode(given.obs), actions, given.reward, env.decode(given.next_obs), *ends, given.info, notes)
        last_obs = pieces.seen(play.bonus, env.decode(last.obs))
        batch = Rollout(steps, extras, state.memory, play.memory, last_obs, last.first)
        bonus_state, assessed, reward_metrics = pieces.assess(state.agent, play.bonus, batch)
        if overlap:
            learns = clock.iteration > 0
            agent_state = jax.tree.map(lambda new, old: jnp.where(learns, new, old), learnt[0], state.agent)
            found = Learnt({name: m.Mean(value * learns, learns.astype(jnp.float32)) for name, value in learnt[1].metrics.items()})
        else:
            agent_state, found = pieces.learn(state.agent, learn_key, (assessed, clock.progress))
        bonus_state, bonus_metrics = bonus.update(bonus_state, update_key, (assessed.steps, found.payload))
        record, metrics = pieces.updated(state.record, assessed, clock)
        metrics |= found.metrics | {f"bonus/{name}": value for name, value in bonus_metrics.items()} | reward_metrics
        waiting = assessed if overlap else None
        state = state._replace(lanes=last, memory=play.memory, agent=agent_state, bonus=bonus_state, record=record, waiting=waiting)
        return state, m.typed(metrics)

    def start(state, key, obs):
        bonus_state = bonus.reset(state.bonus, jnp.ones(lanes, bool))
        memory, saw, action, _ = choose(state.agent, agent.start(state.agent, lanes), bonus_state, obs, jnp.ones(lanes, bool), key, evaluation_mode)
        return (memory, bonus_state, saw), action

    def watch(state, carry, key, before: Lanes, action, arrived):
        memory, bonus_state, saw = carry
        observe_key, act_key = jax.random.split(key)
        bonus_state, _ = observed(state.agent, bonus_state, observe_key, transition(before, action, arrived), saw)
        done = arrived.terminated | arrived.truncated
        memory, saw, action, _ = choose(state.agent, memory, bonus_state, arrived.following, done, act_key, evaluation_mode)
        return (memory, bonus_state, saw), action

    return HostRunner(
        init=init,
        warm=warm if bonus.info.warmup else None,
        warmup=bonus.info.warmup,
        learn=learn if overlap else None,
        begin=begin,
        advance=advance,
        finish=finish,
        start=start,
        watch=watch,
        steps=rollout,
        spec=spec,
        steps_per_iteration=lanes * rollout,
        env=env,
        agent=agent,
        augments=augments,
    )
