"""The ring buffer with priorities: what it holds, and how often each item is drawn."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from envs.builder import Refusal
from exploration.priority_buffer import add, draw, priority_buffer

draw = jax.jit(draw, static_argnums=2)


def test_a_ring_of_pytrees_keeps_their_dtypes():
    buffer = priority_buffer({"picture": jnp.zeros((2, 2), jnp.uint8), "number": jnp.zeros((), jnp.int32)}, 8)
    for n in range(4):  # 12 items
        items = {"picture": jnp.full((3, 2, 2), n, jnp.uint8), "number": 3 * n + jnp.arange(3, dtype=jnp.int32)}
        buffer, places = add(buffer, items, float(n + 1))
    np.testing.assert_array_equal(buffer.items["number"], [8, 9, 10, 11, 4, 5, 6, 7])
    np.testing.assert_array_equal(buffer.items["picture"][:, 1, 1], [2, 3, 3, 3, 1, 1, 2, 2])
    np.testing.assert_array_equal(buffer.priority.flat, [3, 4, 4, 4, 2, 2, 3, 3])
    assert buffer.items["picture"].dtype == jnp.uint8
    assert (int(buffer.position), int(buffer.size), places.tolist()) == (4, 8, [1, 2, 3])


@pytest.mark.parametrize("capacity", [1, 2, 8, 4096])
def test_shares_are_those_of_the_priorities(capacity):
    """Over every place, within five standard deviations of independent draws; strata only make it better."""
    priority = np.random.default_rng(0).gamma(0.5, size=capacity).astype(np.float32)
    buffer, _ = add(priority_buffer(jnp.zeros(()), capacity), jnp.zeros(capacity), jnp.asarray(priority))
    number = 2**18
    drawn = np.bincount(np.asarray(draw(buffer, jax.random.key(1), number)), minlength=capacity)
    share = priority / priority.sum()
    assert drawn.shape == (capacity,)
    assert np.all(np.abs(drawn - number * share) <= 5 * np.sqrt(number * share * (1 - share)) + 4)


def test_small_priorities_are_not_lost_beside_large_sums():
    """A prefix sum over all of them in float32 would step by 1/8 here, and give each of the last places an eighth or nothing."""
    buffer, _ = add(priority_buffer(jnp.zeros(()), 2**12), jnp.zeros(2**12), jnp.where(jnp.arange(2**12) < 2**11, 1024.0, 1.0))
    drawn = np.asarray(draw(buffer, jax.random.key(0), 2**20))
    late = np.bincount(drawn[drawn >= 2**11] - 2**11, minlength=2**11)
    assert abs(late.sum() - 2**20 / 1025) < 5 * np.sqrt(2**20 / 1025)
    assert late.max() < 8


def test_empty_places_are_never_drawn():
    buffer = priority_buffer(jnp.zeros(()), 64)
    assert not np.any(draw(buffer, jax.random.key(0), 100))
    buffer, _ = add(buffer, jnp.zeros(11), 1e-6)
    assert set(np.asarray(draw(buffer, jax.random.key(0), 2000)).tolist()) == set(range(11))


def test_capacities_are_powers_of_two():
    with pytest.raises(Refusal, match="the nearest are 64 and 128"):
        priority_buffer(jnp.zeros(()), 100)
