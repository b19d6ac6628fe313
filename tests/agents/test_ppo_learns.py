"""PPO reaches the known optimum of tiny worlds: a choice by context, a memory, a continuous target."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnasium import spaces

from agents.ppo import ppo
from envs.base import Environment, Spec, TimeStep
from exploration.base import none
from exploration.intrinsic import intrinsic
from runners.base import Clock
from runners.batching import AXIS
from runners.on_policy import on_policy
from tests.laws.data import quick

NO = jnp.array(False)


def contexts() -> Environment:
    """One step; the action must equal the context. Optimum 1, chance 1/4."""

    def reset(key):
        context = jax.random.randint(key, (), 0, 4)
        return context, jax.nn.one_hot(context, 4)

    def step(context, key, action):
        return context, TimeStep(jnp.zeros(4), (action == context).astype(jnp.float32), ~NO, NO, {})

    return Environment(Spec(spaces.Box(0, 1, (4,)), spaces.Discrete(4), max_steps=1), reset, step)


def memory() -> Environment:
    """A bit is shown, then hidden for one step, then asked for. Optimum 1 with memory, 1/2 without."""

    def observe(bit, t):
        return jnp.where(t == 0, jax.nn.one_hot(bit, 2), jnp.zeros(2))

    def reset(key):
        bit = jax.random.randint(key, (), 0, 2)
        return (bit, jnp.int32(0)), observe(bit, jnp.int32(0))

    def step(state, key, action):
        bit, t = state
        end = t == 2
        return (bit, t + 1), TimeStep(observe(bit, t + 1), jnp.where(end & (action == bit), 1.0, 0.0), end, NO, {})

    return Environment(Spec(spaces.Box(0, 1, (2,)), spaces.Discrete(2), max_steps=3), reset, step)


def target() -> Environment:
    """One step; the reward is minus the squared distance of the action to the observation. Optimum 0."""

    def reset(key):
        goal = jax.random.uniform(key, (1,), minval=-0.8, maxval=0.8)
        return goal, goal

    def step(goal, key, action):
        return goal, TimeStep(goal, -jnp.sum(jnp.square(action - goal)), ~NO, NO, {})

    return Environment(Spec(spaces.Box(-1, 1, (1,)), spaces.Box(-1, 1, (1,)), max_steps=1), reset, step)


def greedy_returns(env, iterations, **options):
    """Greedy returns of three seeds after ``iterations`` of 32 lanes x 12 steps."""
    agent = lambda spec: ppo(spec, hidden=(16,), learning_rate=3e-3, **options)  # noqa: E731
    runner = on_policy(env, agent, lambda spec: intrinsic(spec, none(spec)), lanes=32, rollout=12, axis=AXIS)

    def run(key):
        def iteration(i, state):
            return runner.step(state, Clock(i, i.astype(jnp.float32) / iterations))[0]

        state = jax.lax.fori_loop(0, iterations, iteration, runner.init(key))
        found = runner.evaluate(state, jax.random.fold_in(key, 100))["evaluation/return"]
        return found.total / found.weight

    keys = jnp.stack([jax.random.PRNGKey(seed) for seed in range(3)])
    return np.asarray(quick(jax.vmap(run, axis_name=AXIS))(keys))


@pytest.mark.medium
def test_contexts():
    assert (greedy_returns(contexts(), 60) > 0.95).all()


@pytest.mark.medium
def test_only_a_memory_remembers():
    assert (greedy_returns(memory(), 150, recurrent=8) > 0.95).all()
    assert (greedy_returns(memory(), 60) < 0.85).all()  # 32 episodes of a coin: 0.85 is four standard errors above 1/2


@pytest.mark.medium
def test_continuous_target():
    assert (greedy_returns(target(), 150, entropy_coef=0.0) > -0.02).all()  # ignoring the observation gives -0.21
