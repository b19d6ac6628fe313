"""bsuite's swing-up: its physics, what it pays, and when it ends."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from envs.cartpole_swingup import CartPoleState, cartpole_swingup, render

ACTIONS = [2] * 20 + [0] * 35 + [1] * 5 + [2] * 40
REFERENCE = {  # x, xdot, theta, thetadot after so many of ACTIONS: bsuite 0.3.6's step_cartpole from the same start
    1: (0.0098, 0.07733955105, 3.17199265359, 0.18153428878),
    50: (0.33046528272, -1.07517787353, 3.36013257807, -3.26115915521),
    100: (0.33871678486, 2.42123953460, 2.88499595726, 3.89369277263),
}


def at(**changed):
    return CartPoleState(**{**dict(x=0.0, x_dot=0.0, theta=0.0, theta_dot=0.0), **changed}, steps=jnp.int32(0))


@pytest.mark.parametrize("kind", ["discrete", "continuous"])
def test_the_physics_are_those_of_bsuite(kind):
    env = cartpole_swingup(actions=kind)
    state, step = at(x=0.01, x_dot=-0.02, theta=jnp.pi + 0.03, theta_dot=0.04), jax.jit(env.step)
    state = jax.tree.map(jnp.asarray, state)
    for n, action in enumerate(ACTIONS, start=1):
        action = jnp.int32(action) if kind == "discrete" else jnp.float32([action - 1])
        state, _ = step(state, jax.random.PRNGKey(0), action)
        if n in REFERENCE:
            np.testing.assert_allclose(state[:4], REFERENCE[n], rtol=2e-4)


@pytest.mark.parametrize(
    ("changed", "action", "reward"),
    [
        ({}, 1, 1.0),  # held up in the middle
        ({}, 2, 0.9),  # and pushed
        ({"theta": jnp.pi}, 0, -0.1),
        ({"theta": 1.0}, 1, 1.0),  # cos 1 = 0.54
        ({"theta": 1.1}, 1, 0.0),  # cos 1.1 = 0.45
        ({"theta_dot": 1.2}, 1, 0.0),
        ({"x": 1.1}, 1, 0.0),
    ],
)
def test_what_it_pays(changed, action, reward):
    _, found = cartpole_swingup().step(at(**changed), jax.random.PRNGKey(0), jnp.int32(action))
    assert float(found.reward) == pytest.approx(reward) and not found.terminated and not found.truncated
    assert found.obs.shape == (8,) and int(found.info["upright"]) == (reward > 0)


def test_when_it_ends():
    env = cartpole_swingup()
    assert env.step(at(x=2.999, x_dot=1.0), jax.random.PRNGKey(0), jnp.int32(1))[1].terminated
    late = at(theta=jnp.pi)._replace(steps=jnp.int32(999))
    state, found = env.step(late, jax.random.PRNGKey(0), jnp.int32(1))
    assert not found.terminated
    assert env.step(state, jax.random.PRNGKey(0), jnp.int32(1))[1].terminated  # the 1001st step


def test_the_pole_is_drawn_where_it_is():
    up, down = render(at()), render(at(theta=np.pi))
    red = lambda picture: np.argwhere((picture == (210, 60, 60)).all(-1))[:, 0].mean()  # noqa: E731
    assert red(up) < 60 < 85 < red(down)
