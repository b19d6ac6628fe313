"""Data sets on disk: written, read back, read by minari, and exported from what a policy does."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from types import SimpleNamespace

import gymnasium
import jax
import jax.numpy as jnp
import minari
import numpy as np
import pytest
from gymnasium import spaces

from agents.random import random
from envs.base import Spec, Transition
from envs.builder import Refusal
from runners import api, dataset
from runners.dataset import Episodes
from runners.export import episodes_of, export, parse, perturbed
from runners.policies import read
from tests.fit.worlds import plane
from tests.runners.tiny import assert_equal

OBSERVATION = spaces.Dict(
    {"picture": spaces.Box(0, 255, (4, 5, 3), np.uint8), "place": spaces.Box(-np.inf, np.inf, (2,), np.float32), "room": spaces.Discrete(7)}
)
ACTION = spaces.Discrete(3, start=2)


def made_up(steps: int, seed: int, terminated: bool = False) -> Episodes:
    rng = np.random.default_rng(seed)
    picture, place = rng.integers(0, 256, (steps + 1, 4, 5, 3)).astype(np.uint8), rng.normal(size=(steps + 1, 2)).astype(np.float32)
    last = np.arange(steps) == steps - 1
    info = {"state_id": rng.integers(0, 2**32, (steps, 2)).astype(np.uint32)}
    obs = {"picture": picture, "place": place, "room": rng.integers(0, 7, steps + 1).astype(np.int32)}
    ends = (last & terminated, last & (not terminated))
    return Episodes(obs, rng.integers(2, 5, steps).astype(np.int32), rng.normal(size=steps).astype(np.float32), *ends, info, np.asarray([steps]))


def together(parts: list[Episodes]) -> Episodes:
    return jax.tree.map(lambda *x: np.concatenate(x), *parts)


@pytest.fixture
def parts():
    return [made_up(3, 0, True), made_up(1, 1), made_up(5, 2)]


@pytest.fixture
def folder(parts, tmp_path):
    dataset.write(tmp_path / "rooms", OBSERVATION, ACTION, parts, [7, None, 8], {"algorithm_name": "none"})
    return tmp_path / "rooms"


def test_what_is_written_is_read_back_bit_for_bit(folder, parts):
    """Pictures too: minari's own default would make JPEGs of them."""
    found = dataset.read(folder)
    assert_equal(found.episodes, together(parts))
    assert (found.observation, found.action) == (OBSERVATION, ACTION)
    assert dataset.read(folder / "data") == found or dataset.read(folder / "data").checksum == found.checksum


def test_a_folder_may_be_named_from_here(parts, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    dataset.write(Path("data/rooms-v0"), OBSERVATION, ACTION, parts, [7, None, 8], {})
    assert dataset.read(Path("data/rooms-v0")).episodes.lengths.sum() == sum(len(part.reward) for part in parts)


def test_minari_reads_it(folder, parts, monkeypatch):
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(folder.parent))
    one_step = [made_up(1, 5, True)]
    dataset.write(folder.parent / "one-v3", OBSERVATION, ACTION, one_step, [None], {})
    found = minari.load_dataset("one-v3")
    assert (found.total_episodes, found.total_steps, len(found[0])) == (1, 1, 1)
    np.testing.assert_array_equal(found[0].observations["place"], one_step[0].obs["place"])
    assert found[0].terminations.tolist() == [True] and found[0].rewards.dtype == np.float32
    several = minari.MinariDataset(folder / "data")
    assert [len(episode) for episode in several] == [3, 1, 5] and several.spec.dataset_id == "rooms-v0"
    assert [m.get("seed") for m in several.storage.get_episode_metadata(range(3))] == [7, None, 8]


