"""Every task: its map, its levels, its limit and what success is. Ids are those of minigrid; the sizes of MultiRoom that the papers use
and minigrid does not register are named in the same way."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax

from envs.minigrid import multiroom, rooms, simple
from envs.minigrid.core import Level


class Task(NamedTuple):
    height: int
    width: int
    max_steps: int
    level: Callable[[jax.Array], Level]  # key -> level
    aim: str = "goal"  # "goal": step onto it; "taken": pick up what is wanted; "opened": open the door
    see_through: bool = False  # walls hide nothing


def on_square(size: int, max_steps: int, level: Callable, **arguments) -> Task:
    return Task(size, size, max_steps, level, **arguments)


def in_rooms(columns: int, rows: int, size: int, max_steps: int, level: Callable, aim: str = "taken") -> Task:
    return Task(rows * (size - 1) + 1, columns * (size - 1) + 1, max_steps, level, aim)


def key_corridor(size: int, rows: int) -> Task:
    return in_rooms(3, rows, size, 30 * size**2, functools.partial(rooms.key_corridor, size=size, rows=rows))


def multi_room(number: int, largest: int, workers: int = 1) -> Task:
    level = functools.partial(multiroom.multi_room, rooms=number, largest=largest, workers=workers)
    return on_square(multiroom.SIDE, 20 * number, level)


def two_rooms(hidden: bool, blocked: bool) -> Task:
    return in_rooms(2, 1, 6, 4 * 2 * 36, functools.partial(rooms.obstructed_two_rooms, hidden=hidden, blocked=blocked))


def nine_rooms(agent_room, hidden: bool, blocked: bool, quarters: int, visited: int, keys_last: bool = False) -> Task:
    level = functools.partial(rooms.obstructed_maze, agent_room=agent_room, hidden=hidden, blocked=blocked, quarters=quarters, keys_last=keys_last)
    return in_rooms(3, 3, 6, 4 * visited * 36, level)


def _tasks() -> dict[str, Task]:
    found = {}
    for size in (5, 6, 8, 16):
        empty = functools.partial(simple.empty, size=size)
        found[f"Empty-{size}x{size}-v0"] = on_square(size, 4 * size**2, empty, see_through=True)
        found[f"DoorKey-{size}x{size}-v0"] = on_square(size, 10 * size**2, functools.partial(simple.door_key, size=size))
        if size < 8:
            anywhere = functools.partial(simple.empty, size=size, random_start=True)
            found[f"Empty-Random-{size}x{size}-v0"] = on_square(size, 4 * size**2, anywhere, see_through=True)
    for size in (5, 6, 7):
        found[f"LavaGapS{size}-v0"] = on_square(size, 4 * size**2, functools.partial(simple.lava_gap, size=size))
    found["FourRooms-v0"] = on_square(19, 100, simple.four_rooms)
    found["LockedRoom-v0"] = on_square(19, 190, simple.locked_room)

    found["Unlock-v0"] = in_rooms(2, 1, 6, 8 * 36, rooms.unlock, aim="opened")
    found["UnlockPickup-v0"] = in_rooms(2, 1, 6, 8 * 36, rooms.unlock_pickup)
    found["BlockedUnlockPickup-v0"] = in_rooms(2, 1, 6, 16 * 36, functools.partial(rooms.unlock_pickup, blocked=True))
    for size, rows in ((3, 1), (3, 2), (3, 3), (4, 3), (5, 3), (6, 3)):
        found[f"KeyCorridorS{size}R{rows}-v0"] = key_corridor(size, rows)

    found["MultiRoom-N2-S4-v0"] = multi_room(2, 4)
    found["MultiRoom-N4-S5-v0"] = multi_room(6, 5)  # minigrid's own mistake, kept: it has six rooms
    found["MultiRoom-N4-S5-v1"] = multi_room(4, 5)
    found["MultiRoom-N6-v0"] = multi_room(6, 10)
    for number, largest, workers in ((7, 4, 1), (7, 8, 1), (10, 4, 1), (10, 10, 32), (12, 10, 256)):
        found[f"MultiRoom-N{number}-S{largest}-v0"] = multi_room(number, largest, workers)

    found["ObstructedMaze-1Dl-v0"] = two_rooms(False, False)
    found["ObstructedMaze-1Dlh-v0"] = two_rooms(True, False)
    found["ObstructedMaze-1Dlhb-v0"] = two_rooms(True, True)
    found["ObstructedMaze-2Dl-v0"] = nine_rooms((2, 1), False, False, 1, 4)
    found["ObstructedMaze-2Dlh-v0"] = nine_rooms((2, 1), True, False, 1, 4)
    for version, keys_last in (("v0", False), ("v1", True)):
        found[f"ObstructedMaze-2Dlhb-{version}"] = nine_rooms((2, 1), True, True, 1, 4, keys_last)
        found[f"ObstructedMaze-1Q-{version}"] = nine_rooms((1, 1), True, True, 1, 5, keys_last)
        found[f"ObstructedMaze-2Q-{version}"] = nine_rooms((2, 1), True, True, 2, 11, keys_last)
        found[f"ObstructedMaze-Full-{version}"] = nine_rooms((1, 1), True, True, 4, 25, keys_last)
    return {f"MiniGrid-{name}": task for name, task in found.items()}


TASKS = _tasks()
