"""A point in a maze: continuous position, actions Box[-1, 1]^2, a goal that pays only when it is near.

The layouts are those of ``envs/maze_layouts.py``. A square is 1 x 1; the square (row, column) covers [row, row + 1) x [column, column + 1), and
the point starts in the middle of S. The task follows the point mazes of SGCRL (arXiv 2408.05804, ``point_env.py``): ten substeps a
step, each axis moved on its own, so the point slides along walls; Gaussian noise is added to the action, then it is clipped.
SGCRL's own task is ``layout=spiral noise=0.01 max_step=1 radius=1 max_steps=100 ends_at_goal=false goal_in_observation=true``.

- ``dynamics="velocity"``: an action is a displacement, in units of ``max_step`` squares.
- ``dynamics="acceleration"``: an action changes the velocity by ``acceleration`` times itself; the velocity of each axis is limited to
  ``max_step`` squares a step, and a wall takes the velocity into it.
- ``reward="sparse"``: 1 in each step that ends nearer to the goal than ``radius``; with ``ends_at_goal`` the first one ends the episode.

No substep is longer than a tenth of a square, and along each axis the square entered is looked up, so no wall is passed, corners
included. Departures from SGCRL: a point that meets a wall stops ``MARGIN`` before it, where theirs stays up to a tenth of a square away;
positions are shown in [-1, 1].
"""

from __future__ import annotations

import numbers
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from gymnasium import spaces

from envs.base import Environment, Spec, TimeStep, Transition
from envs.builder import FLAG, NON_NEGATIVE, Anything, Choice, Integer, Optional, Real, options
from envs.maze_layouts import NAMES, distances, layout_of

SUBSTEPS = 10
MARGIN = 1e-3  # squares between a wall and a point that met it
CELL_PIXELS = 16
FLOOR, WALL, GOAL, POINT = (235, 235, 230), (50, 54, 64), (60, 170, 90), (210, 60, 60)


class PointMazeState(NamedTuple):
    position: jax.Array  # f32[2]; (row, column) in squares
    velocity: jax.Array  # f32[2]; squares per step
    steps: jax.Array  # i32[]


