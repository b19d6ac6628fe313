"""Priorities of the places of a buffer, from which places are drawn in proportion (Schaul et al., arXiv 1511.05952, equation 1).

Priorities lie in blocks of about sqrt(places), whose sums are kept. A draw takes a block by the prefix sums of the blocks' sums, the unit
interval cut into as many strata as there are draws, and then a place of the block by a number of its own. So every place is drawn with
probability priority / sum of all, and no prefix sum runs over so many places that float32 would lose small priorities. Changing a priority
adds its block anew, so sums do not drift. Both cost O(sqrt(places)) per place.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from envs.base import Key


class Priorities(NamedTuple):
    value: jax.Array  # f32[blocks, width]; 0 is never drawn
    block: jax.Array  # f32[blocks]; the sum of each

    @property
    def flat(self) -> jax.Array:
        """By place, f32[blocks x width]."""
        return self.value.reshape(-1)


def priorities(places: int) -> Priorities:
    """Of at least ``places`` places, all 0."""
    width = 1 << (places.bit_length() // 2)
    blocks = -(-places // width)
    return Priorities(jnp.zeros((blocks, width), jnp.float32), jnp.zeros((blocks,), jnp.float32))


def set_priorities(state: Priorities, places: jax.Array, value: jax.Array | float) -> Priorities:
    """Give places i32[B] new priorities f32[B]; places outside are dropped, of equal ones any one stays."""
    blocks, width = state.value.shape
    at = jnp.where((places >= 0) & (places < blocks * width), places // width, blocks)
    new = state.value.at[at, places % width].set(value, mode="drop")
    sums = jnp.sum(new.at[at].get(mode="clip"), axis=-1)
    return Priorities(new, state.block.at[at].set(sums, mode="drop"))


def draw_places(state: Priorities, key: Key, number: int) -> tuple[jax.Array, jax.Array]:
    """(places i32[number], the probability f32[number] that a draw gives each); with replacement. Where all are 0: places 0, probability 0."""
    blocks, width = state.value.shape
    block_key, place_key = jax.random.split(key)
    strata = (jnp.arange(number, dtype=jnp.float32) + jax.random.uniform(block_key, (number,))) / number
    sums = jnp.cumsum(state.block)
    last = jnp.max(jnp.where(state.block > 0, jnp.arange(blocks, dtype=jnp.int32), 0))  # rounding must not draw beyond it
    block = jnp.minimum(jnp.searchsorted(sums, strata * sums[-1], side="right").astype(jnp.int32), last)
    values = state.value[block]
    inside = jnp.cumsum(values, axis=1)
    wanted = jax.random.uniform(place_key, (number, 1)) * inside[:, -1:]
    ends = jnp.max(jnp.where(values > 0, jnp.arange(width, dtype=jnp.int32), 0), axis=1)
    item = jnp.minimum(jnp.sum(inside <= wanted, axis=1, dtype=jnp.int32), ends)
    chosen = jnp.take_along_axis(values, item[:, None], axis=1)[:, 0]
    return block * width + item, chosen / jnp.maximum(sums[-1], 1e-30)
