"""Levels made of rooms in rows and columns (minigrid's ``RoomGrid``): Unlock, UnlockPickup, BlockedUnlockPickup, KeyCorridor, ObstructedMaze.

Rooms are named (column, row); neighbours share a wall with at most one door. Sides of a room: 0 right, 1 down, 2 left, 3 up.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from envs.minigrid.core import BALL, BLUE, BOX, CLOSED, DOOR, GREEN, GREY, KEY, LOCKED, MOVES, Level, cell
from envs.minigrid.draft import Draft


class Rooms(Draft):
    """A draft with ``columns`` x ``rows`` rooms of ``size`` cells, walls included; the places of all doors are drawn first."""

    def __init__(self, key: jax.Array, columns: int, rows: int, size: int, opened: tuple = (), draws: int = 64):
        super().__init__(key, room_walls(columns, rows, size, opened), draws)
        self.columns, self.rows, self.size = columns, rows, size
        self.position = jnp.int32([rows // 2 * (size - 1) + size // 2, columns // 2 * (size - 1) + size // 2])
        self.doors = {}
        for j in range(rows):
            for i in range(columns):
                top, left = j * (size - 1), i * (size - 1)
                if i + 1 < columns:
                    self.doors[i, j, 0] = self.integer(top + 1, top + size - 1), left + size - 1
                if j + 1 < rows:
                    self.doors[i, j, 1] = top + size - 1, self.integer(left + 1, left + size - 1)

    def room(self, i, j) -> jax.Array:
        """bool[H, W]: the room with its walls."""
        return self.area(j * (self.size - 1), i * (self.size - 1), self.size, self.size)

    def door(self, i: int, j: int, side: int) -> tuple:
        """(row, column) of the door on a side of room (i, j)."""
        if side >= 2:
            down, right = MOVES[side]
            i, j, side = i + right, j + down, side - 2
        return self.doors[int(i), int(j), side]

    def place_in_room(self, i, j, code) -> None:
        """As minigrid does, not next to where the agent is: before it is placed, in the middle of the middle room."""
        self.place(code, self.room(i, j), near_agent=False)

    def place_agent_in_room(self, i, j) -> None:
        self.place_agent(self.room(i, j), before_free=True)


def room_walls(columns: int, rows: int, size: int, opened: tuple) -> np.ndarray:
    """bool[H, W]. ``opened``: (i, j), rooms whose wall to the room above is left out."""
    walls = np.zeros(((size - 1) * rows + 1, (size - 1) * columns + 1), bool)
    walls[:: size - 1], walls[:, :: size - 1] = True, True
    for i, j in opened:
        walls[j * (size - 1), i * (size - 1) + 1 : (i + 1) * (size - 1)] = False
    return walls


def unlock(key: jax.Array) -> Level:
    """Two rooms, a locked door and its key. The aim is to open it."""
    draft = Rooms(key, 2, 1, 6)
    _locked(draft)
    draft.place_agent_in_room(0, 0)
    return draft.level()


def unlock_pickup(key: jax.Array, blocked: bool = False) -> Level:
    """The same with a box behind the door, which is wanted; ``blocked``: a ball before the door."""
    draft = Rooms(key, 2, 1, 6)
    box = cell(BOX, draft.colour())
    draft.place_in_room(1, 0, box)
    _locked(draft, blocked)
    draft.place_agent_in_room(0, 0)
    return draft.level(box)


def _locked(draft: Rooms, blocked: bool = False) -> None:
    """A locked door to the right of room (0, 0), whose key is in there."""
    colour, (row, column) = draft.colour(), draft.door(0, 0, 0)
    draft.set(row, column, cell(DOOR, colour, LOCKED))
    if blocked:
        draft.set(row, column - 1, cell(BALL, draft.colour()))
    draft.place_in_room(0, 0, cell(KEY, colour))


def key_corridor(key: jax.Array, size: int, rows: int) -> Level:
    """Three columns of rooms; the middle one is a hallway. The ball in a locked room on the right is wanted, the key lies on the left."""
    draft = Rooms(key, 3, rows, size, opened=tuple((1, j) for j in range(1, rows)))
    locked_row = draft.integer(0, rows)
    colour = draft.colour()
    doors = [draft.door(2, j, 2) for j in range(rows)]
    draft.set(jnp.stack([door[0] for door in doors])[locked_row], doors[0][1], cell(DOOR, colour, LOCKED))
    ball = cell(BALL, draft.colour())
    draft.place_in_room(2, locked_row, ball)
    draft.place_in_room(0, draft.integer(0, rows), cell(KEY, colour))
    draft.place_agent_in_room(1, rows // 2)
    _connect(draft, 2 * rows + locked_row, {(1, j, 3) for j in range(1, rows)})
    return draft.level(ball)


def _connect(draft: Rooms, locked_room: jax.Array, joined: set) -> None:
    """Add closed doors at random walls that have none and touch no locked room, until all rooms hang together.

    ``locked_room``: column * rows + row; its one neighbour on the left is joined to it already. ``joined``: sides without a wall.
    """
    number = draft.columns * draft.rows
    name = lambda i, j: i * draft.rows + j  # noqa: E731
    open_pairs = {(name(i, j + MOVES[side][0]), name(i, j)) for i, j, side in joined}
    walls = [(name(i, j), name(i + 1, j) if side == 0 else name(i, j + 1), draft.doors[i, j, side]) for i, j, side in draft.doors]
    labels = np.arange(number)
    for a, b in open_pairs:
        labels[labels == labels[b]] = labels[a]
    labels = jnp.asarray(labels)
    labels = jnp.where(labels == labels[locked_room], labels[locked_room - draft.rows], labels)

    walls = [wall for wall in walls if wall[:2] not in open_pairs]
    first, second = (jnp.asarray([wall[side] for wall in walls]) for side in (0, 1))
    rows, columns = (jnp.stack([jnp.asarray(wall[2][axis], jnp.int32) for wall in walls]) for axis in (0, 1))
    order = jnp.argsort(draft.numbers(len(walls)))
    colours = jnp.stack([draft.colour() for _ in walls])

    def add(n, carry):
        grid, labels = carry
        wall = order[n]
        a, b = first[wall], second[wall]
        wanted = (a != locked_room) & (b != locked_room) & jnp.any(labels != labels[0])
        joined = jnp.where(labels == labels[b], labels[a], labels)
        at = jnp.where(wanted, rows[wall], draft.height)  # out of the grid: dropped
        grid = grid.at[at, columns[wall]].set(cell(DOOR, colours[n], jnp.int32(CLOSED)), mode="drop")
        return grid, jnp.where(wanted, joined, labels)

    draft.grid, _ = jax.lax.fori_loop(0, len(walls), add, (draft.grid, labels))


def obstructed_two_rooms(key: jax.Array, hidden: bool, blocked: bool) -> Level:
    """ObstructedMaze-1Dl, -1Dlh (the key is ``hidden`` in a box), -1Dlhb (a ball before the door)."""
    draft = Rooms(key, 2, 1, 6)
    colour = draft.colours()[0]
    _obstructed_door(draft, 0, 0, 0, colour, blocked)
    draft.place_in_room(0, 0, _key(colour, hidden))
    draft.place_in_room(1, 0, WANTED_BALL)
    draft.place_agent_in_room(0, 0)
    return draft.level(WANTED_BALL)


def obstructed_maze(key: jax.Array, agent_room: tuple[int, int], hidden: bool, blocked: bool, quarters: int, keys_last: bool) -> Level:
    """The other mazes, of nine rooms. A blue ball in a corner of one of the ``quarters`` is wanted.

    ``keys_last``: the rules of v1. In v0 a door's ball may be put onto the key of the door before, which is then lost.
    """
    draft = Rooms(key, 3, 3, 6)
    colours = draft.colours()
    for side, (i, j) in list(enumerate([(2, 1), (1, 2), (0, 1), (1, 0)]))[:quarters]:
        draft.set(*draft.door(1, 1, side), cell(DOOR, colours[side], jnp.int32(CLOSED)))
        doors = [((side + turn) % 4, colours[(side + turn) % 6]) for turn in (-1, 1)]
        for door_side, colour in doors:
            _obstructed_door(draft, i, j, door_side, colour, blocked)
            if not keys_last:
                draft.place_in_room(i, j, _key(colour, hidden))
        if keys_last:
            for _, colour in doors:
                draft.place_in_room(i, j, _key(colour, hidden))
    corner = draft.integer(0, quarters)
    corners = jnp.int32([(2, 0), (2, 2), (0, 2), (0, 0)])
    draft.place_in_room(corners[corner, 0], corners[corner, 1], WANTED_BALL)
    draft.place_agent_in_room(*agent_room)
    return draft.level(WANTED_BALL)


WANTED_BALL = cell(BALL, BLUE)


def _obstructed_door(draft: Rooms, i: int, j: int, side: int, colour, blocked: bool) -> None:
    row, column = draft.door(i, j, side)
    draft.set(row, column, cell(DOOR, colour, LOCKED))
    if blocked:
        draft.set(row - MOVES[side][0], column - MOVES[side][1], cell(BALL, GREEN))


def _key(colour, hidden: bool):
    return cell(BOX, GREY, 0, 1 + colour) if hidden else cell(KEY, colour)
