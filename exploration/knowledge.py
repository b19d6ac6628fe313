"""Domain knowledge of games: cells that say where the player is, and the weights of their neighbours ("First return, then explore", arXiv 2004.12919).

A cell is (level, room, things carried, column, row), read from the console's memory (addresses: AtariARI, arXiv 1906.08226; the published cells are read from
the picture), packed into its fingerprint, so that the cells beside it can be looked up. Squares are 16 pixels of the published, twice as wide, picture.
A cell weighs::

    low_level^(highest level - level) x [horizontal x (cells missing to the left and right) + vertical x (missing above and below)
        + fewer x (1 where no cell at this place carries fewer things) + more x (1 where none carries more) + what its counters weigh]

A neighbour has the same level and things. At the edge of a room it is in the next one; where there is no next room, none is missing. Montezuma's
Revenge has a pyramid of 24 rooms; of Pitfall's 255, the next is one step of an 8-bit shift register further, three in the tunnel.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from envs.builder import Refusal, closest
from exploration.hash_table import HashTable, lookup
from exploration.laws.play import expect

PYRAMID = (3, 5, 7, 9)  # rooms of each row, numbered from the top left; rows are centred
WIDTH, HEIGHT = 8, 16  # of a square, in the console's units
LEFT, RIGHT, UP, DOWN = range(4)


class Known(NamedTuple):
    """A game. Addresses are of the console's memory; None: there is no such thing."""

    level: int | None
    room: int
    things: int | None  # a bit for each thing
    x: int
    y: int
    columns: tuple[int, int]  # of a room, first and last
    rows: tuple[int, int]
    up: int  # what a row upwards adds
    beside: Callable  # (room, row, side) -> the room there, -1: none


class Weights(NamedTuple):
    horizontal: float | jax.Array
    vertical: float | jax.Array
    fewer: float | jax.Array
    more: float | jax.Array
    low_level: float | jax.Array

    def matter(self) -> bool:
        """Whether any cell may weigh otherwise than without them."""
        return any(isinstance(weight, jax.Array) or weight != plain for weight, plain in zip(self, NO_WEIGHTS, strict=True))


NO_WEIGHTS = Weights(0.0, 0.0, 0.0, 0.0, 1.0)


