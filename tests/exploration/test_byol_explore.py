"""BYOL-Explore in one step: the bonus against numpy, and the slow encoder."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnasium import spaces

from envs.base import Spec
from envs.builder import Refusal
from exploration.byol_explore import byol_explore
from exploration.icm import cube

SPEC, STEPS = cube()


@functools.cache
def made(**settings):
    bonus = byol_explore(SPEC, **{"hidden": (), "embedding": 4, "minibatches": 1, "learning_rate": 1e-2, **settings})
    return bonus._replace(init=jax.jit(bonus.init), update=jax.jit(bonus.update))


def dense(params, x):
    return x @ np.asarray(params["kernel"]) + np.asarray(params["bias"])


def test_bonus_is_the_distance_of_directions():
    state = made().init(jax.random.key(0))
    state = state._replace(slow=jax.tree.map(lambda x: 2 * x + 0.1, state.slow))
    encoder, slow = (p["params"]["MLP_0"]["Dense_0"] for p in (state.params["encoder"], state.slow))
    inputs = np.concatenate([dense(encoder, np.asarray(STEPS.obs)), np.eye(3)[np.asarray(STEPS.action)]], axis=-1)
    predicted, wanted = dense(state.params["predictor"]["params"]["Dense_0"], inputs), dense(slow, np.asarray(STEPS.next_obs))
    cosine = np.sum(predicted * wanted, -1) / np.linalg.norm(predicted, axis=-1) / np.linalg.norm(wanted, axis=-1)
    np.testing.assert_allclose(made().score(state, STEPS), 2 - 2 * cosine, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("decay", [0.0, 0.75, 1.0])
def test_the_slow_encoder_follows(decay):
    state = made(decay=decay).init(jax.random.key(0))
    state = state._replace(slow=jax.tree.map(lambda x: 3 * x, state.slow))
    after, metrics = made(decay=decay).update(state, jax.random.key(0), (STEPS, {}))
    wanted = jax.tree.map(lambda old, new: decay * old + (1 - decay) * new, state.slow, after.params["encoder"])
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), after.slow, wanted)
    assert not all(map(np.array_equal, *(jax.tree.leaves(s.params["encoder"]) for s in (state, after))))  # f learns from the loss
    assert float(metrics["feature_deviation"]) > 0 and float(metrics["prediction_loss"]) > 0


def test_refusals():
    with pytest.raises(Refusal, match="MultiBinary"):
        byol_explore(Spec(spaces.Box(-1, 1, (3,), np.float32), spaces.MultiBinary(3)))


def test_zeros_are_no_nan():
    state = jax.tree.map(jnp.zeros_like, made().init(jax.random.key(0)))
    after, _ = made().update(state, jax.random.key(0), (STEPS, {}))
    assert all(bool(jnp.all(jnp.isfinite(x))) for x in jax.tree.leaves(after))
