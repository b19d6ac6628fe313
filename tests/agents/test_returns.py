"""Advantages against the card's numbers and against the definition."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest

from agents.base import RewardStream
from agents.returns import gae, stream_advantages


def column(*values):
    return jnp.array(values, jnp.float32)[:, None]


@pytest.mark.parametrize(
    ("done", "episodic", "expected"),
    [
        ((0, 0, 0), True, (2.82504, 1.9405, 1)),
        ((1, 0, 0), False, (2.82504, 1.9405, 1)),
        ((1, 0, 0), True, (1, 1.9405, 1)),
        ((0, 1, 0), True, (1.9405, 1, 1)),
    ],
)
def test_two_stream_example(done, episodic, expected):
    """r = (1, 1, 1), V = 0, discount .99, lambda .95; a non-episodic stream does not see the end of an episode."""
    zero = jnp.zeros((3, 1))
    ended = column(*done) > 0
    stream = RewardStream(jnp.ones((3, 1)), 0.99, 1.0, episodic)
    found = stream_advantages(stream, zero, zero, zero, ended, ended, 0.95)
    np.testing.assert_allclose(found[:, 0], expected, rtol=1e-5)


def test_termination_stops_the_bootstrap_and_truncation_does_not():
    value, following, successor = column(0.5, 0.5), column(7.0, 7.0), column(3.0, 3.0)
    stream = RewardStream(column(1.0, 1.0), 0.9, 1.0, True)
    yes, no = column(1, 1) > 0, column(0, 0) > 0
    terminated = stream_advantages(stream, value, following, successor, yes, yes, 0.95)
    truncated = stream_advantages(stream, value, following, successor, no, yes, 0.95)
    np.testing.assert_allclose(terminated, 1.0 - 0.5)
    np.testing.assert_allclose(truncated, 1.0 + 0.9 * 3.0 - 0.5, rtol=1e-6)  # the true successor, not the reset observation


def test_gae_equals_its_definition():
    random = np.random.default_rng(0)
    reward, value, next_value = random.normal(size=(3, 20, 2)).astype(np.float32)
    done = (random.random((20, 2)) < 0.2).astype(np.float32)
    found = gae(*map(jnp.array, (reward, value, next_value)), 0.97, 0.9, jnp.array(done), jnp.array(done))
    delta = reward + 0.97 * (1 - done) * next_value - value
    for t in range(20):
        expected, weight = np.zeros(2), np.ones(2)
        for k in range(t, 20):
            expected += weight * delta[k]
            weight *= 0.97 * 0.9 * (1 - done[k])
        np.testing.assert_allclose(found[t], expected, rtol=2e-4, atol=1e-5)