def pyramid() -> np.ndarray:
    """i32[24, 4]: the rooms beside each room; -1: none."""
    at = {}
    for row, width in enumerate(PYRAMID):
        for n in range(width):
            at[row, (max(PYRAMID) - width) // 2 + n] = len(at)
    moves = {LEFT: (0, -1), RIGHT: (0, 1), UP: (-1, 0), DOWN: (1, 0)}
    return np.int32([[at.get((row + moves[side][0], column + moves[side][1]), -1) for side in range(4)] for row, column in at])


def beside_in_pyramid(room, row, side: int):
    rooms = jnp.asarray(pyramid())
    return jnp.where(room < len(rooms), rooms[jnp.minimum(room, len(rooms) - 1), side], -1)


def shifted(room, back: bool):
    """The room a screen further to the right, or with ``back`` to the left, on the ground of Pitfall: a step of the shift register."""
    if back:
        return (room >> 1) | (((room ^ (room >> 4) ^ (room >> 5) ^ (room >> 6)) & 1) << 7)
    return ((room << 1) & 255) | (((room >> 7) ^ (room >> 5) ^ (room >> 4) ^ (room >> 3)) & 1)


def beside_in_jungle(room, row, side: int):
    if side in (UP, DOWN):
        return jnp.full_like(room, -1)
    once = shifted(room, side == LEFT)
    tunnel = (row >= 4) & (row < 8)  # rows 2 and 5 are the ground and the floor of the tunnel
    return jnp.where(tunnel, shifted(shifted(once, side == LEFT), side == LEFT), once)


KNOWLEDGE = {
    "montezuma_revenge": Known(57, 3, 65, 42, 43, (0, 18), (8, 15), 1, beside_in_pyramid),
    "pitfall": Known(None, 1, None, 97, 105, (1, 18), (0, 15), -1, beside_in_jungle),
}


def known_of(name: str) -> Known:
    """Raises Refusal for a world of which nothing is known."""
    if name not in KNOWLEDGE:
        raise Refusal(f"exploration.cell=knowledge: nothing is known of {name!r}{closest(name, KNOWLEDGE)}; use exploration.cell=downscaled")
    return KNOWLEDGE[name]


def read(known: Known, look: Callable) -> bytes:
    """The cell that the player of a ``HostWorld`` is in, as a fingerprint."""
    ram = look("ram")
    level, things = (0 if at is None else int(ram[at]) for at in (known.level, known.things))
    return np.asarray(packed(level, int(ram[known.room]), things, int(ram[known.x]) // WIDTH, int(ram[known.y]) // HEIGHT), np.uint32).tobytes()


def packed(level, room, things, column, row) -> tuple:
    """The two words of a fingerprint."""
    return (room << 16) | (column << 8) | row, (level << 16) | things


def weighted(known: Known, weights: Weights, table: HashTable, keys: jax.Array, there: jax.Array, counted: jax.Array) -> jax.Array:
    """What cells with the fingerprints ``keys`` u32[C, 2] weigh, f32[C], where what their counters weigh is ``counted``; those that are not ``there``,
    a mask, have no place: they weigh what they are counted, as of the first level."""
    words = jnp.where(there[:, None], keys, 0).astype(jnp.int32)
    room, column, row = words[:, 0] >> 16, (words[:, 0] >> 8) & 255, words[:, 0] & 255
    level, things = words[:, 1] >> 16, words[:, 1] & 0xFFFF

    def missing(side: int) -> jax.Array:
        at, steps = (row, (known.up if side == UP else -known.up)) if side in (UP, DOWN) else (column, 1 if side == RIGHT else -1)
        low, high = known.rows if side in (UP, DOWN) else known.columns
        inside = (at + steps >= low) & (at + steps <= high)
        beyond = known.beside(room, row, side)
        there_at = jnp.where(inside, at + steps, low if steps > 0 else high)
        to = (column, there_at) if side in (UP, DOWN) else (there_at, row)
        asked = jnp.stack(packed(level, jnp.where(inside, room, beyond), things, *to), axis=-1).astype(jnp.uint32)
        return (inside | (beyond >= 0)) & (lookup(table, asked) < 0)

    place = jnp.where(there, (level << 24) | words[:, 0], -1)
    order = jnp.argsort(place)
    group = jnp.zeros_like(order).at[order].set(jnp.cumsum(jnp.diff(place[order], prepend=place[order][:1]) != 0))
    number = jax.lax.population_count(things)
    least = jax.ops.segment_min(number, group, num_segments=len(group))[group]
    most = jax.ops.segment_max(number, group, num_segments=len(group))[group]
    sides = weights.horizontal * (missing(LEFT) + 0.0 + missing(RIGHT)) + weights.vertical * (missing(UP) + 0.0 + missing(DOWN))
    carried = weights.fewer * (number <= least) + weights.more * (number >= most)
    below = jnp.max(jnp.where(there, level, 0)) - level
    return jnp.power(jnp.float32(weights.low_level), below.astype(jnp.float32)) * (jnp.where(there, sides + carried, 0.0) + counted)


# --- known answers -----------------------------------------------------------------------------------------------------


def _rooms_of_the_jungle() -> str:
    rooms, room = set(), 196
    while room not in rooms:
        rooms.add(room)
        room = shifted(room, False)
    back = all(shifted(shifted(room, False), True) == room for room in rooms)
    through = beside_in_jungle(jnp.int32([196, 196, 56]), jnp.int32([2, 5, 5]), RIGHT), beside_in_jungle(jnp.int32([196]), jnp.int32([5]), LEFT)
    return expect([len(rooms), back, *through[0], *through[1]], [255, 1, 137, 37, 196, 56])


def _rooms_of_the_pyramid() -> str:
    return expect(pyramid()[[0, 1, 2, 9, 15]], [[-1, 1, -1, 4], [0, 2, -1, 5], [1, -1, -1, 6], [8, 10, 3, 17], [-1, 16, -1, -1]])


KNOWN_ANSWERS = (
    ("Pitfall's 255 rooms are a ring; from the first, 196, it is 137 to the right, in the tunnel 37, and 56 to the left in the tunnel", _rooms_of_the_jungle),
    ("Montezuma's room 1 has 0 left, 2 right and 5 below; 9 has 3 above; 15 has 16 to the right and nothing below", _rooms_of_the_pyramid),
)
