"""Information gain: the formula against a few lines of numpy, its units, its gradient, and who learns from what."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnasium import spaces

from envs.base import Spec, Transition
from envs.builder import Refusal
from exploration import information_gain as module

SIZE, MEMBERS, B = 3, 4, 16


def world():
    return Spec(spaces.Box(-np.inf, np.inf, (SIZE,), np.float32), spaces.Box(-1.0, 1.0, (2,), np.float32), "plane")


@functools.cache
def gain(**settings):
    made = module.information_gain(world(), **{"members": MEMBERS, "hidden": (8,), "learning_rate": 1e-2, **settings})
    return made._replace(init=jax.jit(made.init), update=jax.jit(made.update))


def steps(seed=0, scale=1.0):
    rng = np.random.default_rng(seed)
    obs = jnp.asarray(scale * rng.normal(size=(B, SIZE)), jnp.float32)
    action, no = jnp.asarray(rng.uniform(-1, 1, (B, 2)), jnp.float32), jnp.zeros(B, bool)
    return Transition(obs, action, obs[:, 0], obs + 0.1 * scale * action[:, :1], no, no, no, {})


def started(**settings):
    return gain(**settings).init(jax.random.key(0))


def network(params, x, member):
    for n in range(2):
        layer = params["params"][f"Dense_{n}"]
        x = x @ np.asarray(layer["kernel"])[member] + np.asarray(layer["bias"])[member]
        x = x / (1.0 + np.exp(-x)) if n == 0 else x
    return x


def test_the_gain_is_log_of_variance_over_noise_in_units_of_running_moments():
    bonus, batch = gain(noise=0.3), steps()
    state, _ = bonus.update(started(noise=0.3), jax.random.key(1), (batch, {}))
    x = np.concatenate([batch.obs, batch.action], axis=-1)
    x = (x - x.mean(axis=0)) / x.std(axis=0)  # the moments are those of the one batch seen
    predictions = np.stack([network(state.params, x, m) for m in range(MEMBERS)])
    wanted = np.log(1 + predictions.var(axis=0) / 0.3**2).mean(axis=-1)
    np.testing.assert_allclose(bonus.score(state, batch), wanted, rtol=1e-3)


def test_units_do_not_matter():
    """Observations a hundred times as large, with changes that are too, are learnt and scored alike."""
    found = []
    for scale in (1.0, 100.0):
        batch = steps(scale=scale)
        state, metrics = gain().update(started(), jax.random.key(1), (batch, {}))
        found.append([float(metrics["model_loss"]), *np.asarray(gain().score(state, batch))])
    np.testing.assert_allclose(found[0], found[1], rtol=1e-2)


def test_moments_stop_forgetting_and_deviations_have_a_floor():
    seen = module.Moments(jnp.float32(1e6), jnp.zeros(1), jnp.ones(1))
    new = module.seen_more(seen, jnp.ones((1000, 1)))
    assert float(new.count) == 1e6 and 0.0009 < float(new.mean[0]) < 0.0011
    flat = module.Moments(jnp.float32(5.0), jnp.ones(1), jnp.zeros(1))
    np.testing.assert_allclose(module.standardized(flat, jnp.asarray([1.0, 1.001])), [0.0, 1.0], atol=1e-3)


def test_identical_members_gain_nothing():
    state = started()
    equal = state._replace(params=jax.tree.map(lambda x: jnp.broadcast_to(x[:1], x.shape), state.params))
    assert float(jnp.max(gain().score(equal, steps()))) < 1e-5 < float(jnp.min(gain().score(state, steps())))


def test_the_gradient_goes_through_the_action():
    bonus, state, batch = gain(), started(), steps()
    slope = jax.grad(lambda action: jnp.sum(bonus.score(state, batch._replace(action=action))))(batch.action)
    ahead, back = (bonus.score(state, batch._replace(action=batch.action.at[:, 0].add(d))) for d in (1e-2, -1e-2))
    np.testing.assert_allclose(slope[:, 0], (ahead - back) / 2e-2, atol=0.03 * float(jnp.max(jnp.abs(slope))))


def test_rewards_are_predicted_too():
    """Where only the reward changes, only the last output's weights learn something else."""
    batch, state = steps(), started()
    first, second = (gain().update(state, jax.random.key(1), (batch._replace(reward=r), {}))[0] for r in (batch.reward, batch.reward**2))
    kernels = [np.asarray(s.params["params"]["Dense_1"]["kernel"]) for s in (first, second)]
    assert np.abs(kernels[0] - kernels[1])[..., -1].max() > 1e-4 and np.abs(kernels[0] - kernels[1])[..., :-1].max() < 1e-6


def test_it_falls_where_it_learnt():
    bonus, batch, state = gain(noise=0.1), steps(), started(noise=0.1)
    before = float(jnp.mean(bonus.score(state, batch)))
    for n in range(100):
        state, _ = bonus.update(state, jax.random.key(n), (batch, {}))
    far = batch._replace(obs=4.0 + batch.obs)
    assert float(jnp.mean(bonus.score(state, batch))) < min(0.5 * before, 0.5 * float(jnp.mean(bonus.score(state, far))))


@pytest.mark.parametrize("share", [1.0, 0.0])
def test_a_share_of_the_samples(share):
    state, _ = gain(share=share).update(started(share=share), jax.random.key(1), (steps(), {}))
    moved = [bool(jnp.any(a != b)) for a, b in zip(jax.tree.leaves(state.params), jax.tree.leaves(started(share=share).params), strict=True)]
    assert all(moved) if share else not any(moved)


def test_refusals():
    with pytest.raises(Refusal, match="input=latent"):
        module.information_gain(world()._replace(observation=spaces.Box(0, 255, (42, 42, 1), np.uint8)))
    with pytest.raises(Refusal, match="MultiBinary"):
        module.information_gain(world()._replace(action=spaces.MultiBinary(3)))


def test_a_random_target_is_about_what_was_seen_whatever_the_world_does():
    """MaxRND: rewards and successors change nothing, and the gain falls on what is seen again, but not elsewhere."""
    settings = {"predicts": "random", "embedding": 4}
    bonus, batch, far = gain(**settings), steps(), steps(seed=1, scale=3.0)
    noise = batch._replace(next_obs=-batch.next_obs, reward=batch.reward + 7.0)
    state = started(**settings)
    first, other = bonus.update(state, jax.random.key(1), (batch, {}))[0], bonus.update(state, jax.random.key(1), (noise, {}))[0]
    for a, b in zip(jax.tree.leaves(first), jax.tree.leaves(other), strict=True):
        np.testing.assert_array_equal(a, b)
    for i in range(150):
        state, metrics = bonus.update(state, jax.random.key(i), (batch, {}))
    assert float(metrics["model_loss"]) < 0.1
    assert float(jnp.mean(bonus.score(state, far))) > float(jnp.mean(bonus.score(state, batch))) + 1.0
    np.testing.assert_array_equal(jax.tree.leaves(state.embedding)[0], jax.tree.leaves(started(**settings).embedding)[0])
