"""The coin flip network: its regression finds the mean of its coins, its priorities are those of the paper, and it counts."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnasium import spaces

from envs.base import Spec
from envs.builder import Refusal
from exploration.cfn import cfn, flip, signs
from exploration.laws.play import reaching
from tests.exploration import counting

LANES, COINS = 4, 6
VECTOR = spaces.Box(-np.inf, np.inf, (3,), np.float32)
SMALL = {"coins": COINS, "hidden": (16,), "capacity": 32, "batch_size": 8, "updates_per_batch": 1}


def world(observation=VECTOR, lanes=LANES):
    return Spec(observation, spaces.Discrete(2), "cfn", lanes=lanes)


def steps(seed, lead=(LANES,)):
    return reaching(jnp.asarray(np.random.default_rng(seed).normal(size=(*lead, 3)), jnp.float32))


def observed(made, times=3):
    state, observe = made.init(jax.random.key(0)), jax.jit(made.observe)
    for n in range(times):
        state, _ = observe(state, jax.random.key(n), steps(n))
    return state


def test_coins_are_fair_fresh_and_packed():
    packed = flip(jax.random.key(0), 4000, 40)
    assert packed.shape == (4000, 2) and packed.dtype == jnp.uint32
    drawn = np.asarray(signs(packed, 40))
    assert set(np.unique(drawn)) == {-1.0, 1.0} and drawn.shape == (4000, 40)
    assert np.abs(drawn.mean(0)).max() < 5 / np.sqrt(4000)  # fair
    correlation = np.corrcoef(drawn.T) - np.eye(40)
    assert np.abs(correlation).max() < 5 / np.sqrt(4000)  # and each by itself
    bits = (int(packed[7, 0]) >> np.arange(32)) & 1
    np.testing.assert_array_equal(drawn[7, :32], 2.0 * bits - 1)


def test_bonus_is_that_of_a_forward_pass_by_hand():
    made = cfn(world(), **SMALL)
    state, x = observed(made), np.asarray(steps(9).next_obs)

    def network(params, x):
        first, last = (params["params"]["MLP_0"][f"Dense_{n}"] for n in range(2))
        return np.maximum(x @ first["kernel"] + first["bias"], 0) @ last["kernel"] + last["bias"]

    seen = network(state.prior, np.concatenate([steps(n).next_obs for n in range(3)]))
    flips = network(state.trained, x) + (network(state.prior, x) - seen.mean(0)) / np.sqrt(seen.var(0) + 1e-4)
    np.testing.assert_allclose(made.score(state, steps(9)), np.sqrt(np.mean(flips**2, axis=-1)), rtol=1e-4)


def test_visits_are_kept_as_observed_with_coins_of_their_own():
    codes = spaces.Box(0, 9, (2, 2, 1), np.uint8)
    made = cfn(world(codes), **SMALL)
    state, twice = made.init(jax.random.key(0)), reaching(jnp.full((LANES, 2, 2, 1), 7, jnp.uint8))
    for n in range(2):
        state, _ = made.observe(state, jax.random.key(n), twice)
    kept = state.buffer.items
    assert kept.obs.dtype == jnp.uint8 and (kept.obs[:8] == 7).all() and int(state.buffer.size) == 8
    assert len(np.unique(np.asarray(kept.coins[:8]))) == 8, "one state, eight visits, eight draws of coins"
    np.testing.assert_array_equal(state.buffer.priority.flat[:9], [1] * 8 + [0])
    np.testing.assert_array_equal(state.draws[:9], [1] * 8 + [0])


def test_priorities_are_those_of_the_paper():
    """a / (1 + times drawn) + (1 - a) mean f^2, where the first drawing makes it a half of a."""
    made = cfn(world(), **{**SMALL, "learning_rate": 1e-9, "priority_mix": 0.3})
    state = observed(made)
    after, _ = jax.jit(made.update)(state, jax.random.key(1), (steps(0), {}))
    drawn = np.asarray(after.draws - state.draws)
    assert drawn.sum() == 8 and drawn[12:].sum() == 0
    estimate = np.square(made.score(state, reaching(state.buffer.items.obs)))
    wanted = np.where(drawn > 0, 0.3 / (1 + drawn) + 0.7 * estimate, state.buffer.priority.flat)
    np.testing.assert_allclose(after.buffer.priority.flat, wanted, rtol=1e-4)
    again, _ = made.observe(after, jax.random.key(0), steps(0))
    np.testing.assert_array_equal(again.buffer.priority.flat[12:16], 1.0)
    np.testing.assert_array_equal(again.draws[12:16], 1)


def test_without_priorities_all_visits_stay_alike():
    made = cfn(world(), **SMALL, prioritized=False)
    after, _ = jax.jit(made.update)(observed(made), jax.random.key(1), (steps(0), {}))
    np.testing.assert_array_equal(after.buffer.priority.flat, [1.0] * 12 + [0.0] * 20)


def test_learns_from_its_own_visits_and_not_from_the_batch():
    """Under a replay agent batches repeat; a visit must be counted once."""
    made = cfn(world(), **SMALL)
    state, update = observed(made), jax.jit(made.update)
    one, other = (update(state, jax.random.key(1), (steps(n), {}))[0] for n in (0, 5))
    jax.tree.map(np.testing.assert_array_equal, one, other)
    jax.tree.map(np.testing.assert_array_equal, one.prior, state.prior)


def test_nothing_is_learnt_from_an_empty_buffer():
    made = cfn(world(), **SMALL)
    state = made.init(jax.random.key(0))
    after, metrics = made.update(state, jax.random.key(1), (steps(0), {}))
    jax.tree.map(np.testing.assert_array_equal, (after.trained, after.buffer, after.draws), (state.trained, state.buffer, state.draws))
    assert all(np.isfinite(x) for x in metrics.values())


@pytest.mark.parametrize("prioritized", [False, True])
def test_the_regression_finds_the_mean_of_the_coins(prioritized):
    """States visited 1, 2, 4 and 9 times. With priorities the mean is a weighted one, which a single visit does not feel."""
    made = cfn(world(spaces.Discrete(4), lanes=16), coins=COINS, hidden=(), capacity=16, batch_size=64, updates_per_batch=3000, prioritized=prioritized)
    visited = jnp.repeat(jnp.arange(4), jnp.array([1, 2, 4, 9]), total_repeat_length=16)
    state, _ = made.observe(made.init(jax.random.key(0)), jax.random.key(1), reaching(visited))
    state, metrics = jax.jit(made.update)(state, jax.random.key(2), (reaching(visited), {}))
    coins = np.asarray(signs(state.buffer.items.coins, COINS))
    means = np.stack([coins[np.asarray(visited) == s].mean(0) for s in range(4)])
    paid = np.asarray(made.score(state, reaching(jnp.arange(4))))
    np.testing.assert_allclose(paid[0], 1.0, atol=0.02)
    if not prioritized:
        np.testing.assert_allclose(paid, np.sqrt(np.mean(means**2, axis=1)), atol=0.06)
    assert float(metrics["visits_kept"]) == 16


def test_stale_and_fresh():
    """scored=step keeps what a state was worth; batch pays what it is worth now."""
    stale, fresh = (cfn(world(), **{**SMALL, "updates_per_batch": 50}, scored=scored) for scored in ("step", "batch"))
    state, notes = stale.observe(stale.init(jax.random.key(0)), jax.random.key(1), steps(0))
    noted = steps(0)._replace(annotations=notes)
    np.testing.assert_allclose(notes["coin_bonus"], fresh.score(state, steps(0)), rtol=1e-5)
    after, _ = jax.jit(stale.update)(state, jax.random.key(2), (noted, {}))
    np.testing.assert_array_equal(stale.score(after, noted), notes["coin_bonus"])
    assert np.abs(fresh.score(after, noted) - notes["coin_bonus"]).max() > 0.05
    assert (stale.info.scored, stale.info.needs, fresh.info.needs) == ("step", (), ("next_obs",))


def test_a_step_of_all_lanes_must_fit():
    with pytest.raises(Refusal, match="cfn.capacity=2 must hold a step of all lanes, of which there are 4"):
        cfn(world(), capacity=2)


@pytest.mark.medium
def test_counts_a_random_walk_and_better_than_rnd():
    """20 000 steps on 20 x 20 numbered states, 5 000 updates of both (``counting.py``; numbers over seeds in docs/methods/cfn.md)."""
    (r, rmse), (r_rnd, _) = (counting.ROWS[name].agreement(0) for name in ("cfn", "rnd"))
    assert r > 0.93 and r > r_rnd + 0.1 and rmse < 0.1, (r, rmse, r_rnd)


@pytest.mark.slow
def test_counts_pictures():
    """42 x 42 cells shown as pictures, convolutions."""
    r, rmse = counting.ROWS["pictures: cfn"].agreement(0)
    assert r > 0.85 and rmse < 0.2, (r, rmse)
