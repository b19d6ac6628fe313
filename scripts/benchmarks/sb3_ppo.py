"""Stable-Baselines3's PPO with the settings of the ``host`` benchmark: ``sb3_ppo.py ID LANES ROLLOUT STEPS``; in an environment of its own."""

from __future__ import annotations

import sys

from stable_baselines3 import PPO
from stable_baselines3.common.env_util import make_vec_env
from timing import Stopwatch, tell
from torch import nn


def main(id: str, lanes: int, rollout: int, steps: int) -> None:
    networks = {"net_arch": {"pi": [64, 64], "vf": [64, 64]}, "activation_fn": nn.Tanh}
    model = PPO(
        "MlpPolicy",
        make_vec_env(id, lanes, seed=0),
        n_steps=rollout,
        batch_size=lanes * rollout // 4,
        n_epochs=4,
        learning_rate=2.5e-4,
        ent_coef=0.01,
        policy_kwargs=networks,
        device="cpu",
    )
    model.learn(lanes * rollout)  # warms up
    watch = Stopwatch()
    model.learn(steps)
    spent = watch.read()
    tell({"steps": model.num_timesteps, **spent, "compile_seconds": 0.0})


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:5]))
