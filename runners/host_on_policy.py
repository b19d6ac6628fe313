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
from runners.base import Arrived, HostRunner
from runners.iteration import Assessed, Iteration, Record


class HostOnPolicyState(NamedTuple):
    key: jax.Array  # the member's key; never changes
    lanes: Lanes  # its worlds live on the host: ``world`` is empty
    memory: PyTree
    agent: PyTree
    bonus: PyTree
    record: Record
    waiting: Assessed | None  # with overlap: the rollout that was not learnt from yet


class Play(NamedTuple):
    """A rollout in the making."""

    lanes: Lanes
    memory: PyTree
    bonus: PyTree
    saw: PyTree  # what the agent saw when it chose ``action``
    action: jax.Array
    extras: PyTree
    rows: Any  # (Transition, extras), both [T, N, ...]; written up to here
    keys: jax.Array  # uint32[T, 2, 2]; for observing step t, and for acting after it


def host_on_policy(env: HostEnvironment, pieces: Iteration, *, lanes: int, rollout: int, evaluation_mode: str, overlap: bool) -> HostRunner:
    """The runner of ``runners.on_policy.on_policy`` for a host world."""
    agent, bonus, spec = pieces.agent, pieces.bonus, pieces.spec

    def fresh(obs) -> Lanes:
        return Lanes((), env.decode(obs), jnp.ones(lanes, bool), jnp.zeros(lanes, jnp.float32), jnp.zeros(lanes, jnp.int32))

    def arrive(now: Lanes, action, arrived: Arrived) -> tuple[Lanes, Transition]:
        """The transition that was made, and the lanes after it."""
        total, length = now.episode_return + arrived.reward, now.episode_length + 1
        info = {**arrived.info, "episode_return": total, "episode_length": length}
        ends = (arrived.terminated, arrived.truncated)
        made = Transition(now.obs, action, arrived.reward, env.decode(arrived.obs), *ends, now.first, info)
        lanes_now = Lanes((), env.decode(arrived.following), made.done, jnp.where(made.done, 0.0, total), jnp.where(made.done, 0, length))
        return lanes_now, made

    def choose(agent_state, memory, bonus_state, now: Lanes, key, mode):
        saw = pieces.seen(bonus_state, now.obs)
        memory, action, extras = agent.act(agent_state, key, (memory, saw, now.first, mode))
        return memory, saw, action, extras

    def keys(key, clock):
        """(rollout, learn, update) of an iteration."""
        return jax.random.split(jax.random.fold_in(key, clock.iteration), 3)

    def init(key, obs):
        agent_key, bonus_key, member_key = jax.random.split(key, 3)
        agent_state, now = agent.init(agent_key), fresh(obs)
        bonus_state = bonus.init(bonus_key)
        state = HostOnPolicyState(member_key, now, agent.start(agent_state, lanes), agent_state, bonus_state, pieces.fresh_record(), None)
        return state._replace(waiting=empty_rollout(state)) if overlap else state

    def warm(state, key, arrived):
        now, made = arrive(state.lanes, jnp.zeros(()), arrived)
        bonus_state, _ = bonus.observe(state.bonus, key, made)
        return state._replace(lanes=now, bonus=bonus.reset(bonus_state, made.done))

    def begin(state, clock):
        step_keys = jax.random.split(keys(state.key, clock)[0], (rollout, 2))  # of observing and acting in every step, made at once
        memory, saw, action, extras = choose(state.agent, state.memory, state.bonus, state.lanes, step_keys[-1, 1], "explore")
        rows = jax.tree.map(lambda x: jnp.zeros((rollout, *x.shape), x.dtype), row_shapes(state, saw, action, extras))
        return Play(state.lanes, memory, state.bonus, saw, action, extras, rows, step_keys), action

    def example(obs: PyTree) -> Arrived:
        """Shapes of what arrives, in the form that ``decode`` gives."""
        flag, number = jnp.zeros(lanes, bool), jnp.zeros(lanes, jnp.float32)
        info = {name: jnp.zeros((lanes, *(space.shape or ())), jax.dtypes.canonicalize_dtype(space.dtype)) for name, space in spec.info.items()}
        return Arrived(obs, number, flag, flag, info, obs)

    def row_shapes(state, saw, action, extras):
        def row():
            now, arrived = state.lanes, example(state.lanes.obs)
            info = {**arrived.info, "episode_return": now.episode_return, "episode_length": now.episode_length}
            made = Transition(now.obs, action, arrived.reward, now.obs, arrived.terminated, arrived.truncated, now.first, info)
            return pieces.observed(state.bonus, state.key, made, saw)[1], extras

        return jax.eval_shape(row)

    def empty_rollout(state) -> Assessed:
        """A rollout of zeros, for the place where one will wait."""

        def whole():
            memory, saw, action, extras = choose(state.agent, state.memory, state.bonus, state.lanes, state.key, "explore")
            steps, more = jax.tree.map(lambda x: jnp.zeros((rollout, *x.shape), x.dtype), row_shapes(state, saw, action, extras))
            return pieces.assess(state.bonus, Rollout(steps, more, state.memory, memory, saw, state.lanes.first))[1]

        return jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), jax.eval_shape(whole))

    def settle(play: Play, t, arrived: Arrived) -> Play:
        """Write step t."""
        now, made = arrive(play.lanes, play.action, arrived)
        bonus_state, made = pieces.observed(play.bonus, play.keys[t, 0], made, play.saw)
        rows = jax.tree.map(lambda all_rows, row: jax.lax.dynamic_update_index_in_dim(all_rows, row, t, 0), play.rows, (made, play.extras))
        return play._replace(lanes=now, bonus=bonus_state, rows=rows)

    def advance(agent_state, play: Play, t, arrived):
        play = settle(play, t, arrived)
        memory, saw, action, extras = choose(agent_state, play.memory, play.bonus, play.lanes, play.keys[t, 1], "explore")
        return play._replace(memory=memory, saw=saw, action=action, extras=extras), action

    def learn(agent_state, waiting, key, clock):
        return pieces.learn(agent_state, keys(key, clock)[1], (waiting, clock.progress))

    def finish(state, play: Play, arrived, learnt, clock):
        _, learn_key, update_key = keys(state.key, clock)
        play = settle(play, rollout - 1, arrived)
        last_obs = pieces.seen(play.bonus, play.lanes.obs)
        batch = Rollout(*play.rows, state.memory, play.memory, last_obs, play.lanes.first)
        bonus_state, assessed, reward_metrics = pieces.assess(play.bonus, batch)
        if overlap:
            learns = clock.iteration > 0
            agent_state = jax.tree.map(lambda new, old: jnp.where(learns, new, old), learnt[0], state.agent)
            found = Learnt({name: m.Mean(value * learns, learns.astype(jnp.float32)) for name, value in learnt[1].metrics.items()})
        else:
            agent_state, found = pieces.learn(state.agent, learn_key, (assessed, clock.progress))
        bonus_state, bonus_metrics = bonus.update(bonus_state, update_key, (assessed.steps, found.payload))
        record, metrics = pieces.updated(state.record, assessed.steps, clock)
        metrics |= found.metrics | {f"bonus/{name}": value for name, value in bonus_metrics.items()} | reward_metrics
        waiting = assessed if overlap else None
        state = state._replace(lanes=play.lanes, memory=play.memory, agent=agent_state, bonus=bonus_state, record=record, waiting=waiting)
        return state, m.typed(metrics)

    def start(state, key, obs):
        now = fresh(obs)
        bonus_state = bonus.reset(state.bonus, jnp.ones(lanes, bool))
        memory, saw, action, _ = choose(state.agent, agent.start(state.agent, lanes), bonus_state, now, key, evaluation_mode)
        return (now, memory, bonus_state, saw, action), action

    def watch(state, carry, key, arrived):
        now, memory, bonus_state, saw, action = carry
        observe_key, act_key = jax.random.split(key)
        now, made = arrive(now, action, arrived)
        bonus_state, made = pieces.observed(bonus_state, observe_key, made, saw)
        memory, saw, action, _ = choose(state.agent, memory, bonus_state, now, act_key, evaluation_mode)
        return (now, memory, bonus_state, saw, action), action, made

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
        augments=bonus.info.augments,
    )
