"""Taxi: its table is Gymnasium's Taxi-v3, its starts are the published ones, its pictures tell all states apart."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnasium.envs.toy_text.taxi import TaxiEnv

from envs.taxi import DEPOTS, RIDING, TaxiState, decode, encode, layers, measures, picture, render, shapes, starts, taxi, transitions


def go(env, state, actions):
    """Time steps [T] after ``actions``."""
    return jax.lax.scan(lambda s, action: env.step(s, jax.random.key(0), action), state, jnp.int32(actions))[1]


@pytest.fixture(scope="module")
def original():
    return TaxiEnv()  # the class behind the id Taxi-v3, which warns of a newer number


def test_the_table_is_gymnasiums(original):
    successor, reward, delivered = transitions()
    for state in range(500):
        for action in range(6):
            assert original.P[state][action] == [(1.0, successor[state, action], reward[state, action], delivered[state, action])], (state, action)


def test_numbers_and_starts_are_gymnasiums(original):
    assert [encode(*decode(state)) for state in range(500)] == list(range(500))
    assert all(tuple(original.decode(state)) == decode(state) for state in range(500))
    assert sorted(starts("random").tolist()) == np.flatnonzero(original.initial_state_distrib).tolist()


def test_steps_are_gymnasiums(original):
    """A random walk step for step, rewards and ends included."""
    env = taxi(observation="codes", reward="dense", start="random", max_steps=10_000)
    actions = np.random.default_rng(0).integers(6, size=400)
    first = encode(1, 3, 2, 1)
    steps = go(env, TaxiState(jnp.int32(first), jnp.int32(0)), actions)
    original.reset(seed=0)
    original.s = first
    for t, action in enumerate(actions):
        state, reward, terminated, _, _ = original.step(int(action))
        assert (int(steps.info["state_id"][t]), float(steps.reward[t]), bool(steps.terminated[t])) == (state, reward, terminated), t
        assert steps.obs[t].tolist() == list(original.decode(state))


def test_a_delivery():
    """From R to B: pick up, go there, drop off; sparse pays 1 at the end, dense 20, and -10 for what is impossible."""
    south, north, east, _, pick, drop = range(6)
    way = [drop, pick, south, south, east, east, east, south, south, drop, north, pick]
    first = TaxiState(jnp.int32(encode(0, 0, 0, 3)), jnp.int32(0))

    sparse, dense = (go(taxi(observation="codes", reward=kind), first, way) for kind in ("sparse", "dense"))
    assert sparse.reward.tolist() == [0.0] * 9 + [1.0] + [0.0] * 2
    assert sparse.terminated.tolist() == [False] * 9 + [True] + [False] * 2 == sparse.info["success"].tolist()
    assert dense.reward.tolist() == [-10.0] + [-1.0] * 8 + [20.0, -1.0, -10.0]


def test_the_limit_truncates():
    env = taxi(observation="codes")
    steps = go(env, env.reset(jax.random.key(0))[0], [0] * 50)
    assert steps.truncated.tolist() == [False] * 49 + [True] and not steps.terminated.any()


def test_starts_at_depots():
    row, column, passenger, destination = decode(starts("depots"))
    assert len(set(starts("depots").tolist())) == 36
    assert all((r, c) in DEPOTS and DEPOTS[p] != (r, c) and p != d for r, c, p, d in zip(row, column, passenger, destination, strict=True))
    drawn = jax.vmap(taxi(observation="codes").reset)(jax.random.split(jax.random.key(0), 3600))[0].state
    assert np.bincount(drawn, minlength=500)[starts("depots")].min() > 60  # 100 expected
    assert starts("fixed").tolist() == [encode(2, 2, 0, 3)]


@pytest.mark.parametrize("pixels", [36, 42, 84])
def test_pictures_tell_all_states_apart(pixels):
    assert len({picture(state, pixels).tobytes() for state in range(500)}) == 500


def test_pictures_have_the_published_measures():
    assert measures(84) == (2, 13, 4)
    image, only_walls = picture(encode(2, 2, 0, 3), 84), layers(encode(2, 2, 0, 3), 84)["walls"]
    depot, disc, car = shapes(13)
    x, y = measures(84).corner(2, 2)
    assert (image[x : x + 13, y : y + 13] == np.where(car, 255, 0)).all()
    around, inside = 4 * 77 * 2 - 4 * 4, 3 * (2 * 13 + 2 * 2) * 2  # corners are shared; a wall beside two cells and at two crossings
    assert only_walls.sum() == around + inside
    assert depot.sum() + disc.sum() + car.sum() == 169 and not (depot & disc).any()


def test_the_frame_is_drawn_while_the_passenger_rides():
    assert picture(encode(0, 0, RIDING, 3), 84)[0].any() and not picture(encode(0, 0, 0, 3), 84)[0].any()


def test_colours():
    image = render(TaxiState(jnp.int32(encode(2, 2, 0, 3)), jnp.int32(0)))
    assert image.shape == (168, 168, 3) and image.dtype == np.uint8 and len(np.unique(image.reshape(-1, 3), axis=0)) == 4  # ground, walls, taxi, blue
