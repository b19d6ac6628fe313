"""Novelty: the mean distance to the k nearest descriptors seen before (Lehman and Stanley, Evolutionary Computation 19(2), 2011).

    rho(x) = 1/k sum_{i=1..k} || b(x) - b(mu_i) ||,    mu_i the nearest of a reference set

Where the query is part of the reference set its own distance, 0, comes first and is left out (``among``: ``exclude_self``); where it is not, nothing may be
left out. With fewer than k others it is the mean over those there are; without any it is 0.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from exploration.neighbours import mean_of_valid, nearest_points


def novelty(queries: jax.Array, points: jax.Array, known: jax.Array, k: int, exclude_self: bool) -> jax.Array:
    """f32[Q] of queries f32[Q, d] among the points f32[P, d] that are ``known``, bool[P]. ``exclude_self``: each query is one of the known points."""
    distances, valid = nearest_points(points, known, queries, k + exclude_self)
    start = int(exclude_self)
    return mean_of_valid(distances[..., start:], valid[start:])


def local_competition(queries: jax.Array, fitness: jax.Array, points: jax.Array, scores: jax.Array, known: jax.Array, k: int) -> jax.Array:
    """How many of the k nearest others have a lower fitness (Lehman and Stanley, GECCO 2011), i32[Q]. Each query is one of the known points;
    ``fitness`` f32[Q], ``scores`` f32[P]."""

    def one(query, own):
        squared = jnp.where(known, jnp.sum(jnp.square(points - query), axis=-1), jnp.inf)
        far, place = jax.lax.top_k(-squared, min(k + 1, points.shape[0]))
        return jnp.sum((scores[place[1:]] < own) & jnp.isfinite(far[1:]), dtype=jnp.int32)

    return jax.lax.map(lambda pair: one(*pair), (queries, fitness), batch_size=256)
