"""CollectBall: a robot with wheels carries balls to where it started (the world of the signatures in Paolo's thesis, arXiv 2203.01027; Doncieux's task).

The robot is libfastsim's (``envs/fastsim.py``) with a radius of 10, in a square of 600. An action are three numbers in [-1, 1]: the ways of the left and the
right wheel, in units of 2, and whether it holds (above 0). Who holds, carries nothing, and has a ball within reach, picks the nearest one up; who lets go
within 10 of the start has collected the ball, which pays 1 and is gone; elsewhere the ball is put down. An episode lasts 2000 steps. Observations are ten
numbers: the distances of the walls at +45, 0 and -45 degrees, at most 100; the left and the right bumper; whether the nearest ball on the floor is ahead to
the left or ahead to the right; the same of the start; whether it carries. The descriptor is where the robot ends, in [0, 1]^2.

Known of the published world are: libfastsim, six balls, 2000 steps, ten inputs, three outputs, the gain of 2, and 1 per ball that is released within 10 of the
start. Chosen here: the two inner walls, the places of the start and of the balls, the reach of 20, that a ball put down elsewhere lies there, which ten
inputs they are, and that an episode goes on when all balls are collected.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from gymnasium import spaces

from envs.base import Environment, Spec, TimeStep
from envs.builder import Integer, options
from envs.fastsim import Arena, robot
from envs.pictures import disc

ARENA = Arena(side=600.0, walls=(((200, 220), (400, 220)), ((300, 360), (300, 600))), half=7.5, border=9.0, radius=10.0, reach=100.0)
START, HEADING = np.array([300.0, 60.0], np.float32), 0.5 * np.pi
BALLS = np.array([[100, 100], [500, 100], [100, 300], [500, 300], [200, 500], [400, 500]], np.float32)
GAIN, GRASP, HOME = 2.0, 20.0, 10.0  # way of a wheel for an action of 1; reach of the grip; how near to the start a ball is collected
PIXELS = 64


class CollectBallState(NamedTuple):
    place: jax.Array  # f32[2]
    heading: jax.Array  # f32[]; radians
    touched: jax.Array  # bool[2]; left, right
    balls: jax.Array  # f32[6, 2]
    floor: jax.Array  # bool[6]; it lies on the floor
    carried: jax.Array  # bool[6]; at most one; a ball that is neither is collected
    steps: jax.Array  # i32[]


@options(max_steps=Integer(1))
def collect_ball(*, max_steps: int = 2000) -> Environment:
    """The world. ``max_steps``: length of an episode, which ends by truncation.

    obs f32[10] and action f32[3]: see above. info: ``descriptor`` f32[2], the robot's place in [0, 1]^2.
    """
    fastsim = robot(ARENA)

    def reset(key):
        del key
        none = jnp.zeros(len(BALLS), bool)
        state = CollectBallState(jnp.asarray(START), jnp.float32(HEADING), jnp.zeros(2, bool), jnp.asarray(BALLS), ~none, none, jnp.int32(0))
        return state, observe(state)

    def nearest(state):
        """(which of the balls on the floor is the nearest, bool[6], none where there is none; how far each is, infinite for the others)."""
        far = jnp.where(state.floor, jnp.sqrt(jnp.sum(jnp.square(state.balls - state.place), axis=-1)), jnp.inf)
        return (jnp.arange(len(BALLS)) == jnp.argmin(far)) & state.floor, far

    def ahead(state, towards):
        """f32[2]: whether a way f32[2] leads ahead to the left, ahead to the right."""
        cos, sin = jnp.cos(state.heading), jnp.sin(state.heading)
        forward, left = cos * towards[0] + sin * towards[1], cos * towards[1] - sin * towards[0]
        return jnp.stack([(forward > 0) & (left >= 0), (forward > 0) & (left < 0)]).astype(jnp.float32)

    def observe(state):
        which, _ = nearest(state)
        ball = ahead(state, jnp.sum(jnp.where(which[:, None], state.balls - state.place, 0.0), axis=0))
        carries = jnp.any(state.carried).astype(jnp.float32)[None]
        sides = state.touched.astype(jnp.float32)
        return jnp.concatenate([fastsim.lasers(state.place, state.heading), sides, ball, ahead(state, START - state.place), carries])

    def step(state, key, action):
        del key
        command = jnp.clip(action, -1.0, 1.0)
        place, heading, touched = fastsim.drive(state.place, state.heading, GAIN * command[0], GAIN * command[1])
        balls = jnp.where(state.carried[:, None], place, state.balls)
        moved = CollectBallState(place, heading, touched, balls, state.floor, state.carried, state.steps + 1)
        holds, loaded = command[2] > 0, jnp.any(state.carried)
        which, far = nearest(moved)
        taken = which & (far < GRASP) & holds & ~loaded
        home = jnp.sum(jnp.square(place - START)) < HOME**2
        released = state.carried & ~holds
        new = moved._replace(floor=(state.floor & ~taken) | (released & ~home), carried=(state.carried & holds) | taken)
        paid = (jnp.any(released) & home).astype(jnp.float32)
        return new, TimeStep(observe(new), paid, jnp.bool_(False), new.steps >= max_steps, {"descriptor": place / ARENA.side})

    def render(state):
        pixel = PIXELS / ARENA.side
        image = disc(jnp.full((PIXELS, PIXELS, 3), 255, jnp.uint8), fastsim.shown(START), 2 * ARENA.radius * pixel, (250, 190, 190))
        image = disc(fastsim.walls(image), fastsim.shown(state.place), 2.0, (40, 60, 200))
        for number in range(len(BALLS)):
            lies = disc(image, fastsim.shown(state.balls[number]), 1.2, (240, 150, 30))
            image = jnp.where(state.floor[number] | state.carried[number], lies, image)
        return image

    spec = Spec(
        observation=spaces.Box(0.0, ARENA.reach, (10,), np.float32),
        action=spaces.Box(-1.0, 1.0, (3,), np.float32),
        name="collect_ball",
        max_steps=max_steps,
        info={"descriptor": spaces.Box(0.0, 1.0, (2,), np.float32)},
        deterministic=True,
    )
    return Environment(spec, reset, step, render)
