"""A point in a square that a policy pushes about: the smallest world of SERENE and STAX (``Walker2D`` of their code, arXiv 2102.03140).

The position p in [-1, 1]^2 starts at 0 and moves by p <- clip(p + 0.05 a, -1, 1) for actions a in [-1, 1]^2; an episode lasts 50 steps; the observation is p.
Four rectangles pay 1 for each step that ends inside; the first one entered is the episode's reward area, and the others pay nothing from then on.

``reward="graded"`` is this project's: at the end (1 - d / r) within a distance d < r of one of four centres, as SERENE's larger worlds pay.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from gymnasium import spaces

from envs.base import Environment, Spec, TimeStep
from envs.builder import Choice, Integer, options
from envs.pictures import disc, rectangle

STEP = 0.05
RECTANGLES = np.array([[[0.75, 0.75], [0.8, 0.8]], [[-0.98, 0.9], [-0.93, 0.95]], [[0.0, -0.75], [0.05, -0.7]], [[-0.75, -0.05], [-0.7, 0.0]]], np.float32)
CENTRES = np.array([[0.5, 0.5], [-0.7, 0.3], [0.0, -0.8], [0.9, -0.9]], np.float32)
RADII = np.array([0.04, 0.04, 0.03, 0.02], np.float32)
PIXELS = 64


class Point2DState(NamedTuple):
    position: jax.Array  # f32[2]
    area: jax.Array  # i32[]; the reward area that the episode is in, 0 for none
    steps: jax.Array  # i32[]


@options(reward=Choice(("rectangles", "graded", "none")), max_steps=Integer(1))
def point2d(*, reward: str = "rectangles", max_steps: int = 50) -> Environment:
    """The world. ``max_steps``: length of an episode, which ends by truncation.

    obs f32[2] in [-1, 1]. info: ``descriptor`` f32[2], the position; ``area`` i32[], the reward area (1 to 4) that has been entered, 0 for none.
    """

    def reset(key):
        del key
        state = Point2DState(jnp.zeros(2, jnp.float32), jnp.int32(0), jnp.int32(0))
        return state, state.position

    def step(state, key, action):
        del key
        position = jnp.clip(state.position + STEP * jnp.clip(action, -1.0, 1.0), -1.0, 1.0)
        steps = state.steps + 1
        over = steps >= max_steps
        area, paid = state.area, jnp.float32(0)
        if reward == "rectangles":
            inside = jnp.all((position >= RECTANGLES[:, 0]) & (position <= RECTANGLES[:, 1]), axis=-1)
            here = jnp.where(jnp.any(inside), jnp.argmax(inside) + 1, 0).astype(jnp.int32)
            area = jnp.where(area == 0, here, area)
            paid = ((here > 0) & (here == area)).astype(jnp.float32)
        elif reward == "graded":
            near = 1.0 - jnp.sqrt(jnp.sum(jnp.square(position - CENTRES), axis=-1)) / RADII
            best = jnp.argmax(near)
            paid = jnp.where(over, jnp.maximum(near[best], 0.0), 0.0)
            area = jnp.where(paid > 0, best + 1, 0).astype(jnp.int32)
        new = Point2DState(position, area, steps)
        return new, TimeStep(position, paid, jnp.bool_(False), over, {"descriptor": position, "area": area})

    def render(state):
        image = jnp.full((PIXELS, PIXELS, 3), 255, jnp.uint8)
        if reward == "rectangles":
            for low, high in RECTANGLES:
                image = rectangle(image, low, high, (220, 50, 50))
        if reward == "graded":
            for centre, radius in zip(CENTRES, RADII, strict=True):
                image = disc(image, centre, max(1.5, radius * PIXELS / 2), (220, 50, 50))
        return disc(image, state.position, 2.0, (40, 60, 200))

    spec = Spec(
        observation=spaces.Box(-1.0, 1.0, (2,), np.float32),
        action=spaces.Box(-1.0, 1.0, (2,), np.float32),
        name="point2d",
        max_steps=max_steps,
        info={"descriptor": spaces.Box(-1.0, 1.0, (2,), np.float32), "area": spaces.Discrete(1 if reward == "none" else 5)},
        deterministic=True,
    )
    return Environment(spec, reset, step, render)
