"""Disagreement: the variance against a few lines of numpy, members that learn apart, and what never trains the features."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnasium import spaces

from envs.base import Spec, Transition
from envs.builder import Refusal
from exploration import disagreement as module

SIZE, MEMBERS = 5, 3


def world():
    return Spec(spaces.Box(-np.inf, np.inf, (SIZE,), np.float32), spaces.Discrete(3, start=2))


@functools.cache
def disagreement(**settings):
    made = module.disagreement(world(), **{"members": MEMBERS, "embedding": 4, "hidden": (8,), "minibatches": 1, "learning_rate": 1e-2, **settings})
    return made._replace(init=jax.jit(made.init), update=jax.jit(made.update))


def steps(seed=0, samples=16):
    rng = np.random.default_rng(seed)
    obs = rng.normal(size=(samples, SIZE)).astype(np.float32)
    no = jnp.zeros((samples,), bool)
    return Transition(jnp.asarray(obs), jnp.asarray(rng.integers(2, 5, samples)), no.astype(jnp.float32), jnp.asarray(2 * obs), no, no, no, {})


def network(params, x, member=()):
    for n in range(2):
        layer = params[f"Dense_{n}"]
        x = x @ np.asarray(layer["kernel"])[member] + np.asarray(layer["bias"])[member]
        x = np.maximum(x, 0) if n == 0 else x
    return x


def test_bonus_is_the_population_variance_over_members():
    batch, state = steps(), disagreement().init(jax.random.key(0))
    phi = network(state.params["features"]["encoder"]["params"]["MLP_0"], np.asarray(batch.obs))
    inputs = np.concatenate([phi, np.eye(3)[np.asarray(batch.action) - 2]], axis=-1)
    predictions = np.stack([network(state.params["members"]["params"], inputs, m) for m in range(MEMBERS)])
    np.testing.assert_allclose(disagreement().score(state, batch), predictions.var(axis=0).mean(axis=-1), rtol=1e-4)


def test_it_falls_where_it_learnt_and_stays_elsewhere():
    bonus, batch, other = disagreement(), steps(), steps(1)._replace(obs=-3 * steps().obs)
    state = first = bonus.init(jax.random.key(0))
    for n in range(150):
        state, _ = bonus.update(state, jax.random.key(n), (batch, {}))
    before, after, elsewhere = (float(jnp.mean(bonus.score(s, t))) for s, t in ((first, batch), (state, batch), (state, other)))
    assert after < 0.1 * before and elsewhere > 5 * after
    assert all(map(np.array_equal, *(jax.tree.leaves(s.params["features"]) for s in (first, state))))


def members_after(share, seed=3):
    """Parameters of members that all start as the first one, after one update."""
    bonus = disagreement(share=share)
    state = bonus.init(jax.random.key(0))
    equal = jax.tree.map(lambda x: jnp.broadcast_to(x[:1], x.shape), state.params["members"])
    state, _ = bonus.update(state._replace(params={**state.params, "members": equal}), jax.random.key(seed), (steps(), {}))
    return jax.tree.leaves(jax.tree.map(np.asarray, state.params["members"])), jax.tree.leaves(jax.tree.map(np.asarray, equal))


def test_each_member_learns_from_a_share_of_its_own():
    whole, start = members_after(1.0)
    assert all(np.allclose(x[0], x[1], atol=1e-6) for x in whole) and not all(map(np.array_equal, whole, start))
    some, _ = members_after(0.5)
    assert not all(np.allclose(x[0], x[1], atol=1e-6) for x in some)
    none, start = members_after(0.0)
    assert all(map(np.array_equal, none, start))


def test_members_start_apart():
    kernel = disagreement().init(jax.random.key(0)).params["members"]["params"]["Dense_0"]["kernel"]
    assert kernel.shape[0] == MEMBERS and not np.allclose(kernel[0], kernel[1])


def test_an_inverse_encoder_learns_from_its_own_loss_only():
    bonus = disagreement(encoder="inverse")
    state = bonus.init(jax.random.key(0))
    after, metrics = bonus.update(state, jax.random.key(0), (steps(), {}))
    wrong = {**state.params, "members": jax.tree.map(lambda x: 7 * x, state.params["members"])}
    other, _ = bonus.update(state._replace(params=wrong), jax.random.key(0), (steps(), {}))
    for ours, theirs in zip(*(jax.tree.leaves(s.params["features"]) for s in (after, other)), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5)
    assert set(metrics) == {"forward_loss", "inverse_loss"}


def test_refusals():
    with pytest.raises(Refusal, match="MultiBinary"):
        module.disagreement(world()._replace(action=spaces.MultiBinary(3)))
