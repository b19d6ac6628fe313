"""What counts as a cell of an archive: functions of a transition that tell where it arrived.

===============  ==========================================================================================================
``state``        ``info["state_id"]``, the world's own number or fingerprint of the state
``observation``  the observation
``position``     ``info["position"]``, the place on the world's map
``downscaled``   the picture, grey, shrunk to ``width`` x ``height``, its brightness cut into ``depth`` steps (Go-Explore, arXiv 2004.12919)
a dotted path    a function (transition of one lane) -> number or array; its attribute ``needs`` lists the fields it reads
``auto``         ``state`` where the world tells its states apart, ``downscaled`` for pictures, else ``observation``
===============  ==========================================================================================================
"""

from __future__ import annotations

from collections.abc import Callable

import jax.numpy as jnp
import numpy as np
from gymnasium import spaces

from envs.base import Spec
from envs.builder import Refusal, closest
from exploration.counts import key_function
from exploration.hash_table import hash_observation

GREY = np.array([0.299, 0.587, 0.114], np.float32)  # ITU-R BT.601, of red, green and blue
NEEDS = {"state": "state_id", "position": "position"}  # keys of info
LEGAL = ("auto", "state", "observation", "position", "downscaled")
ON_HOST = ("dynamic", "knowledge")  # exploration/host_cells.py
SMALLEST = 32  # pictures with a side below are told apart as they are


def cell_function(spec: Spec, cell: str, width: int, height: int, depth: int) -> Callable:
    """transition of any leading shape -> fingerprints u32[..., 2]. Raises Refusal for what the world does not give."""
    if cell == "auto":
        cell = "state" if "state_id" in spec.info else "downscaled" if is_picture(spec.observation) else "observation"
    if cell in ("state", "position") and NEEDS[cell] not in spec.info:
        raise Refusal(f"exploration.cell={cell} needs info.{NEEDS[cell]}, which the world {spec.name!r} does not give")
    if cell == "position":
        return lambda t: hash_observation(t.info["position"], jnp.ndim(t.info["position"]) - 1)
    if cell == "downscaled":
        if not is_picture(spec.observation):
            raise Refusal(f"exploration.cell=downscaled shrinks pictures of {SMALLEST} x {SMALLEST} or more; the observations of {spec.name!r} are none")
        rows, columns = spec.observation.shape[:2]

        def shrunk(t):
            return hash_observation(downscale(t.next_obs, min(width, columns), min(height, rows), depth), t.next_obs.ndim - 3)

        return shrunk
    if cell in ON_HOST:
        raise Refusal(f"exploration.cell={cell} is for worlds on the host, as env=atari env.sticky=0; here: {', '.join(LEGAL)}, or an import path")
    if "." not in cell and cell not in LEGAL:
        raise Refusal(f"exploration.cell={cell!r} is not legal{closest(cell, LEGAL)}; or give the import path of a function transition -> key")
    identify, _ = key_function(spec, cell, "exploration.cell")

    def fingerprint(t):
        ids = identify(t)
        return hash_observation(ids, ids.ndim) if cell == "state" and spec.num_states is not None else ids

    return fingerprint


def is_picture(space: spaces.Space) -> bool:
    """uint8 [rows, columns, channels], large enough to be shrunk."""
    return isinstance(space, spaces.Box) and space.dtype == np.uint8 and len(space.shape) == 3 and min(space.shape[:2]) >= SMALLEST


def downscale(frames, width: int, height: int, depth: int):
    """Pictures u8[..., rows, columns, channels] -> u8[..., height, width] in [0, depth]: grey (the mean of channels that are not red, green, blue),
    each pixel the mean of the area it covers, rounded, then floor(pixel / 255 x depth)."""
    channels = frames.shape[-1]
    weights = GREY if channels == 3 else np.full(channels, 1 / channels, np.float32)
    grey = jnp.round(frames.astype(jnp.float32) @ weights)
    small = jnp.round(jnp.asarray(shares(frames.shape[-3], height)) @ grey @ jnp.asarray(shares(frames.shape[-2], width)).T)
    return jnp.floor(small * depth / 255).astype(jnp.uint8)


def shares(size: int, cells: int) -> np.ndarray:
    """f32[cells, size]: which share of each cell every pixel covers, when ``size`` pixels are shrunk to ``cells``; rows sum to 1."""
    edges = np.linspace(0, size, cells + 1)
    low, high = edges[:-1, None], edges[1:, None]
    at = np.arange(size)[None]
    return (np.clip(np.minimum(high, at + 1) - np.maximum(low, at), 0, None) / (high - low)).astype(np.float32)
