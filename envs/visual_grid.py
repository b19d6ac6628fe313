"""A square grid seen as pictures: the Visual Gridworld of the coin flip network (Lobel et al. 2023, arXiv 2306.03186, its code).

N x N cells, start (0, 0), goal (N - 1, N - 1), four moves, 150 steps. The picture is grey, 84 x 84 pixels, with the agent's cell lit, so 84 is a
multiple of N: the paper's N = 42 lights 2 x 2 pixels. The walls around the grid stop the agent; there are none inside.

- Actions: 0 up, 1 right, 2 down, 3 left.
- ``reward="goal"``: 1 at the goal, which ends the episode by termination. ``reward="none"``: no goal; the limit cuts the episode.
- ``action_noise``: with this probability a uniformly random action is executed instead (the paper varies it from 0 to 0.5).

The numbers of actions, the brightness (255 on 0) and the other observations are this project's own.
"""

from __future__ import annotations

import numbers
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from gymnasium import spaces

from envs.base import Environment, Spec, TimeStep
from envs.builder import FRACTION, Choice, Integer, Refusal, options
from envs.maze_layouts import MOVES

OBSERVATIONS = ("image", "one_hot", "index", "position")
CELL_PIXELS = 8  # of rendered pictures
ONE, ZERO = np.float32(1), np.float32(0)


class VisualGridState(NamedTuple):
    at: jax.Array  # i32[2]; row, column
    steps: jax.Array  # i32[]


@options(
    size=Integer(2, 512),
    pixels=Integer(2, 1024),
    observation=Choice(OBSERVATIONS),
    reward=Choice(("goal", "none")),
    action_noise=FRACTION,
    max_steps=Integer(1),
)
def visual_grid(
    *,
    size: int = 42,
    pixels: int = 84,
    observation: str = "image",
    reward: str = "goal",
    action_noise: float | jax.Array = 0.0,
    max_steps: int = 150,
) -> Environment:
    """The grid.

    Args:
      size: side N, in cells.
      pixels: side of the picture, a multiple of ``size``; 84 as published.
      observation: "image" uint8[pixels, pixels, 1]; "one_hot" f32[N * N]; "index" i32[], which networks see as one-hot;
        "position" f32[2], (row, column) in [-1, 1].
      reward: "goal" or "none".
      action_noise: probability of a random action; may be traced.
      max_steps: limit, by truncation.

    info: ``state_id`` row * N + column, ``position`` i32[2] (row, column), ``success`` bool, of the cell reached. Raises Refusal where a cell would
    not be a whole number of pixels.
    """
    if observation == "image" and pixels % size:
        nearest = size * max(1, round(pixels / size))
        raise Refusal(f"env.pixels={pixels} must be a multiple of env.size={size}, so that cells are alike; try env.pixels={nearest}")
    paid, goal = reward == "goal", size - 1
    exact = isinstance(action_noise, numbers.Real) and action_noise == 0
    observe, space = observer(observation, size, pixels)

    def reset(key):
        del key
        state = VisualGridState(jnp.zeros(2, jnp.int32), jnp.int32(0))
        return state, observe(state.at)

    def step(state, key, action):
        action = jnp.asarray(action, jnp.int32)
        if not exact:
            chance_key, action_key = jax.random.split(key)
            noisy = jax.random.uniform(chance_key) < action_noise
            action = jnp.where(noisy, jax.random.randint(action_key, (), 0, len(MOVES)), action)
        at = jnp.clip(state.at + jnp.asarray(MOVES)[action], 0, size - 1)
        new = VisualGridState(at, state.steps + 1)
        there = jnp.all(at == goal) & paid
        info = {"state_id": at[0] * size + at[1], "position": at, "success": there}
        return new, TimeStep(observe(at), there.astype(jnp.float32), there, (new.steps >= max_steps) & ~there, info)

    def render(state):
        image = np.full((size, size, 3), (24, 26, 32), np.uint8)
        if paid:
            image[goal, goal] = (60, 170, 90)
        image[tuple(np.asarray(state.at))] = (255, 255, 255)
        return image.repeat(CELL_PIXELS, 0).repeat(CELL_PIXELS, 1)

    cells = size * size
    spec = Spec(
        observation=space,
        action=spaces.Discrete(len(MOVES)),
        name=f"visual_grid-{size}",
        max_steps=max_steps,
        info={"state_id": spaces.Discrete(cells), "position": spaces.Box(0, size - 1, (2,), np.int32), "success": spaces.Discrete(2)},
        num_states=cells,
        num_cells=cells,
        grid=(size, size),
        success_return=0.5 if paid else None,
        deterministic=exact,
    )
    return Environment(spec, reset, step, render)


def observer(observation: str, size: int, pixels: int) -> tuple[Callable[[jax.Array], jax.Array], spaces.Space]:
    """(cell i32[2] -> obs, its space)."""
    per_cell = pixels // size

    def image(at):
        lit = jnp.arange(pixels, dtype=jnp.int32) // per_cell == at[:, None]  # bool[2, pixels]; rows and columns of the cell
        return jnp.where(lit[0][:, None] & lit[1][None, :], jnp.uint8(255), jnp.uint8(0))[..., None]

    def one_hot(at):
        return jnp.where(jnp.arange(size * size, dtype=jnp.int32) == at[0] * size + at[1], ONE, ZERO)

    def position(at):
        return at.astype(jnp.float32) * np.float32(2 / (size - 1)) - 1

    return {
        "image": (image, spaces.Box(0, 255, (pixels, pixels, 1), np.uint8)),
        "one_hot": (one_hot, spaces.Box(0.0, 1.0, (size * size,), np.float32)),
        "index": (lambda at: at[0] * size + at[1], spaces.Discrete(size * size)),
        "position": (position, spaces.Box(-1.0, 1.0, (2,), np.float32)),
    }[observation]
