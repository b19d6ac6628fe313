"""SimHash: codes by hand, counts in both tables, and what shares a code."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnasium import spaces

from envs.base import Spec
from envs.builder import Refusal
from exploration.laws.play import reaching
from exploration.simhash import primes_below, simhash

VECTOR = spaces.Box(-np.inf, np.inf, (5,), np.float32)


def world(observation=VECTOR, lanes=3):
    return Spec(observation, spaces.Discrete(2), "simhash", lanes=lanes)


def visits(seed, steps=30, lanes=3):
    """[T, N, 5]: few different directions, of different lengths."""
    rng = np.random.default_rng(seed)
    directions = rng.normal(size=(6, 5))[rng.integers(6, size=(steps, lanes))]
    return jnp.asarray(directions * rng.uniform(0.5, 2.0, (steps, lanes, 1)), jnp.float32)


@pytest.mark.parametrize("table", ["primes", "exact"])
def test_counts_codes_as_numpy_does(table):
    made, seen = simhash(world(), bits=20, table=table, capacity=512), visits(0)
    state = made.init(jax.random.key(0))
    step = jax.jit(lambda state, x: made.observe(state, jax.random.key(0), reaching(x)))
    found = []
    for x in seen:
        state, notes = step(state, x)
        found.append(notes["simhash_bonus"])
    codes, counted, wanted = (np.asarray(seen) @ np.asarray(state.directions)) > 0, {}, []
    for row in codes:
        for lane in row:
            counted[lane.tobytes()] = counted.get(lane.tobytes(), 0) + 1
        wanted.append([counted[lane.tobytes()] ** -0.5 for lane in row])
    np.testing.assert_allclose(found, wanted, rtol=1e-6)
    _, metrics = made.update(state, jax.random.key(0), (reaching(seen), {}))
    assert float(metrics["distinct_codes"]) == len(counted) == 6  # the length of an observation does not matter


def test_the_least_of_six_counts_survives_collisions():
    """Arrays of 13 places at most and 40 codes: counts are too large, never too small."""
    made = simhash(world(lanes=1), bits=64, capacity=14)
    assert primes_below(14) == (2, 3, 5, 7, 11, 13)
    state, x = made.init(jax.random.key(0)), jax.random.normal(jax.random.key(1), (40, 1, 5))
    state, notes = jax.lax.scan(lambda state, x: made.observe(state, jax.random.key(0), reaching(x)), state, x)
    paid = np.asarray(notes["simhash_bonus"])[:, 0]
    assert paid[0] == 1.0 and (paid <= 1.0).all() and paid[-1] >= (40 / 5) ** -0.5


def test_scored_fresh_or_stale():
    """A first visit was worth 1; after three more it is worth a half."""
    x = jnp.ones((1, 5))
    for scored, wanted in (("step", 1.0), ("batch", 0.5)):
        made = simhash(world(lanes=1), scored=scored, capacity=64)
        state, notes = made.observe(made.init(jax.random.key(0)), jax.random.key(0), reaching(x))
        first = reaching(x)._replace(annotations=notes)
        for _ in range(3):
            state, _ = made.observe(state, jax.random.key(0), reaching(x))
        np.testing.assert_allclose(made.score(state, first), [wanted])


def test_more_bits_tell_more_apart():
    """Near twins at 10 degrees: one of 4 bits seldom tells them apart, of 128 bits seven do."""
    angle, lanes = np.radians(10), 200
    pairs = jnp.asarray([[1, 0, 0, 0, 0], [np.cos(angle), np.sin(angle), 0, 0, 0]], jnp.float32)

    @jax.jit
    def apart(key):
        def second(bits):
            made = simhash(world(lanes=1), bits=bits, table="exact", capacity=16)
            state, _ = made.observe(made.init(key), key, reaching(pairs[:1]))
            return made.observe(state, key, reaching(pairs[1:]))[1]["simhash_bonus"][0] == 1.0

        return second(4), second(128)

    few, many = (np.mean(x) for x in jax.vmap(apart)(jax.random.split(jax.random.key(0), lanes)))
    assert abs(few - (1 - (1 - 10 / 180) ** 4)) < 0.13 and many > 0.98


def test_sums_that_would_not_fit_are_refused():
    with pytest.raises(Refusal, match="must stay below 2\\^31"):
        simhash(world(), bits=4096)
