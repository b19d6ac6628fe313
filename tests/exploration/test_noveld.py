"""NovelD: the bonus against two networks by hand, first visits, and that it learns as RND does."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from exploration.laws.play import arrivals, line, play
from exploration.noveld import noveld
from exploration.rnd import rnd

LANES = 2
NETWORKS = {"hidden": (8,), "embedding": 4, "minibatches": 1, "learning_rate": 1e-2}
STATES = np.array([[1, 3], [2, 3], [1, 3], [4, 5], [1, 3]])


def walk():
    before = np.concatenate([np.zeros((1, LANES), int), STATES[:-1]])
    return arrivals(STATES)._replace(obs=arrivals(before).obs)


@pytest.mark.parametrize("alpha", [0.5, 1.0])
def test_bonus_is_the_gain_of_a_norm_on_first_visits(alpha):
    steps = walk()
    state, paid = play(noveld(line(lanes=LANES), alpha=alpha, capacity=8, **NETWORKS), steps)
    seen = np.asarray(steps.next_obs).reshape(-1, 2)
    mean, std = seen.mean(0), seen.std(0)

    def network(params, x):
        first, last = (params["params"]["MLP_0"][f"Dense_{n}"] for n in range(2))
        return np.maximum(x @ np.asarray(first["kernel"]) + np.asarray(first["bias"]), 0) @ np.asarray(last["kernel"]) + np.asarray(last["bias"])

    def novelty(obs):
        x = np.clip((np.asarray(obs) - mean) / std, -5, 5)
        return np.linalg.norm(network(state.rnd.predictor, x) - network(state.rnd.target, x), axis=-1)

    first = np.array([[1, 1], [1, 0], [0, 0], [1, 1], [0, 0]])
    wanted = np.maximum(novelty(steps.next_obs) - alpha * novelty(steps.obs), 0) * first
    np.testing.assert_allclose(paid, wanted, rtol=1e-3, atol=1e-5)
    assert 0 < np.count_nonzero(paid) <= first.sum()


def test_its_networks_are_those_of_rnd():
    spec, steps, key = line(lanes=LANES), walk(), jax.random.key(0)
    bonus, plain = noveld(spec, capacity=8, **NETWORKS), rnd(spec, **NETWORKS)
    noted = steps._replace(annotations={"first_visit": jnp.asarray([[1.0, 1.0], *[[0.0, 1.0]] * 4])})
    state, metrics = jax.jit(bonus.update)(bonus.init(key), key, (noted, {}))
    other, found = jax.jit(plain.update)(plain.init(key), key, (steps, {}))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), state.rnd, other)
    assert float(metrics["predictor_loss"]) == pytest.approx(float(found["predictor_loss"]), rel=1e-5)
    assert float(metrics["first_visits"]) == pytest.approx(0.6)
    assert bonus.info.warmup == 512
