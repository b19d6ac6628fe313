"""Stable-Baselines3's PPO with RLeXplore's RND on Farama's MiniGrid, as its README joins them: ``rlexplore_rnd.py ID LANES ROLLOUT STEPS``.

In an environment of its own with stable-baselines3, minigrid and rllte-core. Networks and settings are those of the ``rnd`` benchmark.
"""

from __future__ import annotations

import sys

import gymnasium
import minigrid  # noqa: F401 (registers the tasks)
import numpy as np
import torch
from rllte.xplore.reward import RND
from stable_baselines3 import PPO
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.vec_env import DummyVecEnv
from timing import Stopwatch, tell
from torch import nn


class View(gymnasium.ObservationWrapper):
    """The partial view as numbers."""

    def __init__(self, env):
        super().__init__(env)
        self.observation_space = gymnasium.spaces.Box(0.0, 255.0, (7 * 7 * 3,), np.float32)

    def observation(self, observation):
        return observation["image"].astype(np.float32).reshape(-1)


class Explore(BaseCallback):
    """Rewards of the rollout, added to its returns and advantages."""

    def __init__(self, bonus):
        super().__init__()
        self.bonus, self.seen = bonus, []

    def _on_step(self) -> bool:
        self.seen.append(torch.as_tensor(self.locals["new_obs"]))
        return True

    def _on_rollout_end(self) -> None:
        buffer = self.locals["rollout_buffer"]
        done = torch.as_tensor(buffer.episode_starts)
        given = {
            "observations": torch.as_tensor(buffer.observations),
            "actions": torch.as_tensor(buffer.actions),
            "rewards": torch.as_tensor(buffer.rewards),
            "terminateds": done,
            "truncateds": done,
            "next_observations": torch.stack(self.seen),
        }
        self.seen = []
        paid = self.bonus.compute(samples=given, sync=True).cpu().numpy()
        buffer.advantages += paid
        buffer.returns += paid


def main(id: str, lanes: int, rollout: int, steps: int) -> None:
    worlds = DummyVecEnv([lambda: View(gymnasium.make(id))] * lanes)
    networks = {"net_arch": {"pi": [64, 64], "vf": [64, 64]}, "activation_fn": nn.Tanh}
    size = lanes * rollout // 4
    model = PPO("MlpPolicy", worlds, n_steps=rollout, batch_size=size, n_epochs=4, learning_rate=2.5e-4, policy_kwargs=networks, device="cpu")
    explore = Explore(RND(worlds, device="cpu", batch_size=size))  # takes random steps for its statistics, not timed
    model.learn(lanes * rollout, callback=explore)  # warms up
    watch = Stopwatch()
    model.learn(steps, callback=explore)
    spent = watch.read()
    tell({"steps": model.num_timesteps, **spent, "compile_seconds": 0.0})


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:5]))
