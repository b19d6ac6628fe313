"""Curling: an arm of two links knocks a ball about a table (SERENE and STAX, arXiv 2102.03140, 2111.01919; their Billiard, in Box2D).

The table is 3 x 3 around 0, its walls 0.05 thick on each side. The arm stands in the middle of the wall at the bottom: two links of length 1, 0.1 wide,
whose joints are limited to 0.4 pi and 0.9 pi to either side and turn at the speed that the action commands, in [-1, 1] rad/s. The ball, of radius 0.15,
starts at (-0.5, 0.2). A step is 1/60 s, an episode 500 steps. Observations are the ball's place, the joints' angles and their speeds. Only the last step
pays: (R - d) / R within a distance d < R of (0.8, 0.8), R = 0.4 ("area 1"), or of (0.8, -0.8), R = 0.2 ("area 2"). The descriptor is where the ball ends,
in [-1.35, 1.35]^2.

It is not Box2D. The arm is moved by its motors alone and the ball does not push it (Box2D's motors have a torque of 100, and a link the density 5 or 1).
Links are capsules; where the ball touches one, its velocity along the normal relative to the moving surface is reflected with restitution 0.9 (Box2D
mixes restitutions by their maximum), and friction of 0.9 takes from the tangential part, at most the third that makes a disc roll; at walls the
restitution is 0.95. Linear damping divides the velocity by 1 + 1.1 dt. A step is cut into ``SUBSTEPS``. Compare coverage, not paths.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from gymnasium import spaces

from envs.base import Environment, Spec, TimeStep
from envs.builder import Integer, options
from envs.pictures import disc, segment

DT, SUBSTEPS = 1 / 60, 2
HALF, BALL, LINK = 1.5 - 0.05, 0.15, 0.05  # of the table inside its walls; radius of the ball; half the width of a link
WALL_RESTITUTION, RESTITUTION, FRICTION, DAMPING = 0.95, 0.9, 0.9, 1.1
LIMITS = np.array([0.4 * np.pi, 0.9 * np.pi], np.float32)
START, BASE = np.array([-0.5, 0.2], np.float32), np.array([0.0, -HALF], np.float32)
AREAS = ((0.8, 0.8, 0.4), (0.8, -0.8, 0.2))  # x, y, R
BOX = 1.35
PIXELS = 64


class CurlingState(NamedTuple):
    ball: jax.Array  # f32[2]
    velocity: jax.Array  # f32[2]; per second
    angles: jax.Array  # f32[2]; of the joints, 0 for straight up
    speeds: jax.Array  # f32[2]; rad/s that they turned at in the last step
    steps: jax.Array  # i32[]


def links(angles: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Where the links begin and end: (base, elbow, hand), f32[2] each. Positive angles turn to the left."""
    first, second = angles[0], angles[0] + angles[1]
    elbow = BASE + jnp.stack([-jnp.sin(first), jnp.cos(first)])
    return jnp.asarray(BASE), elbow, elbow + jnp.stack([-jnp.sin(second), jnp.cos(second)])


