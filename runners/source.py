"""``JaxSource``: N lanes of a JAX world, with the auto-reset outside the world so that others can choose where episodes start."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from envs.base import Environment, Lanes, PyTree, Spec, Transition, any_member
from envs.builder import Refusal


class Source(NamedTuple):
    """Where steps come from. ``step`` never resets; ``restart`` does, for the lanes of a mask."""

    init: Callable[[jax.Array], Lanes]  # key -> lanes [N] at fresh starts
    step: Callable[[Lanes, jax.Array, jax.Array], tuple[Lanes, Transition]]  # (lanes, key, action [N]); info has episode_return, episode_length
    restart: Callable  # (lanes, key, mask bool[N], starts=None) -> lanes
    spec: Spec
    temperature: Callable[[Lanes], jax.Array] | None = None  # lanes -> f32[N]; of the policy that explores in them; None: its own


def jax_source(env: Environment, lanes: int, axis: str | None = None, note: PyTree = ()) -> Source:
    """Lanes of ``env``. ``starts`` of ``restart`` are ``Lanes`` [N], as an archive gives them: the episode goes on from there, return,
    length and note included. By default the world's own ``reset`` draws them, and only in steps where some lane of some member
    needs one: for all lanes, or with ``env.costly_reset`` for a few waiting lanes at a time. A lane's start comes from its own key
    either way. ``note`` (un-batched arrays) is what fresh starts are noted with."""
    reset, step_world = jax.vmap(env.reset), jax.vmap(env.step)
    width = max(1, lanes // 128) if env.costly_reset else lanes

    def begin(keys):
        number, (world, obs) = keys.shape[0], reset(keys)
        noted = jax.tree.map(lambda x: jnp.broadcast_to(x, (number, *jnp.shape(x))), note)
        return Lanes(world, obs, jnp.ones(number, bool), jnp.zeros(number, jnp.float32), jnp.zeros(number, jnp.int32), noted)

    def init(key):
        return begin(jax.random.split(key, lanes))

    def step(state, key, action):
        world, new = step_world(state.world, jax.random.split(key, lanes), action)
        reward = new.reward.astype(jnp.float32)
        total, length = state.episode_return + reward, state.episode_length + 1
        info = {**new.info, "episode_return": total, "episode_length": length}
        transition = Transition(state.obs, action, reward, new.obs, new.terminated, new.truncated, state.first, info)
        return Lanes(world, new.obs, jnp.zeros(lanes, bool), total, length, state.note), transition

    def restart(state, key, mask, starts=None):
        def all_at_once(_):
            fresh = init(key) if starts is None else starts
            return jax.tree.map(lambda a, b: jnp.where(mask.reshape(lanes, *[1] * (a.ndim - 1)), a, b), fresh, state)

        def some(carry):
            state, waiting = carry
            at = jnp.nonzero(waiting, size=width, fill_value=lanes)[0]  # out of range where fewer wait
            fresh = begin(jax.random.split(key, lanes)[jnp.minimum(at, lanes - 1)])
            return jax.tree.map(lambda a, b: b.at[at].set(a, mode="drop"), fresh, state), waiting.at[at].set(False, mode="drop")

        if starts is None and width < lanes:
            return jax.lax.while_loop(lambda carry: any_member(carry[1], axis), some, (state, mask))[0]
        return jax.lax.cond(any_member(mask, axis), all_at_once, lambda _: state, None)

    return Source(init, step, restart, env.spec._replace(lanes=lanes, axis=axis))


def where(mask: jax.Array, a: jax.Array, b: jax.Array) -> jax.Array:
    """``a`` [N, ...] in the lanes of ``mask`` bool[N], ``b`` elsewhere."""
    return jnp.where(mask.reshape(-1, *[1] * (max(a.ndim, b.ndim) - 1)), a, b)


def refuse_overlap(env: Environment, overlap: bool) -> None:
    """Raises Refusal: only worlds on the host are stepped beside the learner."""
    if overlap:
        raise Refusal(f"runner.overlap=true is for worlds on the host; {env.spec.name!r} and the learner are one program; leave it at false")
