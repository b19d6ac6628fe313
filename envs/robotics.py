"""Gymnasium-Robotics (Fetch, AntMaze, Adroit) with rewards for success only: ``env=robotics env.id=FetchPush-v4``.

As the experiments of the coin flip network have them (arXiv 2306.03186, code): the reward is 1 in the step that succeeds and 0 elsewhere, success
ends the episode, and what the agent sees is the observation and, where there is one, the goal. ``env=gymnasium`` has the same tasks as they are.
"""

from __future__ import annotations

from typing import Any

import gymnasium as library
import numpy as np
from gymnasium import spaces

from envs.base import HostEnvironment
from envs.builder import FLAG, Integer, Text, options
from envs.gymnasium import hosted, register

SUCCESS = ("is_success", "success")  # what the tasks call it in their info


class SparseSuccess(library.Wrapper):
    """Observation and desired goal in one vector; reward 1 for success, which ends the episode."""

    def __init__(self, env: library.Env, ends: bool = True):
        super().__init__(env)
        self.ends = ends
        if isinstance(env.observation_space, spaces.Dict):
            size = sum(int(np.prod(env.observation_space[name].shape)) for name in ("observation", "desired_goal"))
            self.observation_space = spaces.Box(-np.inf, np.inf, (size,), np.float32)

    def seen(self, observation: Any) -> np.ndarray:
        if isinstance(observation, dict):
            observation = np.concatenate([np.ravel(observation[name]) for name in ("observation", "desired_goal")])
        return observation.astype(np.float32)

    def reset(self, **arguments: Any):
        observation, info = self.env.reset(**arguments)
        return self.seen(observation), info

    def step(self, action):
        observation, _, terminated, truncated, info = self.env.step(action)
        success = any(bool(info.get(name)) for name in SUCCESS)
        return self.seen(observation), float(success), terminated or (success and self.ends), truncated, info


@options(id=Text("a task of gymnasium-robotics, as FetchPush-v4"), ends=FLAG, workers=Integer(0))
def robotics(*, id: str = "FetchReach-v4", ends: bool = True, workers: int = 0) -> HostEnvironment:
    """A task with rewards for success only.

    Args:
      id: a registered task that tells success in its info.
      ends: success ends the episode.
      workers: processes that step the lanes; 0 steps them in this one.

    Raises Refusal where gymnasium-robotics is not installed, and for a task that it has not.
    """
    register(id)

    def make(render: bool = False) -> library.Env:
        return SparseSuccess(library.make(id, disable_env_checker=True, **({"render_mode": "rgb_array"} if render else {})), ends)

    made = hosted(id, make, workers)
    return made._replace(spec=made.spec._replace(success_return=0.5))
