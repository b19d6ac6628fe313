"""What is kept of an episode for a descriptor that is not the world's own: pictures, or the signature of its path.

A *watch* is a function of a world and the longest episode, (Environment, limit) -> ``Watcher``; whoever runs episodes calls its functions at every step.

Signature of order m of a path X in R^d (thesis of Paolo, 2203.01027; Lyons 1998): the iterated integrals of levels 1 to m,

    S_l[i_1 ... i_l] = integral over t_1 < ... < t_l of dX^{i_1} ... dX^{i_l},

d + d^2 + ... + d^m numbers. A straight piece D has S_l = D x ... x D / l!, and pieces are put together by Chen's identity, S_l(ab) = sum_k S_k(a) x S_{l-k}(b).
They do not change with the speed of the path, nor where it goes back on itself; with ``time`` as one more channel they do.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from envs.base import Environment, PyTree
from envs.builder import Refusal


class Watcher(NamedTuple):
    begin: Callable[[PyTree, PyTree], PyTree]  # (world state, obs) at the start -> carry
    step: Callable[[PyTree, jax.Array, PyTree, PyTree], PyTree]  # (carry, number of the step from 0, world state, obs) after it -> carry
    outcome: Callable[[PyTree], jax.Array]  # carry -> what is kept


def pictures(frames: int, side: int) -> Callable[[Environment, int], Watcher]:
    """u8[frames, side, side, 3], drawn at evenly spaced steps of which the limit is the last; where the episode ended before, its last picture is repeated."""

    def watch(env, limit):
        times = np.ceil(np.linspace(0, limit - 1, frames + 1))[1:].astype(np.int32)
        draw = drawn(env, side)

        def begin(world, obs):
            return jax.tree.map(lambda x: jnp.broadcast_to(x, (frames, *jnp.shape(x))), world)

        def step(kept, number, world, obs):
            late = number <= times  # until its time every picture follows the world
            return jax.tree.map(lambda old, new: jnp.where(late.reshape(-1, *[1] * jnp.ndim(new)), new, old), kept, world)

        return Watcher(begin, step, jax.vmap(draw))

    return watch


def drawn(env: Environment, side: int) -> Callable[[PyTree], jax.Array]:
    """World state -> u8[side, side, 3], by averages over blocks of the world's own picture. Raises Refusal for worlds that compiled code cannot draw."""
    state = jax.eval_shape(lambda: env.reset(jax.random.PRNGKey(0))[0])
    try:
        whole = jax.eval_shape(env.render, state)
        assert whole.shape[0] == whole.shape[1] and whole.shape[0] % side == 0 and whole.dtype == jnp.uint8
    except Exception:  # whatever a world's own drawing does with what is not a number
        line = f"descriptors of pictures need a world that compiled code draws in {side} pixels or a multiple; {env.spec.name!r} is none; try env=point2d"
        raise Refusal(line) from None
    block = whole.shape[0] // side

    def smaller(state):
        image = env.render(state)
        if block == 1:
            return image
        return jnp.round(jnp.mean(image.reshape(side, block, side, block, 3).astype(jnp.float32), axis=(1, 3))).astype(jnp.uint8)

    return smaller


def signature(order: int, time: bool) -> Callable[[Environment, int], Watcher]:
    """f32[size_of(d, order)] of the path of observations, flattened; ``time``: the share of the longest episode is one more channel, the first."""

    def watch(env, limit):
        width = math.prod(env.spec.observation.shape) + time

        def point(number, obs):
            at = obs.reshape(-1).astype(jnp.float32)
            return jnp.concatenate([jnp.asarray(number, jnp.float32)[None] / limit, at]) if time else at

        def begin(world, obs):
            return [jnp.zeros((width,) * level, jnp.float32) for level in range(1, order + 1)], point(0, obs)

        def step(carry, number, world, obs):
            levels, before = carry
            now = point(number + 1, obs)
            return joined(levels, piece(now - before, order)), now

        return Watcher(begin, step, lambda carry: jnp.concatenate([level.reshape(-1) for level in carry[0]]))

    return watch


def size_of(width: int, order: int) -> int:
    return sum(width**level for level in range(1, order + 1))


def piece(step: jax.Array, order: int) -> list[jax.Array]:
    """Levels 1 to ``order`` of a straight piece f32[d]."""
    levels = [step]
    for level in range(2, order + 1):
        levels.append(levels[-1][..., None] * step / level)
    return levels


def joined(first: list[jax.Array], then: list[jax.Array]) -> list[jax.Array]:
    """Levels of one path after another, by Chen's identity; level 0 is 1."""
    made = []
    for level in range(1, len(first) + 1):
        total = first[level - 1] + then[level - 1]
        for k in range(1, level):
            total = total + jnp.tensordot(first[k - 1], then[level - k - 1], axes=0)
        made.append(total)
    return made
