"""The backward algorithm where worlds live on the host: the same rules as on the device, exact resume, and a start that moves back."""

from __future__ import annotations

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnasium import spaces

from envs.builder import Refusal
from envs.gymnasium import gymnasium as gymnasium_world
from envs.gymnasium import hosted
from exploration.backward import curriculum
from runners import api
from runners.compose import compose
from runners.demonstrations import Demonstration, episodes, replayed
from runners.host_steering import SteeredSource
from runners.steering import Rules, Steering, steering
from tests.runners.test_resume import split_equals_whole

LAKE = ["env=gymnasium", "env.id=FrozenLake-v1", "env.arguments={is_slippery: false, map_name: 8x8}", "exploration=none"]
WAY = [2, 2, 2, 2, 2, 2, 2, 1, 1, 1, 1, 1, 1, 1]  # to the right, and down along the edge


class Row(gymnasium.Env):
    """Action 1 goes on and is paid 1, action 0 stays; it ends after 20 places. What it does not obey is drawn."""

    observation_space, action_space = spaces.Box(0, 20, (1,), np.float32), spaces.Discrete(2)

    def __init__(self):
        self.place, self.obey = 0, False

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.place = 0
        return np.float32([0]), {}

    def step(self, action):
        action = action if self.obey else int(self.np_random.integers(2))
        self.place += action
        return np.float32([self.place]), float(action), self.place >= 20, False, {}


def row(workers=0):
    return hosted("row", lambda render=False: Row(), workers)._replace(settled=None)  # what it draws is not there where it obeys


def shown(actions) -> Demonstration:
    return Demonstration("made up", np.asarray(actions), None, np.zeros(2, np.uint32))


def steered(env, demonstrations, members=2, lanes=4, imitating=1, last=3, context=0, **options):
    """(source, its state of the curriculum) with windows of one start that end at ``last``, at the beginning of their lanes' first episodes."""
    made = replayed(env, demonstrations)
    chooser = curriculum(made.lengths, lanes=lanes - imitating, **{"window": 1, "later": 0.0, "virtual": False, **options})
    rules = steering(made.lengths, made.returns, chooser, Rules(context, 2, 0.0, 0.0, 1.0), jnp.arange(lanes) >= lanes - imitating)
    source = SteeredSource(env, made, Steering(*map(jax.vmap, rules)), members, lanes)
    state = jax.vmap(lambda _: chooser.init()._replace(last=jnp.full(len(made.lengths), last, jnp.int32)))(jnp.arange(members))
    source.reset(range(members * lanes))
    source.steer(state, jax.random.split(jax.random.PRNGKey(0), members))
    source.begin()
    return source, state


@pytest.mark.parametrize("workers", [0, 2])
def test_episodes_begin_in_the_demonstration_and_do_it_again_first(workers):
    source, _ = steered(row(workers), [shown([1, 0, 1, 1, 1, 1])], last=4, context=3)
    assert source.lanes.note.start.tolist() == [[4, 4, 4, 0]] * 2 and source.lanes.note.time.tolist() == [[1, 1, 1, 0]] * 2
    assert source.lanes.obs[..., 0].tolist() == [[1, 1, 1, 0]] * 2 == source.lanes.episode_return.tolist() and source.lanes.first.all()
    chosen = np.zeros((2, 4), np.int32)
    for t in range(3):
        before, executed, arrived = source.step(chosen)
        assert executed.tolist() == [[[0, 1, 1][t]] * 3 + [[1, 0, 1][t]]] * 2
        assert arrived.info["forced"].all() and np.array_equal(arrived.reward, executed)
        assert np.array_equal(arrived.obs[..., 0], before.episode_return + executed)
    rewards = np.stack([source.step(chosen)[2].reward for _ in range(8)])
    assert 0 < rewards[:, :, :3].mean() < 1  # drawn, where nothing is shown
    source.close()


def test_they_end_by_the_rules_and_others_begin():
    source, _ = steered(row(), [shown([1] * 6)], members=1)
    chosen, late, cut = np.ones((1, 4), np.int32), 0, 0
    for _ in range(60):
        before, _, arrived = source.step(chosen)
        score, done = before.episode_return + arrived.reward, arrived.terminated | arrived.truncated
        late, cut = late + arrived.info["late"].sum(), cut + (arrived.truncated & arrived.info["succeeded"])[:, :3].sum()
        assert np.array_equal(arrived.info["late"], arrived.terminated) and not (done & ~arrived.info["late"] & (score < 6)).any()
        assert np.array_equal(source.lanes.first, done) and np.array_equal(arrived.following, source.lanes.obs)
        assert (source.lanes.episode_return[:, :3][done[:, :3]] == 3).all() and np.array_equal(source.lanes.obs[..., 0], source.lanes.episode_return)
    assert late > 0 and cut > 0
    source.close()


def test_the_worlds_own_start_is_one_of_them_and_all_of_it_is_saved():
    source, state = steered(row(), [shown([1] * 6)], virtual=True, imitating=0)
    chosen, keys = np.ones((2, 4), np.int32), jax.random.split(jax.random.PRNGKey(1), 2)
    for _ in range(40):
        source.step(chosen)
    own = source.lanes.note.demonstration == 1
    assert own.any() and not own.all() and not source.lanes.note.start[own].any()

    def onwards():
        source.steer(state, keys)
        return [source.step(chosen)[2] for _ in range(20)]

    kept, lanes = source.save(), source.lanes
    first = onwards()
    source.load(kept, lanes)
    jax.tree.map(np.testing.assert_array_equal, first, onwards())
    source.close()


def test_what_they_saw_is_data_and_what_does_not_replay_is_refused():
    made = episodes(row(), [shown([1, 0]), shown([1, 1, 1])])
    assert made.obs[:, 0].tolist() == [0, 1, 1, 0, 1, 2, 3] and made.reward.tolist() == [1, 0, 1, 1, 1]
    with pytest.raises(Refusal, match="does not replay"):
        replayed(row(), [shown([1, 1])._replace(rewards=np.float32([1, 0]))])
    with pytest.raises(Refusal, match="leaves something to chance"):
        replayed(gymnasium_world(id="FrozenLake-v1"), [shown(WAY)])


def lake(tmp_path, *more):
    np.savez(tmp_path / "way.npz", actions=np.array(WAY))
    usual = ["runner=backward", f"runner.demonstrations={tmp_path / 'way.npz'}", "logger.console=false"]
    return [*LAKE, *usual, "runner.window=4", "runner.move_every=32", "runner.retreat=2", "runner.imitation_lanes=1", *more]


@pytest.mark.medium
def test_resume_is_exact(tmp_path):
    tiny = ["runner.lanes=4", "runner.rollout=8", "agent.hidden=[4]", "agent.recurrent=4", "runner.context=3"]
    tiny += ["runner.start_temperature=2", "runner.start_steps=3"]
    split_equals_whole(lake(tmp_path, *tiny, "seeds=2", "total_steps=256"), "vmap", tmp_path)


@pytest.mark.medium
def test_the_start_moves_back_to_the_beginning(tmp_path):
    settings = ["runner.lanes=16", "runner.rollout=32", "seeds=1", "total_steps=20000", "agent.learning_rate=1e-3"]
    summary = api.train(compose(lake(tmp_path, *settings)), tmp_path / "runs")
    rows = api.metrics(summary["run_dir"])
    metrics = summary["members"][0]["metrics"]
    assert rows[0]["backward/start"] > 8 and metrics["backward/start"] <= 1 and metrics["evaluation/return"] == 1.0