def test_a_data_set_that_minari_wrote_is_read(tmp_path, monkeypatch):
    """From steps of Gymnasium's Pendulum: infos have a row for the reset, and actions are doubles."""
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    env, buffers, rewards = gymnasium.make("Pendulum-v1", max_episode_steps=5), [], []
    for seed in range(3):
        obs = [env.reset(seed=seed)[0]]
        steps = [env.step(np.float32([seed - 1.0])) for _ in range(5)]
        obs, paid = [*obs, *(step[0] for step in steps)], [step[1] for step in steps]
        ends = {"terminations": [step[2] for step in steps], "truncations": [step[3] for step in steps], "infos": {"n": list(range(6))}}
        buffers.append(minari.data_collector.EpisodeBuffer(seed=seed, observations=obs, actions=[np.array([seed - 1.0])] * 5, rewards=paid, **ends))
        rewards += paid
    told = {"algorithm_name": "none", "author": "a", "author_email": "b", "code_permalink": "c", "description": "d"}
    minari.create_dataset_from_buffers("pendulum-v0", buffers, env="Pendulum-v1", eval_env="Pendulum-v1", **told)
    spec = Spec(env.observation_space, env.action_space, "pendulum", info={"n": spaces.Discrete(9)})
    episodes = dataset.fitted(dataset.read(tmp_path / "pendulum-v0"), spec, "pendulum", {"n"})
    assert episodes.lengths.tolist() == [5] * 3 and episodes.obs.shape == (18, 3) and episodes.truncated.sum() == 3
    np.testing.assert_allclose(episodes.reward, rewards, rtol=1e-6)
    assert episodes.action[:, 0].tolist() == [-1.0] * 5 + [0.0] * 5 + [1.0] * 5 and episodes.action.dtype == np.float32
    assert episodes.info["n"].tolist() == [1, 2, 3, 4, 5] * 3


def test_the_checksum_is_of_the_content(folder, parts, tmp_path):
    dataset.write(tmp_path / "again", OBSERVATION, ACTION, parts, [None] * 3, {"description": "other words"})
    changed = [parts[0]._replace(reward=parts[0].reward + np.float32(1e-3)), *parts[1:]]
    dataset.write(tmp_path / "other", OBSERVATION, ACTION, changed, [None] * 3, {})
    sums = [dataset.read(tmp_path / name).checksum for name in ("rooms", "again", "other")]
    assert sums[0] == sums[1] != sums[2] and len(sums[0]) == 8


def test_infos_with_a_row_for_the_reset_lose_it():
    raw = {"observations": np.zeros(3), "actions": np.zeros(2), "rewards": np.zeros(2), "terminations": np.zeros(2), "truncations": np.zeros(2)}
    found = dataset.one(raw | {"infos": {"x": np.arange(3), "y": np.arange(2), "nested": {}, "text": np.array(["a", "b"]), "short": np.zeros(1)}})
    assert {name: value.tolist() for name, value in found.info.items()} == {"x": [1, 2], "y": [0, 1]}


def test_what_cannot_be_read_is_refused_in_a_line(folder, tmp_path):
    with pytest.raises(Refusal, match="exists already"):
        dataset.write(folder, OBSERVATION, ACTION, [], [], {})
    with pytest.raises(Refusal, match="is not a data set"):
        dataset.read(tmp_path)
    (folder / "data" / "main_data.hdf5").write_bytes(b"nonsense")
    with pytest.raises(Refusal, match="cannot be read"):
        dataset.read(folder)


BOX = spaces.Box(-1.0, 1.0, (2,), np.float32)


@pytest.mark.parametrize(
    ("there", "here", "same"),
    [
        (spaces.Box(-1.0, 1.0, (2,), np.float64), BOX, True),
        (spaces.Box(-2.0, 1.0, (2,), np.float32), BOX, False),
        (spaces.Box(-1.0, 1.0, (3,), np.float32), BOX, False),
        (spaces.Box(-1, 1, (2,), np.int32), BOX, False),
        (spaces.Discrete(3), spaces.Discrete(3), True),
        (spaces.Discrete(3), spaces.Discrete(3, start=1), False),
        (spaces.Discrete(3), BOX, False),
        (spaces.Dict({"a": BOX}), spaces.Dict({"a": BOX}), True),
        (spaces.Dict({"a": BOX}), spaces.Dict({"b": BOX}), False),
    ],
)
def test_spaces_are_compared(there, here, same):
    assert (dataset.differ(there, here, bounds=True) == "") == same


