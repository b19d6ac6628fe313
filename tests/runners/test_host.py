"""Runs in worlds that live on the host: exact resume, members, overlap, truncation, evaluation."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from envs.builder import Refusal
from runners.compose import compose
from runners.experiment import experiment
from runners.train import assemble
from tests.runners.test_resume import split_equals_whole
from tests.runners.tiny import BONUSES, batch_of

ROOT = Path(__file__).resolve().parents[2]
HOST = ["env=gymnasium", "runner.lanes=2", "runner.rollout=8", "agent.hidden=[8]", "agent.minibatches=2", "agent.epochs=2", "total_steps=128"]
WORLDS = {
    "cartpole": [*HOST, "env.id=CartPole-v1"],
    "mujoco": [*HOST, "env.id=HalfCheetah-v5"],
    "minigrid": [*HOST, "env.id=MiniGrid-DoorKey-5x5-v0"],
    "workers": [*HOST, "env.id=CartPole-v1", "env.workers=2"],
    "ale": [*HOST, "env.id=ALE/Breakout-v5", "+env.arguments.obs_type=ram"],
}
LAST = [*HOST, "env.id=tests.envs.last_matters:LastMatters-v0"]


@pytest.mark.medium
@pytest.mark.parametrize(
    ("world", "bonus", "overlap"),
    [
        ("cartpole", "none", "false"),
        ("cartpole", "rnd", "true"),
        ("mujoco", "rnd", "true"),
        ("minigrid", "counts", "false"),
        ("workers", "none", "true"),
        ("ale", "none", "false"),
    ],
)
def test_resume_is_exact_on_the_host(world, bonus, overlap, tmp_path):
    split_equals_whole([*WORLDS[world], *BONUSES[bonus], f"runner.overlap={overlap}"], "vmap", tmp_path)


@pytest.mark.medium
def test_resume_is_exact_with_memories_and_shown_statistics(tmp_path):
    augmented = ["exploration=custom", "exploration._target_=exploration.combinators.augment"]
    nested = "+exploration.bonus={_target_: exploration.e3b.e3b, embedding: 4, hidden: [8], minibatches: 2}"
    split_equals_whole([*WORLDS["cartpole"], *augmented, nested, "agent.recurrent=4"], "vmap", tmp_path)


REPLAY = ["runner=off_policy", "agent=random", *(o for o in HOST if not o.startswith("agent")), "runner.capacity=64", "runner.batch_size=8", "runner.n_step=2"]


@pytest.mark.medium
@pytest.mark.parametrize("way", ["runner.overlap=false", "runner.overlap=true", "runner.overlap=true runner.buffer=host"])
def test_resume_is_exact_on_the_host_with_a_replay(way, tmp_path):
    settings = [*REPLAY, "env.id=CartPole-v1", *BONUSES["rnd"], "runner.learning_starts=16", "runner.random_steps=32", "runner.updates=2"]
    split_equals_whole([*settings, *way.split()], "vmap", tmp_path)


@pytest.mark.medium
def test_a_buffer_on_the_host_changes_no_result():
    """DQN with prioritised draws and a bonus: the same networks, buffer and metrics as with the buffer on the device."""
    agent = ["agent=dqn", "agent.hidden=[8]", "agent.epsilon_updates=10", "runner.prioritized=true"]
    shared = [
        *(o for o in REPLAY if not o.startswith("agent")),
        *agent,
        "env.id=CartPole-v1",
        *BONUSES["counts"],
        "runner.learning_starts=16",
        "runner.overlap=true",
    ]
    found = []
    for place in ("device", "host"):
        batch, total = batch_of([*shared, "runner.updates=2", f"runner.buffer={place}"], "vmap")
        batch.start()
        batch.run(0, total, total)
        found.append((jax.device_get(batch.snapshot()[0]), batch.take_metrics()))
        batch.close()
    (ours, metrics), (theirs, others) = found
    assert jax.tree.structure(ours) == jax.tree.structure(theirs)
    for (path, a), b in zip(jax.tree_util.tree_flatten_with_path(ours)[0], jax.tree.leaves(theirs), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6, err_msg=jax.tree_util.keystr(path))
    assert ours.replay.priority is not None and int(ours.agent.updates[0]) > 4
    for row, other in zip(metrics, others, strict=True):
        told = {name: x for name, x in other.items() if x is not None}
        assert {name: x for name, x in row.items() if x is not None and name != "replay/rows"} == pytest.approx(told)


def test_a_buffer_on_the_host_is_refused_elsewhere():
    for overrides, reason in (["env=deep_sea"], "worlds on the host"), (["env=gymnasium", "env.id=CartPole-v1"], "runner.overlap=true"):
        with pytest.raises(Refusal, match=reason):
            experiment(compose([*overrides, "agent=dqn", "runner.buffer=host"])).make_runner({})


def test_the_replay_holds_what_the_worlds_gave():
    """Episodes of three steps: places 0, 1, 2 are acted on, 3 is only a successor."""
    batch, total = batch_of([*REPLAY, *(o for o in LAST if "env.id" in o), "exploration=none", "seeds=1"], "vmap")
    batch.start()
    batch.run(0, 2, total)
    state = jax.tree.map(lambda x: np.asarray(x)[0], batch.snapshot()[0])
    rows, step = state.replay.rows, state.replay.rows.step[0]
    for lane in range(2):
        live = np.flatnonzero(rows.live[:, lane])
        assert len(live) == 16  # all steps of two iterations
        for row in live:
            place, ended = rows.obs[row, lane, 1], step.terminated[row, lane] or step.truncated[row, lane]
            assert rows.obs[row + 1, lane, 1] == place + 1  # the true successor, also where the episode ended
            assert ended == (place == 2) and step.first[row, lane] == (place == 0)
            assert not ended or rows.obs[row + 2, lane, 1] == 0
    batch.close()


@pytest.mark.medium
def test_the_rollout_holds_true_successors_and_kinds_of_ends():
    """What the learner is given, seen through overlap's waiting rollout."""
    batch, _ = batch_of([*LAST, "exploration=none", "runner.overlap=true", "seeds=1"], "vmap")
    batch.start()
    batch.run(0, 1, 8)
    steps = batch.snapshot()[0].waiting.steps
    count = np.arange(1, 9)
    np.testing.assert_array_equal(steps.next_obs[0, :, 0, 1], (count - 1) % 3 + 1)
    np.testing.assert_array_equal(steps.obs[0, :, 0, 1], (count - 1) % 3)
    np.testing.assert_array_equal(steps.first[0, :, 0], (count - 1) % 3 == 0)
    assert steps.terminated[0, :, 0].tolist() == [False, False, True] + [False] * 5
    assert steps.truncated[0, :, 0].tolist() == [False] * 5 + [True, False, False]
    np.testing.assert_array_equal(steps.info["episode_length"][0, :, 0], (count - 1) % 3 + 1)
    batch.close()


