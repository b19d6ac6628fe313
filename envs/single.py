"""One Gymnasium world as a ``HostWorld``: always the same start, put back by its snapshot, or, where it has none, by doing again what was done."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from typing import Any

import gymnasium
import numpy as np

from envs import snapshot
from envs.base import HostWorld

SEED = 0  # of every reset


def single(make: Callable[[], gymnasium.Env], convert: Callable[[Any], Any], saves: bool) -> HostWorld:
    """The world that ``make`` makes; ``convert``: its observations -> those of the spec; ``saves``: whether its snapshots are exact."""
    env = make()
    seen: dict[str, Any] = {}
    done: list[Any] = []  # actions since the reset, for worlds without snapshots

    def reset():
        obs, info = env.reset(seed=SEED)
        seen.update(obs=obs, info=info)
        done.clear()

    def step(action):
        action = action if isinstance(action, np.ndarray) and action.ndim else int(action)
        obs, reward, terminated, truncated, info = env.step(action)
        seen.update(obs=obs, info=info)
        if not saves:
            done.append(action)
        return float(reward), bool(terminated), bool(truncated)

    def save():
        return snapshot.save(env) if saves else pickle.dumps(done)

    def load(saved):
        if saves:
            snapshot.load(env, saved)
            return
        reset()
        for action in pickle.loads(saved):
            step(action)

    def look(what):
        if what == "info":
            return seen["info"]
        if what == "world":
            return env.unwrapped
        if what == "picture":
            raise KeyError(what)
        if what == "seen":
            return seen["obs"]
        obs = convert(seen["obs"])
        return obs if what == "obs" else np.rint(np.asarray(obs, np.float32).mean(axis=-1)).astype(np.uint8)

    reset()  # some worlds cannot be put back before
    return HostWorld(reset, step, save, load, look)


def settled(make: Callable[[], gymnasium.Env], steps: int = 50) -> bool:
    """Whether the world that ``make`` makes goes on the same way when its random numbers are others after the reset, tried with random actions."""
    env = make()
    env.action_space.seed(SEED)
    actions = [env.action_space.sample() for _ in range(steps)]

    def go_on(numbers: int | None) -> list[Any]:
        obs, _ = env.reset(seed=SEED)
        if numbers is not None:
            env.unwrapped.np_random = np.random.default_rng(numbers)
        found = [obs]
        for action in actions:
            obs, reward, terminated, truncated, _ = env.step(action)
            found.append((obs, float(reward), bool(terminated), bool(truncated)))
            if terminated or truncated:
                break
        return found

    try:
        return all(snapshot.same(go_on(None), go_on(numbers)) for numbers in (1, 2))
    except Exception:  # whatever a world raises
        return False
    finally:
        env.close()
