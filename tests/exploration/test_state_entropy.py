"""State entropy: the running normal density as numpy has it, resets, and particles."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnasium import spaces

from envs.base import Spec
from exploration.laws.play import arrivals, line, play, reaching
from exploration.state_entropy import state_entropy

SIZE, FLOOR = 3, 0.01


def world(lanes=1):
    return Spec(spaces.Box(-np.inf, np.inf, (SIZE,), np.float32), spaces.Discrete(2), lanes=lanes)


def steps(data):
    """Arrivals in f32[T, N, SIZE]."""
    flat = reaching(jnp.asarray(data).reshape(-1, SIZE))
    return jax.tree.map(lambda x: x.reshape(*data.shape[:2], *x.shape[1:]), flat)


def log_density(x, mean, variance):
    return np.sum(-((x - mean) ** 2) / (2 * variance) - 0.5 * np.log(2 * np.pi * variance))


def data(lanes, seed=0):
    return np.random.default_rng(seed).normal([1.0, -3.0, 0.0], [0.1, 2.0, 1.0], (25, lanes, SIZE)).astype(np.float32)


def test_each_lane_has_the_density_of_its_episode():
    x = data(2)
    _, paid = play(state_entropy(world(2), prior=0.0), steps(x))
    for lane in range(2):
        for t in range(1, len(x)):
            before = x[:t, lane].astype(np.float64)
            wanted = -log_density(x[t, lane], before.mean(0), before.var(0) + FLOOR)
            np.testing.assert_allclose(paid[t, lane], wanted, rtol=2e-3)
        np.testing.assert_allclose(paid[0, lane], -log_density(x[0, lane], 0, 1 + FLOOR), rtol=1e-5)  # nothing seen: a unit normal


def test_the_density_of_the_whole_run_is_that_of_all_lanes():
    x = data(4)
    made = state_entropy(world(4), per_episode=False, prior=0.0)
    state, paid = play(made, steps(x))
    before = x[:20].reshape(-1, SIZE).astype(np.float64)
    wanted = [-log_density(row, before.mean(0), before.var(0) + FLOOR) for row in x[20]]
    np.testing.assert_allclose(paid[20], wanted, rtol=2e-3)
    np.testing.assert_allclose(made.features(state, None)[0, -1], np.log1p(100), rtol=1e-6)
    assert not made.info.episodic


def test_the_prior_is_samples_of_a_unit_normal():
    """As many samples of mean 0 and variance 1 beside the data, to the floor."""
    x = data(1)
    made = state_entropy(world(), prior=4.0)
    state, _ = play(made, steps(x))
    pretend = np.repeat([[-1.0] * SIZE, [1.0] * SIZE], 2, axis=0)
    seen = np.concatenate([pretend, x[:, 0]])
    shown = np.asarray(made.features(state, None))[0]
    np.testing.assert_allclose(shown, [*seen.mean(0), *np.log(seen.var(0) + FLOOR), np.log1p(len(seen))], rtol=1e-4, atol=1e-5)


def test_a_reset_forgets_its_lane_only():
    made = state_entropy(world(2))
    start = made.init(jax.random.key(0))
    state, _ = play(made, steps(data(2)))
    after = made.reset(state, jnp.asarray([True, False]))
    for fresh, old, new in zip(*map(jax.tree.leaves, (start, state, after)), strict=True):
        np.testing.assert_array_equal(new[0], fresh[0])
        np.testing.assert_array_equal(new[1], old[1])
        assert not np.array_equal(old[0], fresh[0])


def test_what_was_seen_is_less_of_a_surprise_than_what_was_not():
    _, paid = play(state_entropy(line()), arrivals([[2]] * 30 + [[2], [5]]))
    assert paid[30, 0] < 0 < 3 < paid[31, 0]  # a density above 1 makes surprise negative


def test_particles_of_the_rollout():
    made = state_entropy(line(2), density="knn", encoder="random", k=2, memory=4, hidden=(), embedding=3)
    ids = np.random.default_rng(0).integers(0, 6, (4, 2))
    state, paid = play(made, arrivals(ids))
    kernel = np.asarray(state.params["encoder"]["params"]["MLP_0"]["Dense_0"]["kernel"])
    features = np.asarray(arrivals(ids).next_obs).reshape(-1, 2) @ kernel
    distances = np.sort(np.linalg.norm(features[:, None] - features[None], axis=-1), axis=-1)
    np.testing.assert_allclose(paid.reshape(-1), np.log1p(distances[:, 1:3].mean(-1)), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("density", ["gaussian", "knn"])
def test_long_episodes_of_one_state_stay_finite(density):
    made = state_entropy(line(), density=density, encoder="random", hidden=(), memory=8)
    state, paid = play(made, arrivals(np.full((5000, 1), 5)))
    assert np.all(np.isfinite(paid)) and all(np.all(np.isfinite(x)) for x in jax.tree.leaves(state))
