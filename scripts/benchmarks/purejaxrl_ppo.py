"""PureJaxRL's PPO with the settings of the ``ppo`` benchmark; runs in an environment of its own (see docs/speed.md).

    python purejaxrl_ppo.py PPO_FILE STEPS SEEDS     purejaxrl/ppo.py of a checkout; environment steps per seed; seeds, vmapped

PureJaxRL is not a package: its file is imported from where it lies. Its wrappers import brax and navix, which CartPole does not
need; empty modules stand in for those that are not installed. It needs gymnax below 1.0, whose step returned five values.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import jax
import jax.numpy as jnp
from timing import compile_ahead, tell, timed

UNUSED = {"brax": (), "brax.envs": (), "brax.envs.wrappers": (), "brax.envs.wrappers.training": ("EpisodeWrapper", "AutoResetWrapper"), "navix": ()}


def stand_in() -> None:
    """Empty modules for what PureJaxRL imports and this benchmark does not use."""
    missing = [package for package in ("brax", "navix") if importlib.util.find_spec(package) is None]
    for name, members in UNUSED.items():
        if name.partition(".")[0] in missing:
            module = sys.modules[name] = ModuleType(name)
            for member in members:
                setattr(module, member, None)
            parent, _, leaf = name.rpartition(".")
            if parent:
                setattr(sys.modules[parent], leaf, module)


def main(file: Path, steps: int, seeds: int) -> None:
    version = importlib.metadata.version("gymnax")
    if int(version.split(".")[0]) > 0:
        sys.exit(f"PureJaxRL needs gymnax below 1.0, here is {version}: pip install 'gymnax<1'")
    stand_in()
    sys.path.insert(0, str(file.parent))  # it says: from wrappers import ...
    from ppo import make_train

    config = {
        "LR": 2.5e-4,
        "NUM_ENVS": 4,
        "NUM_STEPS": 128,
        "TOTAL_TIMESTEPS": steps,
        "UPDATE_EPOCHS": 4,
        "NUM_MINIBATCHES": 4,
        "GAMMA": 0.99,
        "GAE_LAMBDA": 0.95,
        "CLIP_EPS": 0.2,
        "ENT_COEF": 0.01,
        "VF_COEF": 0.5,
        "MAX_GRAD_NORM": 0.5,
        "ACTIVATION": "tanh",
        "ENV_NAME": "CartPole-v1",
        "ANNEAL_LR": True,
    }
    keys = jax.random.split(jax.random.PRNGKey(0), seeds)
    program, compiling = compile_ahead(jax.vmap(make_train(config)), keys)
    found, spent = timed(program, keys)
    done = config["NUM_UPDATES"] * config["NUM_STEPS"] * config["NUM_ENVS"] * seeds
    newest = found["metrics"]["returned_episode_returns"][:, -1]
    tell({"steps": done, **spent, "compile_seconds": compiling, "returned": float(jnp.mean(newest))})


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve(), *map(int, sys.argv[2:4]))
