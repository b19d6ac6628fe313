"""Random network distillation: errors fall where it was trained, the target stays, statistics are what was observed."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnasium import spaces

from envs.base import Spec, Transition
from exploration.rnd import rnd

SIZE = 6


def world(observation=None, lanes=4):
    return Spec(observation or spaces.Box(-np.inf, np.inf, (SIZE,), np.float32), spaces.Discrete(2), lanes=lanes)


def into(next_obs, lead):
    no = jnp.zeros(lead, bool)
    return Transition(next_obs, no.astype(jnp.int32), no.astype(jnp.float32), next_obs, no, no, no, {})


def rooms():
    """(observations the predictor is trained on, others): corners of a cube, apart in one coordinate."""
    bits = np.stack(np.meshgrid(*[[-1.0, 1.0]] * SIZE), axis=-1).reshape(-1, SIZE).astype(np.float32)
    return jnp.asarray(bits[bits[:, 0] < 0]), jnp.asarray(bits[bits[:, 0] > 0])


def trained(bonus, state, data, updates):
    run = jax.jit(lambda s, k: bonus.update(s, k, (into(data, data.shape[:-1]), {})))
    for n in range(updates):
        state, metrics = run(state, jax.random.key(n))
    return state, metrics


def test_the_bonus_falls_where_trained_and_stays_elsewhere():
    seen, unseen = rooms()
    bonus = rnd(world(), learning_rate=1e-3, minibatches=2, hidden=(64, 64), embedding=32)
    state = bonus.init(jax.random.key(0))
    before = bonus.score(state, into(seen, (32,)))
    after, metrics = trained(bonus, state, seen, 200)
    learnt, held_out = bonus.score(after, into(seen, (32,))).mean(), bonus.score(after, into(unseen, (32,))).mean()
    assert float(learnt) < 0.02 * float(before.mean())
    assert float(held_out) > 10 * float(learnt)
    assert 0 < float(metrics["predictor_loss"]) < 0.05 * float(before.mean())
    assert bool(jnp.all(before >= 0)) and before.shape == (32,)


def test_the_target_is_untouched_bit_for_bit():
    bonus = rnd(world(), learning_rate=1e-2)
    state = bonus.init(jax.random.key(0))
    after, _ = trained(bonus, state, rooms()[0], 3)
    jax.tree.map(np.testing.assert_array_equal, after.target, state.target)
    changed = jax.tree.map(lambda a, b: bool(jnp.any(a != b)), after.predictor, state.predictor)
    assert all(jax.tree.leaves(changed))


def test_bonus_is_the_mean_squared_error():
    bonus = rnd(world(), hidden=(), embedding=3)
    state = bonus.init(jax.random.key(0))
    x = np.asarray(rooms()[0][:5])

    def linear(params):
        layer = params["params"]["MLP_0"]["Dense_0"]
        return x @ np.asarray(layer["kernel"]) + np.asarray(layer["bias"])

    expected = np.mean((linear(state.predictor) - linear(state.target)) ** 2, axis=-1)
    np.testing.assert_allclose(bonus.score(state, into(jnp.asarray(x), (5,))), expected, rtol=1e-4)


def test_statistics_come_from_what_was_observed_and_score_leaves_them():
    bonus = rnd(world())
    state = bonus.init(jax.random.key(0))
    data = np.random.default_rng(0).normal([5.0] * SIZE, [10.0] * SIZE, (20, 4, SIZE)).astype(np.float32)
    state = jax.lax.scan(lambda s, x: (bonus.observe(s, jax.random.key(0), into(x, (4,)))[0], None), state, jnp.asarray(data))[0]
    np.testing.assert_allclose(state.moments.mean, data.mean((0, 1)), rtol=1e-4)
    np.testing.assert_allclose(state.moments.var, data.var((0, 1)), rtol=1e-4)
    far = jnp.full((1, SIZE), 1e3)  # clipped to five deviations, as is anything further
    np.testing.assert_allclose(bonus.score(state, into(far, (1,))), bonus.score(state, into(10 * far, (1,))), rtol=1e-6)
    assert bonus.info.warmup == 512


def test_update_proportion_zero_learns_nothing():
    bonus = rnd(world(), update_proportion=0.0)
    state = bonus.init(jax.random.key(0))
    after, metrics = trained(bonus, state, rooms()[0], 2)
    jax.tree.map(np.testing.assert_array_equal, after.predictor, state.predictor)
    assert float(metrics["predictor_loss"]) == 0.0


def test_leading_shapes_agree():
    bonus = rnd(world())
    state = bonus.init(jax.random.key(0))
    x = jnp.asarray(np.random.default_rng(1).normal(size=(3, 4, SIZE)), jnp.float32)
    whole = bonus.score(state, into(x, (3, 4)))
    np.testing.assert_allclose(whole.reshape(-1), bonus.score(state, into(x.reshape(12, SIZE), (12,))), rtol=1e-5)
    np.testing.assert_allclose(whole[1, 2], bonus.score(state, into(x[1, 2], ())), rtol=1e-5)


OBSERVATIONS = {
    "grid": spaces.Box(0, 12, (7, 7, 3), np.uint8),
    "pixels": spaces.Box(0, 255, (42, 42, 1), np.uint8),
    "discrete": spaces.Discrete(9, start=2),
    "dict": spaces.Dict({"a": spaces.Box(0, 12, (3, 3, 2), np.uint8), "b": spaces.Discrete(4)}),
}


@pytest.mark.parametrize("kind", OBSERVATIONS)
def test_any_observation_and_a_second_look_pays_less(kind):
    space = OBSERVATIONS[kind]
    bonus = rnd(world(space), hidden=(16,), embedding=8, learning_rate=1e-3)
    state = bonus.init(jax.random.key(0))
    space.seed(0)
    obs = jax.tree.map(lambda *x: jnp.asarray(np.stack(x)).reshape(3, 4, *np.shape(x[0])), *[space.sample() for _ in range(12)])
    steps = into(obs, (3, 4))
    state, _ = bonus.observe(state, jax.random.key(0), jax.tree.map(lambda x: x[0], steps))
    first = bonus.score(state, steps)
    for n in range(10):
        after, _ = bonus.update(state if n == 0 else after, jax.random.key(n), (steps, {}))
    assert first.shape == (3, 4) and bool(jnp.all(jnp.isfinite(first)))
    assert float(bonus.score(after, steps).mean()) < float(first.mean())
    same = jax.tree.map(lambda a, b: (a.shape, a.dtype, a.weak_type) == (b.shape, b.dtype, b.weak_type), state, after)
    assert all(jax.tree.leaves(same))


def test_vmapped_members_equal_single_ones():
    """Also with a learning rate of its own per member."""
    rates, keys, data = jnp.asarray([1e-3, 1e-2]), jax.random.split(jax.random.key(0), 2), rooms()[0]

    def run(rate, key):
        bonus = rnd(world(), learning_rate=rate, hidden=(8,), embedding=4)
        state, metrics = bonus.update(bonus.init(key), key, (into(data, (32,)), {}))
        return bonus.score(state, into(data, (32,))), metrics["predictor_loss"]

    together = jax.jit(jax.vmap(run))(rates, keys)
    alone = [jax.jit(run)(rate, key) for rate, key in zip(rates, keys, strict=True)]
    for part in range(2):
        np.testing.assert_allclose(together[part], jnp.stack([a[part] for a in alone]), rtol=1e-4)
    assert not np.allclose(together[0][0], together[0][1])


def test_samples_that_do_not_fill_minibatches():
    bonus = rnd(world(), minibatches=4, epochs=2)
    state = bonus.init(jax.random.key(0))
    for number in (3, 7, 32):
        _, metrics = bonus.update(state, jax.random.key(1), (into(rooms()[0][:number], (number,)), {}))
        assert np.isfinite(metrics["predictor_loss"]) and float(metrics["predictor_loss"]) > 0
