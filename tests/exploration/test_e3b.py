"""E3B: Sherman-Morrison against a direct inverse, episodes per lane, and the inverse model."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnasium import spaces

from envs.base import Spec, Transition
from envs.builder import Refusal
from exploration import e3b as module
from exploration.e3b import elliptical, episode

SIZE, LANES = 5, 3


ACTIONS = {"discrete": spaces.Discrete(2, start=3), "box": spaces.Box(-1.0, 1.0, (2,), np.float32)}


@functools.cache
def e3b(action="discrete", **settings):
    """The bonus with small networks, its slow functions compiled."""
    made = module.e3b(world(ACTIONS[action]), **{"embedding": 4, "hidden": (), **settings})
    return made._replace(init=jax.jit(made.init), observe=jax.jit(made.observe), update=jax.jit(made.update))


def world(action=None, lanes=LANES):
    return Spec(spaces.Box(-np.inf, np.inf, (SIZE,), np.float32), action or spaces.Discrete(4), lanes=lanes)


def steps(seed, lead, first=False, action=None):
    obs, next_obs = (jnp.asarray(np.random.default_rng(seed + n).normal(size=(*lead, SIZE)), jnp.float32) for n in range(2))
    action = jnp.zeros(lead, jnp.int32) if action is None else action
    no = jnp.zeros(lead, bool)
    return Transition(obs, action, no.astype(jnp.float32), next_obs, no, no, jnp.full(lead, first), {})


def test_sherman_morrison_equals_the_direct_inverse():
    vectors = np.random.default_rng(0).normal(size=(50, 4))
    direct = np.linalg.inv(0.1 * np.eye(4) + vectors.T @ vectors)
    inverse = np.asarray(episode(jnp.asarray(vectors, jnp.float32))[1])
    np.testing.assert_allclose(inverse, direct, atol=2e-5 * np.abs(direct).max() + 1e-6)
    np.testing.assert_array_equal(inverse, inverse.T)


def test_long_repetition_of_large_features_stays_sane():
    """Rounding limits a bonus to about 1e-7 |phi|^2 / ridge here, where exact arithmetic gives 1/n. It must not run away."""
    phi = jnp.asarray(300.0 * np.random.default_rng(1).normal(size=8), jnp.float32)

    def step(inverse, _):
        b, inverse = elliptical(inverse, phi)
        return inverse, b

    inverse, paid = jax.jit(lambda: jax.lax.scan(step, jnp.eye(8) / 0.1, None, length=20_000))()
    assert bool(jnp.all(jnp.isfinite(inverse))) and float(jnp.abs(inverse).max()) <= 10.01
    assert bool(jnp.all(paid >= 0)) and float(paid[1000:].max()) < 1.2e-7 * float(phi @ phi) / 0.1


def test_every_lane_has_its_own_matrix_and_reset_touches_only_its_lanes():
    bonus = e3b(skip_first=False)
    state = bonus.init(jax.random.key(0))
    transition = steps(0, (LANES,))
    once, first = bonus.observe(state, jax.random.key(0), transition)
    twice, second = bonus.observe(once, jax.random.key(0), transition)
    b = first["elliptical"]
    np.testing.assert_allclose(second["elliptical"], b / (1 + b), rtol=1e-3)  # the same phi again: b/(1+b)
    cleared = bonus.reset(twice, jnp.asarray([False, True, False]))
    np.testing.assert_allclose(cleared.inverse[1], 10 * np.eye(4), rtol=1e-6)
    for lane in (0, 2):
        np.testing.assert_array_equal(cleared.inverse[lane], twice.inverse[lane])
    again = bonus.observe(cleared, jax.random.key(0), transition)[1]["elliptical"]
    np.testing.assert_allclose(again[1], b[1], rtol=1e-5)
    assert bonus.info.episodic and bonus.info.scored == "step"


def test_permuting_lanes_permutes_bonuses():
    bonus, order = e3b(), jnp.asarray([2, 0, 1])
    state = bonus.init(jax.random.key(0))
    for t in range(3):
        state, notes = bonus.observe(state, jax.random.key(0), steps(t, (LANES,)))
    other = bonus.init(jax.random.key(0))
    for t in range(3):
        other, permuted = bonus.observe(other, jax.random.key(0), jax.tree.map(lambda x: x[order], steps(t, (LANES,))))
    np.testing.assert_allclose(permuted["elliptical"], notes["elliptical"][order], rtol=1e-5)


def test_the_first_step_pays_nothing_but_counts():
    transition = steps(0, (LANES,), first=True)
    paid, state = {}, {}
    for skip in (True, False):
        bonus = e3b(skip_first=skip)
        state[skip], notes = bonus.observe(bonus.init(jax.random.key(0)), jax.random.key(0), transition)
        paid[skip] = notes["elliptical"]
    assert not paid[True].any() and bool(jnp.all(paid[False] > 0))
    np.testing.assert_array_equal(state[True].inverse, state[False].inverse)


@pytest.mark.parametrize("encoding,size", [("triangle", 10), ("diagonal", 4)])
def test_features_are_the_scaled_inverse(encoding, size):
    bonus = e3b(encoding=encoding)
    state = bonus.init(jax.random.key(0))
    start = np.asarray(bonus.features(state, None))
    assert start.shape == (LANES, size) == (LANES, *bonus.info.features.shape)
    assert np.isclose(start.sum(), 4 * LANES) and set(np.unique(start.round(6))) <= {0.0, 1.0}
    for t in range(5):
        state, _ = bonus.observe(state, jax.random.key(0), steps(t, (LANES,)))
    shown = np.asarray(bonus.features(state, None))
    assert np.abs(shown).max() <= 1.0 and not np.allclose(shown[0], shown[1])
    np.testing.assert_allclose(shown[1], 0.1 * np.asarray(state.inverse)[1][np.triu_indices(4) if size == 10 else np.diag_indices(4)], rtol=1e-6)


def test_the_triangle_determines_the_bonus():
    """Rebuild the matrix from the features alone and predict what the next step pays."""
    bonus = e3b(skip_first=False)
    state = bonus.init(jax.random.key(0))
    for t in range(4):
        state, _ = bonus.observe(state, jax.random.key(0), steps(t, (LANES,)))
    upper = np.zeros((LANES, 4, 4))
    upper[:, *np.triu_indices(4)] = np.asarray(bonus.features(state, None)) / 0.1
    rebuilt = upper + np.triu(upper, 1).transpose(0, 2, 1)
    fresh = state._replace(inverse=jnp.asarray(rebuilt, jnp.float32))
    paid = [bonus.observe(s, jax.random.key(0), steps(9, (LANES,)))[1]["elliptical"] for s in (state, fresh)]
    np.testing.assert_allclose(*paid, rtol=1e-4)


@pytest.mark.parametrize("action", ACTIONS)
def test_the_inverse_model_learns_the_action(action):
    """The action moves the first coordinates, so it can be read off two successive observations."""
    rng = np.random.default_rng(0)
    discrete = action == "discrete"
    taken = rng.integers(3, 5, (16, 8)) if discrete else rng.uniform(-1, 1, (16, 8, 2)).astype(np.float32)
    move = (taken[..., None] - 3.5) * 2 if discrete else taken
    batch = steps(0, (16, 8), action=jnp.asarray(taken))
    shift = jnp.zeros_like(batch.obs).at[..., : move.shape[-1]].set(jnp.asarray(move, jnp.float32))
    batch = batch._replace(next_obs=batch.obs + shift)
    bonus = e3b(action, learning_rate=3e-2)
    state, losses = bonus.init(jax.random.key(0)), []
    for n in range(60):
        state, metrics = bonus.update(state, jax.random.key(n), (batch, {}))
        losses.append(float(metrics["inverse_loss"]))
    assert losses[-1] < 0.2 * losses[0]
    assert losses[-1] < (0.2 if discrete else 0.1)


def test_the_random_encoder_stays():
    bonus = module.e3b(world(), encoder="random")
    after, metrics = bonus.update("state", jax.random.key(0), (steps(0, (4, LANES)), {}))
    assert metrics == {} and after == "state" and bonus.info.learns_from == ("next_obs", "first")


def test_vmapped_members_equal_single_ones():
    """Also with a ridge of its own per member."""

    @jax.jit
    def run(ridge, key):
        bonus = module.e3b(world(), ridge=ridge, embedding=4, hidden=(), encoder="random")
        state = bonus.init(key)
        for seed in range(2):
            state, notes = bonus.observe(state, key, steps(seed, (LANES,)))
        return notes["elliptical"]

    ridges, keys = jnp.asarray([0.1, 1.0]), jax.random.split(jax.random.key(0), 2)
    np.testing.assert_allclose(jax.vmap(run)(ridges, keys), [run(r, k) for r, k in zip(ridges, keys, strict=True)], rtol=1e-4)


def test_states_keep_their_types():
    bonus = e3b()
    state = bonus.init(jax.random.key(0))

    def once(state):
        state, _ = bonus.observe(state, jax.random.key(0), steps(0, (LANES,)))
        state, _ = bonus.update(state, jax.random.key(0), (steps(0, (4, LANES)), {}))
        return bonus.reset(state, jnp.ones(LANES, bool))

    kinds = [jax.tree.map(lambda x: (x.shape, x.dtype, x.weak_type), s) for s in (state, jax.eval_shape(once, state))]
    assert kinds[0] == kinds[1]


def test_actions_that_cannot_be_predicted_are_refused():
    with pytest.raises(Refusal, match="encoder=random"):
        module.e3b(world(spaces.MultiBinary(3)))
    module.e3b(world(spaces.MultiBinary(3)), encoder="random")
