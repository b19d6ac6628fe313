"""How new genomes are made of old ones. Genomes are f32[P, G] inside a box."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from gymnasium import spaces

from envs.base import Key
from envs.builder import Refusal


def clipped(genomes: jax.Array, space: spaces.Box) -> jax.Array:
    return jnp.clip(genomes, space.low, space.high)


def standard_normal(key: Key, number: int, space: spaces.Box) -> jax.Array:
    """N(0, 1), clipped to the box (SERENE, TAXONS, STAX)."""
    return clipped(jax.random.normal(key, (number, *space.shape)), space)


def uniform(key: Key, number: int, space: spaces.Box) -> jax.Array:
    """Uniform in the box."""
    return jax.random.uniform(key, (number, *space.shape), minval=space.low, maxval=space.high)


INITIAL = {"normal": standard_normal, "uniform": uniform}


def gaussian(key: Key, parents: jax.Array, sigma: jax.Array | float, space: spaces.Box) -> jax.Array:
    """Every gene plus N(0, sigma^2)."""
    return clipped(parents + sigma * jax.random.normal(key, parents.shape), space)


def iso_line(key: Key, parents: jax.Array, others: jax.Array, iso: jax.Array | float, line: jax.Array | float, space: spaces.Box) -> jax.Array:
    """x + iso N(0, I) + line N(0, 1) (y - x): along the line to another elite (Vassiliades and Mouret, arXiv 1804.03906)."""
    iso_key, line_key = jax.random.split(key)
    along = line * jax.random.normal(line_key, (parents.shape[0], 1)) * (others - parents)
    return clipped(parents + iso * jax.random.normal(iso_key, parents.shape) + along, space)


def genome_space(spec) -> spaces.Box:
    """The box that is searched. Raises Refusal where there is none."""
    if spec.genome is None:
        raise Refusal("this exploration searches over whole policies and needs runner=population with agent=controller or agent=open_loop")
    return spec.genome
