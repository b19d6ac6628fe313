"""Mazes on a grid: four moves, a start, and a goal or no reward at all; fixed layouts, or a new maze for every episode.

Reward-free mazes with exact counts are a testbed of SOFE (arXiv 2310.18144); levels decided by their number, some for training
and others for testing, follow Procgen (Cobbe et al., arXiv 1912.01588). The mazes themselves are Farlands' own:
``envs/maze_layouts.py`` (fixed) and ``envs/spanning_tree.py`` (random).

- Actions: 0 up, 1 right, 2 down, 3 left. A move into a wall leaves the agent where it is.
- ``reward="goal"``: 1 at the goal, which ends the episode by termination. ``reward="none"``: no goal; the limit cuts the episode.
- In a random maze every cell is equally likely to be the start, and every other cell to be the goal.

Levels are made anew from their numbers in each reset. A table of 10,000 of them, at size 15 and 41, made random walks 5 and 12 % faster on
a CPU: not worth its memory.
"""

from __future__ import annotations

import numbers
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from gymnasium import spaces

from envs.base import Environment, Spec, TimeStep
from envs.builder import FRACTION, Anything, Choice, Integer, Optional, Refusal, options
from envs.maze_layouts import MOVES, NAMES, distances, layout_of
from envs.spanning_tree import random_maze

CELL_PIXELS = 8
COLOURS = {"floor": (235, 235, 230), "wall": (50, 54, 64), "goal": (60, 170, 90), "agent": (210, 60, 60)}
WALL, AGENT, GOAL = range(3)  # channels of a grid
RANDOM_SIZE = 15
LARGEST_ONE_HOT = 4096


class MazeState(NamedTuple):
    at: jax.Array  # i32[]; square, numbered row by row
    steps: jax.Array  # i32[]
    level: Any  # () in a fixed layout, else (grid uint8[squares, 3] without the agent, its fingerprint uint32[2])


class World(NamedTuple):
    """What fixed and random mazes differ in."""

    name: str
    shape: tuple[int, int]
    max_steps: int
    begin: Callable  # key -> (square i32[], level)
    grid: Callable  # level -> uint8[squares, 3], without the agent
    state_id: Callable  # (square, level) -> as ``id_space``
    id_space: spaces.Space
    num_cells: int | None = None  # squares that can be reached, where every episode has the same maze
    costly_reset: bool = False


