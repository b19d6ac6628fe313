"""Worlds on the host whose episodes start and end as a curriculum has it: the counterpart of ``steered`` in ``runners/backward.py``, with the same rules."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
from gymnasium import spaces

from envs.base import HostEnvironment, Lanes
from runners.base import Arrived
from runners.demonstrations import Replayed
from runners.host_source import HostSource, fold_in
from runners.steering import INFO, Course, Steering, at_the_worlds_start


class HostSteering(NamedTuple):
    """What a ``HostRunner`` has for a member's lanes to be steered."""

    env: HostEnvironment  # whose steps tell more
    rules: Steering
    open: Callable[[int, int, Steering], SteeredSource]  # (members, lanes, rules of all members) -> opened worlds


def host_steering(env: HostEnvironment, made: Replayed, rules: Steering) -> HostSteering:
    """For worlds that are ``steerable``."""
    told = {name: spaces.Box(0, np.iinfo(np.int32).max, (), np.int32) for name in INFO}
    told |= {name: spaces.Box(0, 1, (), np.bool_) for name, dtype in INFO.items() if dtype is np.bool_}
    more = env._replace(spec=env.spec._replace(info={**env.spec.info, **told}))

    def open_(members: int, lanes: int, every: Steering) -> SteeredSource:
        return SteeredSource(env, made, every, members, lanes)

    return HostSteering(more, rules, open_)


class SteeredSource(HostSource):
    """The host's worlds of all members, [M x N], in their demonstrations (``course``)."""

    def __init__(self, env: HostEnvironment, made: Replayed, rules: Steering, members: int, lanes: int):
        super().__init__(env, members, lanes, worlds=env.steerable(members * lanes))
        self._rules, self._curricula, self._keys, self._step = rules, None, None, 0
        self._snapshots, self._number = made.states.world, len(made.lengths)
        self._obs, self._returns, self._actions = made.states.obs, np.asarray(made.returns), np.asarray(made.actions)
        self.course = jax.tree.map(lambda x: np.full(self.shape, x), at_the_worlds_start(self._number))

    def steer(self, curricula: Any, keys: Any) -> None:
        """By these states of the curricula, with leading axis M, from now on; the keys u32[M, 2] are for the steps until the next call."""
        self._curricula, self._keys, self._step = curricula, keys, 0

    def begin(self) -> None:
        self._restart(np.ones(self.shape, bool))

    def step(self, actions: Any) -> tuple[Lanes, Any, Arrived]:
        course, actions = self.course, self._waited(actions)
        forced, real = course.forced, np.minimum(course.demonstration, self._number - 1)
        shown = self._actions[real, np.minimum(course.time, self._actions.shape[1] - 1)]
        actions = np.where(forced.reshape(*self.shape, *[1] * (actions.ndim - 2)), shown.astype(actions.dtype), actions)
        before, arrived = self._moved(actions, obeyed=forced.reshape(-1))
        score = before.episode_return + arrived.reward
        told = self._rules.judge(course, self._keys_now(), score, arrived.terminated, arrived.truncated)
        self.course, judged = jax.tree.map(np.array, told)
        self._restart(judged.terminated | judged.truncated, score, before.episode_length + np.int32(1))
        following = self.lanes.obs
        self._step += 1
        return before, actions, Arrived(arrived.obs, arrived.reward, judged.terminated, judged.truncated, {**arrived.info, **judged.info}, following)

    def _keys_now(self) -> Any:
        return fold_in(self._keys, np.int32(self._step))

    def _restart(self, ended: np.ndarray, score: np.ndarray | None = None, length: np.ndarray | None = None) -> None:
        """Begin other episodes where they ``ended``; elsewhere ``score`` and ``length`` are those of the episode so far."""
        lanes = self.lanes
        score, length = (lanes.episode_return if score is None else score), (lanes.episode_length if length is None else length)
        first = lanes.first | ended if score is lanes.episode_return else ended
        obs = lanes.obs
        if ended.any():
            chosen = jax.tree.map(np.array, self._rules.choose(self._curricula, self._keys_now()))
            self.course = Course(*(np.where(ended, new, old) for new, old in zip(chosen, self.course, strict=True)))
            demo, at = chosen.demonstration, chosen.time
            fresh, real = demo == self._number, np.minimum(demo, self._number - 1)
            wanted = [
                None if not over else b"" if new else self._snapshots[d][t]
                for over, new, d, t in zip(ended.flat, fresh.flat, real.flat, at.flat, strict=True)
            ]
            started, known = self._per_member(self.worlds.put(wanted)), jax.tree.map(lambda x: x[real, at], self._obs)
            obs = jax.tree.map(lambda new, shown, old: _where(ended & fresh, new, _where(ended & ~fresh, shown, old)), started, known, obs)
            score = np.where(ended, np.where(fresh, np.float32(0), self._returns[real, at]), score)
            length = np.where(ended, np.where(fresh, np.int32(0), at), length)
        self.lanes = Lanes((), obs, first, score, length)

    def save(self) -> bytes | None:
        return pickle.dumps((self.worlds.save(), self.course))

    def load(self, saved: bytes, lanes: Lanes) -> None:
        worlds, self.course = pickle.loads(saved)
        self.worlds.load(worlds)
        self.lanes = jax.tree.map(np.array, lanes)


def _where(mask: np.ndarray, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.where(mask.reshape(*mask.shape, *[1] * (a.ndim - mask.ndim)), a, b)
