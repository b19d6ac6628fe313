"""MultiRoom: a chain of rooms with closed doors; the goal is in the last one.

minigrid places room after room, trying each next one at most eight times, and starts over when a chain ends early. The same is done here
in one loop whose every turn tries one room, so the distribution of the chains is the same.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from envs.minigrid.core import CLOSED, DOOR, GOAL_CELL, NOTHING, WALL_CELL, Level, cell
from envs.minigrid.draft import Draft

SIDE, SMALLEST, TRIES = 25, 4, 8


class Chain(NamedTuple):
    """Rooms placed so far."""

    turn: jax.Array  # i32[]
    placed: jax.Array  # i32[]
    tries: jax.Array  # i32[]; of the next room
    rooms: jax.Array  # i32[R, 4]: (left, top, width, height)
    doors: jax.Array  # i32[R, 2]: (column, row) of the door into each
    entry: jax.Array  # i32[]; the side (0 right, 1 down, 2 left, 3 up) of the newest room at which one enters


def multi_room(key: jax.Array, rooms: int, largest: int) -> Level:
    """``rooms`` rooms of ``SMALLEST`` to ``largest`` cells a side, walls included, on a map of ``SIDE`` x ``SIDE``."""
    chain_key, key = jax.random.split(key)
    chain = placed_rooms(chain_key, rooms, largest)
    draft = Draft(key, np.zeros((SIDE, SIDE), bool))
    colour = draft.colour()
    for n in range(rooms):
        left, top, width, height = chain.rooms[n]
        inner = draft.area(top + 1, left + 1, height - 2, width - 2)
        draft.grid = jnp.where(draft.area(top, left, height, width) & ~inner, WALL_CELL, draft.grid)
        if n > 0:
            draft.set(chain.doors[n, 1], chain.doors[n, 0], cell(DOOR, colour, jnp.int32(CLOSED)))
            colour = (colour + draft.integer(1, 6)) % 6  # the next door has another colour
    left, top, width, height = chain.rooms[0]
    draft.place_agent(draft.area(top, left, height, width))
    left, top, width, height = chain.rooms[rooms - 1]
    draft.place(GOAL_CELL, draft.area(top, left, height, width))
    return draft.level(NOTHING)


def placed_rooms(key: jax.Array, rooms: int, largest: int) -> Chain:
    """A whole chain of ``rooms`` rooms."""
    empty = Chain(jnp.int32(0), jnp.int32(0), jnp.int32(0), jnp.zeros((rooms, 4), jnp.int32), jnp.zeros((rooms, 2), jnp.int32), jnp.int32(2))

    def one(chain: Chain) -> Chain:
        numbers = jax.random.uniform(jax.random.fold_in(key, chain.turn), (5,))

        def integer(n, low, high):
            return low + jnp.minimum(jnp.floor(numbers[n] * (high - low)).astype(jnp.int32), high - low - 1)

        first = chain.placed == 0
        left, top, width, height = chain.rooms[jnp.maximum(chain.placed - 1, 0)]
        exits = integer(0, 0, 3)
        exits = exits + (exits >= chain.entry)  # any side but the one where one enters
        along = jnp.where(exits % 2 == 0, integer(1, 1, height - 1), integer(1, 1, width - 1))
        column = jnp.stack([left + width - 1, left + along, left, left + along])[exits]
        row = jnp.stack([top + along, top + height - 1, top + along, top])[exits]
        column = jnp.where(first, integer(0, 0, SIDE - 2), column)
        row = jnp.where(first, integer(1, 0, SIDE - 2), row)

        entry = jnp.where(first, 2, (exits + 2) % 4)
        wide, high = integer(2, SMALLEST, largest + 1), integer(3, SMALLEST, largest + 1)
        beside, above = integer(4, column - wide + 2, column), integer(4, row - high + 2, row)
        new_left = jnp.stack([column - wide + 1, beside, column, beside])[entry]
        new_top = jnp.stack([above, row - high + 1, above, row])[entry]
        new_left, new_top = jnp.where(first, column, new_left), jnp.where(first, row, new_top)

        fits = (new_left >= 0) & (new_top >= 0) & (new_left + wide <= SIDE) & (new_top + high < SIDE)
        lefts, tops, widths, heights = chain.rooms.T
        apart = (new_left + wide < lefts) | (lefts + widths <= new_left) | (new_top + high < tops) | (tops + heights <= new_top)
        earlier = jnp.arange(rooms) < chain.placed - 1  # all but the one that one comes from
        fits = fits & jnp.all(apart | ~earlier)

        room, door = jnp.stack([new_left, new_top, wide, high]), jnp.stack([column, row])
        at = jnp.where(fits, chain.placed, rooms)  # out of range: dropped
        tries = jnp.where(fits, 0, chain.tries + 1)
        over = (tries >= TRIES) | (first & ~fits)
        return Chain(
            chain.turn + 1,
            jnp.where(over, 0, chain.placed + fits),
            jnp.where(over, 0, tries),
            chain.rooms.at[at].set(room, mode="drop"),
            chain.doors.at[at].set(door, mode="drop"),
            jnp.where(fits, entry, chain.entry),
        )

    return jax.lax.while_loop(lambda chain: chain.placed < rooms, one, empty)
