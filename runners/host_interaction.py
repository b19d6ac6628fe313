"""An agent among lanes of worlds that live on the host: the counterpart of ``runners/interaction.py``, cut where the worlds step."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from agents.base import Rollout
from envs.base import HostEnvironment, Lanes, PyTree, Transition, sample_action
from runners.base import Arrived, Clock, HostRunner
from runners.iteration import Iteration


class Play(NamedTuple):
    """A rollout in the making: what is made on the device. What the worlds give is gathered on the host (``Steps``)."""

    memory: PyTree
    bonus: PyTree  # () where the state that ``rolled`` is given has it: nothing was observed since
    saw: PyTree  # what the agent saw when it chose the action that is being executed; () where that is the observation
    extras: PyTree
    rows: Any  # (action, extras, note), each [T, N, ...]; written up to here
    keys: jax.Array  # uint32[T, 2, 2]; for observing step t, and for acting after it
    random: jax.Array | tuple  # bool[]; actions are uniformly random; () where they never are


class HostInteraction(NamedTuple):
    """The pieces of a ``HostRunner`` that all runners share. A state has ``key``, ``lanes``, ``memory``, ``agent`` and ``bonus``."""

    fresh: Callable  # obs [N] -> Lanes
    keys: Callable  # (key, clock) -> (rollout, learn, update) of an iteration
    warm: Callable  # (state, key, lanes before, random actions, arrived) -> state
    begin: Callable  # (state, clock) -> (Play, actions)
    advance: Callable  # (agent state, Play, t, lanes before, actions, arrived) -> (Play, actions)
    rolled: Callable  # (state, Play, lanes before, actions, arrived, Steps, last lanes) -> (Play, Rollout as the agent saw it)
    transition: Callable  # (lanes before, actions, arrived) -> Transition [N] of the world
    example: Callable  # obs [N] -> Arrived of those shapes
    shapes: Callable  # state -> shapes of the Rollout
    start: Callable  # (state, key, obs) -> (carry, actions)
    watch: Callable  # (state, carry, key, lanes before, actions, arrived) -> (carry, actions)


def host_interaction(
    env: HostEnvironment,
    pieces: Iteration,
    *,
    lanes: int,
    rollout: int,
    evaluation_mode: str,
    random: Callable[[Clock], jax.Array] | None = None,
    note: PyTree = (),
    temperature: Callable[[PyTree], jax.Array] | None = None,
) -> HostInteraction:
    """For rollouts of ``rollout`` steps of ``lanes`` worlds. ``random``: in which iterations actions are uniformly random. ``note``: numbers that fresh
    lanes are noted with; ``temperature``: notes [N] -> f32[N], of the policy that explores."""
    agent, bonus, augments = pieces.agent, pieces.bonus, pieces.bonus.info.augments

    def fresh(obs) -> Lanes:
        noted = jax.tree.map(lambda x: jnp.broadcast_to(x, (lanes,)), note)
        return Lanes((), obs, jnp.ones(lanes, bool), jnp.zeros(lanes, jnp.float32), jnp.zeros(lanes, jnp.int32), noted)

    def transition(before: Lanes, action, arrived: Arrived) -> Transition:
        total, length = before.episode_return + arrived.reward, before.episode_length + 1
        info = {**arrived.info, "episode_return": total, "episode_length": length}
        ends = (arrived.terminated, arrived.truncated)
        return Transition(env.decode(before.obs), action, arrived.reward, env.decode(arrived.obs), *ends, before.first, info)

    def exploring(note):
        return temperature(note) if temperature else "explore"

    def choose(agent_state, memory, bonus_state, obs, first, key, mode, at_random=()):
        saw = pieces.seen(bonus_state, env.decode(obs))
        memory, action, extras = agent.act(agent_state, key, (memory, saw, first, mode))
        if not isinstance(at_random, tuple):
            uniform = sample_action(env.spec.action, jax.random.fold_in(key, 1), lanes)
            action = jnp.where(at_random, uniform.astype(action.dtype), action)
        return memory, saw if augments else (), action, extras

    def observed(agent_state, bonus_state, key, made: Transition, saw):
        """(bonus state, what is noted of the step: the whole of it where the agent saw more than the worlds gave)."""
        bonus_state, made = pieces.observed(agent_state, bonus_state, key, made, saw if augments else made.obs)
        return bonus_state, made if augments else made.annotations

    def keys(key, clock):
        """(rollout, learn, update) of an iteration."""
        return jax.random.split(jax.random.fold_in(key, clock.iteration), 3)

    def warm(state, key, before, action, arrived):
        bonus_state, _ = bonus.observe(state.bonus, key, pieces.shown(state.agent, transition(before, action, arrived)))
        return state._replace(bonus=bonus.reset(bonus_state, arrived.terminated | arrived.truncated))

    def example(obs: PyTree) -> Arrived:
        """Something of the shapes in which the worlds' steps arrive."""
        flag, number = jnp.zeros(lanes, bool), jnp.zeros(lanes, jnp.float32)
        info = {name: jnp.zeros((lanes, *(space.shape or ())), jax.dtypes.canonicalize_dtype(space.dtype)) for name, space in env.spec.info.items()}
        return Arrived(obs, number, flag, flag, info, obs)

    def row_shapes(state, saw, action, extras):
        def row():
            made = transition(state.lanes, action, example(state.lanes.obs))
            return action, extras, observed(state.agent, state.bonus, state.key, made, saw)[1]

        return jax.eval_shape(row)

    def zeros(shapes, *lead):
        return jax.tree.map(lambda x: jnp.zeros((*lead, *x.shape), x.dtype), shapes)

    def shapes(state):
        """Of a whole rollout."""

        def whole():
            now = state.lanes
            memory, saw, action, extras = choose(state.agent, state.memory, state.bonus, now.obs, now.first, state.key, exploring(now.note))
            made = jax.eval_shape(lambda: transition(state.lanes, action, example(state.lanes.obs)))
            rows = zeros(row_shapes(state, saw, action, extras), rollout)
            steps = rows[2] if augments else zeros(made, rollout)._replace(annotations=rows[2])
            return Rollout(steps, rows[1], state.memory, memory, pieces.seen(state.bonus, env.decode(state.lanes.obs)), state.lanes.first)

        return jax.eval_shape(whole)

    def begin(state, clock):
        step_keys = jax.random.split(keys(state.key, clock)[0], (rollout, 2))  # of observing and acting in every step, made at once
        now, at_random = state.lanes, random(clock) if random else ()
        mode = exploring(now.note)
        memory, saw, action, extras = choose(state.agent, state.memory, state.bonus, now.obs, now.first, step_keys[-1, 1], mode, at_random)
        bonus_state = state.bonus if rollout > 1 else ()  # a copy of what ``rolled`` is given anyway
        return Play(memory, bonus_state, saw, extras, zeros(row_shapes(state, saw, action, extras), rollout), step_keys, at_random), action

    def settle(agent_state, play: Play, t, before: Lanes, action, arrived: Arrived) -> Play:
        """Write step t."""
        bonus_state, note = observed(agent_state, play.bonus, play.keys[t, 0], transition(before, action, arrived), play.saw)
        row = (action, play.extras, note)
        rows = jax.tree.map(lambda all_rows, new: jax.lax.dynamic_update_index_in_dim(all_rows, new, t, 0), play.rows, row)
        return play._replace(bonus=bonus_state, rows=rows)

    def advance(agent_state, play: Play, t, before: Lanes, action, arrived):
        play = settle(agent_state, play, t, before, action, arrived)
        done = arrived.terminated | arrived.truncated
        mode = exploring(arrived.note)
        memory, saw, action, extras = choose(agent_state, play.memory, play.bonus, arrived.following, done, play.keys[t, 1], mode, play.random)
        return play._replace(memory=memory, saw=saw, extras=extras), action

    def rolled(state, play: Play, before: Lanes, action, arrived, given, last: Lanes):
        play = play if rollout > 1 else play._replace(bonus=state.bonus)
        play = settle(state.agent, play, rollout - 1, before, action, arrived)
        actions, extras, notes = play.rows
        if augments:
            steps = notes
        else:
            ends = (given.terminated, given.truncated, given.first)
            steps = Transition(env.decode(given.obs), actions, given.reward, env.decode(given.next_obs), *ends, given.info, notes)
        last_obs = pieces.seen(play.bonus, env.decode(last.obs))
        return play, Rollout(steps, extras, state.memory, play.memory, last_obs, last.first)

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

    return HostInteraction(fresh, keys, warm, begin, advance, rolled, transition, example, shapes, start, watch)


def host_runner(
    env: HostEnvironment, pieces: Iteration, acts: HostInteraction, *, lanes: int, rollout: int, init: Callable, finish: Callable, learn: Callable | None
) -> HostRunner:
    """A runner of ``acts`` with its own ``init``, ``finish`` and, where it overlaps with stepping, ``learn``."""
    bonus = pieces.bonus
    return HostRunner(
        init=init,
        warm=acts.warm if bonus.info.warmup else None,
        warmup=bonus.info.warmup,
        learn=learn,
        begin=acts.begin,
        advance=acts.advance,
        finish=finish,
        start=acts.start,
        watch=acts.watch,
        steps=rollout,
        spec=pieces.spec,
        steps_per_iteration=lanes * rollout,
        env=env,
        agent=pieces.agent,
        augments=bonus.info.augments,
    )
