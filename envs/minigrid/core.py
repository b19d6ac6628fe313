"""The rules of MiniGrid (Chevalier-Boisvert et al., "Minigrid & Miniworld", arXiv 2306.13831), as pure functions on one world.

A cell is one uint16: kind (4 bits), colour (3), state of a door (2), and the colour of the key inside a box plus one (3). Kinds, colours
and states have the codes of Farama's minigrid 3.2.0. Positions are (row, column); directions are 0 right, 1 down, 2 left, 3 up.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

UNSEEN, EMPTY, WALL, FLOOR, DOOR, KEY, BALL, BOX, GOAL, LAVA, AGENT = range(11)
RED, GREEN, BLUE, PURPLE, YELLOW, GREY = range(6)
OPEN, CLOSED, LOCKED = range(3)
LEFT, RIGHT, FORWARD, PICKUP, DROP, TOGGLE, DONE = range(7)
MOVES = np.int32([[0, 1], [1, 0], [0, -1], [-1, 0]])  # direction -> (rows, columns)


def cell(kind, colour=0, state=0, inside=0):
    """uint16: a cell. ``inside``: of a box, 1 + the colour of its key; 0 for none."""
    packed = kind | (colour << 4) | (state << 7) | (inside << 9)
    return packed.astype(jnp.uint16) if isinstance(packed, jax.Array) else np.uint16(packed)


NOTHING, WALL_CELL, GOAL_CELL, LAVA_CELL = cell(EMPTY), cell(WALL, GREY), cell(GOAL, GREEN), cell(LAVA)


def kind_of(cells):
    return cells & 15


def colour_of(cells):
    return (cells >> 4) & 7


def state_of(cells):
    return (cells >> 7) & 3


def inside_of(cells):
    return (cells >> 9) & 7


def see_behind(cells):
    """bool: whether one sees what is behind; not through walls and doors that are not open."""
    kind = kind_of(cells)
    return (kind != WALL) & ((kind != DOOR) | (state_of(cells) == OPEN))


class Level(NamedTuple):
    """Where an episode starts."""

    grid: jax.Array  # uint16[H, W]
    position: jax.Array  # i32[2]
    direction: jax.Array  # i32[]
    wanted: jax.Array  # uint16[]; the object that ends the episode when it is picked up; NOTHING where none does


class State(NamedTuple):
    grid: jax.Array
    position: jax.Array
    direction: jax.Array
    wanted: jax.Array
    carried: jax.Array  # uint16[]; NOTHING when the hands are empty
    time: jax.Array  # i32[]; steps of the episode
    print: jax.Array  # uint32[2]; fingerprint of the grid


class Outcome(NamedTuple):
    goal: jax.Array  # bool[]; stepped onto a goal
    lava: jax.Array  # bool[]
    taken: jax.Array  # bool[]; has picked up what was wanted
    opened: jax.Array  # bool[]; toggled, and a door stands open ahead


def begin(level: Level) -> State:
    rows = jnp.arange(level.grid.size, dtype=jnp.uint32).reshape(level.grid.shape)
    prints = jnp.sum(fingerprint(rows, level.grid), axis=(0, 1), dtype=jnp.uint32)
    return State(*level, jnp.asarray(NOTHING), jnp.int32(0), prints)


def act(state: State, action: jax.Array) -> tuple[State, Outcome]:
    """One step of the rules, without rewards and limits."""
    grid, width = state.grid, state.grid.shape[1]
    row, column = state.position + jnp.asarray(MOVES)[state.direction]
    ahead = grid[row, column]
    kind, condition = kind_of(ahead), state_of(ahead)

    turned = (state.direction + jnp.where(action == RIGHT, 1, 0) - jnp.where(action == LEFT, 1, 0)) % 4
    walkable = (kind == EMPTY) | (kind == GOAL) | (kind == LAVA) | (kind == FLOOR) | ((kind == DOOR) & (condition == OPEN))
    forward = action == FORWARD
    position = jnp.where(forward & walkable, jnp.stack([row, column]), state.position)

    empty_handed = state.carried == NOTHING
    takes = (action == PICKUP) & ((kind == KEY) | (kind == BALL) | (kind == BOX)) & empty_handed
    drops = (action == DROP) & (kind == EMPTY) & ~empty_handed
    key_fits = (kind_of(state.carried) == KEY) & (colour_of(state.carried) == colour_of(ahead))
    toggles = action == TOGGLE
    swings = toggles & (kind == DOOR) & ((condition != LOCKED) | key_fits)
    swung = cell(DOOR, colour_of(ahead), jnp.where(condition == OPEN, CLOSED, OPEN).astype(jnp.uint16))
    inside = inside_of(ahead)
    unpacked = jnp.where(inside > 0, cell(KEY, inside - jnp.uint16(1)), NOTHING)

    new = jnp.where(takes, NOTHING, ahead)
    new = jnp.where(drops, state.carried, new)
    new = jnp.where(swings, swung, new)
    new = jnp.where(toggles & (kind == BOX), unpacked, new).astype(jnp.uint16)
    carried = jnp.where(takes, ahead, jnp.where(drops, NOTHING, state.carried)).astype(jnp.uint16)
    place = (row * width + column).astype(jnp.uint32)
    prints = state.print - fingerprint(place, ahead) + fingerprint(place, new)

    outcome = Outcome(
        goal=forward & (kind == GOAL),
        lava=forward & (kind == LAVA),
        taken=(action == PICKUP) & (carried == state.wanted) & (carried != NOTHING),
        opened=toggles & (kind_of(new) == DOOR) & (state_of(new) == OPEN),
    )
    return State(grid.at[row, column].set(new), position, turned, state.wanted, carried, state.time + 1, prints), outcome


def identity(state: State) -> jax.Array:
    """uint32[2]: fingerprint of all that decides what can happen next, but for the time that is left."""
    row, column = state.position.astype(jnp.uint32)
    size = np.uint32(state.grid.size)
    stands = (row * np.uint32(state.grid.shape[1]) + column) * 4 + state.direction.astype(jnp.uint32)
    return state.print + fingerprint(size + stands, state.carried)


def fingerprint(place, cells) -> jax.Array:
    """uint32[..., 2] of a cell in a place. Sums of them (modulo 2^32) change by the cells that change (Zobrist 1970)."""
    both = jnp.asarray(place, jnp.uint32) * np.uint32(1 << 12) + jnp.asarray(cells).astype(jnp.uint32)  # a cell has 12 bits
    return jnp.stack([_mixed(both ^ np.uint32(0x9E3779B9)), _mixed(both ^ np.uint32(0x85EBCA6B))], axis=-1)


def _mixed(x):
    """The finaliser of MurmurHash3."""
    x = (x ^ (x >> 16)) * np.uint32(0x85EBCA6B)
    x = (x ^ (x >> 13)) * np.uint32(0xC2B2AE35)
    return x ^ (x >> 16)
