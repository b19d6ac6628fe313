"""Random network distillation: errors fall where it was trained, the target stays, statistics are what was observed."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnasium import spaces

from envs.base import Spec, Transition
from exploration.rnd import rnd

SIZE, LANES = 6, 4
SMALL = {"hidden": (32,), "embedding": 16, "minibatches": 2}


def world(observation=None):
    return Spec(observation or spaces.Box(-np.inf, np.inf, (SIZE,), np.float32), spaces.Discrete(2), lanes=LANES)


def into(next_obs, lead):
    no = jnp.zeros(lead, bool)
    return Transition(next_obs, no.astype(jnp.int32), no.astype(jnp.float32), next_obs, no, no, no, {})


def rooms():
    """(observations the predictor is trained on, others): the two sides of a cube's corners."""
    bits = np.stack(np.meshgrid(*[[-1.0, 1.0]] * SIZE), axis=-1).reshape(-1, SIZE).astype(np.float32)
    return jnp.asarray(bits[bits[:, 0] < 0]), jnp.asarray(bits[bits[:, 0] > 0])


BONUS = rnd(world(), **SMALL)
init, score = jax.jit(BONUS.init), jax.jit(BONUS.score)


@jax.jit
def traced_update(state, key, data, learning_rate, update_proportion):
    bonus = rnd(world(), **SMALL, learning_rate=learning_rate, update_proportion=update_proportion)
    return bonus.update(state, key, (into(data, data.shape[:1]), {}))


def update(state, key, data, learning_rate=1e-3, update_proportion=1.0):
    return traced_update(state, key, data, learning_rate, update_proportion)


def test_no_share_of_the_samples_teaches_nothing():
    state = init(jax.random.key(0))
    after, metrics = update(state, jax.random.key(0), rooms()[0], update_proportion=0.0)
    jax.tree.map(np.testing.assert_array_equal, after.predictor, state.predictor)
    assert float(metrics["predictor_loss"]) == 0.0


def test_bonus_is_the_mean_squared_error():
    state = init(jax.random.key(0))
    x = np.asarray(rooms()[0][:5])

    def network(params):
        first, last = (params["params"]["MLP_0"][f"Dense_{n}"] for n in range(2))
        hidden = np.maximum(x @ np.asarray(first["kernel"]) + np.asarray(first["bias"]), 0)
        return hidden @ np.asarray(last["kernel"]) + np.asarray(last["bias"])

    expected = np.mean((network(state.predictor) - network(state.target)) ** 2, axis=-1)
    np.testing.assert_allclose(score(state, into(jnp.asarray(x), (5,))), expected, rtol=1e-4)


def test_statistics_come_from_what_was_observed():
    data = np.random.default_rng(0).normal([5.0] * SIZE, [10.0] * SIZE, (20, LANES, SIZE)).astype(np.float32)
    observe = jax.jit(lambda s, x: jax.lax.scan(lambda s, x: (BONUS.observe(s, jax.random.key(0), into(x, (LANES,)))[0], None), s, x)[0])
    state = observe(init(jax.random.key(0)), jnp.asarray(data))
    np.testing.assert_allclose(state.moments.mean, data.mean((0, 1)), rtol=1e-4)
    np.testing.assert_allclose(state.moments.var, data.var((0, 1)), rtol=1e-4)
    far = jnp.full((1, SIZE), 1e3)  # clipped to five deviations, as is anything further
    np.testing.assert_allclose(score(state, into(far, (1,))), score(state, into(10 * far, (1,))), rtol=1e-6)
    assert BONUS.info.warmup == 512


def test_leading_shapes_agree():
    state = init(jax.random.key(0))
    x = jnp.asarray(np.random.default_rng(1).normal(size=(3, 4, SIZE)), jnp.float32)
    whole = score(state, into(x, (3, 4)))
    np.testing.assert_allclose(whole.reshape(-1), score(state, into(x.reshape(12, SIZE), (12,))), rtol=1e-5)
    np.testing.assert_allclose(whole[1, 2], score(state, into(x[1, 2], ())), rtol=1e-5)


OBSERVATIONS = {
    "dict of a grid and a number": spaces.Dict({"grid": spaces.Box(0, 12, (7, 7, 2), np.uint8), "number": spaces.Discrete(9, start=2)}),
    "pixels": spaces.Box(0, 255, (36, 36, 1), np.uint8),
}


@pytest.mark.parametrize("kind", [pytest.param(k, marks=pytest.mark.medium) if k == "pixels" else k for k in OBSERVATIONS])
def test_any_observation_and_a_second_look_pays_less(kind):
    space = OBSERVATIONS[kind]
    space.seed(0)
    samples = [space.sample() for _ in range(12)]
    steps = into(jax.tree.map(lambda *x: jnp.asarray(np.stack(x)).reshape(3, 4, *np.shape(x[0])), *samples), (3, 4))
    bonus = rnd(world(space), hidden=(), embedding=8, learning_rate=1e-3, epochs=10)

    @jax.jit
    def run(key):
        state, _ = bonus.observe(bonus.init(key), key, jax.tree.map(lambda x: x[0], steps))
        after, _ = bonus.update(state, key, (steps, {}))
        return state, after, bonus.score(state, steps), bonus.score(after, steps)

    state, after, first, second = run(jax.random.key(0))
    assert first.shape == (3, 4) and bool(jnp.all(jnp.isfinite(first)))
    assert 0 < float(second.mean()) < float(first.mean())
    same = jax.tree.map(lambda a, b: (a.shape, a.dtype, a.weak_type) == (b.shape, b.dtype, b.weak_type), state, after)
    assert all(jax.tree.leaves(same))


def test_vmapped_members_equal_single_ones():
    """Also with a learning rate and a share of the samples of its own per member."""
    keys, data = jax.random.split(jax.random.key(0), 2), rooms()[0]
    rates, shares = [1e-3, 1e-2], [1.0, 0.5]
    states = [init(key) for key in keys]
    stacked = jax.tree.map(lambda *x: np.stack(x), *states)
    together = jax.vmap(traced_update, in_axes=(0, 0, None, 0, 0))(stacked, keys, data, jnp.asarray(rates), jnp.asarray(shares))
    alone = [update(*one, data, rate, share) for *one, rate, share in zip(states, keys, rates, shares, strict=True)]
    alone = jax.tree.map(lambda *x: np.stack(x), *alone)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5), together, alone)


def test_samples_that_do_not_fill_minibatches():
    _, metrics = update(init(jax.random.key(0)), jax.random.key(1), rooms()[0][:7])
    assert np.isfinite(metrics["predictor_loss"]) and float(metrics["predictor_loss"]) > 0
