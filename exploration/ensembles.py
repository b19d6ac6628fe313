"""Ensembles of networks side by side: one batched product per layer, initialised apart, each learning as if it were alone.

What the members disagree on is what the data do not decide yet: their variance is the epistemic part of the error, and noise that nobody can
predict is not in it. Members that learn from the same samples differ by their initial weights alone; ``shares`` gives each its own.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from envs.base import Key, PyTree


class Ensemble(NamedTuple):
    init: Callable[[Key], PyTree]  # key -> params [members, ...]
    predict: Callable[..., jax.Array]  # (params, inputs [..., in]...) -> f32[members, ..., out]


def ensemble(init: Callable[[Key], PyTree], predict: Callable[..., jax.Array], members: int) -> Ensemble:
    """``members`` copies of a network with the given ``init(key)`` and ``predict(params, *inputs)``."""

    def started(key: Key) -> PyTree:
        return jax.vmap(init)(jax.random.split(key, members))

    def predictions(params: PyTree, *inputs: Any) -> jax.Array:
        return jax.vmap(lambda own: predict(own, *inputs))(params)

    return Ensemble(started, predictions)


def spread(predictions: jax.Array) -> jax.Array:
    """Population variance over members: f32[members, ..., k] -> f32[..., k]."""
    return jnp.var(predictions, axis=0)


def shares(key: Key, samples: int, members: int, share: float) -> jax.Array:
    """Which samples each member learns from, bool[samples, members]: ``share`` of them, drawn for each member apart."""
    return jax.random.uniform(key, (samples, members)) < share


def own_losses(errors: jax.Array, kept: jax.Array) -> jax.Array:
    """Each member's mean over its samples, f32[members], of errors f32[members, B] and kept bool[B, members]. Their sum trains each as if alone."""
    kept = kept.T
    return jnp.sum(jnp.where(kept, errors, 0.0), axis=-1) / jnp.maximum(jnp.sum(kept, axis=-1, dtype=jnp.float32), 1.0)
