"""A Gymnasium world in which the last observation matters: it counts its steps, and shows the count; the end is seen once only."""

from __future__ import annotations

import gymnasium
import numpy as np
from gymnasium import spaces


class LastMatters(gymnasium.Env):
    """obs = (episode number, steps so far). Terminates at ``end`` after an odd episode, is truncated there after an even one. Action 1 pays 1."""

    def __init__(self, end: int = 3, render_mode: str | None = None):
        self.observation_space = spaces.Box(-np.inf, np.inf, (2,), np.float64)
        self.action_space = spaces.Discrete(2)
        self.end, self.episode, self.steps, self.render_mode = end, 0, 0, render_mode

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.episode, self.steps = self.episode + 1, 0
        return self._obs(), {"noise": self.np_random.random()}

    def step(self, action):
        self.steps += 1
        over = self.steps == self.end
        odd = self.episode % 2 == 1
        return self._obs(), float(action), over and odd, over and not odd, {"steps": self.steps, "noise": self.np_random.random()}

    def render(self):
        return np.full((16, 16, 3), 10 * self.steps, np.uint8)

    def _obs(self):
        return np.array([self.episode, self.steps], np.float64)


class Unpicklable(LastMatters):
    """Holds what no snapshot can take."""

    def __init__(self, **more):
        super().__init__(**more)
        self.lock = __import__("threading").Lock()


class Broken(LastMatters):
    """Raises in its second step."""

    def step(self, action):
        if self.steps == 1 and self.episode > 1:
            raise KeyError("a bug of the world's own")
        return super().step(action)


for name in ("LastMatters", "Unpicklable", "Broken"):
    if f"{name}-v0" not in gymnasium.registry:
        gymnasium.register(f"{name}-v0", entry_point=globals()[name])
