"""Farama's minigrid beside ours: its worlds by our ids, its levels as ours, episodes played there."""

from __future__ import annotations

import re
import warnings
from typing import NamedTuple

import gymnasium
import numpy as np
import pytest

from envs.minigrid.core import NOTHING, Level, cell

pytest.importorskip("minigrid")
from minigrid.core import constants  # noqa: E402
from minigrid.envs import MultiRoomEnv  # noqa: E402

HABITS = np.array([0.13, 0.13, 0.34, 0.14, 0.08, 0.17, 0.01])  # how often each action: left, right, forward, pickup, drop, toggle, done


def farama(id: str):
    """The world, as MiniGridEnv."""
    found = re.fullmatch(r"MiniGrid-MultiRoom-N(\d+)-S(\d+)-v0", id)
    if found and id not in gymnasium.registry:
        number, largest = map(int, found.groups())
        return MultiRoomEnv(number, number, largest)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # v0 of some is said to be out of date
        return gymnasium.make(id).unwrapped


def code(thing) -> np.uint16:
    """Our cell of an object of theirs."""
    if thing is None:
        return NOTHING
    inside = getattr(thing, "contains", None)
    kind, colour, state = thing.encode()
    return np.uint16(cell(kind, colour, state, 0 if inside is None else 1 + constants.COLOR_TO_IDX[inside.color]))


def level_of(world) -> Level:
    """The level that ``world`` was reset to, in numpy."""
    grid = np.array([code(thing) for thing in world.grid.grid], np.uint16).reshape(world.height, world.width)
    wanted = code(world.obj) if hasattr(world, "obj") else NOTHING
    return Level(grid, np.int32([world.agent_pos[1], world.agent_pos[0]]), np.int32(world.agent_dir), np.uint16(wanted))


class Episode(NamedTuple):
    level: Level
    actions: np.ndarray  # i32[T]; zeros after the end
    images: np.ndarray  # uint8[T + 1, 7, 7, 3]
    rewards: np.ndarray  # f32[T]
    terminated: np.ndarray  # bool[T]
    truncated: np.ndarray  # bool[T]
    steps: int


def played(world, seed: int, limit: int, displaced: bool) -> Episode:
    """An episode of random actions. ``displaced``: from a random empty cell near some object, so that what is far away is met as well."""
    world.reset(seed=seed)
    generator = np.random.default_rng([seed, 1])
    level = level_of(world)
    if displaced:
        empty = [(x, y) for x in range(world.width) for y in range(world.height) if world.grid.get(x, y) is None]
        things = [i for i, thing in enumerate(world.grid.grid) if thing is not None and thing.type in ("ball", "box", "key", "goal", "door")]
        x, y = (lambda i: (i % world.width, i // world.width))(things[generator.integers(len(things))])
        world.agent_pos = min(empty, key=lambda at: abs(at[0] - x) + abs(at[1] - y))
        level = level_of(world)
    images, rewards, ends = [world.gen_obs()["image"]], [], []
    actions = generator.choice(7, limit, p=HABITS).astype(np.int32)
    for action in actions:
        obs, reward, terminated, truncated, _ = world.step(action)
        images.append(obs["image"])
        rewards.append(reward)
        ends.append((terminated, truncated))
        if terminated or truncated:
            break
    steps, images = len(rewards), np.stack(images)
    pad = lambda x: np.concatenate([x, np.zeros((limit - steps, *x.shape[1:]), x.dtype)])  # noqa: E731
    ends = np.array(ends, bool)
    return Episode(level, actions, pad(images), pad(np.float32(rewards)), pad(ends[:, 0]), pad(ends[:, 1]), steps)
