"""Running statistics of bonuses, built on those of the agents: moments of pytrees, and RND's reward-forward filter (arXiv 1810.12894).

Reward-forward filter: per lane R_t = discount R_{t-1} + b_t over *time*, never reset, neither between rollouts nor between
episodes. The reward is b / sqrt(Var[R]) with the running population variance over all R_t so far; no mean is subtracted.

All start without data (count 0, mean 0, variance 1), so the first batch decides alone. The count is a float32: beyond 2^24 batches
it stops growing, which turns the average into a very slowly forgetting one; nothing overflows.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from gymnasium import spaces

from agents.normalizers import Moments, RewardScale, moments_normalize, moments_update, reward_scale_update
from envs.base import PyTree
from exploration.laws.play import expect

ForwardFilter = RewardScale  # returns f32[N] of each lane; moments of all R_t of all lanes


def _is_moments(node: PyTree) -> bool:
    return isinstance(node, Moments)


def moments(example: PyTree) -> PyTree:
    """``Moments`` without data for every leaf of ``example``, of that leaf's shape. ``standardize`` starts as the identity."""
    zero = jnp.zeros((), jnp.float32)
    return jax.tree.map(lambda x: Moments(zero, jnp.zeros(jnp.shape(x), jnp.float32), jnp.ones(jnp.shape(x), jnp.float32)), example)


def update_moments(state: PyTree, batch: PyTree) -> PyTree:
    """Take in ``batch``; the axes that its leaves have in front of the example's run over samples."""
    return jax.tree.map(moments_update, state, batch, is_leaf=_is_moments)


def standardize(state: PyTree, values: PyTree, limit: jax.Array | float) -> PyTree:
    """(values - mean) / std, clipped to +-``limit``; the shapes of ``values``, f32."""
    return jax.tree.map(lambda m, x: moments_normalize(m, x, limit), state, values, is_leaf=_is_moments)


def deviation(state: Moments) -> jax.Array:
    """Standard deviation f32[] of scalar moments; 1 as long as the values seen do not differ."""
    differ = (state.count > 1.0) & (state.var > 1e-10 * jnp.square(state.mean))
    return jnp.where(differ, jnp.sqrt(jnp.where(differ, state.var, 1.0)), 1.0)


def forward_filter(lanes: int) -> ForwardFilter:
    return ForwardFilter(jnp.zeros((lanes,), jnp.float32), moments(jnp.zeros(())))


def update_forward_filter(state: ForwardFilter, rewards: jax.Array, discount: jax.Array | float) -> ForwardFilter:
    """Run the filter over ``rewards`` f32[T, N], in time order; divide by ``deviation(state.moments)`` afterwards.

    Raises ValueError for rewards without a time axis, as a batch drawn from a replay has them: the filter would give nonsense.
    """
    if rewards.ndim != 2 or rewards.shape[1:] != state.returns.shape:
        raise ValueError(f"the reward-forward filter learns from rewards [T, {state.returns.shape[0]}] in time order, not from {rewards.shape}")
    return reward_scale_update(state, rewards, jnp.zeros(rewards.shape, bool), discount)


def lead_ndim(space: spaces.Space, obs: PyTree) -> int:
    """How many leading axes (time, lanes, ...) ``obs`` has over the un-batched ``space``."""
    if isinstance(space, spaces.Dict):
        name = next(iter(space.spaces))
        return lead_ndim(space[name], obs[name])
    return jnp.ndim(obs) - len(space.shape)


# --- known answers -----------------------------------------------------------------------------------------------------


def _the_filter_runs_over_time_and_never_resets() -> str:
    sums, state, found = [1.0, 1.99, 2.9701, 3.940399, 4.90099501], forward_filter(1), []
    for steps in (1, 1, 1, 2):  # rollouts; the sum goes on from one to the next
        state = update_forward_filter(state, jnp.ones((steps, 1)), 0.99)
        found.append(state.returns[0])
    expect(deviation(state.moments), np.std(sums), rtol=1e-5)
    return expect(found, [*sums[:3], sums[4]], rtol=1e-6)


KNOWN_ANSWERS = (
    ("reward-forward filter, discount 0.99, rewards of 1: 1, 1.99, 2.9701, and two steps on 4.901", _the_filter_runs_over_time_and_never_resets),
)
