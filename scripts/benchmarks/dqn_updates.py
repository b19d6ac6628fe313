"""How many updates DQN makes in a compiled loop, without a world: ``PYTHONPATH=. JAX_PLATFORMS=cpu .venv/bin/python scripts/benchmarks/dqn_updates.py``."""

import os
import time

import jax
import jax.numpy as jnp
import numpy as np
from gymnasium import spaces

from agents.base import RewardStream, Sample, Signal
from agents.bootstrapped_dqn import bootstrapped_dqn
from agents.dqn import dqn
from agents.rainbow import rainbow
from envs.base import Spec

SPEC, B, ROUNDS = Spec(spaces.Box(0.0, 1.0, (10, 10), np.float32), spaces.Discrete(2)), 128, 3  # DeepSea of size 10
AGENTS = {
    "DQN 50-50": (lambda: dqn(SPEC, hidden=(50, 50)), 2000),
    "DQN 64-64": (lambda: dqn(SPEC), 2000),
    "Rainbow 64-64": (lambda: rainbow(SPEC), 300),
    "bootstrapped DQN, 20 x 50-50": (lambda: bootstrapped_dqn(SPEC), 200),
}


def main():
    sample = Sample(jnp.ones((B, 10, 10)), jnp.zeros(B, jnp.int32), jnp.ones((B, 10, 10)), jnp.zeros(B, bool), jnp.ones(B), {"mask": jnp.ones((B, 20), bool)})
    signal = Signal((RewardStream(jnp.ones(B), jnp.full(B, 0.99), 1.0, True),))
    print(f"load {os.getloadavg()[0]:.1f}\n| agent | updates/s | per CPU second |\n|---|---|---|")
    for name, (make, updates) in AGENTS.items():
        agent = make()

        def many(state, agent=agent, updates=updates):
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
