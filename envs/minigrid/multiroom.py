"""MultiRoom: a chain of rooms with closed doors; the goal is in the last one.

minigrid places room after room, trying each next one at most eight times, and starts over when a chain ends early: for twelve rooms of up
to ten cells 1,350 times a level, in the mean. Here ``workers`` attempts run side by side, and each that fails is followed by a new one. Of
the attempts, numbered as they begin, the first that succeeds is taken, and it is waited for: whichever happened to be ready first would
be one of the short ones. So the distribution is that of one attempt after another.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from envs.minigrid.core import CLOSED, DOOR, GOAL_CELL, WALL_CELL, Level, cell
from envs.minigrid.draft import Draft

SIDE, SMALLEST, TRIES = 25, 4, 8


class Attempt(NamedTuple):
    """Rooms placed so far by one worker."""

    number: jax.Array  # i32[]; of the attempt
    placed: jax.Array  # i32[]
    tries: jax.Array  # i32[]; of the next room
    rooms: jax.Array  # i32[R, 4]: (left, top, width, height)
    doors: jax.Array  # i32[R, 2]: (column, row) of the door into each
    entry: jax.Array  # i32[]; the side (0 right, 1 down, 2 left, 3 up) of the newest room at which one enters


def multi_room(key: jax.Array, rooms: int, largest: int, workers: int = 1) -> Level:
    """``rooms`` rooms of ``SMALLEST`` to ``largest`` cells a side, walls included, on a map of ``SIDE`` x ``SIDE``."""
    chain_key, key = jax.random.split(key)
    chain = placed_rooms(chain_key, rooms, largest, workers)
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
    return draft.level()


def placed_rooms(key: jax.Array, rooms: int, largest: int, workers: int) -> Attempt:
    """The first successful attempt at ``rooms`` rooms."""
    never = np.int32(2**31 - 1)
    zero = jnp.zeros(workers, jnp.int32)
    several = Attempt(jnp.arange(workers), zero, zero, jnp.zeros((workers, rooms, 4), jnp.int32), jnp.zeros((workers, rooms, 2), jnp.int32), zero)
    best = jax.tree.map(lambda leaf: leaf[0], several)._replace(number=jnp.int32(never))

    def turn(carry):
        count, several, best = carry
        numbers = jax.random.uniform(jax.random.fold_in(key, count), (5, workers))
        several, failed = jax.vmap(lambda one, drawn: tried(one, drawn, rooms, largest), in_axes=(0, 1))(several, numbers)
        ready = jnp.where(several.placed == rooms, several.number, never)
        worker = jnp.argmin(ready)
        better = ready[worker] < best.number
        best = jax.tree.map(lambda new, old: jnp.where(better, new[worker], old), several, best)
        over = failed | (ready < never)
        following = jnp.max(several.number) + jnp.cumsum(over, dtype=jnp.int32)  # new attempts are numbered after all others
        fresh = several._replace(number=jnp.where(over, following, several.number), placed=jnp.where(over, 0, several.placed))
        return count + 1, fresh._replace(tries=jnp.where(over, 0, several.tries)), best

    def undecided(carry):
        _, several, best = carry
        return jnp.min(several.number) < best.number  # an earlier attempt is still at it

    return jax.lax.while_loop(undecided, turn, (jnp.int32(0), several, best))[2]


def tried(attempt: Attempt, numbers: jax.Array, rooms: int, largest: int) -> tuple[Attempt, jax.Array]:
    """(the attempt after trying one more room, whether it has failed)."""

    def integer(n, low, high):
        return low + jnp.minimum(jnp.floor(numbers[n] * (high - low)).astype(jnp.int32), high - low - 1)

    first = attempt.placed == 0
    newest = jnp.arange(rooms) == attempt.placed - 1
    left, top, width, height = jnp.sum(jnp.where(newest[:, None], attempt.rooms, 0), axis=0)
    exits = integer(0, 0, 3)
    exits = exits + (exits >= attempt.entry)  # any side but the one where one enters
    sideways = exits % 2 == 0
    along = jnp.where(sideways, integer(1, 1, height - 1), integer(1, 1, width - 1))
    column = jnp.where(sideways, left + jnp.where(exits == 0, width - 1, 0), left + along)
    row = jnp.where(sideways, top + along, top + jnp.where(exits == 1, height - 1, 0))
    column = jnp.where(first, integer(0, 0, SIDE - 2), column)
    row = jnp.where(first, integer(1, 0, SIDE - 2), row)

    wide, high = integer(2, SMALLEST, largest + 1), integer(3, SMALLEST, largest + 1)
    beside, above = integer(4, column - wide + 2, column), integer(4, row - high + 2, row)
    new_left = jnp.where(sideways, jnp.where(exits == 0, column, column - wide + 1), beside)
    new_top = jnp.where(sideways, above, jnp.where(exits == 1, row, row - high + 1))
    new_left, new_top = jnp.where(first, column, new_left), jnp.where(first, row, new_top)

    fits = (new_left >= 0) & (new_top >= 0) & (new_left + wide <= SIDE) & (new_top + high < SIDE)
    lefts, tops, widths, heights = attempt.rooms.T
    apart = (new_left + wide < lefts) | (lefts + widths <= new_left) | (new_top + high < tops) | (tops + heights <= new_top)
    earlier = jnp.arange(rooms) < attempt.placed - 1  # all but the one that one comes from
    fits = fits & jnp.all(apart | ~earlier)

    here = fits & (jnp.arange(rooms) == attempt.placed)[:, None]
    tries = jnp.where(fits, 0, attempt.tries + 1)
    entry = jnp.where(first, 2, (exits + 2) % 4)
    new = Attempt(
        attempt.number,
        attempt.placed + fits,
        tries,
        jnp.where(here, jnp.stack([new_left, new_top, wide, high]), attempt.rooms),
        jnp.where(here, jnp.stack([column, row]), attempt.doors),
        jnp.where(fits, entry, attempt.entry),
    )
    return new, (tries >= TRIES) | (first & ~fits)
