"""The ant in the maze: what it is told, what stops it, what pays, and that nothing is random."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("mujoco")

from envs.ant_maze import AntMaze, ant_maze  # noqa: E402


def put(env: AntMaze, x: float, y: float) -> None:
    env.data.qpos[:2] = x, y
    env.mujoco.mj_forward(env.model, env.data)


def test_what_it_is_told_and_that_nothing_is_random():
    env, again = AntMaze(1000), AntMaze(1000)
    obs, _ = env.reset(seed=0)
    np.testing.assert_allclose(obs[:3], [-30 / 70, -30 / 70, 0.55], atol=1e-6)
    again.reset(seed=5)
    for action in np.random.default_rng(0).uniform(-1, 1, (40, 8)):
        first, second = env.step(action), again.step(action)
    np.testing.assert_array_equal(first[0], second[0])
    np.testing.assert_allclose(first[0], np.concatenate([(env.data.qpos[:2] - 5) / 70, env.data.qpos[2:], env.data.qvel]), atol=1e-6)
    np.testing.assert_array_equal(first[4]["descriptor"], first[0][:2])
    assert env.data.time == pytest.approx(40 * 5 * 0.005)


@pytest.mark.parametrize(("x", "y", "towards"), [(-25.0, 36.0, (0.0, 8.0)), (-17.0, 20.0, (8.0, 0.0)), (-3.0, -17.0, (0.0, 8.0)), (8.0, -15.0, (8.0, 0.0))])
def test_walls_stop_it(x, y, towards):
    """Thrown at a wall at 8 a second for a second: it stays on its side."""
    env = AntMaze(1000)
    env.reset(seed=0)
    put(env, x, y)
    env.data.qvel[:2] = towards
    for _ in range(40):
        env.step(np.zeros(8))
    went = env.data.qpos[:2] - [x, y]
    assert 0.05 < np.dot(went, np.sign(towards)) < 4.0


@pytest.mark.parametrize(("place", "paid", "area"), [((35.0, -25.0), 1.0, 1), ((-25.0, 33.5), 0.5, 2), ((5.0, 5.0), 0.0, 0)])
def test_the_last_step_pays(place, paid, area):
    env = AntMaze(2)
    env.reset(seed=0)
    put(env, *place)
    first, last = env.step(np.zeros(8)), env.step(np.zeros(8))
    assert first[1] == 0 and not first[3] and last[3] and not last[2]
    assert last[1] == pytest.approx(paid, abs=0.02) and last[4]["area"] == area


def test_a_simulation_that_breaks_down_ends_with_nan(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # MuJoCo writes MUJOCO_LOG.TXT
    env = AntMaze(100)
    env.reset(seed=0)
    env.data.qvel[:] = 1e12
    found = env.step(np.zeros(8))
    assert np.isnan(found[1]) and found[2]
    env.reset(seed=0)
    assert env.step(np.zeros(8))[1] == 0


def test_the_spec_says_what_it_is():
    spec = ant_maze(max_steps=7).spec
    assert spec.max_steps == 7 and spec.deterministic and spec.info["area"].n == 3
    np.testing.assert_array_equal(spec.info["descriptor"].high, [0.5, 0.5])
