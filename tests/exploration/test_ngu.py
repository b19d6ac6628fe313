"""Never give up: the episodic memory against a list in numpy, life-long novelty against running statistics, episodes."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnasium import spaces

from envs.base import Spec, Transition
from envs.builder import Refusal
from exploration import ngu as module

SIZE, LANES, K, MEMORY = 3, 2, 3, 5
SMALL = {"neighbours": K, "memory": MEMORY, "hidden": (), "embedding": 4, "rnd_hidden": (), "rnd_embedding": 4, "minibatches": 1}


def world():
    return Spec(spaces.Box(-np.inf, np.inf, (SIZE,), np.float32), spaces.Discrete(2), lanes=LANES)


@functools.cache
def ngu(**settings):
    made = module.ngu(world(), **{**SMALL, **settings})
    return made._replace(init=jax.jit(made.init), update=jax.jit(made.update))


def steps(count=14):
    """A walk; every third step arrives where the one before did."""
    obs = np.random.default_rng(0).normal(size=(count, LANES, SIZE)).astype(np.float32)
    obs[3::3] = obs[2:-1:3]
    no = jnp.zeros((count, LANES), bool)
    return Transition(jnp.asarray(obs), no.astype(jnp.int32), no.astype(jnp.float32), jnp.asarray(obs), no, no, no, {})


@functools.cache
def observed(ends=()):
    """(states after each step, annotations [T, N]) of the walk; lane 0 ends its episode after the steps ``ends``."""
    bonus, walk = ngu(encoder="random"), steps()

    @jax.jit
    def run(state):
        def one(state, inputs):
            step, end = inputs
            state, notes = bonus.observe(state, jax.random.key(0), step)
            return bonus.reset(state, jnp.stack([end, jnp.zeros((), bool)])), (state, notes)

        return jax.lax.scan(one, state, (walk, jnp.zeros(len(walk.reward), bool).at[jnp.asarray(ends, jnp.int32)].set(True)))[1]

    return run(bonus.init(jax.random.key(0)))


@pytest.mark.parametrize("ends", [(), (6,)])
def test_episodic_part_is_that_of_a_list(ends):
    state, notes = observed(ends)
    kernel = np.asarray(state.params["encoder"]["params"]["MLP_0"]["Dense_0"]["kernel"])[0]
    phi = np.asarray(steps().next_obs, np.float64) @ kernel
    memories, gathered, wanted = [[] for _ in range(LANES)], [], np.zeros(phi.shape[:2])
    for t in range(len(phi)):
        found = [np.sort(np.sum((np.asarray(m) - phi[t, lane]) ** 2, axis=-1))[:K] if m else None for lane, m in enumerate(memories)]
        gathered += [d for squares in found if squares is not None for d in squares]
        for lane, squares in enumerate(found):
            if squares is not None:
                kernel_values = 1e-4 / (np.maximum(squares / np.mean(gathered) - 0.008, 0) + 1e-4)
                wanted[t, lane] = 1 / (np.sqrt(K * kernel_values.mean()) + 0.001)
            memories[lane] = [*memories[lane], phi[t, lane]][-MEMORY:]
        if t in ends:
            memories[0] = []
    assert not wanted[0].any() and wanted[1:, 1].all() and (wanted[K:] < 1.1).any()
    np.testing.assert_allclose(notes["episodic"], wanted, rtol=1e-3)
    np.testing.assert_allclose(state.distance.mean[-1], np.mean(gathered), rtol=1e-4)


def test_life_long_part_is_the_standardised_error_of_rnd():
    state, notes = observed()
    walk, obs = steps(), np.asarray(steps().next_obs, np.float64)
    errors, wanted = [], np.zeros(obs.shape[:2])

    def network(params, x):
        layer = params["params"]["MLP_0"]["Dense_0"]
        return x @ np.asarray(layer["kernel"])[0] + np.asarray(layer["bias"])[0]

    for t in range(len(obs)):
        seen = obs[: t + 1].reshape(-1, SIZE)
        x = np.clip((obs[t] - seen.mean(0)) / np.sqrt(seen.var(0) + 1e-8), -5, 5)
        error = np.mean((network(state.rnd.predictor, x) - network(state.rnd.target, x)) ** 2, axis=-1)
        errors += error.tolist()
        spread = np.std(errors) if np.std(errors) > 1e-5 * np.mean(errors) else 1.0  # at first both lanes are one deviation from their mean
        wanted[t] = np.clip(1 + (error - np.mean(errors)) / spread, 1, 5)
    np.testing.assert_allclose(notes["lifelong"], wanted, rtol=1e-3)
    assert 0 < np.mean(wanted > 1) < 1
    paid = ngu(encoder="random").score(None, walk._replace(annotations=notes))
    np.testing.assert_allclose(paid, np.asarray(notes["episodic"]) * wanted, rtol=1e-3)


def test_a_reset_empties_its_lanes_only():
    state = jax.tree.map(lambda x: x[-1], observed()[0])
    cleared = ngu(encoder="random").reset(state, jnp.asarray([True, False]))
    assert not cleared.memory[0].any() and int(cleared.written[0]) == 0
    np.testing.assert_array_equal(cleared.memory[1], state.memory[1])
    assert MEMORY <= int(cleared.written[1]) == int(state.written[1]) < 2 * MEMORY  # 14 steps into 5 places
    assert float(cleared.distance.mean) == float(state.distance.mean) > 0


def test_updates_train_encoder_and_predictor():
    batch = steps()._replace(annotations={"episodic": jnp.full((14, LANES), 2.0), "lifelong": jnp.full((14, LANES), 3.0)})
    for encoder in ("inverse", "random"):
        bonus = ngu(encoder=encoder)
        state = bonus.init(jax.random.key(0))
        after, metrics = bonus.update(state, jax.random.key(0), (batch, {}))
        same = [all(map(np.array_equal, *map(jax.tree.leaves, pair))) for pair in ((state.params, after.params), (state.rnd.predictor, after.rnd.predictor))]
        assert same == [encoder == "random", False]
        assert (float(metrics["episodic"]), float(metrics["lifelong"])) == pytest.approx((2.0, 3.0))
        assert ("inverse_loss" in metrics) == (encoder == "inverse") and "predictor_loss" in metrics


def test_refusals():
    with pytest.raises(Refusal, match="memory=10 or more"):
        module.ngu(world(), memory=9)
    with pytest.raises(Refusal, match="encoder=random"):
        module.ngu(world()._replace(action=spaces.MultiBinary(3)))
