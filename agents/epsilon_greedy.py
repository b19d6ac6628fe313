"""Epsilon-greedy actions whose epsilon falls with the number of updates, and temporally extended ones, which hold a random action for a while.

Plain: in every step, a uniform action with probability epsilon. Extended (Dabney et al., arXiv 2006.01782): with probability epsilon a uniform
action is begun, which is held for n steps, P(n) proportional to n^-mu, n <= ``cap``, or until the episode ends.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp


class Held(NamedTuple):
    """The random action that a lane holds on to."""

    action: jax.Array  # i32[N], from 0
    left: jax.Array  # i32[N]; steps that it is still to be taken


def epsilon_at(updates: jax.Array, start: Any, end: Any, over: Any) -> jax.Array:
    """Linear from ``start`` to ``end`` over the first ``over`` updates, f32[]."""
    done = jnp.clip(updates.astype(jnp.float32) / jnp.maximum(jnp.asarray(over, jnp.float32), 1e-6), 0.0, 1.0)
    return start + (end - start) * done


def durations(key: jax.Array, number: int, exponent: Any, cap: int) -> jax.Array:
    """i32[number] in [1, cap] with P(n) proportional to n^-exponent."""
    chance = jnp.arange(1, cap + 1, dtype=jnp.float32) ** -jnp.asarray(exponent, jnp.float32)
    below = jnp.cumsum(chance)
    drawn = jnp.searchsorted(below, jax.random.uniform(key, (number,)) * below[-1], side="right").astype(jnp.int32)
    return jnp.minimum(drawn + 1, cap)


def epsilon_greedy(key: jax.Array, greedy: jax.Array, epsilon: Any, actions: int) -> jax.Array:
    """Actions i32[N] from 0."""
    when, which = jax.random.split(key)
    random = jax.random.uniform(when, greedy.shape) < epsilon
    return jnp.where(random, jax.random.randint(which, greedy.shape, 0, actions), greedy)


def extended(held: Held, key: jax.Array, greedy: jax.Array, first: jax.Array, epsilon: Any, actions: int, exponent: Any, cap: int) -> tuple[Held, jax.Array]:
    """(held [N], actions i32[N] from 0)."""
    when, which, how_long = jax.random.split(key, 3)
    left = jnp.where(first, 0, held.left)
    begins = (left == 0) & (jax.random.uniform(when, greedy.shape) < epsilon)
    action = jnp.where(begins, jax.random.randint(which, greedy.shape, 0, actions), held.action)
    left = jnp.where(begins, durations(how_long, greedy.shape[0], exponent, cap), left)
    return Held(action, jnp.maximum(left - 1, 0)), jnp.where(left > 0, action, greedy)