@options(
    layout=Anything(f"random, {', '.join(NAMES)}, or rows of text"),
    size=Optional(Integer(5, 255)),
    num_levels=Integer(0),
    level_start=Integer(0),
    level_seed=Integer(0),
    braid=FRACTION,
    reward=Choice(("goal", "none")),
    view=Choice(("full", "partial", "position", "cell")),
    view_size=Integer(3, 255),
    max_steps=Optional(Integer(1)),
)
def maze(
    *,
    layout: Any = "random",
    size: int | None = None,
    num_levels: int = 0,
    level_start: int = 0,
    level_seed: int = 0,
    braid: float | jax.Array = 0.0,
    reward: str = "goal",
    view: str = "full",
    view_size: int = 5,
    max_steps: int | None = None,
) -> Environment:
    """A maze.

    Args:
      layout: "random", a name of ``maze_layouts.NAMES``, or rows of text (# wall, . free, S start, G goal).
      size, num_levels, level_start, level_seed, braid: of random mazes only. ``size`` is the side in squares, odd (None: 15). With
        ``num_levels=0`` every episode has a new maze; else one of levels ``level_start`` ... ``level_start + num_levels - 1``, each
        decided by its number and ``level_seed``. ``braid`` is the share of dead ends that are opened; it may be traced.
      reward: "goal" or "none".
      view: "full" uint8[rows, columns, 3], channels wall, agent, goal; "partial" uint8[view_size, view_size, 2], wall and goal around the
        agent, wall outside; "position" f32[2] (row, column) in [-1, 1]; "cell" one-hot over the squares that can be reached.
      max_steps: None for four times the free squares (those of a maze without loops, where mazes are random).

    info: ``position`` i32[2] (row, column); ``state_id``: in fixed layouts the number of the square among those that can be reached, else
    a fingerprint uint32[2] of walls, goal and agent.
    """
    paid = reward == "goal"
    if layout == "random":
        world = _random(size or RANDOM_SIZE, num_levels, level_start, level_seed, braid, paid)
    else:
        unbraided = isinstance(braid, numbers.Real) and braid == 0
        given = {"size": size, "num_levels": num_levels, "level_start": level_start, "level_seed": level_seed, "braid": not unbraided}
        for name in (name for name, value in given.items() if value):
            raise Refusal(f"env.{name} is of random mazes; leave it out, or set env.layout=random")
        world = _fixed(layout, paid)
    if view_size % 2 == 0:
        raise Refusal(f"env.view_size={view_size} must be odd, so that the agent is in the middle; try env.view_size={view_size + 1}")
    observe, observation = _view(view, view_size, world)
    rows, columns = world.shape
    limit = max_steps or world.max_steps

    def reset(key):
        at, level = world.begin(key)
        state = MazeState(at, jnp.int32(0), level)
        return state, observe(state)

    def step(state, key, action):
        del key
        grid = world.grid(state.level)
        ahead = state.at + jnp.asarray(MOVES @ np.int32([columns, 1]))[jnp.asarray(action, jnp.int32)]
        at = jnp.where(grid[ahead, WALL] == 1, state.at, ahead)
        new = MazeState(at, state.steps + 1, state.level)
        there = grid[at, GOAL] == 1
        info = {"position": jnp.stack([at // columns, at % columns]), "state_id": world.state_id(at, state.level)}
        return new, TimeStep(observe(new), there.astype(jnp.float32), there, (new.steps >= limit) & ~there, info)

    def render(state):
        grid = np.asarray(world.grid(state.level))
        image = np.full((rows * columns, 3), COLOURS["floor"], np.uint8)
        image[grid[:, WALL] == 1] = COLOURS["wall"]
        image[grid[:, GOAL] == 1] = COLOURS["goal"]
        image[int(state.at)] = COLOURS["agent"]
        return image.reshape(rows, columns, 3).repeat(CELL_PIXELS, 0).repeat(CELL_PIXELS, 1)

    high = np.int32([rows - 1, columns - 1])
    spec = Spec(
        observation=observation,
        action=spaces.Discrete(4),
        name=f"maze-{world.name}",
        max_steps=limit,
        info={"position": spaces.Box(np.zeros(2, np.int32), high, dtype=np.int32), "state_id": world.id_space},
        num_states=world.num_cells,
        num_cells=world.num_cells,
        grid=world.shape,
        success_return=0.5 if paid else None,
        deterministic=True,
    )
    return Environment(spec, reset, step, render, costly_reset=world.costly_reset)


def _fixed(given: Any, paid: bool) -> World:
    layout = layout_of(given, goal=paid, also=("random",))
    columns = layout.walls.shape[1]
    reached = distances(layout.walls, layout.start, ends=layout.goal if paid else None) >= 0  # the goal ends the episode
    number = np.where(reached, np.cumsum(reached).reshape(reached.shape) - 1, 0).astype(np.int32).reshape(-1)
    grid = np.zeros((layout.walls.size, 3), np.uint8)
    grid[:, WALL] = layout.walls.reshape(-1)
    if paid:
        grid[layout.goal[0] * columns + layout.goal[1], GOAL] = 1
    start, many = np.int32(layout.start[0] * columns + layout.start[1]), int(reached.sum())
    return World(
        name=layout.name,
        shape=layout.walls.shape,
        max_steps=4 * many,
        begin=lambda key: (jnp.asarray(start), ()),
        grid=lambda level: jnp.asarray(grid),
        state_id=lambda at, level: jnp.asarray(number)[at],
        id_space=spaces.Discrete(many),
        num_cells=many,
    )


def _random(size: int, num_levels: int, level_start: int, level_seed: int, braid: float | jax.Array, paid: bool) -> World:
    if size % 2 == 0:
        raise Refusal(f"env.size={size} must be odd: cells and the walls between them; the nearest are {size - 1} and {size + 1}")
    if level_start and not num_levels:
        raise Refusal("env.level_start needs env.num_levels: with env.num_levels=0 every episode has a new maze")
    if level_start + num_levels > 2**31 - 1:
        raise Refusal("env.level_start + env.num_levels must be at most 2^31 - 1")
    side = size // 2
    salts = np.random.RandomState(0).randint(0, 2**32, (size * size, 3, 2), np.uint32)

    def square(cell):
        return (2 * (cell // side) + 1) * size + 2 * (cell % side) + 1

    def begin(key):
        if num_levels:  # a level is the same under any generator of random numbers that the run may use
            number = level_start + jax.random.randint(key, (), 0, num_levels)
            key = jax.random.fold_in(jax.random.key(level_seed, impl="threefry2x32"), number)
        walls_key, start_key, goal_key = jax.random.split(key, 3)
        walls = random_maze(walls_key, side, side, braid)
        start = jax.random.randint(start_key, (), 0, side * side)
        goal = (start + jax.random.randint(goal_key, (), 1, side * side)) % (side * side)
        grid = jnp.zeros((size * size, 3), jnp.uint8).at[:, WALL].set(walls.reshape(-1).astype(jnp.uint8))
        if paid:
            grid = grid.at[square(goal), GOAL].set(1)
        fingerprint = jnp.where(grid[..., None] == 1, jnp.asarray(salts), 0).sum(axis=(0, 1), dtype=jnp.uint32)
        return square(start), (grid, fingerprint)

    return World(
        name=f"random-{size}",
        shape=(size, size),
        max_steps=4 * (2 * side * side - 1),
        begin=begin,
        grid=lambda level: level[0],
        state_id=lambda at, level: level[1] + jnp.asarray(salts)[at, AGENT],  # Zobrist (1970): the sum of what stands where
        id_space=spaces.Box(np.uint32(0), np.uint32(2**32 - 1), (2,), np.uint32),
        costly_reset=True,
    )


def _view(view: str, view_size: int, world: World) -> tuple[Callable[[MazeState], jax.Array], spaces.Box]:
    """(state -> obs, its space)."""
    rows, columns = world.shape

    def full(state):
        return world.grid(state.level).at[state.at, AGENT].set(1).reshape(rows, columns, 3)

    def partial(state):
        near = np.arange(view_size, dtype=np.int32) - view_size // 2
        row, column = (state.at // columns + near)[:, None], (state.at % columns + near)[None, :]
        inside = (row >= 0) & (row < rows) & (column >= 0) & (column < columns)
        square = jnp.where(inside, row * columns + column, 0)  # square 0 is wall
        return world.grid(state.level)[square][..., ::2]  # WALL and GOAL

    def position(state):
        at = jnp.stack([state.at // columns, state.at % columns]).astype(jnp.float32)
        return at * (2 / np.float32([rows - 1, columns - 1])) - 1

    def cell(state):
        return (jnp.arange(world.num_cells) == world.state_id(state.at, state.level)).astype(jnp.float32)

    if view == "full":
        return full, spaces.Box(0, 1, (rows, columns, 3), np.uint8)
    if view == "partial":
        return partial, spaces.Box(0, 1, (view_size, view_size, 2), np.uint8)
    if view == "position":
        return position, spaces.Box(-1.0, 1.0, (2,), np.float32)
    if world.num_cells is None:
        raise Refusal("env.view=cell needs a fixed layout, where squares keep their meaning; try env.view=full or env.view=partial")
    if world.num_cells > LARGEST_ONE_HOT:
        raise Refusal(f"env.view=cell would have {world.num_cells} entries, more than {LARGEST_ONE_HOT}; try env.view=position or env.view=partial")
    return cell, spaces.Box(0.0, 1.0, (world.num_cells,), np.float32)
