"""Intrinsic curiosity: the bonus against a forward pass by hand, what trains what, and Box actions."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnasium import spaces

from envs.base import Spec, Transition
from envs.builder import Refusal
from exploration import icm as module

SIZE = 5
ACTIONS = {"discrete": spaces.Discrete(3, start=2), "box": spaces.Box(-1.0, 1.0, (2,), np.float32)}


def world(action="discrete"):
    return Spec(spaces.Box(-np.inf, np.inf, (SIZE,), np.float32), ACTIONS[action])


@functools.cache
def icm(action="discrete", **settings):
    made = module.icm(world(action), **{"embedding": 4, "hidden": (8,), "minibatches": 1, "learning_rate": 1e-2, **settings})
    return made._replace(init=jax.jit(made.init), update=jax.jit(made.update))


def steps(action="discrete", lead=(12,)):
    rng = np.random.default_rng(0)
    obs, next_obs = (jnp.asarray(rng.normal(size=(*lead, SIZE)), jnp.float32) for _ in range(2))
    taken = rng.integers(2, 5, lead).astype(np.int32) if action == "discrete" else rng.uniform(-1, 1, (*lead, 2)).astype(np.float32)
    no = jnp.zeros(lead, bool)
    return Transition(obs, jnp.asarray(taken), no.astype(jnp.float32), next_obs, no, no, no, {})


def layers(params, *path):
    for name in path:
        params = params[name]
    return [(np.asarray(params[f"Dense_{n}"]["kernel"]), np.asarray(params[f"Dense_{n}"]["bias"])) for n in range(len(params))]


def by_hand(layers, x):
    for n, (kernel, bias) in enumerate(layers):
        x = x @ kernel + bias
        x = np.maximum(x, 0) if n < len(layers) - 1 else x
    return x


@pytest.mark.parametrize("action", ACTIONS)
def test_bonus_is_half_the_squared_distance(action):
    bonus, batch = icm(action), steps(action)
    state = bonus.init(jax.random.key(0))
    encoder = layers(state.params["features"]["encoder"], "params", "MLP_0")
    before, after = (by_hand(encoder, np.asarray(obs)) for obs in (batch.obs, batch.next_obs))
    taken = np.eye(3)[np.asarray(batch.action) - 2] if action == "discrete" else np.asarray(batch.action)
    predicted = by_hand(layers(state.params["forward"], "params"), np.concatenate([before, taken], axis=-1))
    wanted = np.sum((predicted - after) ** 2, axis=-1) / 2
    np.testing.assert_allclose(bonus.score(state, batch), wanted, rtol=1e-4)
    np.testing.assert_allclose(icm(action, eta=0.5).score(state, batch), wanted / 2, rtol=1e-4)


@pytest.mark.parametrize(("settings", "trained"), [
    ({"beta": 0.0}, {"encoder", "head"}),  # the inverse loss alone
    ({"beta": 1.0}, {"encoder", "forward"}),
    ({"beta": 1.0, "joint": False}, {"forward"}),
    ({"joint": False}, {"encoder", "head", "forward"}),
    ({"encoder": "random"}, {"forward"}),
])
def test_what_trains_what(settings, trained):
    bonus = icm(**settings)
    state = bonus.init(jax.random.key(0))
    after, metrics = bonus.update(state, jax.random.key(0), (steps(), {}))
    parts = [{**s.params["features"], "forward": s.params["forward"]} for s in (state, after)]
    moved = {name for name in parts[0] if not all(map(np.array_equal, *(jax.tree.leaves(p[name]) for p in parts)))}
    assert moved == trained
    assert set(metrics) == {"forward_loss"} | (set() if "encoder" in settings else {"inverse_loss"})


@pytest.mark.parametrize("action", ACTIONS)
def test_both_losses_fall(action):
    bonus, batch = icm(action, learning_rate=1e-2), steps(action, (4, 6))
    state, found = bonus.init(jax.random.key(0)), []
    for n in range(60):
        state, metrics = bonus.update(state, jax.random.key(n), (batch, {}))
        found.append(metrics)
    for name in ("forward_loss", "inverse_loss"):
        assert float(found[-1][name]) < 0.5 * float(found[0][name]), name


def test_actions_that_cannot_be_predicted_are_refused():
    for encoder in ("inverse", "random"):
        with pytest.raises(Refusal, match="MultiBinary"):
            module.icm(world()._replace(action=spaces.MultiBinary(3)), encoder=encoder)
