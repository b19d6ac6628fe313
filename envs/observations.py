"""From Gymnasium's spaces to those that agents read: f32 and small integers, fixed shapes.

====================  ================================================================================================
Box of floats         the same, f32
Box of uint8          the same
Box of other integers the same, i32
Discrete              the same, i32
MultiDiscrete         one-hot, one after the other: Box f32 [sum of the numbers of choices]
MultiBinary           Box f32
Text                  a bag of hashed words: Box f32 [``text_size``], how often each word's bucket was hit; left out when 0
Dict, Tuple           Dict of these; a Tuple's parts are called "0", "1", ...
====================  ================================================================================================

Two words share one of K buckets with probability 1/K, so instructions of few words stay apart.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
from gymnasium import spaces

from envs.builder import Refusal

Convert = Callable[[Any], Any]  # observation -> numpy array, or a dict of them


def readable(space: spaces.Space, text_size: int = 0, name: str = "its observation space") -> tuple[spaces.Space, Convert]:
    """(the space that agents are given, the function that converts an observation to it). Raises Refusal for spaces without a fixed shape."""
    if isinstance(space, spaces.Dict):
        return _several({key: readable(inner, text_size, f"{name}[{key}]") for key, inner in space.spaces.items() if _kept(inner, text_size)}, str, name)
    if isinstance(space, spaces.Tuple):
        parts = {str(n): readable(inner, text_size, f"{name}[{n}]") for n, inner in enumerate(space.spaces) if _kept(inner, text_size)}
        return _several(parts, int, name)
    if isinstance(space, spaces.Box):
        return _box(space)
    if isinstance(space, spaces.Discrete):
        return spaces.Discrete(int(space.n), start=int(space.start)), np.int32
    if isinstance(space, spaces.MultiDiscrete):
        return _one_hot(space)
    if isinstance(space, spaces.MultiBinary):
        return spaces.Box(0.0, 1.0, space.shape, np.float32), lambda obs: np.asarray(obs, np.float32)
    if text_size and is_text(space):
        return spaces.Box(0.0, np.inf, (text_size,), np.float32), lambda text: bag_of_words(text, text_size)
    raise Refusal(f"{name} is a {type(space).__name__}, which has no fixed shape; flatten it with a wrapper: env.wrappers=[{{_target_: ...}}]")


def _kept(space: spaces.Space, text_size: int) -> bool:
    return bool(text_size) or not is_text(space)


def is_text(space: spaces.Space) -> bool:
    """Whether observations are strings: Text, or a class of the world's own (MiniGrid's missions)."""
    own = (spaces.Dict, spaces.Tuple, spaces.Box, spaces.Discrete, spaces.MultiDiscrete, spaces.MultiBinary, spaces.Sequence, spaces.Graph)
    return isinstance(space, spaces.Text) or (not isinstance(space, own) and isinstance(space.sample(), str))


def _several(parts: dict[str, tuple[spaces.Space, Convert]], key: Callable, name: str) -> tuple[spaces.Space, Convert]:
    if not parts:
        raise Refusal(f"{name} holds nothing but text; give it a size, as env.text_size=64")
    converters = [(field, key(field), convert) for field, (_, convert) in parts.items()]
    return spaces.Dict({field: space for field, (space, _) in parts.items()}), lambda obs: {field: convert(obs[k]) for field, k, convert in converters}


def _box(space: spaces.Box) -> tuple[spaces.Space, Convert]:
    if space.dtype == np.uint8:
        dtype = np.uint8
    else:
        dtype = np.float32 if np.issubdtype(space.dtype, np.floating) else np.int32
    if space.dtype == dtype:
        return space, np.asarray
    limits = np.finfo(dtype) if dtype == np.float32 else np.iinfo(dtype)
    low, high = (np.where(np.isfinite(side), np.clip(side, limits.min, limits.max), side).astype(dtype) for side in (space.low, space.high))
    return spaces.Box(low, high, dtype=dtype), lambda obs: np.asarray(obs, dtype)


def _one_hot(space: spaces.MultiDiscrete) -> tuple[spaces.Space, Convert]:
    choices = np.asarray(space.nvec).reshape(-1)
    first = np.concatenate([[0], np.cumsum(choices)[:-1]]) - np.asarray(space.start).reshape(-1)
    size = int(choices.sum())

    def convert(obs):
        found = np.zeros(size, np.float32)
        found[first + np.asarray(obs).reshape(-1)] = 1.0
        return found

    return spaces.Box(0.0, 1.0, (size,), np.float32), convert


def bag_of_words(text: str, size: int) -> np.ndarray:
    """f32[size]; how many words of ``text`` fall into each bucket (CRC-32 of the lower-case word, modulo size)."""
    found = np.zeros(size, np.float32)
    for word in str(text).lower().split():
        found[zlib.crc32(word.encode()) % size] += 1.0
    return found
