"""What learners from a replay share: parts with an Adam of their own, moving averages, losses weighted by sample, and updates once in a while."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from envs.base import PyTree, any_member

ADAM = optax.scale_by_adam()


class Part(NamedTuple):
    """Parameters, and Adam's moments of them."""

    params: PyTree
    optimizer: PyTree


def part(params: PyTree) -> Part:
    return Part(params, ADAM.init(params))


def descend(state: Part, grads: PyTree, learning_rate) -> Part:
    """One step of Adam."""
    updates, optimizer = ADAM.update(grads, state.optimizer)
    return Part(jax.tree.map(lambda p, u: p - (learning_rate * u).astype(p.dtype), state.params, updates), optimizer)


def towards(old: PyTree, new: PyTree, rate) -> PyTree:
    """``rate`` of the way from ``old`` to ``new``."""
    return jax.tree.map(lambda a, b: a + rate * (b - a), old, new)


def mean_of(weights: jax.Array) -> Callable[[jax.Array], jax.Array]:
    """Weighted means of f32[B], divided by the number of samples whose weight is above 0."""
    left = jnp.maximum(jnp.sum(weights > 0), 1).astype(jnp.float32)
    return lambda x: jnp.sum(weights * x) / left


def every(period: int, updates: jax.Array, axis: str | None, improve: Callable, state: PyTree) -> tuple[PyTree, dict]:
    """``improve(state) -> (state, metrics)`` where ``updates`` i32[] is a multiple of ``period``. Its metrics count ``period`` times then and are 0
    otherwise, so that their mean over all updates is right. All members count alike, so a branch stays a branch."""
    if period == 1:
        return improve(state)

    def run(state):
        state, metrics = improve(state)
        return state, {name: period * value for name, value in metrics.items()}

    skipped = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), jax.eval_shape(run, state)[1])
    return jax.lax.cond(any_member(updates % period == 0, axis), run, lambda state: (state, skipped), state)
