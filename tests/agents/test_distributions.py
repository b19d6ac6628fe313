"""Action distributions against integrals, closed forms and frequencies."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnasium import spaces

from agents.distributions import categorical, distribution, tanh_normal
from envs.builder import Refusal


@pytest.mark.parametrize(("mean", "log_std"), [(0.0, 0.0), (0.8, -1.0), (-1.5, 0.3)])
def test_density_of_the_squashed_normal_integrates_to_one(mean, log_std):
    policy = tanh_normal(spaces.Box(np.float32([-2.0]), np.float32([3.0])))
    action = np.linspace(-2, 3, 200_001)[1:-1]
    raw = jnp.array(np.arctanh((action + 2) / 2.5 - 1), jnp.float32)[:, None]
    parameters = jnp.broadcast_to(jnp.array([mean, log_std], jnp.float32), (len(action), 2))
    density = np.exp(np.asarray(policy.log_prob(parameters, raw), np.float64))
    assert np.trapezoid(density, action) == pytest.approx(1.0, abs=2e-3)
    np.testing.assert_allclose(policy.to_action(raw)[:, 0], action, atol=1e-4)


def test_log_density_stays_finite_at_the_bounds():
    policy = tanh_normal(spaces.Box(np.float32([-1.0]), np.float32([1.0])))
    raw = jnp.array([[-40.0], [40.0]])
    value, gradient = jax.value_and_grad(lambda p: policy.log_prob(p, raw).sum())(jnp.zeros((2, 2)))
    assert np.isfinite(value) and np.isfinite(gradient).all()
    assert (np.abs(policy.to_action(raw)) <= 1).all()


def test_categorical():
    policy = categorical(spaces.Discrete(4, start=3))
    assert policy.entropy(jnp.zeros(4), jnp.int32(0)) == pytest.approx(np.log(4))
    logits = jnp.log(jnp.array([0.1, 0.2, 0.3, 0.4]))
    raw = policy.sample(jnp.broadcast_to(logits, (20_000, 4)), jax.random.PRNGKey(0))
    frequency = np.bincount(np.asarray(raw), minlength=4) / 20_000
    np.testing.assert_allclose(frequency, [0.1, 0.2, 0.3, 0.4], atol=0.015)  # four standard errors
    assert policy.to_action(policy.mode(logits)) == 3 + 3
    np.testing.assert_allclose(policy.log_prob(logits, jnp.int32(1)), np.log(0.2), rtol=1e-5)


def test_spaces_without_a_distribution_are_refused():
    with pytest.raises(Refusal, match="MultiBinary"):
        distribution(spaces.MultiBinary(3))
