"""``HostSource``: the host's worlds of all members, [members x lanes], with the bookkeeping of their episodes; all in numpy."""

from __future__ import annotations

import pickle
import time
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from envs.base import HostEnvironment, HostLanes, Lanes, PyTree
from runners.base import Arrived, Steps

fold_in = jax.jit(jax.vmap(jax.random.fold_in, in_axes=(0, None)))  # (keys u32[M, 2], number) -> keys u32[M, 2]


class HostSource:
    """Opened worlds, where each is in its episode (``lanes``, [M, N]), and the seconds that they took. ``note``: numbers that lanes are noted with."""

    def __init__(self, env: HostEnvironment, members: int, lanes: int, render: bool = False, worlds: HostLanes | None = None, note: PyTree = ()):
        self.shape = (members, lanes)
        self.worlds: HostLanes = worlds or env.open(members * lanes, render=render)
        self.names = tuple(env.spec.info)
        self._note = jax.tree.map(lambda x: np.full(self.shape, x), note)
        self.lanes: Lanes | None = None
        self.spent = {"stepping": 0.0, "acting": 0.0}

    def reset(self, seeds: Sequence[int]) -> Lanes:
        """Fresh starts, from a seed per world."""
        obs = self._per_member(self.worlds.reset(seeds))
        self.lanes = Lanes((), obs, np.ones(self.shape, bool), np.zeros(self.shape, np.float32), np.zeros(self.shape, np.int32), self._note)
        return self.lanes

    def step(self, actions: Any) -> tuple[Lanes, Any, Arrived]:
        """(the lanes as they were, the actions that were executed, what the step brought). Waits for the actions [M, N, ...]."""
        before, arrived = self._moved(self._waited(actions))
        return before, actions, arrived

    def _waited(self, actions: Any) -> np.ndarray:
        begin = time.perf_counter()
        actions = np.asarray(actions)
        self.spent["acting"] += time.perf_counter() - begin
        return actions

    def _moved(self, actions: np.ndarray, **obeyed: np.ndarray) -> tuple[Lanes, Arrived]:
        begin = time.perf_counter()
        made, following = self.worlds.step(actions.reshape(-1, *actions.shape[2:]), **obeyed)
        self.spent["stepping"] += time.perf_counter() - begin
        info = {name: made.info[name].reshape(*self.shape, *made.info[name].shape[1:]) for name in self.names}
        successor, after = self._per_member(made.obs), self._per_member(following)
        reward, terminated, truncated = (x.reshape(self.shape) for x in (made.reward, made.terminated, made.truncated))
        before, done = self.lanes, terminated | truncated
        total, length = before.episode_return + reward, before.episode_length + np.int32(1)
        self.lanes = Lanes((), after, done, np.where(done, np.float32(0), total), np.where(done, np.int32(0), length), before.note)
        return before, Arrived(successor, reward, terminated, truncated, info, after, before.note)

    def _per_member(self, obs: PyTree) -> PyTree:
        """[M * N, ...] -> [M, N, ...]"""
        if isinstance(obs, dict):
            return {name: self._per_member(part) for name, part in obs.items()}
        return obs.reshape(*self.shape, *obs.shape[1:])

    def save(self) -> bytes | None:
        """All worlds; None where they cannot be saved."""
        return pickle.dumps(self.worlds.save()) if self.worlds.save else None

    def load(self, saved: bytes, lanes: Lanes) -> None:
        self.worlds.load(pickle.loads(saved))
        self.lanes = jax.tree.map(np.array, lanes)

    def close(self) -> None:
        self.worlds.close()


class Gathered:
    """Steps of an iteration, written as they come: numpy arrays [M, T, N, ...]."""

    def __init__(self, shapes: Steps):
        self.steps: Steps = jax.tree.map(lambda x: np.empty(x.shape, x.dtype), shapes)

    def write(self, t: int, before: Lanes, arrived: Arrived) -> None:
        steps = self.steps
        _write(steps.obs, t, before.obs)
        _write(steps.next_obs, t, arrived.obs)
        steps.reward[:, t], steps.terminated[:, t], steps.truncated[:, t] = arrived.reward, arrived.terminated, arrived.truncated
        steps.first[:, t] = before.first
        steps.info["episode_return"][:, t] = before.episode_return + arrived.reward
        steps.info["episode_length"][:, t] = before.episode_length + 1
        for name, value in arrived.info.items():
            steps.info[name][:, t] = value


def _write(rows: PyTree, t: int, values: PyTree) -> None:
    if isinstance(rows, dict):
        for name, inner in rows.items():
            _write(inner, t, values[name])
    else:
        rows[:, t] = values


def shapes_of(env: HostEnvironment, members: int, lanes: int, steps: int, note: PyTree = ()) -> tuple[Lanes, Arrived, Steps]:
    """Shapes and dtypes of lanes, of what a step brings, and of the steps of an iteration. Opens one world for a moment."""
    probe = env.open(1)
    try:
        seen = probe.reset([0])
    finally:
        probe.close()

    def shaped(lead: tuple[int, ...]):
        def make(dtype, shape=()):
            return jax.ShapeDtypeStruct((*lead, *shape), dtype)

        info = {name: make(np.int32 if np.issubdtype(s.dtype, np.integer) else s.dtype, s.shape or ()) for name, s in env.spec.info.items()}
        return make, jax.tree.map(lambda x: make(x.dtype, x.shape[1:]), seen), info

    make, obs, info = shaped((members, lanes))
    note = jax.tree.map(lambda x: make(x.dtype), note)
    now = Lanes((), obs, make(np.bool_), make(np.float32), make(np.int32), note)
    arrived = Arrived(obs, make(np.float32), make(np.bool_), make(np.bool_), info, obs, note)
    make, obs, info = shaped((members, steps, lanes))
    ends = (make(np.bool_), make(np.bool_), make(np.bool_))
    given = Steps(obs, obs, make(np.float32), *ends, {**info, "episode_return": make(np.float32), "episode_length": make(np.int32)})
    return now, arrived, given
