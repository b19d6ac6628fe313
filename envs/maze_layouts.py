"""Fixed layouts of mazes, drawn or carved, shared by ``envs/maze.py`` and ``envs/point_maze.py``.

A layout is rows of text: ``#`` wall, ``.`` free, ``S`` start, ``G`` goal; the border is wall. Positions are (row, column).

=============  ======================================================================================================
``u``          a corridor around a block
``spiral``     one corridor from the centre outwards, with arms of 1, 2, ..., 9 and 9 squares: point_Spiral11x11 of SGCRL
               (arXiv 2408.05804), square for square
``four_rooms`` four rooms and four doors, after Sutton, Precup and Singh (1999), "Between MDPs and semi-MDPs"
``easy``       11 x 11, drawn, with loops
``medium``     21 x 21, carved: one path between any two squares
``hard``       41 x 41, carved
``large``      101 x 101, carved around rooms, with long detours
=============  ======================================================================================================

Carved ones come from ``carved`` with a fixed seed, so they are the same everywhere, always; the goal is the square farthest from
the start.
"""

from __future__ import annotations

import functools
from collections import deque
from typing import Any, NamedTuple

import numpy as np

from envs.builder import Refusal, closest

UP, RIGHT, DOWN, LEFT = range(4)
MOVES = np.int32([[-1, 0], [0, 1], [1, 0], [0, -1]])  # action -> (rows, columns)
NAMES = ("u", "spiral", "four_rooms", "easy", "medium", "hard", "large")
ENTRY = 'rows of text, as ["#####","#S.G#","#####"]'

U = """
    #######
    #S###G#
    #.###.#
    #.###.#
    #.###.#
    #.....#
    #######
"""
FOUR_ROOMS = """
    #############
    #S....#.....#
    #.....#.....#
    #...........#
    #.....#.....#
    #.....#.....#
    ##.####.....#
    #.....###.###
    #.....#.....#
    #.....#.....#
    #...........#
    #.....#....G#
    #############
"""
EASY = """
    ###########
    #S..#.....#
    #.#.#.###.#
    #.#...#...#
    #.#####.#.#
    #.......#.#
    #.###.###.#
    #.#...#...#
    #.#.###.#.#
    #...#...#G#
    ###########
"""


class Layout(NamedTuple):
    name: str
    walls: np.ndarray  # bool[rows, columns]
    start: tuple[int, int]
    goal: tuple[int, int] | None


@functools.cache
def named(name: str, also: tuple[str, ...] = ()) -> Layout:
    """One of ``NAMES``. Raises Refusal for another name; ``also`` are names that are legal where it was given."""
    drawn = {"u": U, "four_rooms": FOUR_ROOMS, "easy": EASY}
    if name in drawn:
        return parsed(drawn[name].split(), name)
    if name == "spiral":
        return Layout(name, *spiral((*range(1, 10), 9), start=(5, 5), size=12))
    carving = {"medium": (10, 1, 0), "hard": (20, 2, 0), "large": (50, 3, 40)}
    if name not in carving:
        raise Refusal(f"env.layout={name!r} is not a layout{closest(name, NAMES + also)}; or draw your own: {ENTRY}")
    side, seed, rooms = carving[name]
    walls = carved(side, side, seed, rooms)
    far = distances(walls, (1, 1))
    goal = np.unravel_index(far.argmax(), far.shape)
    return Layout(name, walls, (1, 1), (int(goal[0]), int(goal[1])))


def layout_of(given: Any, goal: bool, also: tuple[str, ...] = ()) -> Layout:
    """The layout that ``env.layout`` names or draws. Raises Refusal for one that is no maze, or without a ``goal`` where one is needed."""
    layout = named(given, also) if isinstance(given, str) else parsed(given, "own")
    if goal and layout.goal is None:
        raise Refusal("env.layout has no goal: mark one with G, or set env.reward=none")
    if goal and distances(layout.walls, layout.start)[layout.goal] < 0:
        raise Refusal("env.layout: no way leads from S to G")
    return layout