@pytest.mark.medium
def test_a_member_is_what_it_would_be_alone():
    """Two seeds side by side: the worlds of each are those of a single run, and what is learnt agrees within rounding."""
    both, total = batch_of([*WORLDS["cartpole"], "exploration=counts", "seeds=2"], "vmap")
    alone, _ = batch_of([*WORLDS["cartpole"], "exploration=counts", "seeds=[1]"], "vmap")
    for batch in (both, alone):
        batch.start()
        batch.run(0, 2, total)
    a, b = both.snapshot()[0], alone.snapshot()[0]
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        np.testing.assert_allclose(x[1], y[0], rtol=1e-3, atol=1e-4)
    both.close(), alone.close()


@pytest.mark.medium
def test_overlap_acts_with_the_policy_of_one_rollout_before():
    one_step = [*(o for o in WORLDS["cartpole"] if not o.startswith(("agent.minibatches", "agent.epochs"))), "exploration=none", "seeds=1"]
    one_step += ["agent.minibatches=1", "agent.epochs=1", "agent.learning_rate_schedule=constant"]  # the same whatever the key and the clock
    plain, total = batch_of(one_step, "vmap")
    lagged, _ = batch_of([*one_step, "runner.overlap=true"], "vmap")
    for batch in (plain, lagged):
        batch.start()
    same = [jax.tree.map(np.array, batch.snapshot()[0].agent.params) for batch in (plain, lagged)]
    jax.tree.map(np.testing.assert_array_equal, *same)
    lagged.run(0, 1, total)  # collects, and learns nothing yet
    jax.tree.map(np.testing.assert_array_equal, lagged.snapshot()[0].agent.params, same[0])
    lagged.run(1, 1, total)
    plain.run(0, 1, total)
    for x, y in zip(jax.tree.leaves(lagged.snapshot()[0].agent.params), jax.tree.leaves(plain.snapshot()[0].agent.params), strict=True):
        assert not np.array_equal(x, same[0])
        np.testing.assert_allclose(x, y, atol=1e-6)
    plain.close(), lagged.close()


