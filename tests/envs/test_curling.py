"""Curling's physics: what must hold whatever the arm does, and what pays."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from envs.curling import BALL, HALF, LIMITS, LINK, START, CurlingState, curling, links

ENV = curling()
KEY = jax.random.PRNGKey(0)


def played(actions: jax.Array, state: CurlingState | None = None):
    """States after each action f32[T, 2], and the time steps."""

    def one(state, action):
        state, new = ENV.step(state, KEY, action)
        return state, (state, new)

    return jax.jit(lambda s, a: jax.lax.scan(one, s, a))(ENV.reset(KEY)[0] if state is None else state, actions)[1]


def held_actions(seed: int, steps: int = 500) -> jax.Array:
    """Random commands, each kept for twenty steps, half of them the largest."""
    drawn = jax.random.uniform(jax.random.PRNGKey(seed), (steps // 20, 2), minval=-2.0, maxval=2.0)
    return jnp.repeat(jnp.clip(drawn, -1.0, 1.0), 20, axis=0)


def distance_to_links(state: CurlingState) -> np.ndarray:
    """f32[T]: of the ball's middle to the nearer link."""

    def one(state):
        base, elbow, hand = links(state.angles)
        found = []
        for start, end in ((base, elbow), (elbow, hand)):
            along = end - start
            share = jnp.clip(jnp.sum((state.ball - start) * along) / jnp.sum(along * along), 0.0, 1.0)
            found.append(jnp.linalg.norm(state.ball - start - share * along))
        return jnp.min(jnp.stack(found))

    return np.asarray(jax.vmap(one)(state))


@pytest.mark.parametrize("seed", [0, 1, 2, 4, 5])
def test_the_ball_stays_on_the_table_and_only_the_arm_gives_it_speed(seed):
    states, _ = played(held_actions(seed))
    assert np.all(np.abs(states.ball) <= HALF - BALL + 1e-6) and np.all(np.abs(states.angles) <= LIMITS + 1e-6)
    speed = np.linalg.norm(states.velocity, axis=-1)
    free = distance_to_links(states) > BALL + LINK + 0.05
    apart = free[1:] & free[:-1]
    assert np.any(speed > 0.2) and np.any(apart)
    assert np.all(speed[1:][apart] <= speed[:-1][apart] + 1e-6)


def test_a_link_does_not_pass_through_the_ball():
    """The arm sweeps over the ball at its largest speed: the ball is pushed away, and is never deep inside a link."""
    states, _ = played(jnp.tile(jnp.array([1.0, 0.0]), (120, 1)))
    assert distance_to_links(states).min() > BALL + LINK - 0.02
    assert states.ball[-1, 0] < START[0] - 0.3  # to the left, where the arm turns


def test_left_and_right_are_alike():
    actions = held_actions(9, 200)
    start = ENV.reset(KEY)[0]
    here, _ = played(actions, start)
    there, _ = played(-actions, start._replace(ball=start.ball * jnp.array([-1.0, 1.0])))
    # until rounding has grown: contacts are chaotic
    np.testing.assert_allclose(there.ball[:60] * np.array([-1.0, 1.0]), here.ball[:60], atol=1e-4)
    np.testing.assert_allclose(there.angles, -here.angles, atol=1e-5)


def test_a_ball_that_rolls_freely_slows_down_as_damping_says():
    """v / (1 + 1.1 dt) in each of two halves of a step of 1/60 s; far from everything."""
    start = ENV.reset(KEY)[0]._replace(ball=jnp.array([1.0, 0.0]), velocity=jnp.array([0.0, 0.3]))
    states, _ = played(jnp.zeros((10, 2)), start)
    np.testing.assert_allclose(states.velocity[:, 1], 0.3 / (1 + 1.1 / 120) ** (2 * np.arange(1, 11)), rtol=1e-5)


def test_a_wall_gives_back_95_percent():
    start = ENV.reset(KEY)[0]._replace(ball=jnp.array([HALF - BALL - 1e-4, 1.0]), velocity=jnp.array([1.0, 0.0]))
    states, _ = played(jnp.zeros((1, 2)), start)
    np.testing.assert_allclose(states.velocity[0, 0], -0.95 / (1 + 1.1 / 120) ** 2, rtol=1e-5)


@pytest.mark.parametrize(("place", "reward", "area"), [((0.8, 0.8), 1.0, 1), ((0.8, 0.6), 0.5, 1), ((0.8, -0.7), 0.5, 2), ((0.0, 0.9), 0.0, 0)])
def test_the_last_step_pays_by_the_distance(place, reward, area):
    start = ENV.reset(KEY)[0]._replace(ball=jnp.array(place), steps=jnp.int32(498), angles=jnp.array([1.2, 0.0]))
    _, new = played(jnp.zeros((2, 2)), start)
    np.testing.assert_allclose(new.reward, [0.0, reward], atol=1e-5)
    np.testing.assert_array_equal(new.info["area"], [0, area])
    np.testing.assert_array_equal(new.truncated, [False, True])
    assert not np.any(new.terminated)
