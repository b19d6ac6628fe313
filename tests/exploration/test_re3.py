"""RE3 and its memory: distances as numpy's, the rollout's own neighbours, and what a ring forgets."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from exploration import neighbours
from exploration.laws.play import arrivals, line, play
from exploration.neighbours import nearest, push, ring, smallest
from exploration.re3 import VARIANTS, among, neighbour_bonus, re3

STEPS, LANES = 6, 3


def by_hand(features: np.ndarray, variant: str, k: int) -> np.ndarray:
    """Features f32[n, width], sought among themselves."""
    distances = np.sort(np.linalg.norm(features[:, None] - features[None], axis=-1), axis=-1)
    return np.log1p(distances[:, :k].mean(-1) if variant == "mean_of_k" else distances[:, k])


def test_memory_as_long_as_the_rollout_is_knn_inside_it():
    """Also in the second rollout: nothing of the first is left."""
    made = re3(line(LANES), k=3, memory=STEPS, hidden=(8,), embedding=4)
    rng, state = np.random.default_rng(0), None
    for _ in range(2):
        steps = arrivals(rng.integers(0, 6, (STEPS, LANES)))
        state, paid = play(made, steps, state)
        kernels = [np.asarray(layer["kernel"]) for layer in state.params["encoder"]["params"]["MLP_0"].values()]
        features = np.maximum(np.asarray(steps.next_obs).reshape(-1, 2) @ kernels[0], 0) @ kernels[1]
        np.testing.assert_allclose(paid.reshape(-1), by_hand(features, "mean_of_k", 3), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("variant", VARIANTS)
def test_variants_as_by_numpy(variant, monkeypatch):
    monkeypatch.setattr(neighbours, "BLOCK", 7)  # 20 queries are no whole number of blocks
    features = np.random.default_rng(1).normal(size=(20, 3)).astype(np.float32)
    paid = jax.jit(lambda x: neighbour_bonus(among(features), x, variant, 4))(jnp.asarray(features))
    np.testing.assert_allclose(paid, by_hand(features, variant, 4), rtol=1e-5)


def test_variants_order_states_differently():
    points = np.float32([0, 1, 3, 7, 15, 31])[:, None]
    least = [int(jnp.argmax(-neighbour_bonus(among(points), jnp.asarray(points), v, k)[:2])) for v, k in (("mean_of_k", 5), ("kth", 3))]
    first, fourth = (neighbour_bonus(among(points), jnp.asarray(points), v, k)[jnp.array([0, 3])] for v, k in (("mean_of_k", 5), ("kth", 3)))
    assert least == [1, 1]
    assert first[0] > first[1] + 0.03 and abs(fourth[0] - fourth[1]) < 1e-6  # 1.8245 and 1.7918; twice 2.0794


def test_the_ring_holds_the_last_steps_for_ever():
    state, step = ring(3, 2, 1), jax.jit(push)
    for n in range(20):
        state = step(state, jnp.full((2, 1), float(n)))
        held = np.sort(np.asarray(nearest(state, jnp.full((1,), float(n)), 6)[0]))
        np.testing.assert_allclose(held, np.repeat(np.arange(3), 2) if n >= 2 else [0] * (6 - 2 * n) + [1, 1] * n)
        assert int(state.written) < 6


def test_less_than_k_is_not_nan():
    made = re3(line(), k=5, memory=4, hidden=(), embedding=2)
    state, paid = play(made, arrivals([[2], [4]]))
    distance = np.linalg.norm(np.float32([1, -1]) @ np.asarray(state.params["encoder"]["params"]["MLP_0"]["Dense_0"]["kernel"]))
    np.testing.assert_allclose(paid[:, 0], np.log1p([distance / 2] * 2), rtol=1e-5)
    unseen = jax.jit(made.score)(made.init(jax.random.key(0)), arrivals([1]))
    np.testing.assert_array_equal(unseen, [0.0])


def test_the_encoder_is_never_trained():
    made = re3(line(), hidden=(), embedding=2)
    state = made.init(jax.random.key(0))
    after, metrics = made.update(state, jax.random.key(1), (arrivals([[1]]), {}))
    assert metrics == {} and after is state


@pytest.mark.parametrize("number,k", [(1, 1), (7, 7), (50, 3), (1000, 5), (37, 10)])
def test_the_smallest_are_found_among_groups(number, k):
    values = np.random.default_rng(number).normal(size=number).astype(np.float32)
    values[number // 2 :: 3] = np.inf
    found, places = smallest(jnp.asarray(values), k)
    np.testing.assert_array_equal(found, np.sort(values)[:k])
    finite = np.isfinite(found)
    np.testing.assert_array_equal(values[np.asarray(places)][finite], found[finite])
    assert len(set(np.asarray(places)[finite].tolist())) == finite.sum()
