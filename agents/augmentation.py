"""Random shifts of pictures (DrQ: arXiv 2004.13649, DrQ-v2: 2107.09645): padded by repeating the edge, then cut to size at a random place.

Shifts are whole pixels, which is DrQ's. DrQ-v2's code samples bilinearly at whole shifts too, so it reads the same pixels.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from gymnasium import spaces

from envs.base import Key, PyTree
from envs.builder import Refusal


def shifted(pictures: jax.Array, shifts: jax.Array) -> jax.Array:
    """Pictures [B, H, W, C] moved by ``shifts`` i32[B, 2] pixels (down, right), of any sign; the edge fills what becomes free. Any dtype, kept."""

    def one(picture, shift):
        rows, columns = (jnp.clip(jnp.arange(side) - by, 0, side - 1) for side, by in zip(picture.shape[:2], shift, strict=True))
        return picture[rows[:, None], columns]

    return jax.vmap(one)(pictures, shifts)


def random_shift(key: Key, pictures: jax.Array, pad: int) -> jax.Array:
    """Each of [B, H, W, C] moved by -pad to pad pixels along both axes, evenly; frames stacked in the channels move together."""
    return shifted(pictures, jax.random.randint(key, (pictures.shape[0], 2), -pad, pad + 1))


def augmentation(space: spaces.Space, pad: int) -> Callable[[Key, PyTree], PyTree]:
    """(key, obs [B, ...]) -> obs with all pictures in it shifted: entries uint8 [H, W, C] up to 255. ``pad`` 0 changes nothing.

    Raises Refusal where there are none.
    """
    parts = space.spaces if isinstance(space, spaces.Dict) else {"": space}
    pictures = [name for name, part in parts.items() if is_picture(part)]
    if pad and not pictures:
        raise Refusal(f"agent.augment={pad} shifts pictures, uint8 [height, width, channels] up to 255; here observations are {space}; use agent.augment=0")

    def augment(key, obs):
        if not pad:
            return obs
        if not isinstance(space, spaces.Dict):
            return random_shift(key, obs, pad)
        return obs | {name: random_shift(jax.random.fold_in(key, i), obs[name], pad) for i, name in enumerate(pictures)}

    return augment


def is_picture(space: spaces.Space) -> bool:
    return isinstance(space, spaces.Box) and len(space.shape) == 3 and space.dtype == np.uint8 and bool(np.all(space.high == 255))
