"""Levels of a single map: Empty, DoorKey, FourRooms, LavaGap, LockedRoom."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from envs.minigrid.core import CLOSED, DOOR, GOAL_CELL, KEY, LAVA_CELL, LOCKED, NOTHING, WALL_CELL, YELLOW, Level, cell
from envs.minigrid.draft import Draft, walled


def empty(key: jax.Array, size: int, random_start: bool = False) -> Level:
    """A goal in the corner across."""
    draft = Draft(key, walled(size, size))
    draft.set(size - 2, size - 2, GOAL_CELL)
    if random_start:
        draft.place_agent(True)
    else:
        draft.position = jnp.int32([1, 1])
    return draft.level()


def door_key(key: jax.Array, size: int) -> Level:
    """A wall with a locked door between the agent, who has a key on its side, and the goal."""
    draft = Draft(key, walled(size, size))
    draft.set(size - 2, size - 2, GOAL_CELL)
    split = draft.integer(2, size - 2)
    draft.grid = jnp.where(draft.area(0, split, size, 1), WALL_CELL, draft.grid)
    left = draft.area(0, 0, size, split)
    draft.place_agent(left)
    draft.set(draft.integer(1, size - 2), split, cell(DOOR, YELLOW, LOCKED))
    draft.place(cell(KEY, YELLOW), left)
    return draft.level()


def four_rooms(key: jax.Array, size: int = 19) -> Level:
    """Four rooms with a gap in every wall between; agent and goal anywhere."""
    walls, half = walled(size, size), size // 2
    walls[: 2 * half, half], walls[half, : 2 * half] = True, True
    draft = Draft(key, walls)
    for low in (0, half):
        draft.set(draft.integer(low + 1, low + half), half, NOTHING)
        draft.set(half, draft.integer(low + 1, low + half), NOTHING)
    draft.place_agent(True)
    draft.place(GOAL_CELL, True)
    return draft.level()


def lava_gap(key: jax.Array, size: int) -> Level:
    """A column of lava with one gap between the agent and the goal."""
    draft = Draft(key, walled(size, size))
    draft.position = jnp.int32([1, 1])
    draft.set(size - 2, size - 2, GOAL_CELL)
    column, row = draft.integer(2, size - 2), draft.integer(1, size - 1)
    draft.grid = jnp.where(draft.area(1, column, size - 2, 1), LAVA_CELL, draft.grid)
    draft.set(row, column, NOTHING)
    return draft.level()


def locked_room(key: jax.Array, size: int = 19) -> Level:
    """A hallway between six rooms with doors of six colours. The goal is in the locked one, its key in another."""
    walls, left, right, step = walled(size, size), size // 2 - 2, size // 2 + 2, size // 3
    walls[:, [left, right]] = True
    for n in range(3):
        walls[n * step, : left + 1], walls[n * step, right:] = True, True
    draft = Draft(key, walls)
    tops = jnp.asarray(np.repeat(np.arange(3) * step, 2), jnp.int32)
    lefts, doors = jnp.tile(jnp.int32([0, right]), 3), jnp.tile(jnp.int32([left, right]), 3)

    def inside(room):
        return draft.integer(tops[room] + 1, tops[room] + step), draft.integer(lefts[room] + 1, lefts[room] + left)

    locked = draft.integer(0, 6)
    draft.set(*inside(locked), GOAL_CELL)
    colours = draft.colours()
    draft.set(tops + 3, doors, cell(DOOR, colours, jnp.where(jnp.arange(6) == locked, LOCKED, CLOSED)))
    other = (locked + draft.integer(1, 6)) % 6
    draft.set(*inside(other), cell(KEY, colours[locked]))
    draft.place_agent(draft.area(0, left, size, right - left))
    return draft.level()