@options(
    layout=Anything(f"{', '.join(NAMES)}, or rows of text"),
    dynamics=Choice(("velocity", "acceleration")),
    max_step=Real(0.0, 1.0, open_low=True),
    acceleration=Real(0.0, 1.0, open_low=True),
    noise=NON_NEGATIVE,
    reward=Choice(("sparse", "none")),
    radius=Real(0.0, 1.0, open_low=True),
    ends_at_goal=FLAG,
    goal_in_observation=FLAG,
    max_steps=Optional(Integer(1)),
)
def point_maze(
    *,
    layout: Any = "u",
    dynamics: str = "velocity",
    max_step: float | jax.Array = 0.5,
    acceleration: float | jax.Array = 0.1,
    noise: float | jax.Array = 0.0,
    reward: str = "sparse",
    radius: float | jax.Array = 0.5,
    ends_at_goal: bool = True,
    goal_in_observation: bool = False,
    max_steps: int | None = None,
) -> Environment:
    """A point maze.

    Args:
      layout: a name of ``maze_layouts.NAMES``, or rows of text (# wall, . free, S start, G goal).
      max_step: the largest step along an axis, in squares.
      acceleration: change of velocity by a full action, in squares per step and step; of ``dynamics="acceleration"`` only.
      noise: standard deviation of what is added to each component of the action.
      radius: of the goal, in squares: at most 1, so that the goal is not reached through a wall, whose far side is 1.5 away.
      max_steps: None for eight times the free squares.

    obs f32[2, 4 or 6] in [-1, 1]: position; velocity, where it is part of the state; the goal, if wanted. info: ``position`` i32[2], the square.
    """
    layout_ = layout_of(layout, goal=reward == "sparse" or goal_in_observation)
    walls, paid, inert = layout_.walls, reward == "sparse", dynamics == "acceleration"
    rows, columns = walls.shape
    size = np.float32([rows, columns])
    start = np.float32(layout_.start) + np.float32(0.5)
    goal = np.float32(layout_.goal or (0, 0)) + np.float32(0.5)
    reached = int((distances(walls, layout_.start) >= 0).sum())
    limit = max_steps or 8 * reached
    quiet = isinstance(noise, numbers.Real) and noise == 0

    def scaled(position):
        return position * (2 / size) - 1

    def observe(state):
        shown = [scaled(state.position)]
        shown += [jnp.clip(state.velocity / max_step, -1, 1)] * inert
        shown += [jnp.asarray(scaled(goal))] * goal_in_observation
        return jnp.concatenate(shown)

    def reset(key):
        state = PointMazeState(jnp.asarray(start), jnp.zeros(2, jnp.float32), jnp.int32(0))
        return state, observe(state)

    def step(state, key, action):
        action = action if quiet else action + noise * jax.random.normal(key, (2,))
        action = jnp.clip(action, -1.0, 1.0)
        velocity = jnp.clip(state.velocity + acceleration * action, -max_step, max_step) if inert else max_step * action
        position, velocity = slide(walls, state.position, velocity)
        new = PointMazeState(position, velocity if inert else state.velocity, state.steps + 1)
        near = jnp.sum((position - goal) ** 2) < radius**2 if paid else jnp.bool_(False)
        terminated = near & ends_at_goal
        info = {"position": jnp.floor(position).astype(jnp.int32)}
        return new, TimeStep(observe(new), near.astype(jnp.float32), terminated, (new.steps >= limit) & ~terminated, info)

    def render(state):
        image = np.where(walls[..., None], np.uint8(WALL), np.uint8(FLOOR)).repeat(CELL_PIXELS, 0).repeat(CELL_PIXELS, 1)
        points = np.stack(np.indices(image.shape[:2]), -1) / CELL_PIXELS + 0.5 / CELL_PIXELS
        if paid or goal_in_observation:
            disc = np.linalg.norm(points - goal, axis=-1) < float(radius)
            image[disc & (image == FLOOR).all(-1)] = GOAL
        image[np.linalg.norm(points - np.asarray(state.position), axis=-1) < 0.25] = POINT
        return image

    spec = Spec(
        observation=spaces.Box(-1.0, 1.0, (2 + 2 * inert + 2 * goal_in_observation,), np.float32),
        action=spaces.Box(-1.0, 1.0, (2,), np.float32),
        name=f"point_maze-{layout_.name}",
        max_steps=limit,
        info={"position": spaces.Box(np.zeros(2, np.int32), np.int32([rows - 1, columns - 1]), dtype=np.int32)},
        num_cells=reached,
        grid=(rows, columns),
        success_return=0.5 if paid else None,
        deterministic=quiet,
    )
    return Environment(spec, reset, step, render)


def slide(walls: np.ndarray, position: jax.Array, velocity: jax.Array) -> tuple[jax.Array, jax.Array]:
    """(position, velocity) f32[2] after a step of at most 1 square along each axis; a wall stops the axis that meets it."""
    flat, columns = jnp.asarray(walls.reshape(-1)), walls.shape[1]

    def along(axis, position, velocity):
        wanted = position.at[axis].add(velocity[axis] / SUBSTEPS)
        row, column = jnp.floor(wanted).astype(jnp.int32)
        blocked = flat[row * columns + column]
        here = jnp.floor(position[axis])
        stop = jnp.where(velocity[axis] > 0, here + (1 - MARGIN), here + MARGIN)
        position = position.at[axis].set(jnp.where(blocked, stop, wanted[axis]))
        return position, velocity.at[axis].set(jnp.where(blocked, 0, velocity[axis]))

    for _ in range(SUBSTEPS):
        for axis in (0, 1):
            position, velocity = along(axis, position, velocity)
    return position, velocity


def square(transition: Transition) -> jax.Array:
    """i32[2], the square that the step ended in: ``exploration.key=envs.point_maze.square`` counts squares in any world with positions."""
    return transition.info["position"]


square.needs = ("info.position",)
