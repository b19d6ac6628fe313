"""Distances to the nearest of the features seen lately: a ring of the last steps of all lanes, and searches in it by brute force.

With ``steps`` as long as the runner's rollout the ring holds, when the rollout is scored, the rollout's own features and nothing else.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

PLAIN = 4  # up to this many dimensions differences are squared one by one, which is exact
BLOCK, MOST = 256, 2**20  # queries compared at a time, and distances: more do not fit into a cache
DIRECT = 16  # up to this many values per wanted one are sorted at once


class Ring(NamedTuple):
    """Features of the last steps, the oldest overwritten first."""

    rows: jax.Array  # f32[steps, N, k]
    written: jax.Array  # i32[]; steps written; from 2 steps back to steps, so it never overflows


def ring(steps: int, lanes: int, width: int) -> Ring:
    """An empty ring."""
    return Ring(jnp.zeros((steps, lanes, width), jnp.float32), jnp.zeros((), jnp.int32))


def push(state: Ring, features: jax.Array) -> Ring:
    """Write one step of all lanes, f32[N, k]."""
    steps = state.rows.shape[0]
    written = state.written + 1
    written = jnp.where(written >= 2 * steps, steps, written)
    return Ring(state.rows.at[state.written % steps].set(features), written)


def nearest(state: Ring, queries: jax.Array, k: int) -> tuple[jax.Array, jax.Array]:
    """Euclidean distances from queries f32[..., width] to their k nearest features in the ring -> (f32[..., k] ascending, valid bool[k]).

    Where the ring holds fewer than k features the last distances are not valid, and 0. A query that is in the ring finds itself, at 0.
    """
    steps, lanes, width = state.rows.shape
    known = jnp.repeat(jnp.arange(steps) < state.written, lanes)
    return nearest_points(state.rows.reshape(-1, width), known, queries, k)


def nearest_points(points: jax.Array, known: jax.Array, queries: jax.Array, k: int) -> tuple[jax.Array, jax.Array]:
    """Euclidean distances from queries f32[..., width] to their k nearest of those points f32[P, width] that are ``known``, bool[P]
    -> (f32[..., k] ascending, valid bool[k]). Where fewer than k are known the last distances are not valid, and 0."""
    number, width = points.shape
    k_found = min(k, number)
    halves = jnp.where(known, 0.5 * jnp.sum(jnp.square(points), axis=-1), jnp.inf)

    def search(query):
        if width <= PLAIN:
            squared = sum(jnp.square(points[:, d] - query[d]) for d in range(width))
            return smallest(jnp.where(known, squared, jnp.inf), k_found)[0]
        scores = halves - points @ query  # half the squared distance, less what is the same for all
        place = smallest(scores, k_found)[1]
        exact = jnp.sum(jnp.square(points[place] - query), axis=-1)  # the scores have lost what is small beside |query|^2
        return jnp.sort(jnp.where(jnp.isinf(halves[place]), jnp.inf, exact))

    found = jax.lax.map(search, queries.reshape(-1, width), batch_size=max(8, min(BLOCK, MOST // number)))
    valid = jnp.arange(k_found) < jnp.sum(known, dtype=jnp.int32)
    distances = jnp.where(valid, jnp.sqrt(jnp.where(valid, found, 0.0)), 0.0)
    room = k - k_found
    distances, valid = jnp.pad(distances, ((0, 0), (0, room))), jnp.pad(valid, (0, room))
    return distances.reshape(*queries.shape[:-1], k), valid


def smallest(values: jax.Array, k: int) -> tuple[jax.Array, jax.Array]:
    """(the k smallest of f32[P], ascending; their places). They lie in the k groups of smallest minima, which are found in the same way, so few values are
    sorted, which is slow on a CPU: P / s + s k with groups of s in one level, the least with s = sqrt(P / k)."""
    number = values.shape[0]
    if number <= DIRECT * k:
        found, place = jax.lax.top_k(-values, k)
        return -found, place
    size = max(2, round((number / k) ** (1 / 2 if number <= DIRECT**2 * k else 1 / 3)))
    groups = -(-number // size)
    # a group is a column, so that minima are taken of whole rows at a time
    grouped = jnp.pad(values, (0, groups * size - number), constant_values=jnp.inf).reshape(size, groups)
    group = smallest(jnp.min(grouped, axis=0), k)[1]
    found, among = jax.lax.top_k(-grouped[:, group].reshape(-1), k)
    return -found, jnp.minimum(among // k * groups + group[among % k], number - 1)


def mean_of_valid(distances: jax.Array, valid: jax.Array) -> jax.Array:
    """Mean of the valid distances f32[..., k] -> f32[...]; 0 without any."""
    return jnp.sum(distances, axis=-1) / jnp.maximum(jnp.sum(valid, dtype=jnp.float32), 1.0)
