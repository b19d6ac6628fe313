"""Running statistics against numpy over all the data at once."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from exploration.normalizers import deviation, forward_filter, moments, standardize, update_forward_filter, update_moments


def test_moments_equal_those_of_all_data():
    rng = np.random.default_rng(0)
    data = {"a": rng.normal(3.0, 2.0, (6, 5, 4)).astype(np.float32), "b": rng.integers(0, 255, (6, 5), dtype=np.uint8)}
    state = moments({"a": jnp.zeros(4), "b": jnp.zeros(())})
    for t in range(6):
        state = update_moments(state, {"a": jnp.asarray(data["a"][t]), "b": jnp.asarray(data["b"][t])})
    np.testing.assert_allclose(state["a"].mean, data["a"].mean((0, 1)), rtol=1e-5)
    np.testing.assert_allclose(state["a"].var, data["a"].var((0, 1)), rtol=1e-5)
    np.testing.assert_allclose(state["b"].var, data["b"].astype(np.float64).var(), rtol=1e-5)
    assert float(state["a"].count) == 30.0


def test_standardize_clips_and_starts_as_the_identity():
    values = jnp.asarray([[1.0, -2.0], [9.0, -9.0]])
    state = moments(jnp.zeros(2))
    np.testing.assert_allclose(standardize(state, values, 5.0), [[1.0, -2.0], [5.0, -5.0]], rtol=1e-5)
    state = update_moments(state, jnp.asarray([[0.0, 10.0], [4.0, 10.0]]))
    np.testing.assert_allclose(standardize(state, jnp.asarray([[6.0, 10.0]]), 5.0), [[2.0, 0.0]], atol=1e-4)


def test_forward_filter_has_one_sum_per_lane():
    rewards = np.random.default_rng(1).uniform(0, 1, (50, 3)).astype(np.float32)
    state = update_forward_filter(forward_filter(3), jnp.asarray(rewards), 0.9)
    total, sums = np.zeros(3), []
    for reward in rewards:
        total = 0.9 * total + reward
        sums.append(total)
    np.testing.assert_allclose(state.returns, sums[-1], rtol=1e-5)
    np.testing.assert_allclose(deviation(state.moments), np.std(sums), rtol=1e-4)


def test_deviation_is_one_while_nothing_differs():
    for reward in (0.0, 7.0):
        state = update_forward_filter(forward_filter(4), jnp.full((1, 4), reward), 0.99)
        assert float(deviation(state.moments)) == 1.0
    tiny = update_forward_filter(forward_filter(1), jnp.full((5, 1), 1e-6), 0.99)
    np.testing.assert_allclose(deviation(tiny.moments), 1e-6 * np.std([1.0, 1.99, 2.9701, 3.940399, 4.90099501]), rtol=1e-4)


def test_a_saturated_count_stays_finite():
    state = moments(jnp.zeros(()))._replace(count=jnp.float32(3e9), mean=jnp.float32(2.0), var=jnp.float32(1.0))
    after = jax.jit(update_moments)(state, jnp.full(8, 2.5))
    assert np.isfinite(after.var) and float(after.count) == 3e9 and abs(float(after.mean) - 2.0) < 1e-5
