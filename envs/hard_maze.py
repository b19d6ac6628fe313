"""HardMaze: a round robot with two wheels, three lasers and two bumpers in a deceptive maze (Lehman and Stanley 2011; fastsim's map, of SERENE and TAXONS).

The map is 600 x 600 units; walls are read off the published bitmap to within 6 units and 15 thick. The robot has a radius of 10 and starts at (60, 450)
with a heading of 45 degrees. An action are the ways of the left and the right wheel, in units of ``speed``, at most 4; it drives as in ``envs/fastsim.py``.
Observations are the distances of the walls at +45, 0 and -45 degrees, at most 100, and whether the left or the right side touches one. An episode lasts
2000 steps; the last one pays (50 - d) / 50 within d < 50 of (60, 60) ("area 1") or (100, 200) ("area 2"). The descriptor is the place, in [0, 1]^2.

``layout="kheperax"`` is the map of Kheperax's standard maze in a unit square: lasers of 0.2, radius 0.015, wheels of 0.025 a step, 250 steps, one goal at
(0.15, 0.9) of radius 0.05, thin walls; the robot moves as above, which is not Kheperax's own move (a robot of theirs that has touched a wall stays put).
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from gymnasium import spaces

from envs.base import Environment, Spec, TimeStep
from envs.builder import FLAG, POSITIVE, Choice, Integer, Optional, options
from envs.fastsim import Arena, robot
from envs.pictures import disc

LARGEST = 4.0  # of an action, in units of ``speed``
PIXELS = 64


class Layout(NamedTuple):
    arena: Arena
    start: tuple
    heading: float
    goals: tuple
    goal_radius: float
    speed: float  # way of a wheel for an action of 1
    steps: int


FASTSIM = Layout(
    arena=Arena(
        side=600.0,
        walls=(
            ((174, 138), (174, 456)),
            ((0, 134), (168, 146)),
            ((174, 143), (396, 80)),
            ((0, 215), (108, 348)),
            ((174, 305), (462, 465)),
            ((258, 258), (594, 432)),
            ((324, 471), (210, 594)),
        ),
        half=7.5,
        border=9.0,
        radius=10.0,
        reach=100.0,
    ),
    start=(60.0, 450.0),
    heading=0.25 * np.pi,
    goals=((60.0, 60.0), (100.0, 200.0)),
    goal_radius=50.0,
    speed=1.0,
    steps=2000,
)
KHEPERAX = Layout(
    arena=Arena(
        side=1.0,
        walls=(
            ((0.25, 0.25), (0.25, 0.75)),
            ((0.14, 0.45), (0.0, 0.65)),
            ((0.25, 0.75), (0.0, 0.8)),
            ((0.25, 0.75), (0.66, 0.875)),
            ((0.355, 0.0), (0.525, 0.185)),
            ((0.25, 0.5), (0.75, 0.215)),
            ((1.0, 0.25), (0.435, 0.55)),
        ),
        half=0.0,
        border=0.0,
        radius=0.015,
        reach=0.2,
    ),
    start=(0.15, 0.15),
    heading=0.5 * np.pi,
    goals=((0.15, 0.9),),
    goal_radius=0.05,
    speed=0.025,
    steps=250,
)
LAYOUTS = {"fastsim": FASTSIM, "kheperax": KHEPERAX}


class HardMazeState(NamedTuple):
    place: jax.Array  # f32[2]
    heading: jax.Array  # f32[]; radians
    touched: jax.Array  # bool[2]; left, right
    steps: jax.Array  # i32[]


@options(layout=Choice(tuple(LAYOUTS)), speed=POSITIVE, late_reward=FLAG, max_steps=Optional(Integer(1)))
def hard_maze(*, layout: str = "fastsim", speed: float | jax.Array = 1.0, late_reward: bool = False, max_steps: int | None = None) -> Environment:
    """The maze.

    Args:
      layout: fastsim or kheperax; see above.
      speed: the way of a wheel for an action of 1, in units of the layout's own (1 unit of 600; 0.025 of 1). TAXONS has 5.
      late_reward: the last step pays by where the robot was before it, as in the published code.
      max_steps: length of an episode, which ends by truncation; None for the layout's own.

    obs f32[5]: distances at +45, 0, -45 degrees, left and right bumper (0 or 1). info: ``descriptor`` f32[2], the place in [0, 1]^2; ``area`` i32[], the reward
    area that paid.
    """
    made = LAYOUTS[layout]
    limit = max_steps or made.steps
    fastsim = robot(made.arena)

    def observe(state):
        return jnp.concatenate([fastsim.lasers(state.place, state.heading), state.touched.astype(jnp.float32)])

    def reset(key):
        del key
        place, heading = jnp.array(made.start, jnp.float32), jnp.float32(made.heading)
        state = HardMazeState(place, heading, jnp.zeros(2, bool), jnp.int32(0))
        return state, observe(state)

    def paid_at(place):
        near = [jnp.maximum(0.0, 1.0 - jnp.sqrt(jnp.sum(jnp.square(place - np.array(goal, np.float32)))) / made.goal_radius) for goal in made.goals]
        best = near[0]
        area = (near[0] > 0).astype(jnp.int32)
        for number, value in enumerate(near[1:], start=2):
            area = jnp.where(value > best, number, area)
            best = jnp.maximum(best, value)
        return best, area

    def step(state, key, action):
        del key
        left, right = jnp.clip(action, -LARGEST, LARGEST) * speed * made.speed
        place, heading, touched = fastsim.drive(state.place, state.heading, left, right)
        new = HardMazeState(place, heading, touched, state.steps + 1)
        over = new.steps >= limit
        paid, area = paid_at(state.place if late_reward else place)
        info = {"descriptor": place / made.arena.side, "area": jnp.where(over, area, 0).astype(jnp.int32)}
        return new, TimeStep(observe(new), jnp.where(over, paid, 0.0), jnp.bool_(False), over, info)

    def render(state):
        image, pixel = jnp.full((PIXELS, PIXELS, 3), 255, jnp.uint8), PIXELS / made.arena.side
        for goal in made.goals:
            image = disc(image, fastsim.shown(goal), max(1.5, made.goal_radius * pixel), (250, 190, 190))
        return disc(fastsim.walls(image), fastsim.shown(state.place), max(2.0, made.arena.radius * pixel), (40, 60, 200))

    spec = Spec(
        observation=spaces.Box(0.0, max(made.arena.reach, 1.0), (5,), np.float32),
        action=spaces.Box(-1.0, 1.0, (2,), np.float32),
        name=f"hard_maze-{layout}",
        max_steps=limit,
        info={"descriptor": spaces.Box(0.0, 1.0, (2,), np.float32), "area": spaces.Discrete(len(made.goals) + 1)},
        deterministic=True,
    )
    return Environment(spec, reset, step, render)
