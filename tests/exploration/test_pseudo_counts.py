"""Pseudo-counts: the density against one kept in dictionaries, symbols of every kind of observation, and what N does."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnasium import spaces

from envs.base import Spec
from exploration.laws.play import play, reaching
from exploration.pseudo_counts import neighbourhood, pseudo_counts, symbols
from tests.exploration import counting

CODES = spaces.Box(0, 2, (2, 3, 2), np.uint8)


def world(observation=CODES, lanes=1):
    return Spec(observation, spaces.Discrete(2), "pseudo", lanes=lanes)


def over_time(observations):
    """[T, ...] -> steps [T, 1, ...]."""
    return jax.tree.map(lambda x: x[:, None], reaching(jnp.asarray(observations)))


class Slow:
    """The same density in dictionaries and float64: each depth falls back on the one before."""

    def __init__(self, neighbours, smoothing, values):
        self.neighbours, self.smoothing, self.values, self.counts = neighbours, smoothing, values, {}

    def contexts(self, picture, y, x, c):
        near = [(y, x, c - n) for n in range(1, picture.shape[2])] + [(y, x - 1, c), (y - 1, x, c), (y - 1, x - 1, c)]
        read = [int(picture[at]) for at in near if min(at) >= 0][: self.neighbours]
        return [(y, x, c, *read[:depth]) for depth in range(len(read) + 1)]

    def density(self, picture):
        rho = 1.0
        for at in np.ndindex(picture.shape):
            p = 1 / self.values
            for context in self.contexts(picture, *at):
                row = self.counts.get(context, np.zeros(self.values))
                p = (row[picture[at]] + self.smoothing * p) / (row.sum() + self.smoothing)
            rho *= p
        return rho

    def visit(self, picture):
        for at in np.ndindex(picture.shape):
            for context in self.contexts(picture, *at):
                self.counts.setdefault(context, np.zeros(self.values))[picture[at]] += 1


@pytest.mark.parametrize("neighbours", [0, 2])
def test_the_density_is_that_of_dictionaries(neighbours):
    seen = np.random.default_rng(0).integers(0, 3, (4, 2, 3, 2))[np.random.default_rng(1).integers(4, size=25)].astype(np.uint8)
    _, paid = play(pseudo_counts(world(), neighbours=neighbours, smoothing=0.5, rows=2**14), over_time(seen))
    slow, wanted = Slow(neighbours, 0.5, 3), []
    for picture in seen:
        before = slow.density(picture)
        slow.visit(picture)
        after = slow.density(picture)
        assert after > before, "a visit must raise the density"
        wanted.append(before * (1 - after) / (after - before))
    np.testing.assert_allclose(1 / paid[:, 0] ** 2 - 1, wanted, rtol=2e-3, atol=1e-4)
    everything = [slow.density(np.reshape(x, (1, 1, 3))) for x in np.ndindex(3, 3, 3)]  # of the same kind, and never visited
    np.testing.assert_allclose(sum(everything), 1.0)


def test_scored_at_the_step_equals_fresh_right_after():
    seen = np.random.default_rng(0).integers(0, 3, (6, 2, 3, 2)).astype(np.uint8)
    stale, fresh = (pseudo_counts(world(), scored=scored, rows=256) for scored in ("step", "batch"))
    state, step = stale.init(jax.random.key(0)), jax.jit(stale.observe)
    for picture in seen:
        state, notes = step(state, jax.random.key(0), reaching(jnp.asarray(picture[None])))
        np.testing.assert_allclose(fresh.score(state, reaching(jnp.asarray(picture[None]))), notes["pseudo_count_bonus"], rtol=1e-6)
    assert int(state.visits) == 6 and int(state.own.sum()) == 6 * 12  # once per visit and position


def test_lanes_that_arrive_at_once_are_paid_alike():
    made = pseudo_counts(world(spaces.Discrete(4), lanes=3), smoothing=1e-3, rows=16)
    _, notes = made.observe(made.init(jax.random.key(0)), jax.random.key(0), reaching(jnp.asarray([2, 2, 0])))
    np.testing.assert_allclose(notes["pseudo_count_bonus"], [2**-0.5, 2**-0.5, 1.0], rtol=1e-3)


def test_a_picture_seen_again_and_again():
    """N is the number of visits before, and a small bonus is left at a hundred million."""
    picture = np.ones((1, 2, 3, 2), np.uint8)
    for neighbours in (0, 2):
        made = pseudo_counts(world(), neighbours=neighbours, rows=256)
        _, paid = play(made, over_time(np.repeat(picture, 300, axis=0)))
        assert (np.diff(paid[:, 0]) < 0).all()
        np.testing.assert_allclose((1 / paid[-1, 0] ** 2 - 1), 299, rtol=0.01)
        state, _ = made.observe(made.init(jax.random.key(0)), jax.random.key(0), reaching(jnp.asarray(picture)))
        many = jax.tree.map(lambda x: x * 100_000_000, state)
        _, notes = made.observe(many, jax.random.key(0), reaching(jnp.asarray(picture)))
        assert 0 < float(notes["pseudo_count_bonus"][0]) < 1e-3


def test_symbols_of_every_kind():
    def of(space, obs, size=4, levels=4):
        return np.asarray(symbols(space, jnp.asarray(obs), size, levels)).tolist()

    assert of(spaces.Discrete(5, start=1), [1, 5]) == [[0], [4]]
    assert of(spaces.Box(0, 3, (2,), np.uint8), [[0, 3]]) == [[0, 3]]  # few values: themselves
    assert of(spaces.Box(0, 255, (3,), np.uint8), [[0, 100, 255]]) == [[0, 1, 3]]  # many: four ranges
    assert of(spaces.Box(-1.0, 1.0, (3,), np.float32), [[-1.0, 0.1, 1.0]]) == [[0, 2, 3]]
    assert of(spaces.Box(-np.inf, np.inf, (3,), np.float32), [[-9.0, 0.1, 9.0]]) == [[0, 2, 3]]
    picture = np.zeros((36, 36, 1), np.uint8)
    picture[:18, 18:] = 255
    assert of(spaces.Box(0, 255, (36, 36, 1), np.uint8), picture, size=2) == [0, 2, 0, 0]
    stack, colours = np.repeat(picture, 4, axis=2), np.repeat(picture, 3, axis=2)
    stack[..., :3], colours[..., 0] = 0, 0  # the newest frame counts; of colours the mean
    assert of(spaces.Box(0, 255, (36, 36, 4), np.uint8), stack, size=2) == [0, 2, 0, 0]
    assert of(spaces.Box(0, 255, (36, 36, 3), np.uint8), colours, size=2) == [0, 1, 0, 0]


def test_neighbours_are_what_was_read_before():
    places, there = neighbourhood((2, 2, 2), 3)
    assert places[7].tolist() == [6, 5, 3] and there[7].all()  # channel, left, above
    assert places[6].tolist() == [4, 2, 0] and there[6].all()  # left, above, above left
    assert not there[0].any() and there[1].tolist() == [True, False, False]
    assert all((places[n][there[n]] < n).all() for n in range(8))


@pytest.mark.medium
def test_follows_exact_counts_on_coordinates():
    (spec, shown), walk = counting.coordinates(), counting.random_walk(0)
    r, _ = counting.agreement(counting.counted(pseudo_counts(spec, scored="batch", levels=20), shown, walk, 0), walk)
    assert r > 0.9
