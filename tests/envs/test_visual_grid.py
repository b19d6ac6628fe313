"""The visual grid: moves, pictures, the end, noise, and refusals."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from envs.builder import Refusal
from envs.visual_grid import VisualGridState, visual_grid

UP, RIGHT, DOWN, LEFT = range(4)


def at(row, column, steps=0):
    return VisualGridState(jnp.int32([row, column]), jnp.int32(steps))


def go(env, state, actions, seed=0):
    """(state, time steps [T]) after ``actions``, with an own key for each."""

    def one(state, x):
        return env.step(state, *x)

    keys = jax.random.split(jax.random.key(seed), len(actions))
    return jax.lax.scan(one, state, (keys, jnp.int32(actions)))


def test_moves_and_walls():
    _, steps = go(visual_grid(size=3, pixels=3), at(0, 0), [UP, LEFT, RIGHT, DOWN, RIGHT, RIGHT, UP, LEFT])
    assert steps.info["position"].tolist() == [[0, 0], [0, 0], [0, 1], [1, 1], [1, 2], [1, 2], [0, 2], [0, 1]]
    assert steps.info["state_id"].tolist() == [0, 0, 1, 4, 5, 5, 2, 1]


def test_the_shortest_way_is_paid_once_at_the_end():
    env = visual_grid(observation="position")
    _, steps = go(env, env.reset(jax.random.key(0))[0], [RIGHT] * 41 + [DOWN] * 41)
    assert steps.reward.tolist() == [0.0] * 81 + [1.0] and steps.terminated.tolist() == [False] * 81 + [True]
    assert steps.info["success"].tolist() == [False] * 81 + [True] and not steps.truncated.any()


def test_the_limit_truncates_but_not_at_the_goal():
    env = visual_grid(size=3, pixels=3, max_steps=4)
    _, late = go(env, at(0, 0), [UP] * 4)
    assert late.truncated.tolist() == [False, False, False, True] and not late.terminated.any()
    _, there = go(env, at(0, 0), [RIGHT, RIGHT, DOWN, DOWN])
    assert there.terminated[-1] and not there.truncated[-1]


def test_without_a_goal_nothing_is_paid_and_only_the_limit_ends():
    _, steps = go(visual_grid(size=3, pixels=3, reward="none", max_steps=6), at(0, 0), [RIGHT, RIGHT, DOWN, DOWN, DOWN, DOWN])
    assert not steps.reward.any() and not steps.terminated.any() and steps.truncated.tolist() == [False] * 5 + [True]
    assert visual_grid(reward="none").spec.success_return is None


def test_pictures_light_the_cell_and_nothing_else():
    env = visual_grid()
    obs = np.asarray(env.step(at(3, 40), jax.random.key(0), RIGHT)[1].obs)
    wanted = np.zeros((84, 84, 1), np.uint8)
    wanted[6:8, 82:84] = 255
    assert (obs == wanted).all() and obs.dtype == np.uint8


def test_observations_tell_all_cells_apart():
    states = jax.vmap(lambda n: at(n // 5, n % 5))(jnp.arange(25))
    for kind in ("image", "one_hot", "index", "position"):
        step = jax.vmap(visual_grid(size=5, pixels=10, observation=kind).step, (0, None, None))
        obs = step(states, jax.random.key(0), UP)[1].obs  # the first row is seen twice
        assert len({np.asarray(o).tobytes() for o in obs}) == 20, kind


def test_noise_replaces_the_action_in_as_many_steps():
    """Up in the corner stays; the noise leads away with probability 1/2 (right or down), so steps that move have the share noise / 2."""
    env = visual_grid(size=9, observation="position", action_noise=0.4)
    states, keys = jax.vmap(lambda _: at(0, 0))(jnp.arange(20_000)), jax.random.split(jax.random.key(0), 20_000)
    moved = jax.vmap(env.step, (0, 0, None))(states, keys, UP)[1].info["state_id"] > 0
    assert abs(float(moved.mean()) - 0.2) < 0.012  # four deviations
    assert not env.spec.deterministic and visual_grid().spec.deterministic


def test_cells_must_be_whole_pixels():
    with pytest.raises(Refusal, match=r"env.pixels=84 must be a multiple of env.size=40.*try env.pixels=80"):
        visual_grid(size=40)
    with pytest.raises(Refusal, match=r"try env.pixels=42"):
        visual_grid(size=42, pixels=20)
    assert visual_grid(size=40, observation="one_hot").spec.observation.shape == (1600,)
