"""``envs.wrappers`` for worlds that live on the host: around their lanes, whatever steps them, so every host world takes them.

A lane draws from a generator of its own, seeded with the lane's world; snapshots hold it.
"""

from __future__ import annotations

import numbers
import pickle
from collections.abc import Sequence
from typing import Any

import numpy as np

from envs.base import HostEnvironment, HostLanes, PyTree, TimeStep
from envs.builder import Refusal
from envs.wrappers import beside, remote_of, tv_space


def wrapped_lanes(env: HostEnvironment, sticky_actions: float, noisy_tv: int) -> HostEnvironment:
    """``env`` with sticky actions and a TV that shows ``noisy_tv`` numbers, 0 for none. Raises Refusal for a traced probability, or where the
    world has no action for the remote or shows a "tv" of its own."""
    if not isinstance(sticky_actions, numbers.Real):
        raise Refusal("vmap.env.sticky_actions: worlds that live on the host are the same for all members; sweep it with -m env.sticky_actions=...")
    spec, decode = env.spec._replace(deterministic=False), env.decode
    if noisy_tv:
        spec = spec._replace(observation=tv_space(spec.observation, spec.action, noisy_tv))
        inside = isinstance(env.spec.observation, type(spec.observation))  # a dictionary that gained an entry

        def decode(obs: PyTree) -> PyTree:
            world = {name: part for name, part in obs.items() if name != "tv"}
            return beside(env.decode(world if inside else world["obs"]), obs["tv"])

    def open_(lanes: int, render: bool = False) -> HostLanes:
        return WrappedLanes(env, lanes, render, float(sticky_actions), noisy_tv).opened()

    return env._replace(spec=spec, open=open_, decode=decode, single=None, steerable=None, settled=None)


class WrappedLanes:
    """N opened worlds behind both wrappers."""

    def __init__(self, env: HostEnvironment, lanes: int, render: bool, sticky_actions: float, noisy_tv: int):
        self.worlds = env.open(lanes, render=render)
        self.remote = remote_of(env.spec.action) if noisy_tv else None
        self.probability, self.size = sticky_actions, noisy_tv
        self.executed = np.zeros((lanes, *(env.spec.action.shape or ())), env.spec.action.dtype)  # last
        self.first = np.ones(lanes, bool)  # nothing was executed in this episode yet
        self.shown = np.zeros((lanes, noisy_tv), np.float32)
        self.generators: list[np.random.Generator] = []

    def opened(self) -> HostLanes:
        inner = self.worlds
        return inner._replace(reset=self.reset, step=self.step, save=inner.save and self.save, load=inner.load and self.load, put=None)

    def reset(self, seeds: Sequence[int]) -> PyTree:
        self.generators = [np.random.default_rng([7, seed]) for seed in seeds]
        self.first[:] = True
        self._draw(self.first)
        return self._beside(self.worlds.reset(seeds))

    def step(self, action: np.ndarray) -> tuple[TimeStep, PyTree]:
        repeats = ~self.first & [generator.random() < self.probability for generator in self.generators]
        self.executed = np.where(repeats.reshape(-1, *[1] * (self.executed.ndim - 1)), self.executed, action).astype(self.executed.dtype)
        made, following = self.worlds.step(self.executed)
        if self.size:
            self._draw([bool(self.remote(executed)) for executed in self.executed])
        made = made._replace(obs=self._beside(made.obs))
        self.first = made.terminated | made.truncated
        if self.size:
            self._draw(self.first)
        return made, self._beside(following)

    def _draw(self, where: Any) -> None:
        self.shown = self.shown.copy()
        for lane in np.flatnonzero(where):
            self.shown[lane] = self.generators[lane].random(self.size, np.float32)

    def _beside(self, obs: PyTree) -> PyTree:
        return beside(obs, self.shown) if self.size else obs

    def save(self) -> list[bytes]:
        own = zip(self.worlds.save(), self.generators, self.executed, self.first, self.shown, strict=True)
        return [pickle.dumps(each) for each in own]

    def load(self, snapshots: Sequence[bytes]) -> None:
        worlds, generators, executed, first, shown = zip(*map(pickle.loads, snapshots), strict=True)
        self.worlds.load(worlds)
        self.generators = list(generators)
        self.executed, self.first, self.shown = np.stack(executed), np.array(first), np.stack(shown)
