"""Pictures drawn by compiled code: shapes on uint8 images [pixels, pixels, 3] of the square [-1, 1]^2, x to the right and y upwards."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

Colour = tuple[int, int, int]


def grid_of(pixels: int) -> tuple[np.ndarray, np.ndarray]:
    """(x f32[1, pixels], y f32[pixels, 1]): the middles of the pixels, row 0 at the top."""
    at = ((np.arange(pixels) + 0.5) * (2.0 / pixels) - 1.0).astype(np.float32)
    return at[None, :], -at[:, None]


def painted(image: jax.Array, where: jax.Array, colour: Colour) -> jax.Array:
    """``image`` with ``colour`` where the mask bool[pixels, pixels] holds."""
    return jnp.where(where[..., None], jnp.array(colour, jnp.uint8), image)


def disc(image: jax.Array, centre: jax.Array, radius: float, colour: Colour) -> jax.Array:
    """A disc at f32[2]; ``radius`` in pixels."""
    x, y = grid_of(image.shape[0])
    within = jnp.square(x - centre[0]) + jnp.square(y - centre[1]) <= (radius * 2.0 / image.shape[0]) ** 2
    return painted(image, within, colour)


def rectangle(image: jax.Array, low: jax.Array, high: jax.Array, colour: Colour) -> jax.Array:
    """The pixels whose square meets [low, high], f32[2] each."""
    (x, y), half = grid_of(image.shape[0]), 1.0 / image.shape[0]
    return painted(image, (x + half >= low[0]) & (x - half <= high[0]) & (y + half >= low[1]) & (y - half <= high[1]), colour)


def segment(image: jax.Array, start: jax.Array, end: jax.Array, width: float, colour: Colour) -> jax.Array:
    """A straight line between f32[2] and f32[2]; ``width`` in pixels."""
    x, y = grid_of(image.shape[0])
    along = end - start
    share = jnp.clip(((x - start[0]) * along[0] + (y - start[1]) * along[1]) / jnp.maximum(jnp.sum(jnp.square(along)), 1e-12), 0.0, 1.0)
    distance = jnp.square(x - start[0] - share * along[0]) + jnp.square(y - start[1] - share * along[1])
    return painted(image, distance <= (width / image.shape[0]) ** 2, colour)