def parsed(rows: Any, name: str) -> Layout:
    """Rows of text -> Layout. Raises Refusal with what is wrong, and where."""
    if not isinstance(rows, (list, tuple)) or not all(isinstance(row, str) for row in rows):
        raise Refusal(f"env.layout={rows!r} is not a layout: give one of {', '.join(NAMES)}, or {ENTRY}")
    widths = {len(row) for row in rows}
    if len(widths) != 1:
        raise Refusal(f"env.layout: all rows must have the same length; here they have {sorted(widths)}; a layout is {ENTRY}")
    if len(rows) < 3 or min(widths) < 3:
        raise Refusal(f"env.layout: {len(rows)} x {min(widths)} is too small; with the walls around it the smallest is 3 x 4: {ENTRY}")
    grid = np.array([list(row) for row in rows])
    unknown = sorted(set(grid.reshape(-1).tolist()) - set("#.SG"))
    if unknown:
        raise Refusal(f"env.layout: {', '.join(map(repr, unknown))} means nothing; use # wall, . free, S start, G goal")
    starts, goals = np.argwhere(grid == "S").tolist(), np.argwhere(grid == "G").tolist()
    if len(starts) != 1 or len(goals) > 1:
        raise Refusal(f"env.layout needs one S and at most one G; here are {len(starts)} S and {len(goals)} G")
    walls = grid == "#"
    border = np.ones_like(walls)
    border[1:-1, 1:-1] = False
    if not walls[border].all():
        row, column = np.argwhere(border & ~walls)[0]
        raise Refusal(f"env.layout: the border must be wall; row {row}, column {column} (counted from 0) is {str(grid[row, column])!r}")
    if (distances(walls, starts[0]) >= 0).sum() < 2:
        raise Refusal("env.layout: from S there is nowhere to go")
    return Layout(name, walls, tuple(starts[0]), tuple(goals[0]) if goals else None)


def distances(walls: np.ndarray, start: Any, ends: Any = None) -> np.ndarray:
    """Steps of the shortest path from ``start`` to every square, i32[rows, columns]; -1 where none leads. None goes on from ``ends``."""
    found = np.full(walls.shape, -1, np.int32)
    found[tuple(start)] = 0
    queue = deque([tuple(start)])
    while queue:
        at = queue.popleft()
        if at == ends:
            continue
        for move in MOVES.tolist():
            new = at[0] + move[0], at[1] + move[1]
            if not walls[new] and found[new] < 0:
                found[new] = found[at] + 1
                queue.append(new)
    return found


def spiral(arms: tuple[int, ...], start: tuple[int, int], size: int) -> tuple[np.ndarray, tuple[int, int], tuple[int, int]]:
    """(walls, start, goal) of a corridor from ``start`` right, down, left, up, ..., by ``arms`` squares each."""
    walls = np.ones((size, size), bool)
    row, column = start
    walls[row, column] = False
    for turn, arm in enumerate(arms):
        for _ in range(arm):
            row, column = row + MOVES[RIGHT + turn & 3][0], column + MOVES[RIGHT + turn & 3][1]
            walls[row, column] = False
    return walls, start, (int(row), int(column))


def carved(rows: int, columns: int, seed: int, rooms: int = 0) -> np.ndarray:
    """Walls bool[2 rows + 1, 2 columns + 1] of a maze of rows x columns cells, which are the squares with odd coordinates.

    Depth-first search from the first cell opens walls at random, so ways are long. A room is 2 to 5 cells on a side, open inside, and
    one node of that search: without rooms, or going round inside one, there is one way between any two squares. ``rooms`` is
    how many are tried; those that would overlap are left out.
    """
    random = np.random.RandomState(seed)  # its numbers are the same in every version of numpy
    walls = np.ones((2 * rows + 1, 2 * columns + 1), bool)
    walls[1::2, 1::2] = False
    region = np.arange(rows * columns).reshape(rows, columns)
    taken = np.zeros((rows, columns), bool)
    for _ in range(rooms):
        height, width = random.randint(2, 6, 2)
        top, left = random.randint(rows - height + 1), random.randint(columns - width + 1)
        inside = np.s_[top : top + height, left : left + width]
        if not taken[inside].any():
            taken[inside] = True
            region[inside] = region[top, left]
            walls[2 * top + 1 : 2 * (top + height), 2 * left + 1 : 2 * (left + width)] = False

    doors: dict[int, list[tuple[int, tuple[int, int]]]] = {int(r): [] for r in np.unique(region)}
    for row, column in np.ndindex(rows, columns):
        for other in ((row + 1, column), (row, column + 1)):
            if other[0] < rows and other[1] < columns and region[row, column] != region[other]:
                square = row + other[0] + 1, column + other[1] + 1
                here, there = int(region[row, column]), int(region[other])
                doors[here].append((there, square))
                doors[there].append((here, square))
    path, seen = [int(region[0, 0])], {int(region[0, 0])}
    while path:
        ways = [door for door in doors[path[-1]] if door[0] not in seen]
        if not ways:
            path.pop()
            continue
        there, square = ways[random.randint(len(ways))]
        walls[square] = False
        seen.add(there)
        path.append(there)
    return walls
