"""Random actions in MiniGrid's tasks, ours on device and Farama's in this process, restarts included: ``minigrid_tasks.py LANES REPEATS REGEX``.

Ours runs for two episodes of the task's limit, at least 1,000 steps, so that every lane restarts; Farama's for ``SECONDS``.
"""

from __future__ import annotations

import re
import sys
import warnings

from timing import Stopwatch, compile_ahead, tell, timed
from worlds import walker

from runners import devices

SECONDS = 1.0


def main(lanes: int, repeats: int, wanted: str) -> None:
    devices.prepare(1)
    import jax

    from envs.minigrid.tasks import TASKS
    from envs.minigrid.world import minigrid

    keys, runs = jax.random.split(jax.random.PRNGKey(0), repeats + 1), {}
    for id, task in TASKS.items():
        if not re.search(wanted, id):
            continue
        steps, world = max(1000, 2 * task.max_steps), farama(id)
        program, compiling = compile_ahead(walker(minigrid(id=id), lanes, steps), keys[0])
        ours, theirs = runs.setdefault(id, []), runs.setdefault(f"Farama {id}", [])
        for i, key in enumerate(keys):
            (_, episodes), spent = timed(program, key)
            if i > 0:  # the first call warms up
                ours.append({"steps": lanes * steps, **spent, "compile_seconds": compiling, "episodes": int(episodes)})
                theirs.append(stepped(world, i))
        print(id, *(f"{run['steps'] / run['seconds']:,.0f}" for run in (ours[-1], theirs[-1])), file=sys.stderr, flush=True)
    tell(runs)


def farama(id: str):
    """Farama's world of that id, or with the sizes that it names."""
    import gymnasium
    from minigrid.envs import MultiRoomEnv

    sizes = re.fullmatch(r"MiniGrid-MultiRoom-N(\d+)-S(\d+)-v0", id)
    if sizes and id not in gymnasium.registry:
        number, largest = map(int, sizes.groups())
        return MultiRoomEnv(number, number, largest)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return gymnasium.make(id).unwrapped


def stepped(world, seed: int) -> dict:
    import numpy as np

    actions = np.random.default_rng(seed).integers(0, 7, 1 << 16).tolist()
    world.reset(seed=seed)
    watch, count, episodes = Stopwatch(), 0, 0
    while count % 16 or watch.read()["seconds"] < SECONDS:
        _, _, terminated, truncated, _ = world.step(actions[count % len(actions)])
        count += 1
        if terminated or truncated:
            world.reset()
            episodes += 1
    return {"steps": count, **watch.read(), "compile_seconds": 0.0, "episodes": episodes}


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3])
