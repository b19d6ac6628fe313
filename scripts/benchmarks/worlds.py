"""Random actions in JAX worlds, through the source that training uses, restarts included: ``worlds.py LANES STEPS REPEATS``."""

from __future__ import annotations

import sys

from timing import compile_ahead, tell, timed

from runners import devices

WORLDS = {
    "deep_sea (size 20)": {"_target_": "envs.deep_sea.deep_sea", "size": 20},
    "gymnax CartPole-v1": {"_target_": "envs.gymnax.gymnax", "id": "CartPole-v1"},
    "gymnax MountainCar-v0": {"_target_": "envs.gymnax.gymnax", "id": "MountainCar-v0"},
    "xminigrid DoorKey-8x8": {"_target_": "envs.xminigrid.xminigrid", "id": "MiniGrid-DoorKey-8x8"},
}


def walker(env, lanes: int, steps: int):
    """key -> (state, episodes): ``steps`` random steps of all lanes."""
    import jax

    from envs.base import sample_action
    from runners.source import jax_source

    source = jax_source(env, lanes)

    def step(state, key):
        act_key, step_key, reset_key = jax.random.split(key, 3)
        action = sample_action(source.spec.action, act_key, lanes)
        state, transition = source.step(state, step_key, action)
        return source.restart(state, reset_key, transition.done), transition.done.sum()

    def walk(key):
        begin, loop = jax.random.split(key)
        state, ended = jax.lax.scan(step, source.init(begin), jax.random.split(loop, steps))
        return state, ended.sum()  # the whole state, so that no part of a step is optimised away

    return walk


def main(lanes: int, steps: int, repeats: int) -> None:
    devices.prepare(1)
    import jax

    from envs.builder import build

    keys = jax.random.split(jax.random.PRNGKey(0), repeats + 1)
    programs = {name: compile_ahead(walker(build(world), lanes, steps), keys[0]) for name, world in WORLDS.items()}
    runs = {name: [] for name in programs}
    for i, key in enumerate(keys):
        for name, (program, compiling) in programs.items():
            (_, episodes), spent = timed(program, key)
            if i > 0:  # the first call warms up
                runs[name].append({"steps": lanes * steps, **spent, "compile_seconds": compiling, "episodes": int(episodes)})
    tell(runs)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:4]))