def test_data_take_the_worlds_dtypes(folder):
    spec = Spec(OBSERVATION, ACTION, "rooms", info={"state_id": spaces.Box(0, 2**32 - 1, (2,), np.uint32)})
    found = dataset.fitted(dataset.read(folder), spec, "rooms", {"state_id"})
    assert {name: x.dtype for name, x in found.obs.items()} == {"picture": np.uint8, "place": np.float32, "room": np.int32}
    assert found.info["state_id"].dtype == np.uint32 and found.action.dtype == np.int32
    with pytest.raises(Refusal, match="no infos 'position'"):
        dataset.fitted(dataset.read(folder), spec, "rooms", {"position"})
    with pytest.raises(Refusal, match="its actions are Discrete"):
        dataset.fitted(dataset.read(folder), spec._replace(action=BOX), "rooms")


# --- who acts ----------------------------------------------------------------------------------------------------------


def acted(space, action, **settings):
    """Actions [4000] of an agent that always takes ``action``."""
    spec, lanes = Spec(BOX, space, "plane"), 4000
    fixed = random(spec)._replace(act=lambda state, key, inputs: (inputs[0], jnp.broadcast_to(jnp.asarray(action), (lanes, *space.shape)), {}))
    agent = perturbed(spec, agent=fixed, **settings)
    return np.asarray(agent.act((), jax.random.PRNGKey(0), ((), None, jnp.ones(lanes, bool), "greedy"))[1])


def test_a_share_of_the_actions_is_random_and_the_others_are_noisy():
    box = spaces.Box(np.float32([-2.0, 0.0]), np.float32([2.0, 1.0]))
    found = acted(box, [0.0, 0.5], noise=0.1)
    np.testing.assert_allclose(found.std(0), [0.2, 0.05], rtol=0.05)  # units of half the box
    assert acted(box, [2.0, 1.0], noise=0.3).max(0).tolist() == [2.0, 1.0]  # clipped
    share = np.mean(acted(box, [0.0, 0.5], random_share=0.3)[:, 0] != 0.0)
    assert abs(share - 0.3) < 0.03
    discrete = acted(spaces.Discrete(4), 1, random_share=0.4)
    assert abs(np.mean(discrete != 1) - 0.3) < 0.03 and set(discrete.tolist()) == {0, 1, 2, 3}
    with pytest.raises(Refusal, match="use random_share"):
        acted(spaces.Discrete(4), 1, noise=0.1)


# --- what they do ------------------------------------------------------------------------------------------------------


MADE = ["agent=random", "runner=off_policy", "runner.capacity=64", "runner.batch_size=4", "exploration=none", "total_steps=16"]
PLANE = [
    "seeds=2",
    "runner.lanes=4",
    "env=custom",
    "env._target_=tests.fit.worlds.plane",
    "+env.speed=0.1",
    "+env.limit=12",
    "+env.goal=0.1",
    "+env.action_cost=0.5",
]


def finished(folder: Path, world: list[str]) -> Path:
    return Path(api.train(api.compose(*MADE, *world, "logger.console=false"), folder)["run_dir"])


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return finished(tmp_path_factory.mktemp("runs"), PLANE)


@pytest.mark.medium
def test_exported_steps_are_those_of_the_world(run, tmp_path):
    """Each is made again from what was written, true successors of last steps included, and the file holds what was played."""
    told = export([str(run), str(tmp_path / "plane"), "episodes=6", "member=1"])
    data = dataset.read(tmp_path / "plane")
    episodes, env = data.episodes, plane(speed=0.1, limit=12, goal=0.1, action_cost=0.5)
    assert (told["episodes"], told["steps"], told["checksum"]) == (6, 72, data.checksum)
    assert episodes.lengths.tolist() == [12] * 6 and episodes.truncated.sum() == 6 and not episodes.terminated.any()
    obs = episodes.obs.reshape(6, 13, 2)
    state, _ = env.reset(jax.random.PRNGKey(0))
    place = obs[:, :-1].reshape(-1, 2)
    assert not obs[:, 0].any() and obs[:, -1].any()
    again = jax.vmap(lambda p, a: env.step(state._replace(place=p), None, a)[1])(jnp.asarray(place), jnp.asarray(episodes.action))
    np.testing.assert_allclose(again.obs.reshape(6, 12, 2), obs[:, 1:], atol=1e-6)
    np.testing.assert_allclose(again.reward, episodes.reward, atol=1e-6)
    assert told["return_mean"] == pytest.approx(episodes.reward.sum() / 6, rel=1e-5)
    played, _ = episodes_of(read(run, 1, "best"), 6, 0)
    assert_equal(together(played), episodes)
    assert export([str(run), str(tmp_path / "again"), "episodes=6", "member=1"])["checksum"] == data.checksum
    assert export([str(run), str(tmp_path / "other"), "episodes=6", "member=1", "seed=1"])["checksum"] != data.checksum


