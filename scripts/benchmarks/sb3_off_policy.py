"""Stable-Baselines3's SAC or DQN with the settings of the ``off_policy`` benchmark: ``sb3_off_policy.py SAC|DQN ID STEPS``; in an environment of its own.

One world, and one update per step.
"""

from __future__ import annotations

import sys

import gymnasium
from stable_baselines3 import DQN, SAC
from timing import Stopwatch, tell

STARTS = 1000


def main(name: str, id: str, steps: int) -> None:
    shared = {"learning_starts": STARTS, "train_freq": 1, "gradient_steps": 1, "buffer_size": 100_000, "device": "cpu", "seed": 0}
    if name == "SAC":
        model = SAC("MlpPolicy", gymnasium.make(id), batch_size=256, learning_rate=3e-4, policy_kwargs={"net_arch": [256, 256]}, **shared)
    else:
        model = DQN("MlpPolicy", gymnasium.make(id), batch_size=128, policy_kwargs={"net_arch": [64, 64]}, **shared)
    model.learn(STARTS + 200)  # fills the buffer and warms up
    watch, before = Stopwatch(), model._n_updates
    model.learn(steps, reset_num_timesteps=False)
    spent = watch.read()
    if model._n_updates - before != steps:
        sys.exit(f"{model._n_updates - before} updates in {steps} steps")
    tell({"steps": steps, **spent, "compile_seconds": 0.0})


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
