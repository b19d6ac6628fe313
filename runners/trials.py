"""An episode of one policy in a world on the host, as a worker makes it: nothing in it is random, so who makes it, where, and when, changes nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from envs.base import HostWorld, Transition


class Attempt(NamedTuple):
    """What an episode gave; of a batch, arrays [P]."""

    total: Any  # f32[]; the return
    place: Any  # f32[d]; the descriptor
    area: Any  # i32[]; the reward area, 0 for none
    steps: Any  # i32[]


class Trial(NamedTuple):
    """What a worker is made of (``runners/explorers.py``); its jobs are genomes, f32[G]."""

    world: Callable[[], HostWorld]
    act: Callable[[np.ndarray, np.ndarray], np.ndarray]  # (genome, one obs) -> action
    describe: Callable[[Transition], Any]  # the last step -> descriptor f32[d]
    width: int  # d
    limit: int  # steps of an episode, at most
    name: str

    def perform(self, world: HostWorld, genome: np.ndarray) -> Attempt:
        world.reset()
        obs, total, steps, area = world.look("obs"), np.float32(0), 0, 0
        while True:
            action, before = self.act(genome, obs), obs
            reward, terminated, truncated = world.step(action)
            obs, info, steps = world.look("obs"), world.look("info"), steps + 1
            total, area = np.float32(total + np.float32(reward)), max(area, int(info.get("area", 0)))
            if terminated or truncated or steps == self.limit:
                break
        last = Transition(before, action, np.float32(reward), obs, np.bool_(terminated), np.bool_(truncated), np.bool_(steps == 1), info)
        place = np.asarray(self.describe(last), np.float32)
        if place.shape != (self.width,):
            raise ValueError(f"runner.descriptor gives numbers of shape {place.shape}, and its box has {self.width}")
        return Attempt(total, place, np.int32(area), np.int32(steps))
