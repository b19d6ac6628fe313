"""The redundant arm: its motion in closed form, every way to collide, what pays and when."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from envs.redundant_arm import GOALS, JOINTS, LINK, ROOT, START, RedundantArmState, collides, points, redundant_arm

KEY = jax.random.PRNGKey(0)
STEP = jax.jit(redundant_arm().step)


def at(angles, steps: int = 0, end=None) -> RedundantArmState:
    angles = jnp.asarray(angles, jnp.float32)
    x, y = points(angles)
    return RedundantArmState(angles, jnp.zeros(JOINTS), jnp.stack([x[-1], y[-1]]) if end is None else jnp.asarray(end, jnp.float32), jnp.int32(steps))


def test_the_start_is_a_spiral_that_is_legal_and_of_length_one():
    x, y = (np.asarray(side) for side in points(jnp.asarray(START)))
    chain = np.concatenate([ROOT[None], np.stack([x, y], axis=-1)])
    np.testing.assert_allclose(np.linalg.norm(np.diff(chain, axis=0), axis=-1), LINK, atol=1e-6)
    np.testing.assert_allclose(chain[-1], [0.69174214, 0.69352759], atol=1e-5)  # the sum in double precision, of numpy
    assert not collides(jnp.asarray(x), jnp.asarray(y))


def test_a_constant_torque_turns_a_joint_by_half_a_t_squared():
    """n updates from rest: angle a dt^2 n^2 / 4 + a dt^2 n / 4, speed a dt n / 2, since a speed is that of the last way: w' = w + a dt / 2."""
    state, torque = redundant_arm().reset(KEY)[0], np.linspace(-0.2, -1, JOINTS)
    for step in range(1, 31):
        state, new = STEP(state, KEY, jnp.asarray(torque, jnp.float32))
        n = 2 * step
        assert not new.terminated
    np.testing.assert_allclose(state.speeds, torque * 0.01 * n / 2, atol=1e-6)
    np.testing.assert_allclose(np.asarray(state.angles) - START, torque * 1e-4 * (n * n + n) / 4, atol=1e-5)
    np.testing.assert_allclose(new.obs, np.asarray(state.angles) / np.pi, atol=1e-6)
    np.testing.assert_allclose(new.info["descriptor"], [float(side[-1]) for side in points(state.angles)], atol=1e-6)


def test_a_joint_stops_at_its_limit():
    state = at(np.append(-3.1415, START[1:]))
    new, told = STEP(state._replace(speeds=state.speeds.at[0].set(-0.5)), KEY, jnp.zeros(JOINTS))
    assert not told.terminated and new.angles[0] == -np.float32(np.pi) and new.speeds[0] == 0


X, Y = (np.asarray(side) for side in points(jnp.asarray(START)))
PLACES = [  # of the arm's end, the other points as at the start
    ("free", (0.9, 0.7), False),
    ("at the left border", (0.0, 0.7), False),
    ("beyond the left border", (-0.001, 0.7), True),
    ("at the upper border", (0.9, 1.0), True),
    ("in the wall at the left", (0.19, 0.505), True),
    ("before the wall at the left", (0.21, 0.5), False),
    ("in the wall at the right", (0.81, 0.495), True),
    ("in the wall below", (0.505, 0.1), True),
    ("beside the wall below", (0.52, 0.1), False),
    ("in the wall above", (0.5, 0.85), True),
    ("near the root", (0.477, 0.524), True),
    ("farther from the root", (0.476, 0.524), False),
    ("near a joint", (X[4] - 0.023, Y[4] + 0.024), True),
    ("farther from a joint", (X[4] - 0.024, Y[4] + 0.024), False),
]


@pytest.mark.parametrize(("where", "place", "wanted"), PLACES, ids=[case[0] for case in PLACES])
def test_where_a_point_may_not_be(where, place, wanted):
    assert bool(collides(jnp.asarray(X).at[-1].set(place[0]), jnp.asarray(Y).at[-1].set(place[1]))) == wanted


def test_an_illegal_move_is_not_made_and_ends_the_episode():
    """The spiral is wound up until it touches itself."""
    state, told = redundant_arm().reset(KEY)[0], None
    for _ in range(100):
        before = state
        state, told = STEP(state, KEY, jnp.ones(JOINTS))
        if told.terminated:
            break
    assert told.terminated and not told.truncated
    np.testing.assert_array_equal(state.angles, before.angles)
    assert not collides(*points(state.angles))
    np.testing.assert_array_equal(told.info["descriptor"], before.end)


def test_the_end_must_not_be_too_fast():
    """Half the way of the end and the speed of the last joint, 1 together."""
    state = redundant_arm().reset(KEY)[0]
    fast = state._replace(speeds=state.speeds.at[-1].set(1.05))
    assert STEP(fast, KEY, jnp.zeros(JOINTS))[1].terminated
    assert not STEP(state._replace(speeds=state.speeds.at[-1].set(0.95)), KEY, jnp.zeros(JOINTS))[1].terminated
    far = state._replace(end=state.end - jnp.array([2.1, 0.0]))  # as if it had come from there
    assert STEP(far, KEY, jnp.zeros(JOINTS))[1].terminated


def reaching(place) -> np.ndarray:
    """Angles that put the arm's end at ``place``: a free arm, moved by least squares. Collisions do not matter here."""
    angles = START.astype(np.float64)
    for _ in range(300):
        turned = np.cumsum(angles)
        steps = LINK * np.stack([np.cos(turned), np.sin(turned)])
        slopes = np.stack([-np.cumsum(steps[1][::-1])[::-1], np.cumsum(steps[0][::-1])[::-1]])
        angles += 0.5 * np.linalg.pinv(slopes) @ (np.asarray(place) - ROOT - steps.sum(axis=1))
    return angles


@pytest.mark.parametrize("goal", range(3))
def test_the_last_step_pays_and_as_published_only_an_illegal_one(goal):
    """At 0.6 of a goal's radius from its middle: 0.4."""
    place = GOALS[goal] + np.array([0.0, 0.03 if goal < 2 else -0.03])
    state = at(reaching(place))
    np.testing.assert_allclose(state.end, place, atol=1e-5)
    lasting = {name: jax.jit(redundant_arm(max_steps=3, published_reward=name).step) for name in (False, True)}
    legal = not bool(collides(*points(state.angles)))
    for published, step in lasting.items():
        _, last = step(state._replace(steps=jnp.int32(2)), KEY, jnp.zeros(JOINTS))
        assert bool(last.truncated) == legal
        pays = not (legal and published)
        np.testing.assert_allclose(last.reward, 0.4 if pays else 0.0, atol=1e-3)
        assert last.info["area"] == (goal + 1 if pays else 0)
        _, crash = step(state._replace(speeds=jnp.full(JOINTS, 3.0)), KEY, jnp.zeros(JOINTS))
        assert crash.terminated
        np.testing.assert_allclose(crash.reward, 0.4, atol=1e-3)
        assert crash.info["area"] == goal + 1


def test_the_published_world_pays_after_250_steps_too():
    env = redundant_arm(max_steps=250, published_reward=True)
    place = next(goal for goal in range(3) if not collides(*points(jnp.asarray(reaching(GOALS[goal]), jnp.float32))))
    state = at(reaching(GOALS[place]), steps=249)
    _, last = env.step(state, KEY, jnp.zeros(JOINTS))
    assert last.truncated and not last.terminated
    np.testing.assert_allclose(last.reward, 1.0, atol=1e-3)
