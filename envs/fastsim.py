"""The robot of libfastsim in the plane: two wheels, lasers and bumpers among straight walls in a square with a border (Mouret and Doncieux 2012).

An action are the ways of the left and the right wheel. With a = (right - left) / (2 radius) and, where |a| > 1e-10, R = left / a + radius, the robot moves by
((cos a - 1) R, sin a R) in its own frame (heading upwards), else straight on by ``left``; then it turns by a. Where it would stand in a wall it stays, but has
turned.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from envs.pictures import segment

LASERS = np.array([0.25 * np.pi, 0.0, -0.25 * np.pi], np.float32)
COS, SIN = np.cos(LASERS), np.sin(LASERS)
GRAZING = 1e-4  # of an edge: a ray that meets its end does so whatever the rounding


class Arena(NamedTuple):
    side: float
    walls: tuple  # ((x, y), (x, y)): their middle lines
    half: float  # half their thickness
    border: float  # thickness of the border
    radius: float  # of the robot
    reach: float  # of the lasers


class Robot(NamedTuple):
    lasers: Callable[[jax.Array, jax.Array], jax.Array]  # (place f32[2], heading f32[]) -> distances f32[3] at +45, 0, -45 degrees, at most ``reach``
    drive: Callable  # (place, heading, left f32[], right f32[]) -> (place, heading in [-pi, pi), touched bool[2]: left, right)
    walls: Callable[[jax.Array], jax.Array]  # a picture u8[pixels, pixels, 3] of the arena, with its walls
    shown: Callable  # a place in units of the arena -> f32[2] of pictures, in [-1, 1]


def edges(arena: Arena) -> np.ndarray:
    """What lasers meet: the edges of walls and border, f32[E, 2, 2]."""
    found = []
    for wall in np.asarray(arena.walls, np.float64):
        along = (wall[1] - wall[0]) / np.linalg.norm(wall[1] - wall[0])
        aside = arena.half * np.array([-along[1], along[0]])
        corners = [wall[0] + aside, wall[1] + aside, wall[1] - aside, wall[0] - aside]
        found += [(corners[i], corners[(i + 1) % 4]) for i in range(4)] if arena.half else [(wall[0], wall[1])]
    low, high = arena.border, arena.side - arena.border
    square = [(low, low), (high, low), (high, high), (low, high)]
    found += [(np.array(square[i]), np.array(square[(i + 1) % 4])) for i in range(4)]
    return np.asarray(found, np.float32)


def robot(arena: Arena) -> Robot:
    """The robot's functions in an arena."""
    starts, ways = edges(arena)[:, 0], edges(arena)[:, 1] - edges(arena)[:, 0]
    walls = np.asarray(arena.walls, np.float32)
    wall_starts, wall_ways = walls[:, 0], walls[:, 1] - walls[:, 0]
    wall_lengths = np.sum(np.square(wall_ways), axis=-1)
    low, high = np.float32(arena.border + arena.radius), np.float32(arena.side - arena.border - arena.radius)

    def lasers(place, heading):
        """f32[3]; along p + t u the edge a + s w is met at t = (a - p) x w / (u x w), s = (a - p) x u / (u x w)."""
        cos, sin = jnp.cos(heading), jnp.sin(heading)
        u_x, u_y = (cos * COS - sin * SIN)[:, None], (sin * COS + cos * SIN)[:, None]
        a_x, a_y = starts[:, 0] - place[0], starts[:, 1] - place[1]
        across = u_x * ways[:, 1] - u_y * ways[:, 0]
        inverse = 1.0 / jnp.where(across == 0, 1.0, across)
        t, s = (a_x * ways[:, 1] - a_y * ways[:, 0]) * inverse, (a_x * u_y - a_y * u_x) * inverse
        met = (across != 0) & (t >= 0) & (s >= -GRAZING) & (s <= 1 + GRAZING)
        return jnp.minimum(jnp.min(jnp.where(met, t, jnp.inf), axis=-1), arena.reach)

    def contacts(place, cos, sin):
        """bool[2]: whether the left and the right half of the robot, which looks along (cos, sin), stand in a wall, or beyond the border."""
        p_x, p_y = place[0] - wall_starts[:, 0], place[1] - wall_starts[:, 1]
        share = jnp.clip((p_x * wall_ways[:, 0] + p_y * wall_ways[:, 1]) / wall_lengths, 0.0, 1.0)
        x, y = share * wall_ways[:, 0] - p_x, share * wall_ways[:, 1] - p_y
        inside = x * x + y * y < (arena.radius + arena.half) ** 2
        left = cos * y - sin * x >= 0
        beyond, beyond_left = jnp.concatenate([place < low, place > high]), jnp.stack([sin >= 0, cos <= 0, sin <= 0, cos >= 0])
        hit_left, hit_right = jnp.any(inside & left) | jnp.any(beyond & beyond_left), jnp.any(inside & ~left) | jnp.any(beyond & ~beyond_left)
        return jnp.stack([hit_left, hit_right])

    def drive(place, heading, left, right):
        turn = (right - left) / (2 * arena.radius)
        arc = jnp.abs(turn) > 1e-10
        safe = jnp.where(arc, turn, 1.0)
        around = left / safe + arena.radius
        ahead, aside = jnp.where(arc, jnp.sin(turn) * around, left), jnp.where(arc, (jnp.cos(turn) - 1) * around, 0.0)
        cos, sin = jnp.cos(heading), jnp.sin(heading)
        # the own frame has the heading upwards: (aside, ahead) turned by heading - pi / 2
        moved = place + jnp.stack([sin * aside + cos * ahead, -cos * aside + sin * ahead])
        heading = heading + turn
        heading = heading - 2 * np.pi * jnp.floor((heading + np.pi) / (2 * np.pi))
        touched = contacts(moved, jnp.cos(heading), jnp.sin(heading))
        return jnp.where(jnp.any(touched), place, moved), heading, touched

    def shown(at):
        return jnp.asarray(at, jnp.float32) * (2.0 / arena.side) - 1.0

    def drawn(image):
        for start, end in arena.walls:
            image = segment(image, shown(start), shown(end), max(1.2, 2 * arena.half * image.shape[0] / arena.side), (60, 60, 60))
        return image

    return Robot(lasers, drive, drawn, shown)
