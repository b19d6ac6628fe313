"""CollectBall: a ball is picked up, carried, put down and collected; what the robot is told of it."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from envs.collect_ball import BALLS, START, collect_ball

KEY = jax.random.PRNGKey(0)
ENV = collect_ball()
STEP = jax.jit(ENV.step)
RESET = ENV.reset(KEY)[0]
HOLD, OPEN = [0.0, 0.0, 1.0], [0.0, 0.0, -1.0]


def do(state, *actions):
    told = []
    for action in actions:
        state, step = STEP(state, KEY, jnp.array(action))
        told.append(step)
    return state, told


def test_a_ball_is_carried_home():
    """Picked up within 20, moved with the robot, paid once when it is let go within 10 of the start, gone after that."""
    state = RESET._replace(place=jnp.array(BALLS[0] + [0.0, 19.0]))
    state, told = do(state, OPEN, HOLD)
    assert [float(t.obs[9]) for t in told] == [0.0, 1.0]
    np.testing.assert_array_equal(state.carried, np.arange(6) == 0)
    state, _ = do(state, [1.0, 1.0, 1.0])
    np.testing.assert_array_equal(state.balls[0], state.place)
    assert float(state.place[1]) == pytest.approx(BALLS[0][1] + 19.0 + 2.0)  # the gain of 2, heading upwards
    state, told = do(state._replace(place=jnp.array(START + [0.0, 9.0])), HOLD, OPEN, HOLD, OPEN)
    assert [float(t.reward) for t in told] == [0.0, 1.0, 0.0, 0.0]
    np.testing.assert_array_equal(state.floor, np.arange(6) > 0)
    assert not np.any(state.carried)


def test_a_ball_that_is_put_down_elsewhere_lies_there_and_pays_nothing():
    state, _ = do(RESET._replace(place=jnp.array(BALLS[1])), HOLD)
    state, told = do(state._replace(place=jnp.array(START + [11.0, 0.0])), OPEN)
    assert float(told[0].reward) == 0 and bool(state.floor[1]) and not np.any(state.carried)
    np.testing.assert_array_equal(state.balls[1], state.place)
    state, told = do(state, HOLD)
    assert bool(state.carried[1])


def test_it_carries_one_ball_the_nearest():
    near = RESET._replace(balls=RESET.balls.at[2].set(START + np.array([0.0, 15.0])).at[4].set(START + np.array([0.0, -12.0])))
    state, _ = do(near, HOLD, HOLD)
    np.testing.assert_array_equal(state.carried, np.arange(6) == 4)
    state, _ = do(RESET._replace(place=jnp.array(BALLS[3] + [0.0, 20.5])), HOLD)
    assert not np.any(state.carried)


@pytest.mark.parametrize(("heading", "wanted"), [(0.0, [1, 0]), (0.5 * np.pi, [0, 1]), (np.pi, [0, 0]), (-0.5 * np.pi, [0, 0]), (-0.3, [1, 0])])
def test_it_is_told_where_the_nearest_ball_and_the_start_are(heading, wanted):
    """Both are up and to the right of it, at 45 degrees."""
    place = np.array([250.0, 10.0 + 9.0 + 1.0], np.float32)
    balls = RESET.balls.at[5].set(place + np.array([15.0, 15.0]))
    state = RESET._replace(place=jnp.array(place), heading=jnp.float32(heading), balls=balls)
    _, (told,) = do(state, OPEN)
    np.testing.assert_array_equal(told.obs[5:7], wanted)
    np.testing.assert_array_equal(told.obs[7:9], wanted)


def test_the_episode_ends_with_its_last_step():
    _, told = do(RESET._replace(steps=jnp.int32(1998)), OPEN, OPEN)
    assert [bool(t.truncated) for t in told] == [False, True]
    np.testing.assert_allclose(told[-1].info["descriptor"], START / 600, atol=1e-6)
