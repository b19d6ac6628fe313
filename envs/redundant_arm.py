"""Redundant arm: twenty joints in a box with four walls, driven by torques (SERENE and STAX, arXiv 2102.03140, 2111.01919, their code).

The arm's root is the middle of the unit square, each of its ``JOINTS`` links is 0.05 long. Joint angles, each relative to the link before, begin as
linspace(4 pi / 20, pi / 20), a spiral, and stay within pi to either side. A step is two updates of dt = 0.01 under the torques a in [-1, 1]:

    angle' = angle + w dt + a dt^2 / 2,    w' = (angle' - angle) / dt,

so a joint that reaches its limit stops. Observations are the angles / pi, the descriptor is where the arm ends, in [0, 1]^2.

A move is illegal, is not made, and ends the episode (``terminated``), if after it a point of the arm (the root, the joints, the end) lies outside [0, 1)^2
or in one of the walls, 0.02 thick, which reach 0.2 inwards from the middle of each side; if two points have |dx| + |dy| < 0.95 times a link's length; or if
half the way that the end went plus the speed of the last joint exceeds 1 (units do not fit: as published). Else an episode lasts ``max_steps`` steps, 100 in
the published searches. The last step pays (r - d) / r within a distance d < r = 0.05 of (0.25, 0.25) ("area 1"), (0.85, 0.85) or (0.25, 0.9).

Chosen here, as the sources do not tell: the arm stays where it was before an illegal move; the way of the end is that of a whole step; all 21 points count.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from gymnasium import spaces

from envs.base import Environment, Spec, TimeStep
from envs.builder import FLAG, Integer, options
from envs.pictures import disc, rectangle, segment

JOINTS, LINK = 20, 0.05
DT, UPDATES = 0.01, 2
ROOT = np.array([0.5, 0.5], np.float32)
START = np.linspace(4 * np.pi / JOINTS, np.pi / JOINTS, JOINTS).astype(np.float32)
WALLS = np.array([[[0.0, 0.49], [0.2, 0.51]], [[0.8, 0.49], [1.0, 0.51]], [[0.49, 0.0], [0.51, 0.2]], [[0.49, 0.8], [0.51, 1.0]]], np.float32)  # low, high
GOALS, RADIUS = np.array([[0.25, 0.25], [0.85, 0.85], [0.25, 0.9]], np.float32), 0.05
NEAREST = 0.95 * LINK  # of two points, |dx| + |dy|
OWN_LIMIT = 250  # steps after which the published world ends by itself
UP_TO = np.tril(np.ones((JOINTS, JOINTS), np.float32))  # [i, j]: link j comes before joint i, or is its own
PIXELS = 64


class RedundantArmState(NamedTuple):
    angles: jax.Array  # f32[20]; of each joint relative to the link before
    speeds: jax.Array  # f32[20]; rad/s
    end: jax.Array  # f32[2]
    steps: jax.Array  # i32[]


def points(angles: jax.Array) -> tuple[jax.Array, jax.Array]:
    """(x, y) of the joints' far ends, f32[20] each; the last one is the arm's."""
    turned = jnp.sum(UP_TO * angles, axis=-1)  # sums of products: under vmap a matrix product would be many tiny ones
    along = jnp.sum(UP_TO * jnp.cos(turned), axis=-1), jnp.sum(UP_TO * jnp.sin(turned), axis=-1)
    return ROOT[0] + LINK * along[0], ROOT[1] + LINK * along[1]


def collides(x: jax.Array, y: jax.Array) -> jax.Array:
    """bool[]: a point f32[20] is outside, in a wall, or too near to another one or to the root."""
    outside = (x < 0) | (x >= 1) | (y < 0) | (y >= 1)
    for low, high in WALLS:
        outside |= (x >= low[0]) & (x <= high[0]) & (y >= low[1]) & (y <= high[1])
    apart = jnp.abs(x[:, None] - x) + jnp.abs(y[:, None] - y)
    near = (apart < NEAREST) & ~np.eye(JOINTS, dtype=bool)
    at_root = jnp.abs(x - ROOT[0]) + jnp.abs(y - ROOT[1]) < NEAREST
    return jnp.any(outside | at_root | jnp.any(near, axis=-1))


@options(max_steps=Integer(1), published_reward=FLAG)
def redundant_arm(*, max_steps: int = 100, published_reward: bool = False) -> Environment:
    """The arm.

    Args:
      max_steps: length of an episode, which ends by truncation if by no illegal move.
      published_reward: only an illegal move pays, or the published world's own end after 250 steps. The published searches stop after 100 steps, so there
        whoever is inside a goal has to collide to be paid. Otherwise the last step pays, however it ends.

    obs f32[20]: angles / pi. action f32[20] in [-1, 1]: torques. info: ``descriptor`` f32[2], the arm's end; ``area`` i32[], the reward area that paid.
    """

    def reset(key):
        del key
        angles = jnp.asarray(START)
        x, y = points(angles)
        return RedundantArmState(angles, jnp.zeros(JOINTS, jnp.float32), jnp.stack([x[-1], y[-1]]), jnp.int32(0)), angles / np.pi

    def step(state, key, action):
        del key
        torques = jnp.clip(action, -1.0, 1.0)
        angles, speeds = state.angles, state.speeds
        for _ in range(UPDATES):
            free = speeds + 0.5 * torques * DT  # the new speed, if the joint does not reach its limit; a difference of angles would round it
            wanted = angles + free * DT
            turned = jnp.clip(wanted, -np.pi, np.pi)
            angles, speeds = turned, jnp.where(turned == wanted, free, (turned - angles) / DT)
        x, y = points(angles)
        end = jnp.stack([x[-1], y[-1]])
        way = jnp.sqrt(jnp.sum(jnp.square(end - state.end)))
        illegal = collides(x, y) | (0.5 * way + jnp.abs(speeds[-1]) > 1.0)
        stays = lambda old, new: jnp.where(illegal, old, new)  # noqa: E731
        new = RedundantArmState(stays(state.angles, angles), stays(state.speeds, speeds), stays(state.end, end), state.steps + 1)
        over = ~illegal & (new.steps >= max_steps)
        near = 1.0 - jnp.sqrt(jnp.sum(jnp.square(new.end - GOALS), axis=-1)) / RADIUS
        pays = illegal | (new.steps >= OWN_LIMIT if published_reward else over)
        paid = jnp.where(pays, jnp.maximum(jnp.max(near), 0.0), 0.0)
        area = jnp.where(pays, jnp.sum((near > 0) * np.arange(1, 4)), 0).astype(jnp.int32)  # the areas lie apart
        return new, TimeStep(new.angles / np.pi, paid, illegal, over, {"descriptor": new.end, "area": area})

    def render(state):
        shown = lambda at: 2.0 * jnp.asarray(at) - 1.0  # noqa: E731
        image = jnp.full((PIXELS, PIXELS, 3), 255, jnp.uint8)
        for goal in GOALS:
            image = disc(image, shown(goal), RADIUS * PIXELS, (250, 190, 190))
        for low, high in WALLS:
            image = rectangle(image, shown(low), shown(high), (60, 60, 60))
        at = shown(jnp.concatenate([jnp.asarray(ROOT)[None], jnp.stack(points(state.angles), axis=-1)]))
        image = jax.lax.fori_loop(0, JOINTS, lambda i, drawn: segment(drawn, at[i], at[i + 1], 1.4, (110, 110, 110)), image)
        return disc(image, at[-1], 2.0, (40, 60, 200))

    spec = Spec(
        observation=spaces.Box(-1.0, 1.0, (JOINTS,), np.float32),
        action=spaces.Box(-1.0, 1.0, (JOINTS,), np.float32),
        name="redundant_arm",
        max_steps=max_steps,
        info={"descriptor": spaces.Box(0.0, 1.0, (2,), np.float32), "area": spaces.Discrete(len(GOALS) + 1)},
        deterministic=True,
    )
    return Environment(spec, reset, step, render)