@pytest.mark.medium
def test_evaluation_is_in_worlds_of_its_own_and_changes_nothing():
    batch, _ = batch_of([*WORLDS["cartpole"], "exploration=none", "seeds=2"], "vmap")
    batch.start()
    batch.run(0, 1, 8)
    before, keys = batch.snapshot(), jax.random.split(jax.random.PRNGKey(0), 2)
    found = batch.evaluate(keys)
    assert all(8 <= f["evaluation/length"] == f["evaluation/return"] for f in found) and found == batch.evaluate(keys)
    assert batch.evaluate(jax.random.split(jax.random.PRNGKey(1), 2)) != found
    jax.tree.map(np.testing.assert_array_equal, batch.snapshot()[0], before[0])
    batch.close()


@pytest.mark.medium
def test_worlds_without_snapshots_start_new_episodes_after_a_resume():
    overrides = [*HOST, "env.id=tests.envs.last_matters:Unpicklable-v0", "exploration=none", "seeds=1"]
    batch, total = batch_of(overrides, "vmap")
    batch.start()
    batch.run(0, 1, total)
    assert batch.host_snapshot() is None
    snapshot = batch.snapshot()
    batch.close()
    again, _ = batch_of(overrides, "vmap")
    again.restore(snapshot, None, 1)
    lanes = again.snapshot()[0].lanes
    assert lanes.first.all() and not lanes.episode_length.any() and (lanes.obs[..., 1] == 0).all()
    again.run(1, 1, total)
    again.close()


@pytest.mark.parametrize("batching", ["map", "shard"])
def test_other_batchings_are_refused(batching):
    made = experiment(compose([*WORLDS["cartpole"], f"batching={batching}"]))
    with pytest.raises(Refusal, match="batching=vmap"):
        assemble(made, batching)


WORLD = """
import gymnasium
import numpy as np
from gymnasium import spaces


class Corridor(gymnasium.Env):
    observation_space, action_space = spaces.Box(0.0, 1.0, (1,), np.float64), spaces.Discrete(2)

    def __init__(self, length=5):
        self.length, self.place = length, 0

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.place = 0
        return self.obs(), {}

    def step(self, action):
        self.place = max(0, self.place + (1 if action else -1))
        there = self.place == self.length
        return self.obs(), float(there), there, False, {}

    def obs(self):
        return np.array([self.place / self.length])


gymnasium.register("Corridor-v0", entry_point=Corridor, max_episode_steps=30)
"""
BONUS = """
import jax.numpy as jnp
from exploration.base import BonusInfo, bonus


def far(spec, *, power=1.0):
    return bonus(score=lambda state, t: t.next_obs[..., 0] ** power, info=BonusInfo(needs=("next_obs",)))
"""


@pytest.mark.medium
def test_a_users_own_world_and_bonus_run_from_the_command_line(tmp_path):
    """A package beside the project: its world is registered when it is imported, its bonus is found by its path."""
    package = tmp_path / "mylab"
    package.mkdir()
    (package / "__init__.py").write_text(WORLD)
    (package / "bonus.py").write_text(BONUS)
    own = ["env=gymnasium", "env.id=mylab:Corridor-v0", "+env.arguments.length=4", "exploration=custom", "exploration._target_=mylab.bonus.far"]
    tiny = ["runner.lanes=4", "runner.rollout=16", "agent.hidden=[16]", "total_steps=2048", "seeds=1", "vmap.exploration.power=[1,2]"]
    environment = os.environ | {"PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"}
    done = subprocess.run([sys.executable, "-m", "runners.cli", "train", *own, *tiny], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.strip().splitlines()[-1])
    assert found["members"] == 2 and found["results"]["episode/best_return/median"] == 1.0
    assert (tmp_path / found["run_dir"] / "policies" / "1-best.msgpack").exists()


def test_overlap_on_a_jax_world_is_refused():
    with pytest.raises(Refusal, match="runner.overlap=true is for worlds on the host"):
        experiment(compose(["env=deep_sea", "runner.overlap=true"])).make_runner({})
