"""Cells of worlds on the host, made in the worker that makes the steps: functions (look of a ``HostWorld``) -> fingerprint of 8 bytes.

===============  ==========================================================================================================
``downscaled``   the picture, grey, shrunk and cut into steps of brightness, as in ``exploration/cells.py``
``dynamic``      the same, of a width, height and depth that are searched for (exploration/representation.py)
``observation``  the observation as the world gives it, byte for byte, text included
``knowledge``    domain knowledge of a game: Montezuma's Revenge: level, room, keys and other things carried, position in
                 squares of 16 pixels; Pitfall: room and position (exploration/knowledge.py)
a dotted path    a function (look) -> whole numbers, as ``look("ram")`` or ``look("info")``
``auto``         ``downscaled`` where the world has pictures, else ``observation``
===============  ==========================================================================================================
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable
from typing import Any

import numpy as np

from envs.base import HostEnvironment
from envs.builder import Refusal, closest, locate
from exploration.cells import is_picture, shares
from exploration.knowledge import known_of, read

LEGAL = ("auto", "downscaled", "dynamic", "observation", "knowledge")


def host_cell_function(env: HostEnvironment, cell: str, width: int, height: int, depth: int) -> Callable[[Callable[[str], Any]], bytes]:
    """Raises Refusal for what the world does not give."""
    pictured = is_picture(env.spec.observation)
    if cell == "auto":
        cell = "downscaled" if pictured else "observation"
    if cell in ("downscaled", "dynamic"):
        if not pictured:
            raise Refusal(f"exploration.cell={cell} shrinks pictures, and the observations of {env.spec.name!r} are none; use exploration.cell=observation")
        return dynamic if cell == "dynamic" else functools.partial(downscaled, (width, height, depth))
    if cell == "observation":
        return observed
    if cell == "knowledge":
        return functools.partial(read, known_of(env.spec.name))
    if "." not in cell:
        raise Refusal(f"exploration.cell={cell!r} is not legal here{closest(cell, LEGAL)}; or give the import path of a function of look")
    return functools.partial(numbered, locate(cell, "exploration.cell"))


def digest(data: bytes) -> bytes:
    return hashlib.blake2b(data, digest_size=8).digest()


def downscaled(sizes: tuple[int, int, int], look: Callable) -> bytes:
    grey = look("grey")
    return digest(shrink(grey, *sizes).tobytes())


def dynamic(look: Callable, width: int = 0, height: int = 0, depth: int = 0) -> bytes:
    """The cell under the present representation; before there is one, everything is one cell."""
    return downscaled((width, height, depth), look) if width else digest(b"")


def shrink(grey: np.ndarray, width: int, height: int, depth: int) -> np.ndarray:
    """u8[rows, columns] -> u8[height, width] in [0, depth]; as ``exploration.cells.downscale`` of a grey picture."""
    left, right, pixels = matrices(grey.shape, width, height)
    np.copyto(pixels, grey)
    return (np.rint(left @ pixels @ right) * np.float32(depth) / np.float32(255)).astype(np.uint8)


@functools.cache
def matrices(shape: tuple[int, int], width: int, height: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Both sides of the product that shrinks, and room for the pixels as numbers."""
    return shares(shape[0], height), np.ascontiguousarray(shares(shape[1], width).T), np.empty(shape, np.float32)


def observed(look: Callable) -> bytes:
    return digest(b"".join(part.tobytes() for part in leaves(look("seen"))))


def leaves(obs: Any) -> list[np.ndarray]:
    """Arrays of an observation, dictionaries by their keys in order."""
    if isinstance(obs, (dict, tuple)):
        return [part for key in (sorted(obs) if isinstance(obs, dict) else range(len(obs))) for part in leaves(obs[key])]
    return [np.asarray(obs)]


def numbered(function: Callable, look: Callable) -> bytes:
    return digest(np.asarray(function(look), np.int64).tobytes())
