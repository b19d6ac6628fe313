"""An agent among N lanes of a JAX world: the step that every runner of such worlds makes, warming up, watching, and evaluating."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from envs.base import any_member, sample_action
from runners.iteration import EVALUATION_LIMIT, Iteration, evaluation_metrics
from runners.source import Source


class Interaction(NamedTuple):
    """A carry is (lanes, memory, bonus state). ``state`` has ``agent`` and ``bonus``."""

    interact: Callable  # (agent state, mode, random=False) -> scan body (carry, key) -> (carry, (transition as the agent saw it, extras))
    warm_up: Callable  # (key, agent state, lanes, bonus state) -> (lanes, bonus state)
    start: Callable  # (state, key) -> carry: worlds of their own, to be watched
    watch: Callable  # (state, carry, key) -> (carry, transition); neither agent nor bonus learn
    evaluate: Callable  # (state, key) -> metrics of one episode per lane


def interaction(source: Source, pieces: Iteration, evaluation_mode: str) -> Interaction:
    """For ``pieces`` in ``source``'s lanes; ``evaluation_mode`` is the mode of ``watch`` and ``evaluate``."""
    agent, bonus, spec = pieces.agent, pieces.bonus, pieces.spec
    lanes = spec.lanes

    def interact(agent_state, mode, random: jax.Array | bool = False):
        def one(carry, key):
            lanes_now, memory, bonus_state = carry
            act_key, step_key, observe_key, reset_key = jax.random.split(key, 4)
            obs = pieces.seen(bonus_state, lanes_now.obs)
            width = source.temperature(lanes_now) if source.temperature and mode == "explore" else mode
            memory, action, extras = agent.act(agent_state, act_key, (memory, obs, lanes_now.first, width))
            if random is not False:
                uniform = sample_action(spec.action, jax.random.fold_in(act_key, 1), lanes)
                action = jnp.where(random, uniform.astype(action.dtype), action)
            lanes_now, transition = source.step(lanes_now, step_key, action)
            bonus_state, transition = pieces.observed(agent_state, bonus_state, observe_key, transition, obs)
            lanes_now = source.restart(lanes_now, reset_key, transition.done)
            return (lanes_now, memory, bonus_state), (transition, extras)

        return one

    def warm_up(key, agent_state, lanes_now, bonus_state):
        """Random steps that only the bonus observes (RND's observation statistics); not counted as training steps."""

        def one(carry, key):
            lanes_now, bonus_state = carry
            act_key, step_key, observe_key, reset_key = jax.random.split(key, 4)
            lanes_now, transition = source.step(lanes_now, step_key, sample_action(spec.action, act_key, lanes))
            bonus_state, _ = bonus.observe(bonus_state, observe_key, pieces.shown(agent_state, transition))
            bonus_state = bonus.reset(bonus_state, transition.done)
            return (source.restart(lanes_now, reset_key, transition.done), bonus_state), None

        if not bonus.info.warmup:
            return lanes_now, bonus_state
        return jax.lax.scan(one, (lanes_now, bonus_state), jax.random.split(key, bonus.info.warmup))[0]

    def start(state, key):
        return source.init(key), agent.start(state.agent, lanes), bonus.reset(state.bonus, jnp.ones(lanes, bool))

    def watch(state, carry, key):
        carry, (transition, _) = interact(state.agent, evaluation_mode)(carry, key)
        return carry, transition

    def evaluate(state, key):
        """Episodes that outlast the limit are cut."""
        limit = spec.max_steps or EVALUATION_LIMIT
        world_key, loop_key = jax.random.split(key)

        def unfinished(loop):
            return (loop[0] < limit) & any_member(~loop[2], spec.axis)

        def advance(loop):
            t, carry, finished, returns, lengths = loop
            carry, transition = watch(state, carry, jax.random.fold_in(loop_key, t))
            returns = jnp.where(finished, returns, transition.info["episode_return"])
            lengths = jnp.where(finished, lengths, transition.info["episode_length"])
            return t + 1, carry, finished | transition.done, returns, lengths

        zero = (jnp.int32(0), start(state, world_key), jnp.zeros(lanes, bool), jnp.zeros(lanes, jnp.float32), jnp.zeros(lanes, jnp.int32))
        _, _, _, returns, lengths = jax.lax.while_loop(unfinished, advance, zero)
        return evaluation_metrics(returns, lengths, spec)

    return Interaction(interact, warm_up, start, watch, evaluate)
