"""BCQ and CQL learn from what a mediocre policy did in a plane: no step is made while they learn."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from agents.bcq import bcq
from agents.cql import cql
from exploration.base import none
from exploration.intrinsic import intrinsic
from runners import dataset
from runners.base import Clock
from runners.batching import AXIS
from runners.dataset import Episodes
from runners.offline import offline
from tests.fit.worlds import plane

WORLD, LIMIT, EPISODES = {"speed": 0.1, "limit": 40, "goal": 0.3}, 40, 100
LEARNERS = {
    "bcq": functools.partial(bcq, hidden=(64, 64), vae_hidden=(64, 64), candidates=20, learning_rate=1e-3, target_rate=0.02),
    "cql": functools.partial(
        cql, hidden=(64, 64), samples=4, min_q_weight=0.5, lagrange_thresh=None, learning_rate=1e-3, actor_learning_rate=1e-3, target_rate=0.02
    ),
}


@pytest.fixture(scope="module")
def walks(tmp_path_factory):
    """(folder, mean return) of a policy that drifts towards one of the four corners, chosen per episode, half of its actions random."""
    rng, env, parts = np.random.default_rng(0), plane(**WORLD), []
    for _ in range(EPISODES):
        aim = rng.choice([-0.7, 0.7], 2)
        action = np.where(rng.random((LIMIT, 1)) < 0.5, rng.uniform(-1, 1, (LIMIT, 2)), np.clip(aim + 0.3 * rng.normal(size=(LIMIT, 2)), -1, 1)).astype(
            np.float32
        )
        obs = np.zeros((LIMIT + 1, 2), np.float32)
        for t in range(LIMIT):
            obs[t + 1] = np.clip(obs[t] + np.float32(0.1) * action[t], -1, 1)
        last = np.arange(LIMIT) == LIMIT - 1
        parts.append(Episodes(obs, action, (obs[1:] > 0.3).all(1).astype(np.float32), last & False, last, {}, np.asarray([LIMIT])))
    folder = tmp_path_factory.mktemp("data") / "walks"
    dataset.write(folder, env.spec.observation, env.spec.action, parts, [None] * EPISODES, {})
    return folder, float(np.mean([part.reward.sum() for part in parts]))


@pytest.mark.medium
@pytest.mark.parametrize("name", LEARNERS)
def test_better_than_the_policy_of_the_data(name, walks):
    """The best is 37, the data's mean is a fifth of it, and every seed comes close to the best."""
    folder, mean = walks
    runner = offline(
        plane(**WORLD), LEARNERS[name], lambda spec: intrinsic(spec, none(spec)), data=str(folder), lanes=2, batch_size=128, discount=0.95, axis=AXIS
    )

    def run(key):
        state = jax.lax.fori_loop(0, 2000, lambda i, s: runner.step(s, Clock(i, jnp.float32(0.5)))[0], runner.init(key))
        found = runner.evaluate(state, key)["evaluation/return"]
        return found.total / found.weight

    found = np.asarray(jax.jit(jax.vmap(run, axis_name=AXIS))(jnp.stack([jax.random.PRNGKey(seed) for seed in range(3)])))
    assert mean < 10.0 and (found > 30.0).all(), (mean, found)
