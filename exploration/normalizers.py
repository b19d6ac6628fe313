"""Running statistics: moments of pytrees, and the reward-forward filter of RND (arXiv 1810.12894).

Moments (parallel Welford): with n values of mean m and variance v so far, and a batch of n', m', v',

    d = m' - m,   m <- m + d n'/(n+n'),   v <- (n v + n' v')/(n+n') + d^2 n n'/(n+n')^2

Reward-forward filter: per lane R_t = discount R_{t-1} + b_t over *time*, never reset, neither between rollouts nor between
episodes. The reward is b / sqrt(Var[R]) with the running population variance over all R_t so far; no mean is subtracted.

The count is a float32. Beyond 2^24 batches it stops growing, which turns the average into a very slowly forgetting one; nothing
overflows. Variances are stored, not sums of squares, for the same reason.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from gymnasium import spaces

from envs.base import PyTree


class Moments(NamedTuple):
    """Running mean and population variance of every element of a pytree."""

    count: jax.Array  # f32[]
    mean: PyTree  # f32, element shapes
    var: PyTree  # f32, element shapes; 1 before the first batch


def moments(example: PyTree) -> Moments:
    """No data yet: mean 0, variance 1, so that ``standardize`` starts as the identity. ``example`` gives the shapes."""
    return Moments(
        count=jnp.zeros((), jnp.float32),
        mean=jax.tree.map(lambda x: jnp.zeros(jnp.shape(x), jnp.float32), example),
        var=jax.tree.map(lambda x: jnp.ones(jnp.shape(x), jnp.float32), example),
    )


def update_moments(state: Moments, batch: PyTree, lead_ndim: int) -> Moments:
    """Take in ``batch``, whose first ``lead_ndim`` axes run over samples."""
    axes = tuple(range(lead_ndim))
    lead = jax.tree.leaves(batch)[0].shape[:lead_ndim]
    added = 1.0
    for size in lead:
        added *= size
    total = state.count + added
    share = added / total
    batch = jax.tree.map(lambda x: x.astype(jnp.float32), batch)
    batch_mean = jax.tree.map(lambda x: jnp.mean(x, axes), batch)
    batch_var = jax.tree.map(lambda x: jnp.var(x, axes), batch)
    mean = jax.tree.map(lambda m, new: m + (new - m) * share, state.mean, batch_mean)
    var = jax.tree.map(
        lambda v, m, new_v, new_m: v * (1.0 - share) + new_v * share + jnp.square(new_m - m) * (share * (1.0 - share)),
        state.var, state.mean, batch_var, batch_mean,
    )  # fmt: skip
    return Moments(total, mean, var)


def standardize(state: Moments, values: PyTree, lead_ndim: int, clip: jax.Array | float) -> PyTree:
    """(values - mean) / std, clipped to +-``clip``; the shapes of ``values``."""

    def one(value, mean, var):
        lead = (1,) * lead_ndim
        scaled = (value.astype(jnp.float32) - mean.reshape(lead + mean.shape)) * jax.lax.rsqrt(var + 1e-8).reshape(lead + var.shape)
        return jnp.clip(scaled, -clip, clip)

    return jax.tree.map(one, values, state.mean, state.var)


def deviation(state: Moments) -> jax.Array:
    """Standard deviation f32[] of scalar moments; 1 as long as the values seen do not differ."""
    differ = (state.count > 1.0) & (state.var > 1e-10 * jnp.square(state.mean))
    return jnp.where(differ, jnp.sqrt(jnp.where(differ, state.var, 1.0)), 1.0)


class ForwardFilter(NamedTuple):
    """State of the reward-forward filter."""

    returns: jax.Array  # f32[N]; R of each lane
    moments: Moments  # of all R_t of all lanes


def forward_filter(lanes: int) -> ForwardFilter:
    return ForwardFilter(jnp.zeros((lanes,), jnp.float32), moments(jnp.zeros(())))


def update_forward_filter(state: ForwardFilter, rewards: jax.Array, discount: jax.Array | float) -> ForwardFilter:
    """Run the filter over ``rewards`` f32[T, N], in time order; divide by ``deviation(state.moments)`` afterwards."""

    def step(returns, reward):
        returns = discount * returns + reward
        return returns, returns

    last, all_returns = jax.lax.scan(step, state.returns, rewards)
    return ForwardFilter(last, update_moments(state.moments, all_returns, 2))


def lead_ndim(space: spaces.Space, obs: PyTree) -> int:
    """How many leading axes (time, lanes, ...) ``obs`` has over the un-batched ``space``."""
    if isinstance(space, spaces.Dict):
        name = next(iter(space.spaces))
        return lead_ndim(space[name], obs[name])
    return jnp.ndim(obs) - len(space.shape)
