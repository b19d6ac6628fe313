"""Physics tasks on the host: what dm_control gives, summed over repeated steps, and success alone as a reward."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest

from envs import snapshot
from envs.builder import Refusal
from envs.dm_control import Suite, dm_control, vector, way_to_draw
from envs.robotics import SparseSuccess, robotics


def test_an_action_is_repeated_and_its_rewards_summed():
    """Beside the suite itself, from the same seed."""
    from dm_control import suite

    ours, theirs = Suite("cartpole", "balance", 3), suite.load("cartpole", "balance", {"random": 7})
    seen, _ = ours.reset(seed=7)
    np.testing.assert_allclose(seen, vector(theirs.reset().observation))
    for n in range(4):
        action = np.float32([np.sin(n)])
        observation, reward, terminated, truncated, _ = ours.step(action)
        steps = [theirs.step(action) for _ in range(3)]
        np.testing.assert_allclose(observation, vector(steps[-1].observation))
        assert reward == pytest.approx(sum(step.reward for step in steps)) and reward > 1.0
        assert not terminated and not truncated


def test_the_time_limit_truncates():
    world = Suite("cartpole", "swingup", 300)
    assert world.max_steps == 4
    world.reset(seed=0)
    ends = [world.step(np.zeros(1))[2:4] for _ in range(4)]
    assert ends == [(False, False)] * 3 + [(False, True)]


def test_pictures_are_what_the_first_camera_sees(draws):
    """Beside the suite itself, from the same seed: stacked newest last, an episode's first frame repeated; fewer shadows, other pictures."""
    from dm_control import suite

    ours, plain = (Suite("cartpole", "swingup", 2, pixels=20, frames=2, shadows=shadows) for shadows in (True, False))
    theirs = suite.load("cartpole", "swingup", {"random": 7})
    seen, _ = ours.reset(seed=7)
    theirs.reset()
    first = theirs.physics.render(20, 20, camera_id=0)
    np.testing.assert_array_equal(seen, np.concatenate([first, first], axis=-1))
    assert seen.dtype == np.uint8 and seen.shape == ours.observation_space.shape == (20, 20, 6)
    assert not np.array_equal(plain.reset(seed=7)[0], seen)
    for _ in range(8):
        theirs.step(np.ones(1))
        theirs.step(np.ones(1))
        last, seen = seen, ours.step(np.ones(1))[0]
    np.testing.assert_array_equal(seen, np.concatenate([last[..., 3:], theirs.physics.render(20, 20, camera_id=0)], axis=-1))
    assert not np.array_equal(seen[..., :3], seen[..., 3:])


def test_where_nothing_can_be_drawn_the_refusal_names_a_way(monkeypatch, capfd):
    """GLFW needs a screen; one line, whatever the libraries have to say."""
    monkeypatch.setenv("MUJOCO_GL", "glfw")
    monkeypatch.delenv("DISPLAY", raising=False)
    with pytest.raises(Refusal, match=r"MUJOCO_GL=glfw fails here \(\w+: .+\); use MUJOCO_GL=egl.*libegl1") as refused:
        dm_control(id="cartpole-swingup", pixels=20)
    assert "\n" not in str(refused.value) and capfd.readouterr() == ("", "")


@pytest.mark.parametrize(("libraries", "way"), [(["EGL", "OSMesa"], "egl"), (["OSMesa"], "osmesa"), ([], "disabled")])
def test_it_draws_with_what_there_is(libraries, way, monkeypatch):
    monkeypatch.setattr("envs.dm_control.find_library", lambda name: name if name in libraries else None)
    assert way_to_draw() == way


def test_numbers_need_nothing_that_draws():
    program = "from envs.dm_control import dm_control; dm_control(id='cartpole-swingup'); dm_control(id='cartpole-swingup', pixels=20)"
    told = subprocess.run([sys.executable, "-c", program], env=os.environ | {"MUJOCO_GL": "disabled"}, capture_output=True, text=True)
    assert "MUJOCO_GL=disabled fails here" in told.stderr.splitlines()[-1]


def test_an_unknown_way_of_drawing_is_refused_in_one_line():
    tried = [sys.executable, "-m", "runners.cli", "train", "env=dm_control", "agent=sac", "exploration=none"]
    told = subprocess.run(tried, env=os.environ | {"MUJOCO_GL": "nonsense"}, capture_output=True, text=True)
    assert told.returncode == 2 and len(told.stderr.splitlines()) == 1 and "MUJOCO_GL must be one of" in told.stderr


@pytest.mark.medium
@pytest.mark.parametrize("task", [("walker", "run"), ("reacher", "hard"), ("humanoid", "run"), ("finger", "turn_easy")])
def test_snapshots_are_exact(task):
    """Contacts, and targets that are placed anew in every episode."""
    assert snapshot.why_not(Suite(*task, 2), steps=40) is None


@pytest.mark.medium
def test_snapshots_hold_the_stacked_frames(draws):
    assert snapshot.why_not(Suite("cartpole", "swingup", 4, pixels=16, frames=3, shadows=False), steps=10) is None


def test_success_is_paid_once_and_ends_the_episode():
    import gymnasium
    import gymnasium_robotics

    gymnasium.register_envs(gymnasium_robotics)
    world = SparseSuccess(gymnasium.make("FetchReach-v4"))
    seen, _ = world.reset(seed=0)
    assert seen.shape == world.observation_space.shape == (13,)
    for _ in range(50):  # towards the goal: the last three numbers, from the first three
        seen, reward, terminated, truncated, info = world.step(np.append(np.clip(10 * (seen[10:] - seen[:3]), -1, 1), 0.0).astype(np.float32))
        assert reward == float(info["is_success"]) and terminated == bool(reward)
        if terminated:
            break
    assert terminated and not truncated
    assert robotics().spec.success_return == 0.5


def test_unknown_tasks_are_refused():
    with pytest.raises(Refusal, match="walker-run"):
        dm_control(id="walker-rum")
    with pytest.raises(Refusal, match="FetchPush-v4"):
        robotics(id="FetchPish-v4")
