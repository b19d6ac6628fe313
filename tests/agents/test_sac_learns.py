"""SAC, TD3 and MaxInfoRL on worlds whose best is known."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from agents.max_info import max_info_sac
from agents.sac import sac
from agents.td3 import td3
from envs.gymnax import gymnax
from exploration.base import none
from exploration.information_gain import information_gain
from exploration.intrinsic import intrinsic
from runners.base import Clock
from runners.batching import AXIS
from runners.off_policy import off_policy
from tests.fit.worlds import plane

SEEDS = 3
SMALL = {"hidden": (64, 64), "learning_rate": 2e-3, "target_rate": 0.02}


def no_bonus(spec):
    return intrinsic(spec, none(spec))


def gain(spec):
    return intrinsic(spec, information_gain(spec, hidden=(64,), learning_rate=1e-3), normalize="standard", scale=2.0)


def returns(env, make_agent, iterations, make_bonus=no_bonus, **settings):
    """Greedy returns of three seeds after training, f[3]; every evaluation is one episode per lane."""
    settings = {"batch_size": 128, "capacity": 20_000} | settings
    runner = off_policy(env, make_agent, make_bonus, axis=AXIS, **settings)

    def run(key):
        state = runner.init(key)
        state = jax.lax.fori_loop(0, iterations, lambda i, s: runner.step(s, Clock(i, i.astype(jnp.float32) / iterations))[0], state)
        found = runner.evaluate(state, key)["evaluation/return"]
        return found.total / found.weight

    return np.asarray(jax.jit(jax.vmap(run, axis_name=AXIS))(jnp.stack([jax.random.PRNGKey(seed) for seed in range(SEEDS)])))


@pytest.mark.medium
@pytest.mark.parametrize("agent", [sac, td3])
def test_a_corner_that_random_actions_meet(agent):
    """The best is 37: the fourth step is the first beyond 0.3."""
    found = returns(plane(speed=0.1, limit=40, goal=0.3), functools.partial(agent, **SMALL), 1500, lanes=8, discount=0.95)
    assert (found > 30.0).all(), found


@pytest.mark.medium
def test_information_gain_reaches_a_far_corner():
    """Acting costs. The best is about 31."""
    world = plane(speed=0.1, limit=40, goal=0.8, action_cost=0.05)
    settings = {"lanes": 8, "discount": 0.97, "random_steps": 200, "learning_starts": 200}
    found = returns(world, functools.partial(max_info_sac, **SMALL), 2000, gain, **settings)
    assert np.median(found) > 15.0, found


@pytest.mark.slow
def test_information_gain_climbs_the_mountain_that_sac_gives_up_on():
    """Accelerating costs, so SAC learns to stay and gets 0. Measured: docs/methods/max_info.md."""
    settings = {"iterations": 15_000, "lanes": 1, "batch_size": 256}
    agents = (sac, no_bonus), (max_info_sac, gain)
    found = [returns(gymnax("MountainCarContinuous-v0"), functools.partial(a, hidden=(64, 64)), make_bonus=b, **settings) for a, b in agents]
    assert np.median(found[0]) < 1.0 < 80.0 < np.median(found[1]), found


@pytest.mark.slow
def test_pendulum():
    found = returns(gymnax("Pendulum-v1"), sac, 10_000, lanes=1, batch_size=256)
    assert (found > -300.0).all(), found
