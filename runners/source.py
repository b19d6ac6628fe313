"""``JaxSource``: N lanes of a JAX world, with the auto-reset outside the world so that others can choose where episodes start."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from envs.base import Environment, PyTree, Spec, Transition, any_member


class SourceState(NamedTuple):
    world: PyTree  # [N, ...]; the environment's states
    obs: PyTree  # [N, ...]; to act on next
    first: jax.Array  # bool[N]; obs is the first of its episode
    episode_return: jax.Array  # f32[N]; of the running episodes
    episode_length: jax.Array  # i32[N]


class Source(NamedTuple):
    """Where steps come from. ``step`` never resets; ``restart`` does, for the lanes of a mask."""

    init: Callable  # key -> state
    step: Callable  # (state, key, action [N]) -> (state, Transition [N]); info has episode_return and episode_length so far
    restart: Callable  # (state, key, mask bool[N], starts=None) -> state
    spec: Spec


def jax_source(env: Environment, lanes: int, axis: str | None = None) -> Source:
    """Lanes of ``env``. ``starts`` of ``restart`` are (world states [N], obs [N]), as an archive gives them; by default the
    world's own ``reset`` draws them, and only in steps where some lane of some member needs one."""
    reset, step_world = jax.vmap(env.reset), jax.vmap(env.step)

    def fresh(key):
        return reset(jax.random.split(key, lanes))

    def init(key):
        world, obs = fresh(key)
        return SourceState(world, obs, jnp.ones(lanes, bool), jnp.zeros(lanes, jnp.float32), jnp.zeros(lanes, jnp.int32))

    def step(state, key, action):
        world, new = step_world(state.world, jax.random.split(key, lanes), action)
        reward = new.reward.astype(jnp.float32)
        total, length = state.episode_return + reward, state.episode_length + 1
        info = {**new.info, "episode_return": total, "episode_length": length}
        transition = Transition(state.obs, action, reward, new.obs, new.terminated, new.truncated, state.first, info)
        return SourceState(world, new.obs, jnp.zeros(lanes, bool), total, length), transition

    def restart(state, key, mask, starts=None):
        def place(_):
            world, obs = fresh(key) if starts is None else starts
            begin = SourceState(world, obs, jnp.ones(lanes, bool), jnp.zeros(lanes, jnp.float32), jnp.zeros(lanes, jnp.int32))
            return jax.tree.map(lambda a, b: jnp.where(mask.reshape(lanes, *[1] * (a.ndim - 1)), a, b), begin, state)

        return jax.lax.cond(any_member(mask, axis), place, lambda _: state, None)

    return Source(init, step, restart, env.spec._replace(lanes=lanes, axis=axis))
