"""The bare vector world, stepped with random actions by Gymnasium itself: ``bare_vector.py ID LANES STEPS``; STEPS are of one lane.

ID is a Gymnasium id (its vector in this process, SAME_STEP), or atari:GAME (ale-py's vector, with our preprocessing).
"""

from __future__ import annotations

import sys

from timing import Stopwatch, tell


def main(id: str, lanes: int, steps: int) -> None:
    if id.startswith("atari:"):
        from ale_py.vector_env import AtariVectorEnv

        env = AtariVectorEnv(id[6:], lanes, autoreset_mode="SameStep", repeat_action_probability=0.25, reward_clipping=False, use_fire_reset=False)
    else:
        import gymnasium

        env = gymnasium.make_vec(id, lanes, vectorization_mode="sync", vector_kwargs={"autoreset_mode": "SameStep"})
    env.action_space.seed(0)
    env.reset(seed=0)
    actions = [env.action_space.sample() for _ in range(64)]  # drawn ahead: only stepping is timed
    for t in range(min(steps, 50)):
        env.step(actions[t % 64])
    watch = Stopwatch()
    for t in range(steps):
        env.step(actions[t % 64])
    tell({"steps": steps * lanes, **watch.read(), "compile_seconds": 0.0})
    env.close()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
