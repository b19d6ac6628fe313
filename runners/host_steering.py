"""Worlds on the host whose episodes start and end as a curriculum has it: the counterpart of ``steered`` in ``runners/backward.py``, with the same rules."""

from __future__ import annotations

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
    note: Course  # of fresh lanes
    temperature: Callable[[Course], jax.Array] | None  # of the policy, in lanes with these notes [N]
    open: Callable[[int, int, Steering], SteeredSource]  # (members, lanes, rules of all members) -> opened worlds


def host_steering(env: HostEnvironment, made: Replayed, rules: Steering, temperature: Callable[[Course], jax.Array] | None = None) -> HostSteering:
    """For worlds that are ``steerable``."""
    told = {name: spaces.Box(0, np.iinfo(np.int32).max, (), np.int32) for name in INFO}
    told |= {name: spaces.Box(0, 1, (), np.bool_) for name, dtype in INFO.items() if dtype is np.bool_}
    more = env._replace(spec=env.spec._replace(info={**env.spec.info, **told}))

    def open_(members: int, lanes: int, every: Steering) -> SteeredSource:
        return SteeredSource(env, made, every, members, lanes)

    return HostSteering(more, rules, at_the_worlds_start(len(made.lengths)), temperature, open_)


class SteeredSource(HostSource):
    """The host's worlds of all members, [M x N]; lanes are noted with where they are in their demonstrations."""

    def __init__(self, env: HostEnvironment, made: Replayed, rules: Steering, members: int, lanes: int):
        super().__init__(env, members, lanes, worlds=env.steerable(members * lanes), note=at_the_worlds_start(len(made.lengths)))
        self._rules, self._curricula, self._keys, self._step = rules, None, None, 0
        self._snapshots, self._number = made.states.world, len(made.lengths)
        self._obs, self._returns, self._actions = made.states.obs, np.asarray(made.returns), np.asarray(made.actions)

    def steer(self, curricula: Any, keys: Any) -> None:
        """By these states of the curricula, with leading axis M, from now on; the keys u32[M, 2] are for the steps until the next call."""
        self._curricula, self._keys, self._step = curricula, keys, 0

    def begin(self) -> None:
        self._restart(np.ones(self.shape, bool))

    def step(self, actions: Any) -> tuple[Lanes, Any, Arrived]:
        course, actions = self.lanes.note, self._waited(actions)
        forced, real = course.forced, np.minimum(course.demonstration, self._number - 1)
        shown = self._actions[real, np.minimum(course.time, self._actions.shape[1] - 1)]
        actions = np.where(forced.reshape(*self.shape, *[1] * (actions.ndim - 2)), shown.astype(actions.dtype), actions)
        before, arrived = self._moved(actions, obeyed=forced.reshape(-1))
        score = before.episode_return + arrived.reward
        told = self._rules.judge(course, self._keys_now(), score, arrived.terminated, arrived.truncated)
        course, judged = jax.tree.map(np.array, told)
        self.lanes = self.lanes._replace(note=course)
        self._restart(judged.terminated | judged.truncated, score, before.episode_length + np.int32(1))
        self._step += 1
        ends = (judged.terminated, judged.truncated)
        return before, actions, Arrived(arrived.obs, arrived.reward, *ends, {**arrived.info, **judged.info}, self.lanes.obs, self.lanes.note)

    def _keys_now(self) -> Any:
        return fold_in(self._keys, np.int32(self._step))

    def _restart(self, ended: np.ndarray, score: np.ndarray | None = None, length: np.ndarray | None = None) -> None:
        """Begin other episodes where they ``ended``; elsewhere ``score`` and ``length`` are those of the episode so far."""
        lanes = self.lanes
        score, length = (lanes.episode_return if score is None else score), (lanes.episode_length if length is None else length)
        first = lanes.first | ended if score is lanes.episode_return else ended
        obs, course = lanes.obs, lanes.note
        if ended.any():
            chosen = jax.tree.map(np.array, self._rules.choose(self._curricula, self._keys_now()))
            course = Course(*(np.where(ended, new, old) for new, old in zip(chosen, course, strict=True)))
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
        self.lanes = Lanes((), obs, first, score, length, course)


def _where(mask: np.ndarray, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.where(mask.reshape(*mask.shape, *[1] * (a.ndim - mask.ndim)), a, b)
