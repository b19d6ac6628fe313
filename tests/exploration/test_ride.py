"""RIDE: the bonus against numpy with counts by hand, episodes, and what its losses train."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnasium import spaces

from envs.builder import Refusal
from exploration import ride as module
from exploration.laws.play import arrivals, line, play

LANES = 2
STATES = np.array([[1, 3], [2, 3], [1, 3], [4, 5], [1, 3]])
SMALL = {"hidden": (), "embedding": 4, "capacity": 8, "minibatches": 1, "learning_rate": 1e-2}


@functools.cache
def ride(**settings):
    return module.ride(line(lanes=LANES), **{**SMALL, **settings})


def walk():
    """A walk through STATES that starts in state 0."""
    before = np.concatenate([np.zeros((1, LANES), int), STATES[:-1]])
    return arrivals(STATES)._replace(obs=arrivals(before).obs)


def test_bonus_is_impact_over_the_root_of_the_visits():
    steps = walk()
    state, paid = play(ride(), steps)
    kernel = np.asarray(state.params["features"]["encoder"]["params"]["MLP_0"]["Dense_0"]["kernel"])
    moved = np.linalg.norm((np.asarray(steps.next_obs) - np.asarray(steps.obs)) @ kernel, axis=-1)
    visits = np.array([[1, 1], [1, 2], [2, 3], [1, 1], [3, 4]])
    np.testing.assert_allclose(paid, moved / np.sqrt(visits), rtol=1e-4, atol=1e-6)


def test_the_counts_are_of_the_moment_and_the_impact_of_the_score():
    """A replay batch keeps the visits of when the step was made, and is scored with the features of now."""
    steps = walk()
    state, _ = play(ride(), steps)
    noted = jax.tree.map(lambda x: x[0], steps)._replace(annotations={"episodic": jnp.asarray([1.0, 0.5])})
    twice = state._replace(params=jax.tree.map(lambda x: 2 * x, state.params))
    np.testing.assert_allclose(ride().score(twice, noted), 2 * ride().score(state, noted), rtol=1e-5)


@pytest.mark.parametrize(("settings", "trained"), [
    ({}, {"encoder", "head", "forward"}),
    ({"forward_coef": 0.0}, {"encoder", "head"}),
    ({"encoder": "random"}, set()),
])
def test_what_trains_what(settings, trained):
    bonus, steps = ride(**settings), walk()._replace(annotations={"episodic": jnp.ones(STATES.shape)})
    state = bonus.init(jax.random.key(0))
    after, metrics = jax.jit(bonus.update)(state, jax.random.key(0), (steps, {}))
    parts = [{**s.params["features"], "forward": s.params["forward"]} for s in (state, after)]
    moved = {name for name in parts[0] if not all(map(np.array_equal, *(jax.tree.leaves(p[name]) for p in parts)))}
    assert moved == trained
    losses = {"forward_loss", "inverse_loss"} if trained else set()
    assert set(metrics) == losses | {"impact", "distinct_states", "dropped"} and float(metrics["impact"]) > 0
    assert ("action" in bonus.info.learns_from) == bool(trained)


def test_refusals():
    with pytest.raises(Refusal, match="MultiBinary"):
        module.ride(line()._replace(action=spaces.MultiBinary(3)))
    with pytest.raises(Refusal, match="ride.key"):
        module.ride(line(), key="sate")
