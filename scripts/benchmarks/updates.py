"""How many updates agents make in a compiled loop, without a world or a replay.

    PYTHONPATH=. JAX_PLATFORMS=cpu .venv/bin/python scripts/benchmarks/updates.py [PART OF A NAME]
"""

import os
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
from gymnasium import spaces

from agents.base import RewardStream, Sample, Signal
from agents.bootstrapped_dqn import bootstrapped_dqn
from agents.dqn import dqn
from agents.rainbow import rainbow
from agents.sac import sac
from envs.base import Spec

ROUNDS = 3
SEA = Spec(spaces.Box(0.0, 1.0, (10, 10), np.float32), spaces.Discrete(2))  # DeepSea of size 10
PENDULUM, CHEETAH = (Spec(spaces.Box(-1.0, 1.0, (n,), np.float32), spaces.Box(-1.0, 1.0, (m,), np.float32)) for n, m in ((3, 1), (17, 6)))
AGENTS = {  # name: (agent, its world, samples of a batch, updates)
    "DQN 50-50": (lambda spec: dqn(spec, hidden=(50, 50)), SEA, 128, 2000),
    "DQN 64-64": (dqn, SEA, 128, 2000),
    "Rainbow 64-64": (rainbow, SEA, 128, 300),
    "bootstrapped DQN, 20 x 50-50": (bootstrapped_dqn, SEA, 128, 200),
    "SAC 256-256, Pendulum's spaces": (sac, PENDULUM, 256, 300),
    "SAC 256-256, HalfCheetah's spaces": (sac, CHEETAH, 256, 300),
}


def main():
    print(f"load {os.getloadavg()[0]:.1f}\n| agent | updates/s | per CPU second |\n|---|---|---|")
    for name, (make, spec, size, updates) in AGENTS.items():
        if not all(part in name for part in sys.argv[1:]):
            continue
        agent, obs, no = make(spec), jnp.ones((size, *spec.observation.shape)), jnp.zeros(size, bool)
        action = jnp.zeros((size, *spec.action.shape), jnp.int32 if spec is SEA else jnp.float32)
        sample = Sample(obs, action, obs, no, jnp.ones(size), {"mask": jnp.ones((size, 20), bool)})
        signal = Signal((RewardStream(jnp.ones(size), jnp.full(size, 0.99), 1.0, True),))

        def many(state, agent=agent, updates=updates, sample=sample, signal=signal):
            return jax.lax.fori_loop(0, updates, lambda i, s: agent.learn(s, jax.random.fold_in(jax.random.PRNGKey(0), i), (sample, signal))[0], state)

        run, found = jax.jit(many), []
        state = jax.block_until_ready(run(agent.init(jax.random.PRNGKey(0))))
        for _ in range(ROUNDS):
            begin, busy = time.perf_counter(), time.process_time()
            jax.block_until_ready(run(state))
            found.append((updates / (time.perf_counter() - begin), updates / (time.process_time() - busy)))
        wall, cpu = np.median(found, axis=0)
        print(f"| {name} | {wall:,.0f} | {cpu:,.0f} |", flush=True)


if __name__ == "__main__":
    main()