@options(max_steps=Integer(1))
def curling(*, max_steps: int = 500) -> Environment:
    """The world. ``max_steps``: length of an episode, which ends by truncation.

    obs f32[6]: ball (x, y), angles of the joints, their speeds. info: ``descriptor`` f32[2], where the ball is; ``area`` i32[], the reward area that paid.
    """

    def observe(state):
        return jnp.concatenate([state.ball, state.angles, state.speeds])

    def reset(key):
        del key
        zero = jnp.zeros(2, jnp.float32)
        state = CurlingState(jnp.asarray(START), zero, zero, zero, jnp.int32(0))
        return state, observe(state)

    def hit(ball, velocity, start, end, start_velocity, end_velocity):
        """The ball after the contact with a link, whose ends move at these velocities."""
        along = end - start
        share = jnp.clip(jnp.sum((ball - start) * along) / jnp.sum(along * along), 0.0, 1.0)
        apart = ball - start - share * along
        distance = jnp.sqrt(jnp.maximum(jnp.sum(apart * apart), 1e-12))
        normal, depth = apart / distance, BALL + LINK - distance
        surface = start_velocity + share * (end_velocity - start_velocity)
        relative = velocity - surface
        into = jnp.sum(relative * normal)
        bounce = jnp.where(into < 0, -(1 + RESTITUTION) * into, 0.0)
        sliding = relative - into * normal
        speed = jnp.sqrt(jnp.maximum(jnp.sum(sliding * sliding), 1e-12))
        # a disc that may turn loses a third of its sliding at most: its surface is as heavy as 2 m of its centre
        held = jnp.minimum(FRICTION * bounce / speed, 1 / 3)
        touched = depth > 0
        velocity = jnp.where(touched, velocity + bounce * normal - held * sliding, velocity)
        return jnp.where(touched, ball + depth * normal, ball), velocity

    def step(state, key, action):
        del key
        command = jnp.clip(action, -1.0, 1.0)
        dt = DT / SUBSTEPS
        ball, velocity, angles = state.ball, state.velocity, state.angles
        for _ in range(SUBSTEPS):
            turned = jnp.clip(angles + command * dt, -LIMITS, LIMITS)
            rate = (turned - angles) / dt
            angles = turned
            base, elbow, hand = links(angles)
            elbow_velocity = rate[0] * jnp.stack([-(elbow - base)[1], (elbow - base)[0]])
            hand_velocity = elbow_velocity + (rate[0] + rate[1]) * jnp.stack([-(hand - elbow)[1], (hand - elbow)[0]])
            velocity = velocity / (1 + DAMPING * dt)
            ball = ball + velocity * dt
            ball, velocity = hit(ball, velocity, base, elbow, jnp.zeros(2), elbow_velocity)
            ball, velocity = hit(ball, velocity, elbow, hand, elbow_velocity, hand_velocity)
            outside = jnp.abs(ball) > HALF - BALL
            leaving = outside & (ball * velocity > 0)
            velocity = jnp.where(leaving, -WALL_RESTITUTION * velocity, velocity)
            ball = jnp.clip(ball, -(HALF - BALL), HALF - BALL)
        steps = state.steps + 1
        new = CurlingState(ball, velocity, angles, (angles - state.angles) / DT, steps)
        over = steps >= max_steps
        near = [jnp.maximum(0.0, 1.0 - jnp.sqrt(jnp.square(ball[0] - x) + jnp.square(ball[1] - y)) / r) for x, y, r in AREAS]
        paid = jnp.where(over, jnp.maximum(near[0], near[1]), 0.0)
        area = jnp.where(paid > 0, jnp.where(near[0] > 0, 1, 2), 0).astype(jnp.int32)
        return new, TimeStep(observe(new), paid, jnp.bool_(False), over, {"descriptor": ball, "area": area})

    def render(state):
        image = jnp.full((PIXELS, PIXELS, 3), 255, jnp.uint8)
        for x, y, r in AREAS:
            image = disc(image, np.array([x, y], np.float32) / 1.5, r / 1.5 * PIXELS / 2, (250, 200, 200))
        base, elbow, hand = links(state.angles)
        image = segment(image, base / 1.5, elbow / 1.5, 2 * LINK / 1.5 * PIXELS / 2, (60, 60, 60))
        image = segment(image, elbow / 1.5, hand / 1.5, 2 * LINK / 1.5 * PIXELS / 2, (110, 110, 110))
        return disc(image, state.ball / 1.5, BALL / 1.5 * PIXELS / 2, (40, 60, 200))

    spec = Spec(
        observation=spaces.Box(-np.inf, np.inf, (6,), np.float32),
        action=spaces.Box(-1.0, 1.0, (2,), np.float32),
        name="curling",
        max_steps=max_steps,
        info={"descriptor": spaces.Box(-BOX, BOX, (2,), np.float32), "area": spaces.Discrete(3)},
        deterministic=True,
    )
    return Environment(spec, reset, step, render)
