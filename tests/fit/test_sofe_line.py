"""Fit: the preset ``paper=sofe_line``, as the command line runs it. First visits of an episode, shown to the agent and not.

    python -m tests.fit.test_sofe_line [--seeds 10]

prints distinct states of greedy episodes for each arm of docs/methods/sofe.md, mean over 16 lanes of each seed.
"""

from __future__ import annotations

import argparse

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from runners import metrics as m
from runners.batching import Batch
from runners.compose import compose
from runners.experiment import experiment, iterations_of
from runners.train import assemble

PLAIN = "exploration._target_=exploration.combinators.scale"
ROOT = ["exploration.bonus.payment=inverse_root"]
NORMAL = ["exploration.bonus._target_=exploration.state_entropy.state_entropy", "~exploration.bonus.payment", "~exploration.bonus.encoding"]
ARMS = {
    "first_visit, mask shown": [],
    "first_visit, nothing shown": [PLAIN],
    "first_visit, a memory (GRU of 64)": [PLAIN, "agent.recurrent=64"],
    "first_visit, the time shown": [PLAIN, "env.observation=time"],
    "inverse_root, 1/sqrt(N+1) shown": [*ROOT, "exploration.bonus.encoding=inverse_root"],
    "inverse_root, log(1+N) shown": [*ROOT, "exploration.bonus.encoding=log_counts"],
    "inverse_root, mask shown": ROOT,
    "inverse_root, nothing shown": [*ROOT, PLAIN],
    "normal density, shown": [*NORMAL, "exploration.normalize=std"],
    "normal density, nothing shown": [*NORMAL, "exploration.normalize=std", PLAIN],
}


def coverage(runner):
    """The runner, whose ``evaluate`` gives the distinct states of one greedy episode per lane."""

    def evaluate(state, key):
        carry = runner.start(state, key)
        before = jnp.argmax(carry[0].obs, axis=-1)
        _, seen = jax.lax.scan(lambda c, k: runner.watch(state, c, k), carry, jax.random.split(key, runner.spec.max_steps))
        states = jnp.concatenate([before[None], seen.info["state_id"]])
        visited = jnp.any(states[..., None] == jnp.arange(runner.env.spec.num_states), axis=0)
        return {"coverage": m.mean(jnp.sum(visited, axis=-1).astype(jnp.float32))}

    return runner._replace(evaluate=evaluate)


def covered(overrides: list[str], seeds: int) -> np.ndarray:
    """f[seeds]"""
    made = experiment(compose(["paper=sofe_line", f"seeds={seeds}", *overrides]))
    made = made._replace(make_runner=lambda hyper, make=made.make_runner: coverage(make(hyper)))
    batch, runner, _ = assemble(made, "vmap")
    assert isinstance(batch, Batch)
    total = iterations_of(made.config["total_steps"], runner.steps_per_iteration)
    batch.plan()
    batch.compile()
    batch.start()
    batch.run(0, total, total)
    assert batch.sound().all()
    found = batch.evaluate(jax.random.split(jax.random.PRNGKey(1), seeds))
    return np.array([one["coverage"] for one in found])


@pytest.mark.medium
@pytest.mark.parametrize(("arm", "least", "most"), [("first_visit, mask shown", 6.0, 7.0), ("first_visit, nothing shown", 1.0, 4.0)])
def test_only_who_sees_the_mask_covers_the_line(arm, least, most):
    """By dynamic programming 7 states can be covered by who sees the mask, 4 by a memoryless policy."""
    found = covered(ARMS[arm], seeds=4)
    assert least <= found.mean() and found.max() <= most, found


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("arms", nargs="*", help="beginnings of the arms' names; all when left out")
    given = parser.parse_args()
    for name, settings in ARMS.items():
        if not given.arms or name.startswith(tuple(given.arms)):
            found = covered(settings, given.seeds)
            print(f"{name:34} {found.mean():5.2f}   {' '.join(f'{x:.3g}' for x in sorted(found))}", flush=True)
