"""Shifted rewards: what a constant does to values, where it does nothing to behaviour, and where it does."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from agents.dqn import dqn
from envs.base import Transition
from envs.builder import Refusal
from envs.deep_sea import deep_sea
from envs.gymnax import gymnax
from envs.tabular import tabular
from exploration.base import none
from exploration.intrinsic import intrinsic
from runners.base import Clock
from runners.off_policy import off_policy
from runners.rewards import may_terminate, shift_warning, world_rewards

DISCOUNT, CONTINUING = 0.9, {"id": "six_arms", "horizon": 7}
OFFSET = 1 / (1 - DISCOUNT)  # of the values, for a shift of 1


def trained(env, shifts: list[float], mode: str = "reward", n_step: int = 1):
    """[((parameters, actions in the buffer, returns), mean value of the last batch)] after 30 iterations, with each shift and values that start there."""

    def life(shift):
        def agent(spec):
            return dqn(spec, hidden=(8,), initial_value=shift * OFFSET, learning_rate=0.05, epsilon_start=0.3, epsilon_end=0.3)

        shape = {"lanes": 4, "rollout": 4, "batch_size": 32, "capacity": 400, "learning_starts": 0, "random_steps": 0}
        settings = {"discount": DISCOUNT, "reward_shift": shift, "shift_mode": mode, "n_step": n_step}
        runner = off_policy(env, agent, lambda spec: intrinsic(spec, none(spec)), **shape, **settings)

        def one(state, i):
            state, metrics = runner.step(state, Clock(i, jnp.float32(0)))
            return state, (metrics["value/mean"].total / metrics["value/mean"].weight, metrics["episode/return"].total)

        state, (values, returns) = jax.lax.scan(one, runner.init(jax.random.PRNGKey(1)), jnp.arange(30))
        return (state.agent.params, state.replay.rows.step[0].action, returns), values[-1]

    found = jax.jit(jax.vmap(life))(jnp.float32(shifts))
    return [jax.tree.map(lambda x, i=i: x[i], found) for i in range(len(shifts))]


def same(a, b) -> bool:
    return all(np.allclose(x, y, atol=2e-5) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True))


@pytest.mark.medium
@pytest.mark.parametrize("n_step", [1, 3])
def test_where_episodes_never_end_a_shift_is_another_start(n_step):
    """Learning with r + b from Q0 + b / (1 - discount) is learning with r from Q0: the same networks, actions and returns."""
    (plain, value), *shifted = trained(tabular(**CONTINUING), [0.0, -0.5, 0.5], n_step=n_step)
    for shift, (found, moved) in zip((-0.5, 0.5), shifted, strict=True):
        assert same(plain, found)
        assert float(moved - value) == pytest.approx(shift * OFFSET, abs=1e-4)


@pytest.mark.medium
def test_where_they_end_it_is_not_unless_terminal_states_are_shifted_too():
    (plain, _), (shifted, _) = trained(deep_sea(size=4), [0.0, 0.5])
    (corrected, _) = trained(deep_sea(size=4), [0.0, 0.5], "terminal_corrected")[1]
    assert not same(plain, shifted)
    assert same(plain, corrected)


@pytest.mark.medium
def test_the_warning_knows_where_episodes_end():
    assert not may_terminate(tabular(**CONTINUING)) and not may_terminate(gymnax(id="Pendulum-v1"))
    assert may_terminate(deep_sea(size=4)) and may_terminate(gymnax(id="CartPole-v1"))
    shifted = {"reward_shift": -0.5, "shift_mode": "reward"}
    assert "ending episodes early" in shift_warning(deep_sea(size=4), shifted)
    assert "not ending" in shift_warning(deep_sea(size=4), shifted | {"reward_shift": 1.0})
    assert shift_warning(deep_sea(size=4), shifted | {"shift_mode": "terminal_corrected"}) is None
    assert shift_warning(deep_sea(size=4), shifted | {"reward_shift": 0.0}) is None
    assert shift_warning(tabular(**CONTINUING), shifted) is None


def test_a_correction_needs_a_discount_below_one():
    with pytest.raises(Refusal, match="below 1"):
        world_rewards(1.0, 1.0, 0.5, "terminal_corrected")


def test_no_shift_leaves_rewards_bit_for_bit():
    steps = Transition(*[None] * 2, jnp.float32([0.1, -0.7]), None, jnp.array([True, False]), *[None] * 2, {})
    assert world_rewards(0.9, 2.0, 0.0, "terminal_corrected")(steps).reward is steps.reward
    np.testing.assert_allclose(world_rewards(0.9, 2.0, -1.0, "terminal_corrected")(steps).reward, [-9.9, -1.7], rtol=1e-6)
