"""Gymnasium worlds on the host: spaces, true successors, snapshots, workers, refusals."""

from __future__ import annotations

import gymnasium as library
import numpy as np
import pytest
from gymnasium import spaces

from envs import snapshot
from envs.atari import atari
from envs.builder import Refusal
from envs.gymnasium import gymnasium
from envs.lanes import WorldError
from envs.observations import bag_of_words, readable

LAST = "tests.envs.last_matters:LastMatters-v0"


@pytest.mark.parametrize("workers", [0, 2])
def test_the_true_successor_is_kept_apart_from_the_restart(workers):
    lanes = gymnasium(id=LAST, workers=workers).open(2)
    np.testing.assert_array_equal(lanes.reset([0, 1]), [[1, 0], [1, 0]])
    for t in range(1, 7):
        made, following = lanes.step(np.array([1, 0]))
        over = t % 3 == 0
        np.testing.assert_array_equal(made.obs, [[1 + (t - 1) // 3, (t - 1) % 3 + 1]] * 2)
        np.testing.assert_array_equal(following, [[1 + t // 3, t % 3]] * 2)
        assert made.terminated.tolist() == [over and t == 3] * 2 and made.truncated.tolist() == [over and t == 6] * 2
        assert made.reward.tolist() == [1.0, 0.0] and made.reward.dtype == np.float32
    lanes.close()


def test_gymnasiums_own_vector_agrees():
    """Same seeds, same actions: Gymnasium's SAME_STEP vector gives the same, and its final_obs are our successors."""
    ours = gymnasium(id="CartPole-v1").open(3)
    theirs = library.make_vec("CartPole-v1", 3, vectorization_mode="sync", vector_kwargs={"autoreset_mode": "SameStep"})
    np.testing.assert_array_equal(ours.reset([5, 6, 7]), theirs.reset(seed=[5, 6, 7])[0])
    rng, ends = np.random.default_rng(0), 0
    for _ in range(120):
        actions = rng.integers(0, 2, 3)
        (obs, reward, terminated, truncated, _), following = ours.step(actions)
        expected, rewards, ends_now, cuts_now, infos = theirs.step(actions)
        np.testing.assert_array_equal(following, expected)
        np.testing.assert_array_equal(reward, rewards)
        np.testing.assert_array_equal((terminated, truncated), (ends_now, cuts_now))
        for lane in np.flatnonzero(terminated | truncated):
            np.testing.assert_array_equal(obs[lane], infos["final_obs"][lane])
            ends += 1
    assert ends > 3
    ours.close()
    theirs.close()


@pytest.mark.parametrize("id", ["HalfCheetah-v5", "Ant-v5", "MiniGrid-DoorKey-5x5-v0", "BabyAI-GoToObj-v0", "CartPole-v1", "FrozenLake-v1", LAST])
def test_snapshots_are_exact_in_place_and_in_another_world(id):
    env = gymnasium(id=id)
    assert env.unsaved is None
    first, second = env.open(2), env.open(2)
    rng = np.random.default_rng(0)
    first.reset([1, 2]), second.reset([8, 9])

    def play(lanes, steps, seed):
        rng, seen = np.random.default_rng(seed), []
        for _ in range(steps):
            action = rng.integers(0, env.spec.action.n, 2) if isinstance(env.spec.action, spaces.Discrete) else rng.uniform(-1, 1, (2, *env.spec.action.shape))
            seen.append(lanes.step(action))
        return seen

    play(first, 10 + int(rng.integers(5)), 0)
    saved = first.save()
    expected = play(first, 40, 1)
    first.load(saved), second.load(saved)
    for lanes in (first, second):
        for (a, b), (c, d) in zip(expected, play(lanes, 40, 1), strict=True):
            assert snapshot.same((list(a[:4]), b), (list(c[:4]), d))
    first.close(), second.close()


def test_a_world_without_snapshots_says_why():
    env = gymnasium(id="tests.envs.last_matters:Unpicklable-v0")
    assert "pickle" in env.unsaved and env.open(1).save is None


@pytest.mark.parametrize("workers", [0, 2])
def test_a_world_that_fails_says_where(workers):
    failing = gymnasium(id="tests.envs.last_matters:Broken-v0", workers=workers).open(2)
    failing.reset([0, 1])
    with pytest.raises(WorldError, match=r"Broken-v0 failed in step: KeyError.*last_matters.py:\d+"):
        for _ in range(8):
            failing.step(np.zeros(2, int))
    failing.close()


def test_workers_give_the_same():
    rng = np.random.default_rng(0)
    actions, seen = rng.integers(0, 2, (60, 5)), []
    for workers in (0, 2):
        lanes = gymnasium(id="CartPole-v1", workers=workers).open(5)
        found = [lanes.reset(range(5))]
        for action in actions:
            made, following = lanes.step(action)
            found += [made.obs, made.terminated, following]
        seen.append(found)
        lanes.close()
    for a, b in zip(*seen, strict=True):
        np.testing.assert_array_equal(a, b)


def test_spaces_become_readable():
    space = spaces.Dict(
        {
            "f": spaces.Box(-1.0, 1.0, (2,), np.float64),
            "i": spaces.Box(-5, 5, (2,), np.int64),
            "m": spaces.MultiDiscrete([2, 3]),
            "b": spaces.MultiBinary(3),
            "t": spaces.Text(20),
            "p": spaces.Tuple((spaces.Discrete(3, start=1), spaces.Text(5))),
        }
    )
    made, convert = readable(space, text_size=8)
    obs = convert({"f": [0.5, 1], "i": [1, 2], "m": [1, 2], "b": [1, 0, 1], "t": "go to go", "p": (2, "x")})
    assert made["f"].dtype == np.float32 and made["i"].dtype == np.int32 and made["p"]["0"] == spaces.Discrete(3, start=1)
    assert obs["m"].tolist() == [0, 1, 0, 0, 1] and obs["b"].tolist() == [1, 0, 1] and obs["p"]["0"] == 2
    assert obs["t"].sum() == 3 and obs["t"].max() >= 2 and (bag_of_words("GO", 8) == bag_of_words("go", 8)).all()
    for name in ("f", "i", "m", "b", "t"):
        assert made[name].contains(obs[name]), name
    without, _ = readable(space)
    assert "t" not in without.spaces and set(without["p"].spaces) == {"0"}
    with pytest.raises(Refusal, match="text_size=64"):
        readable(spaces.Dict({"t": spaces.Text(5)}))
    with pytest.raises(Refusal, match="no fixed shape"):
        readable(spaces.Sequence(spaces.Discrete(2)))


def test_minigrid_declares_its_codes_and_its_position():
    env = gymnasium(id="MiniGrid-DoorKey-5x5-v0")
    assert env.spec.observation["image"].high.reshape(-1, 3).max(0).tolist() == [10, 5, 3]
    assert env.spec.grid == (5, 5) and env.spec.max_steps == 250 and env.spec.success_return == 0.05
    lanes = env.open(1)
    obs = lanes.reset([0])
    assert set(obs) == {"image", "direction"} and (obs["image"][0] <= [10, 5, 3]).all()
    position = lanes.step(np.array([2]))[0].info["position"][0]
    assert ((position >= 1) & (position <= 3)).all()
    lanes.close()


def test_wrappers_info_and_arguments():
    entry = {"_target_": "gymnasium.wrappers.TimeLimit", "max_episode_steps": 7}
    env = gymnasium(id="HalfCheetah-v5", wrappers=[entry], info=["x_velocity"], arguments={"exclude_current_positions_from_observation": False})
    assert env.spec.max_steps == 7 and env.spec.observation.shape == (18,) and list(env.spec.info) == ["x_velocity"]
    lanes = env.open(1)
    lanes.reset([0])
    truncated = [lanes.step(np.zeros((1, 6)))[0].truncated[0] for _ in range(7)]
    assert truncated == [False] * 6 + [True]
    lanes.close()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"id": "CartPole-v9"}, "did you mean CartPole-v1"),
        ({"id": "nopackage:Foo-v0"}, "needs the package 'nopackage'"),
        ({"id": "CartPole-v1", "arguments": {"nonsense": 1}}, "cannot be made with these arguments"),
        ({"id": "CartPole-v1", "info": ["x"]}, "gives no info 'x'"),
        ({"id": "CartPole-v1", "wrappers": [{"_target_": "gymnasium.wrappers.TimeLimitt"}]}, "did you mean TimeLimit"),
    ],
)
def test_refusals_are_one_line(arguments, message):
    with pytest.raises(Refusal, match=message) as refused:
        gymnasium(**arguments)
    assert "\n" not in str(refused.value)


def test_atari_keeps_bytes_and_the_last_frames_of_an_episode():
    """At an end the successor still shows the frames before: three of its four are those of the observation acted on, one step older."""
    env = atari(game="breakout", noop_max=0)
    assert env.unsaved and env.spec.observation.shape == (84, 84, 4) and env.spec.observation.dtype == np.uint8
    lanes, rng, ends = env.open(4), np.random.default_rng(0), 0
    obs = lanes.reset(range(4))
    assert obs.shape == (4, 4, 84, 84) and np.asarray(env.decode(obs)).shape == (4, 84, 84, 4)
    for _ in range(600):
        made, following = lanes.step(rng.integers(0, 4, 4))
        np.testing.assert_array_equal(made.obs[:, :3], obs[:, 1:])
        for lane in np.flatnonzero(made.terminated):
            ends += 1
            assert not np.array_equal(following[lane], made.obs[lane])
        obs = following
    assert ends >= 2
    lanes.close()
    with pytest.raises(Refusal, match="did you mean breakout"):
        atari(game="Breakout")


def test_atari_truncation_is_no_termination():
    lanes = atari(game="breakout", max_frames=40).open(2)
    lanes.reset([0, 1])
    ends = [(made.terminated.any(), made.truncated.all()) for made, _ in (lanes.step(np.zeros(2, int)) for _ in range(12))]
    assert not any(terminated for terminated, _ in ends) and sum(truncated for _, truncated in ends) >= 1
    lanes.close()