@pytest.mark.medium
def test_host_worlds_are_exported_too(tmp_path):
    """obs is (episode, steps so far): the last observation is seen once only, and the seeds are those of the first episodes."""
    run = finished(tmp_path / "runs", ["env=gymnasium", "env.id=tests.envs.last_matters:LastMatters-v0", "runner.lanes=2", "seeds=1"])
    export([str(run), str(tmp_path / "last"), "episodes=5"])
    data = dataset.read(tmp_path / "last")
    assert data.episodes.lengths.tolist() == [3] * 5
    obs = data.episodes.obs.reshape(5, 4, 2)
    assert obs[..., 1].tolist() == [[0, 1, 2, 3]] * 5 and obs[:, 0, 0].tolist() == [1, 2, 3, 1, 2]  # three of lane 0, two of lane 1
    assert data.episodes.terminated.reshape(5, 3)[:, -1].tolist() == [True, False, True, True, False]
    np.testing.assert_array_equal(data.episodes.reward, data.episodes.action)
    seeds = [m.get("seed") for m in minari.MinariDataset(tmp_path / "last" / "data").storage.get_episode_metadata(range(5))]
    assert [seed is None for seed in seeds] == [False, True, True, False, True] and seeds[0] != seeds[3]


def test_episodes_beyond_the_limit_are_cut():
    """A lane that never ends gives episodes of the world's limit; one that ends keeps its own; every lane gives its share."""
    spec = plane(limit=4).spec
    env = SimpleNamespace(spec=spec, render=None)

    def watch(acting, carry, key):
        carry = carry + 1
        done = jnp.stack([carry % 3 == 0, carry < 0])
        obs, after = jnp.full((2, 2), carry - 1.0), jnp.full((2, 2), 1.0 * carry)
        reward = jnp.full(2, carry, jnp.float32)
        return carry, Transition(obs, jnp.zeros((2, 2)), reward, after, done, jnp.zeros(2, bool), jnp.zeros(2, bool), {})

    played = SimpleNamespace(
        acting=jnp.zeros(1), runner=SimpleNamespace(spec=spec._replace(lanes=2), env=env, augments=False, watch=watch, start=lambda acting, key: jnp.int32(0))
    )
    found, _ = episodes_of(played, 5, 0)
    assert [len(part.reward) for part in found] == [3, 3, 3, 4, 4]
    assert [(bool(p.terminated[-1]), bool(p.truncated[-1])) for p in found] == [(True, False)] * 3 + [(False, True)] * 2
    assert found[4].reward.tolist() == [5, 6, 7, 8] and found[4].obs[:, 0].tolist() == [4, 5, 6, 7, 8]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "a run directory, a folder"),
        (["a"], "a run directory, a folder"),
        (["a", "b", "episode=1"], "did you mean episodes"),
        (["a", "b", "noise=-1"], "noise must be a number"),
        (["a", "b", "random_share=2"], "random_share must be"),
        (["a", "b", "mode=wild"], "mode must be one of greedy, explore"),
    ],
)
def test_mistakes_are_answered_in_a_line(arguments, message):
    with pytest.raises(Refusal, match=message) as refused:
        parse(arguments)
    assert "\n" not in str(refused.value)


def test_a_run_without_policies_and_a_folder_that_exists_are_refused(tmp_path):
    with pytest.raises(Refusal, match="exists already"):
        export(["nowhere", str(tmp_path)])
    with pytest.raises(Refusal, match="is not a run"):
        export(["nowhere", str(tmp_path / "new")])
    assert not (tmp_path / "new").exists()


@pytest.mark.medium
def test_the_command(run, tmp_path):
    command = ["scripts/farlands", "export", str(run), str(tmp_path / "plane-v1"), "episodes=4", "random_share=0.5", "noise=0.3", "mode=explore", "policy=last"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).resolve().parents[2])
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["steps"] == 48
