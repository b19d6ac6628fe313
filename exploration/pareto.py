"""Selection by several objectives, all maximised: non-dominated fronts and crowding distances (NSGA-II, Deb et al. 2002)."""

from __future__ import annotations

import jax
import jax.numpy as jnp


def fronts(objectives: jax.Array) -> jax.Array:
    """f32[N, m] -> i32[N]: 0 for points that no other dominates, 1 for those that only points of front 0 dominate, and so on. A point
    dominates another if it is nowhere lower and somewhere higher."""
    number = objectives.shape[0]
    higher_or_equal = jnp.all(objectives[:, None] >= objectives[None], axis=-1)
    higher = jnp.any(objectives[:, None] > objectives[None], axis=-1)
    dominates = higher_or_equal & higher  # [i, j]: i dominates j

    def peel(carry):
        rank, left, level = carry
        first = left & ~jnp.any(dominates & left[:, None], axis=0)
        return jnp.where(first, level, rank), left & ~first, level + 1

    ranks, _, _ = jax.lax.while_loop(lambda carry: jnp.any(carry[1]), peel, (jnp.zeros(number, jnp.int32), jnp.ones(number, bool), jnp.int32(0)))
    return ranks


def crowding(objectives: jax.Array, rank: jax.Array) -> jax.Array:
    """f32[N]: over the objectives, the distance between a point's two neighbours of its front as a share of the front's range; infinite at the ends."""
    number = objectives.shape[0]
    places = jnp.arange(number, dtype=jnp.int32)

    def along(values):
        order = jnp.lexsort((values, rank))
        v, r = values[order], rank[order]
        first = jnp.concatenate([jnp.ones(1, bool), r[1:] != r[:-1]])
        last = jnp.concatenate([r[1:] != r[:-1], jnp.ones(1, bool)])
        low = jax.ops.segment_min(values, rank, number)[r]
        span = jax.ops.segment_max(values, rank, number)[r] - low
        gap = jnp.roll(v, -1) - jnp.roll(v, 1)
        sides = jnp.where(first | last, jnp.inf, jnp.where(span > 0, gap / jnp.where(span > 0, span, 1.0), 0.0))
        return jnp.zeros(number, jnp.float32).at[order[places]].set(sides)

    return sum(along(objectives[:, m]) for m in range(objectives.shape[1]))


def best(objectives: jax.Array, count: int) -> jax.Array:
    """i32[count]: places of the best of f32[N, m]. One objective: the highest, earlier places first among equals; several: by front, then by crowding."""
    if objectives.shape[1] == 1:
        return jax.lax.top_k(objectives[:, 0], count)[1].astype(jnp.int32)
    rank = fronts(objectives)
    return jnp.lexsort((-crowding(objectives, rank), rank))[:count].astype(jnp.int32)
