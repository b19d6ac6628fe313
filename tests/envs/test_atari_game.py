"""The game that can be put anywhere: the pictures of AtariVectorEnv, states that go on as they did, and chance that does not."""

from __future__ import annotations

import numpy as np
import pytest

from envs import snapshot
from envs.atari import SIDE, atari
from envs.atari_game import AtariGame, averaged


def game(sticky=0.0, noop_max=0, name="breakout") -> AtariGame:
    return AtariGame(name, 4, 4, sticky, 108_000, noop_max, False, False, SIDE)


@pytest.mark.parametrize("name", ["breakout", "montezuma_revenge"])
def test_it_is_the_game_that_the_vector_environment_plays(name):
    lanes, alone, actions = atari(game=name, sticky=0.0).open(1), game(name=name), np.random.default_rng(0)
    seen, (obs, _) = lanes.reset([0]), alone.reset(seed=0)
    np.testing.assert_allclose(obs, seen[0], atol=1)  # grey levels: theirs are rounded otherwise
    for _ in range(150):
        action = int(actions.integers(alone.action_space.n))
        theirs, _ = lanes.step(np.int32([action]))
        obs, reward, terminated, truncated, info = alone.step(action)
        assert (reward, terminated, truncated) == (theirs.reward[0], theirs.terminated[0], theirs.truncated[0])
        if terminated:
            break
        np.testing.assert_allclose(obs.astype(int), theirs.obs[0], atol=1)
        assert info["lives"] == theirs.info["lives"][0]
    lanes.close()


def test_parts_that_end_between_rows():
    np.testing.assert_allclose(averaged(np.array([[0.0], [3.0], [6.0]]), 2), [[1.0], [5.0]])  # 0 and half of 3; half of 3 and 6
    rows = np.random.default_rng(0).integers(0, 256, (210, 7))
    np.testing.assert_allclose(averaged(rows, 84).mean(axis=0), rows.mean(axis=0))


def went(world: AtariGame, actions) -> list:
    return [world.step(action)[:4] for action in actions]


def test_put_back_it_goes_on_as_it_did_where_it_obeys_and_draws_anew_where_not():
    world, actions = game(sticky=0.25), [1, 0, 2, 2, 3, 0, 1, 3, 3, 2, 1, 3] * 4
    world.reset(seed=3)
    went(world, actions)
    kept = snapshot.save(world)

    def again(obey, seed):
        snapshot.load(world, kept)
        world.obey, world._np_random = obey, np.random.default_rng(seed)
        return went(world, actions)

    assert snapshot.same(again(True, 0), again(True, 1))
    assert not snapshot.same(again(False, 0), again(False, 1))
    assert snapshot.same(again(False, 0), again(False, 0))


def test_lanes_are_put_and_their_chance_goes_on():
    lanes = atari(game="breakout", sticky=0.5).steerable(3)
    lanes.reset([0, 1, 2], np.ones(3, bool))
    for _ in range(8):
        first, _ = lanes.step(np.int32([1, 1, 1]), np.ones(3, bool))
    np.testing.assert_array_equal(first.obs[0], first.obs[1])  # as they are told, whatever their seeds
    kept = lanes.save()

    def after(put):
        lanes.put(put)
        return np.stack([lanes.step(np.int32([2 + t // 3 % 2] * 3))[0].obs for t in range(12)])

    one, another = after(kept), after([kept[0], None, b""])
    assert not np.array_equal(one[:, 0], another[:, 0])  # the same state, and other random numbers
    assert lanes.put([None, None, b""]).shape == (3, 4, SIDE, SIDE)
    lanes.close()
