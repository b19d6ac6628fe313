"""The tiny worlds of the fit programs: a line, a grid and a plane. Each has a known best."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from gymnasium import spaces

from envs.base import Environment, Spec, TimeStep


class LineState(NamedTuple):
    place: jax.Array  # i32[]
    seen: jax.Array  # bool[length]; in this episode
    time: jax.Array  # i32[]


def line(length: int = 7, limit: int = 12) -> Environment:
    """States in a row, start in the middle; 0 moves left, 1 moves right; cut after ``limit`` steps. Pays 1 per state new in the episode."""

    def observe(place):
        return jax.nn.one_hot(place, length, dtype=jnp.float32)

    def reset(key):
        place = jnp.int32(length // 2)
        return LineState(place, jnp.arange(length) == place, jnp.int32(0)), observe(place)

    def step(state, key, action):
        place = jnp.clip(state.place + 2 * action - 1, 0, length - 1)
        new = LineState(place, state.seen | (jnp.arange(length) == place), state.time + 1)
        reward = 1.0 - state.seen[place].astype(jnp.float32)
        return new, TimeStep(observe(place), reward, jnp.bool_(False), new.time >= limit, {})

    return Environment(Spec(spaces.Box(0.0, 1.0, (length,), np.float32), spaces.Discrete(2), "line", limit), reset, step)


class GridState(NamedTuple):
    place: jax.Array  # i32[2]
    time: jax.Array  # i32[]


MOVES = np.array([[1, 0], [-1, 0], [0, 1], [0, -1]], np.int32)


def grid(side: int = 10, limit: int = 36) -> Environment:
    """From one corner to the opposite one, where a reward of 1 ends the episode; cut after ``limit`` steps. obs is one-hot."""

    def observe(place):
        return jax.nn.one_hot(place[0] * side + place[1], side**2, dtype=jnp.float32)

    def reset(key):
        state = GridState(jnp.zeros(2, jnp.int32), jnp.int32(0))
        return state, observe(state.place)

    def step(state, key, action):
        new = GridState(jnp.clip(state.place + jnp.asarray(MOVES)[action], 0, side - 1), state.time + 1)
        goal = jnp.all(new.place == side - 1)
        return new, TimeStep(observe(new.place), goal.astype(jnp.float32), goal, new.time >= limit, {})

    return Environment(Spec(spaces.Box(0.0, 1.0, (side**2,), np.float32), spaces.Discrete(4), "grid", limit), reset, step)


class PlaneState(NamedTuple):
    place: jax.Array  # f32[2]
    time: jax.Array  # i32[]


def plane(speed: float = 0.05, limit: int = 50, goal: float = np.inf, action_cost: float = 0.0) -> Environment:
    """p <- clip(p + speed * a) in [-1, 1]^2, from the middle, cut after ``limit`` steps. A step costs action_cost * |a|^2 / 2 and pays 1
    where both coordinates exceed ``goal``."""

    def reset(key):
        return PlaneState(jnp.zeros(2), jnp.int32(0)), jnp.zeros(2)

    def step(state, key, action):
        new = PlaneState(jnp.clip(state.place + speed * action, -1.0, 1.0), state.time + 1)
        reward = jnp.all(new.place > goal).astype(jnp.float32) - action_cost * jnp.mean(jnp.square(action))
        return new, TimeStep(new.place, reward, jnp.bool_(False), new.time >= limit, {})

    box = spaces.Box(-1.0, 1.0, (2,), np.float32)
    return Environment(Spec(box, box, "plane", limit), reset, step)


def picture(place: jax.Array, pixels: int) -> jax.Array:
    """A blurred disc where a point of the plane is: [..., 2] -> f32[..., pixels**2]."""
    x, y = (jnp.exp(-22.0 * jnp.square(jnp.linspace(-1.0, 1.0, pixels) - place[..., i, None])) for i in range(2))
    return (x[..., :, None] * y[..., None, :]).reshape(*place.shape[:-1], pixels**2)
