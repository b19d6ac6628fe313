"""Running statistics: moments of observations and the scale of rewards.

Moments follow the parallel form of Welford's update (Chan et al., 1979); a fresh ``Moments`` has variance 1 and counts for
almost nothing.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from gymnasium import spaces

from envs.base import PyTree
from envs.builder import Refusal


class Moments(NamedTuple):
    count: jax.Array  # f32[]
    mean: PyTree  # f32[shape]
    var: PyTree  # f32[shape]; population variance


class RewardScale(NamedTuple):
    returns: jax.Array  # f32[N]; discounted sum of past rewards per lane
    moments: Moments  # of all those sums


def moments_init(space: spaces.Space | tuple[int, ...] = ()) -> Moments:
    """Moments of elements of ``space`` (or of arrays of that shape)."""
    if isinstance(space, spaces.Dict):
        raise Refusal("agent.normalize_obs=true: observations that are a Dict are not normalised; set agent.normalize_obs=false")
    shape = space if isinstance(space, tuple) else space.shape
    return Moments(jnp.float32(1e-4), jnp.zeros(shape, jnp.float32), jnp.ones(shape, jnp.float32))


def moments_update(moments: Moments, x: jax.Array) -> Moments:
    """``moments`` after seeing ``x`` [..., *shape]."""
    x = x.reshape(-1, *moments.mean.shape).astype(jnp.float32)
    number = jnp.float32(x.shape[0])
    mean = jnp.mean(x, axis=0)
    total = moments.count + number
    delta = mean - moments.mean
    square = moments.var * moments.count + jnp.var(x, axis=0) * number + jnp.square(delta) * moments.count * number / total
    return Moments(total, moments.mean + delta * number / total, square / total)


def std_of(moments: Moments, floor: float = 1e-8) -> jax.Array:
    return jnp.sqrt(moments.var + floor)


def moments_normalize(moments: Moments, x: jax.Array, limit: float) -> jax.Array:
    """(x - mean) / std, clipped to [-limit, limit]."""
    return jnp.clip((x.astype(jnp.float32) - moments.mean) / std_of(moments), -limit, limit)


def reward_scale_init(lanes: int) -> RewardScale:
    return RewardScale(jnp.zeros((lanes,), jnp.float32), moments_init())


def discounted_sums(returns: jax.Array, reward: jax.Array, keep: jax.Array, discount) -> tuple[jax.Array, jax.Array]:
    """R_t = discount * keep_{t-1} * R_{t-1} + r_t over [T, N]; returns (R after the last step, R [T, N]).

    ``keep`` is 1 where the sum goes on after the step, 0 where it restarts.
    """

    def step(carry, inputs):
        reward_t, keep_t = inputs
        total = discount * carry + reward_t
        return keep_t * total, total

    return jax.lax.scan(step, returns, (reward, keep), unroll=16)


def reward_scale_update(scale: RewardScale, reward: jax.Array, done: jax.Array, discount) -> RewardScale:
    """Scale of extrinsic rewards [T, N], as VecNormalize does it: discounted sums restart with the episode."""
    returns, sums = discounted_sums(scale.returns, reward, 1.0 - done.astype(jnp.float32), discount)
    return RewardScale(returns, moments_update(scale.moments, sums))
