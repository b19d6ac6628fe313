"""``Draft``: a level in the making. Objects are put at random cells, uniform over those that are legal: what minigrid reaches by trying
again is here one draw from a mask, so the distribution is the same and the work is fixed."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from envs.minigrid.core import EMPTY, MOVES, NOTHING, WALL, WALL_CELL, Level, kind_of


class Draft:
    """Traced code: one level of a fixed size. Numbers are drawn from ``key`` one after another, ``draws`` at most."""

    def __init__(self, key: jax.Array, walls: np.ndarray, draws: int = 64):
        self.grid = jnp.asarray(np.where(walls, WALL_CELL, NOTHING))
        self.height, self.width = walls.shape
        self.position = jnp.full(2, -1, jnp.int32)  # the agent's, once it is placed
        self.direction = jnp.int32(0)
        self._numbers, self._drawn = jax.random.uniform(key, (draws,)), 0
        self._rows, self._columns = np.indices(walls.shape)

    def numbers(self, count: int) -> jax.Array:
        """f32[count], uniform in [0, 1)."""
        self._drawn += count
        if self._drawn > len(self._numbers):
            raise ValueError(f"this level draws more than {len(self._numbers)} numbers; give its draft more")
        return self._numbers[self._drawn - count : self._drawn]

    def integer(self, low, high) -> jax.Array:
        """i32: uniform in [low, high)."""
        number = self.numbers(1)[0]
        return jnp.asarray(low + jnp.minimum(jnp.floor(number * (high - low)), high - low - 1), jnp.int32)

    def colour(self) -> jax.Array:
        return self.integer(0, 6)

    def colours(self) -> jax.Array:
        """i32[6]: all colours, shuffled."""
        return jnp.argsort(self.numbers(6)).astype(jnp.int32)

    def area(self, top, left, height, width) -> jax.Array:
        """bool[H, W]: the cells of a rectangle."""
        down, right = self._rows - top, self._columns - left
        return (down >= 0) & (down < height) & (right >= 0) & (right < width)

    def set(self, row, column, code) -> None:
        self.grid = self.grid.at[row, column].set(jnp.asarray(code, jnp.uint16))

    def place(self, code, area, near_agent: bool = True) -> tuple[jax.Array, jax.Array]:
        """Put an object into a random empty cell of ``area`` but the agent's; with ``near_agent=False`` none next to it either."""
        distance = jnp.abs(self._rows - self.position[0]) + jnp.abs(self._columns - self.position[1])
        legal = area & (self.grid == NOTHING) & (distance > (0 if near_agent else 1))
        at = self._chosen(legal)
        row, column = at // self.width, at % self.width
        self.set(row, column, code)
        return row, column

    def place_agent(self, area, before_free: bool = False) -> None:
        """The agent at a random empty cell of ``area``, in a random direction; ``before_free``: not right before an object."""
        legal = jnp.broadcast_to(area & (self.grid == NOTHING), (4, self.height, self.width))
        if before_free:
            ahead = jnp.stack([jnp.roll(self.grid, (-int(down), -int(right)), (0, 1)) for down, right in MOVES])
            legal = legal & ((kind_of(ahead) == EMPTY) | (kind_of(ahead) == WALL))
        at = self._chosen(legal)
        cell = at % (self.height * self.width)
        self.direction = at // (self.height * self.width)
        self.position = jnp.stack([cell // self.width, cell % self.width])

    def _chosen(self, legal: jax.Array) -> jax.Array:
        """i32: the flat index of a random True of ``legal``."""
        reached = jnp.cumsum(legal.reshape(-1), dtype=jnp.int32)
        return jnp.searchsorted(reached, self.integer(0, reached[-1]) + 1).astype(jnp.int32)

    def level(self, wanted=NOTHING) -> Level:
        return Level(self.grid, self.position, self.direction, jnp.asarray(wanted, jnp.uint16))


def walled(height: int, width: int) -> np.ndarray:
    """bool[height, width]: walls around an empty rectangle."""
    walls = np.ones((height, width), bool)
    walls[1:-1, 1:-1] = False
    return walls
