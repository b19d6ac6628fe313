"""SERENE's archive R of policies that were paid (arXiv 2102.03140), and what is known of those that may become ancestors of emitters."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from exploration.novelty_search import Individuals, doubled, stored

FALLBACK_SIGMA = 0.05


class Rewarding(NamedTuple):
    """R, with room for as many as its arrays are long."""

    who: Individuals
    sigma: jax.Array  # f32[R]; step size of their emitter
    waiting: jax.Array  # bool[R]; a candidate
    rare: jax.Array  # f32[R]; novelty with respect to R when the chunk began
    size: jax.Array  # i32[]


def nobody_pays(nobody: Individuals) -> Rewarding:
    """R without anybody; ``nobody``: as many blank individuals as there is to be room for."""
    zeros = jnp.zeros(nobody.valid.shape, jnp.float32)
    return Rewarding(nobody, zeros, zeros > 0, zeros, jnp.int32(0))


def with_candidates(rewarding: Rewarding, everyone: Individuals, pays: jax.Array) -> Rewarding:
    """R with those of ``everyone`` [N] in it that are paid (bool[N]), as candidates; their step size is a third of the distance to the nearest other genome."""

    def nearest(genome, index):
        squared = jnp.sum(jnp.square(everyone.genomes - genome), axis=-1)
        others = everyone.valid & (jnp.arange(squared.shape[0]) != index)
        return jnp.sqrt(jnp.min(jnp.where(others, squared, jnp.inf)))

    number = everyone.fitness.shape[0]
    apart = jax.lax.map(lambda pair: nearest(*pair), (everyone.genomes, jnp.arange(number)), batch_size=64) / 3
    sigma = jnp.where((apart > 0) & jnp.isfinite(apart), apart, FALLBACK_SIGMA)
    return added_to(rewarding, everyone, pays, sigma, True)


def added_to(rewarding: Rewarding, who: Individuals, enters: jax.Array, sigma: jax.Array | float, waiting: bool) -> Rewarding:
    """R with those of ``who`` [N] in it that enter (bool[N])."""
    room = rewarding.sigma.shape[0]
    place = jnp.where(enters, rewarding.size + jnp.cumsum(enters, dtype=jnp.int32) - 1, room)
    archive, size = stored(rewarding.who, rewarding.size, who, enters)
    sigma = rewarding.sigma.at[place].set(sigma, mode="drop")
    return Rewarding(archive, sigma, rewarding.waiting.at[place].set(waiting, mode="drop"), rewarding.rare, size)


def with_twice_the_room(rewarding: Rewarding) -> Rewarding:
    twice = lambda x: jnp.concatenate([x, jnp.zeros_like(x)])  # noqa: E731
    return Rewarding(doubled(rewarding.who), twice(rewarding.sigma), twice(rewarding.waiting), twice(rewarding.rare), rewarding.size)
