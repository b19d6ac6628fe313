"""A ring buffer in device memory from which items are drawn in proportion to their priorities (``agents/priorities.py``)."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from agents.priorities import Priorities, draw_places, priorities, set_priorities
from envs.base import Key, PyTree
from exploration.hash_table import check_capacity
from exploration.laws.data import require
from exploration.laws.play import expect


class PriorityBuffer(NamedTuple):
    items: PyTree  # [capacity, ...]
    priority: Priorities  # of each place; 0 where nothing was stored yet
    position: jax.Array  # i32[]; the place of the next item
    size: jax.Array  # i32[]; places in use


def priority_buffer(example: PyTree, capacity: int) -> PriorityBuffer:
    """An empty buffer for items like ``example`` (un-batched arrays), of ``capacity`` places, a power of two."""
    check_capacity(capacity)
    items = jax.tree.map(lambda x: jnp.zeros((capacity, *jnp.shape(x)), jnp.result_type(x)), example)
    return PriorityBuffer(items, priorities(capacity), jnp.zeros((), jnp.int32), jnp.zeros((), jnp.int32))


def add(buffer: PriorityBuffer, items: PyTree, priority: jax.Array | float = 1.0) -> tuple[PriorityBuffer, jax.Array]:
    """Store ``items`` [N, ...], at most ``capacity``, in place of the oldest -> (buffer, their places i32[N])."""
    capacity, number = jax.tree.leaves(buffer.items)[0].shape[0], jax.tree.leaves(items)[0].shape[0]
    places = (buffer.position + jnp.arange(number, dtype=jnp.int32)) & (capacity - 1)
    stored = jax.tree.map(lambda all_items, new: all_items.at[places].set(new), buffer.items, items)
    size = jnp.minimum(buffer.size + number, capacity)
    return PriorityBuffer(stored, set_priorities(buffer.priority, places, priority), (buffer.position + number) & (capacity - 1), size), places


def draw(buffer: PriorityBuffer, key: Key, number: int) -> jax.Array:
    """Places i32[number], each drawn in proportion to its priority, with replacement; 0 from an empty buffer."""
    return draw_places(buffer.priority, key, number)[0]


# --- known answers -----------------------------------------------------------------------------------------------------


def _shares() -> str:
    buffer, places = add(priority_buffer(jnp.zeros((), jnp.int32), 16), jnp.arange(5), jnp.asarray([4.0, 1.0, 0.0, 3.0, 2.0]))
    drawn = jax.jit(draw, static_argnums=2)(buffer, jax.random.PRNGKey(0), 2**16)
    share = np.bincount(np.asarray(drawn), minlength=16) / 2**16
    require(not share[5:].any(), "places where nothing was stored are drawn")
    require(np.allclose(share[:5], [0.4, 0.1, 0.0, 0.3, 0.2], atol=0.01), f"priorities 4, 1, 0, 3, 2 are drawn with shares {share[:5]}")
    return ", ".join(f"{x:.3f}" for x in share[:5])


def _the_oldest_goes_first() -> str:
    buffer = priority_buffer(jnp.zeros((), jnp.int32), 4)
    for n in range(3):
        buffer, places = add(buffer, jnp.asarray([2 * n, 2 * n + 1]))
    require(places.tolist() == [0, 1] and int(buffer.size) == 4, f"six items in four places: the last two went to {places.tolist()}")
    return expect(buffer.items, [4, 5, 2, 3])


KNOWN_ANSWERS = (
    ("items of priorities 4, 1, 0, 3, 2 are drawn with shares .4, .1, 0, .3, .2", _shares),
    ("six items stored in four places leave 4, 5, 2, 3", _the_oldest_goes_first),
)
