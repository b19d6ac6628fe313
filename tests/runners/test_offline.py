"""Learning from a data set: what is drawn, what bonuses see, what is refused, exact resume, and learning from what a mediocre policy did."""

from __future__ import annotations

import functools
import inspect
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnasium import spaces

from agents.base import Agent, Learnt
from agents.bootstrapped_dqn import bootstrapped_dqn
from envs.base import Spec
from envs.builder import Refusal
from envs.deep_sea import deep_sea
from exploration.base import none
from exploration.combinators import augment
from exploration.counts import counts
from exploration.intrinsic import intrinsic
from exploration.rnd import rnd
from runners import api, dataset
from runners.base import Clock
from runners.compose import compose
from runners.dataset import Episodes
from runners.experiment import experiment
from runners.offline import laid_out, offline
from runners.rundir import digest
from runners.train import assemble
from tests.fit.worlds import plane
from tests.runners.test_resume import split_equals_whole

KEY = jax.random.PRNGKey(0)
LENGTHS = (3, 1, 4)


def numbered() -> Episodes:
    """Episode e: observations 10 e, 10 e + 1, ...; step t pays 10 e + t. The first and the last are truncated, the second terminates."""
    obs = np.concatenate([10 * e + np.arange(n + 1) for e, n in enumerate(LENGTHS)]).astype(np.float32)
    paid = np.concatenate([10 * e + np.arange(n) for e, n in enumerate(LENGTHS)]).astype(np.float32)
    ends = np.isin(paid, [2, 10, 23])
    terminated = paid == 10
    seen, acted = np.stack([obs, obs], 1), np.stack([paid, -paid], 1) / 100
    return Episodes(seen, acted, paid, terminated, ends & ~terminated, {"state_id": paid.astype(np.int32)}, np.asarray(LENGTHS))


SPEC = plane().spec


def test_episodes_become_rows_back_to_back():
    """Every step is drawn alike, none across an end, and the last successor of an episode is its own."""
    data = laid_out(numbered(), SPEC)
    drawn = jax.jit(lambda key: data.buffer.draw(data.rows, key, 4000, 1.0))(KEY)
    reward, obs, after = (np.asarray(x) for x in (drawn.steps.reward[:, 0], drawn.obs[:, 0], drawn.next_obs[:, 0]))
    np.testing.assert_array_equal(obs, reward)
    np.testing.assert_array_equal(after, reward + 1)
    seen, times = np.unique(reward[np.asarray(drawn.weights) > 0], return_counts=True)
    np.testing.assert_array_equal(seen, numbered().reward)
    np.testing.assert_allclose(times, 4000 / 8, rtol=0.15)
    assert float(np.mean(drawn.weights)) > 0.99
    assert set(reward[np.asarray(drawn.steps.terminated[:, 0])].tolist()) == {10}
    assert set(reward[np.asarray(drawn.steps.first[:, 0])].tolist()) == {0, 10, 20}
    np.testing.assert_array_equal(drawn.steps.info["state_id"][:, 0], reward)


def test_windows_end_with_their_episode():
    data = laid_out(numbered(), SPEC, n_step=3)
    drawn = data.buffer.draw(data.rows, KEY, 500, 1.0)
    lengths = {float(r): int(n) for r, n in zip(drawn.steps.reward[:, 0], drawn.length, strict=True)}
    assert lengths == {0: 3, 1: 2, 2: 1, 10: 1, 20: 3, 21: 3, 22: 2, 23: 1}
    np.testing.assert_array_equal(drawn.next_obs[:, 0], drawn.steps.reward[:, 0] + drawn.length)


def test_one_step_is_enough():
    one = jax.tree.map(lambda x: x[:1], numbered())._replace(obs=numbered().obs[:2], lengths=np.asarray([1]))
    data = laid_out(one, SPEC)
    drawn = data.buffer.draw(data.rows, KEY, 64, 1.0)
    assert set(np.asarray(drawn.steps.reward)[np.asarray(drawn.weights) > 0, 0].tolist()) == {0}


# --- the runner --------------------------------------------------------------------------------------------------------


def spy(look):
    """An agent that tells as metrics what ``look(sample, signal)`` finds in its lessons."""

    def act(state, key, inputs):
        return inputs[0], jnp.zeros((*inputs[2].shape, 2)), {}

    def learn(state, key, inputs):
        return state + 1, Learnt({name: jnp.asarray(x, jnp.float32) for name, x in look(*inputs).items()})

    return lambda spec: Agent(lambda key: jnp.int32(0), lambda state, lanes: (), act, learn, learns_from="replay")


@pytest.fixture
def folder(tmp_path):
    dataset.write(tmp_path / "numbered", SPEC.observation, SPEC.action, [numbered()._replace(lengths=np.asarray([8]), obs=numbered().obs[:9])], [None], {})
    return str(tmp_path / "numbered")


def world(**info):
    return plane()._replace(spec=SPEC._replace(info={"state_id": spaces.Discrete(64), **info}, num_states=64))


def runner_of(folder, agent, bonus=none, env=None, **settings):
    return offline(env or world(), agent, lambda spec: intrinsic(spec, bonus(spec), normalize="none", scale=0.5), data=folder, **{"batch_size": 512} | settings)


def iterated(runner, count=1):
    state, step, found = jax.jit(runner.init)(KEY), jax.jit(runner.step), {}
    for n in range(count):
        state, metrics = step(state, Clock(jnp.int32(n), jnp.float32(n / count)))
        found = {name: float(x.total / x.weight) for name, x in metrics.items()}
    return state, found


def test_an_iteration_is_a_number_of_updates_and_their_mean(folder):
    look = spy(lambda sample, signal: {"reward": jnp.mean(signal.streams[0].reward), "weight": signal.streams[0].weight, "progress": signal.progress})
    runner = runner_of(folder, look, updates=3, reward_shift=100.0, extrinsic_weight=2.0)
    assert runner.steps_per_iteration == 3
    state, found = iterated(runner, 2)
    assert int(state.agent) == 6 and found["weight"] == 2.0 and found["progress"] == 0.5
    assert found["reward"] == pytest.approx(100 + numbered().reward.mean(), abs=1.0)


def test_bonuses_go_along_the_data_and_pay_in_batches(folder):
    """Two places, four steps apart, one step each per update: after two iterations of two updates every state was counted once."""
    look = spy(lambda sample, signal: {"low": jnp.min(signal.streams[1].reward), "high": jnp.max(signal.streams[1].reward)})
    bonus = functools.partial(counts, scored="batch")
    state, found = iterated(runner_of(folder, look, bonus, updates=2, lanes=2), 2)
    assert found["low"] == found["high"] == 1.0 and state.bonus.visits.sum() == 8
    _, found = iterated(runner_of(folder, look, bonus, updates=2, lanes=2), 4)
    assert found["low"] == pytest.approx(2**-0.5) and found["high"] == pytest.approx(2**-0.5)


def test_a_bonus_warms_up_on_the_data(folder):
    tiny = functools.partial(rnd, hidden=(4,), embedding=2, minibatches=1)
    states = [jax.jit(runner_of(folder, spy(lambda *_: {}), functools.partial(tiny, warmup=n), lanes=1).init)(KEY) for n in (0, 8)]
    means = [np.concatenate([np.ravel(x) for x in jax.tree.leaves(s.bonus)]) for s in states]
    assert not np.isclose(means[0], 11.25).any() and np.isclose(means[1], 11.25).sum() == 2  # of the eight successors, in both axes


def test_what_the_data_cannot_give_is_refused(folder, tmp_path):
    quiet = spy(lambda *_: {})
    for bonus, message in ((counts, "scored=batch"), (lambda spec: augment(spec, bonus=counts(spec, scored="batch")), "leave augment out")):
        with pytest.raises(Refusal, match=message):
            runner_of(folder, quiet, bonus)
    with pytest.raises(Refusal, match="runner.data has no value"):
        runner_of(None, quiet)
    with pytest.raises(Refusal, match="is not what it was"):
        jax.eval_shape(runner_of(folder, quiet, checksum="00000000").step, *begun(quiet, folder))
    with pytest.raises(Refusal, match="not of this world: its observations"):
        jax.eval_shape(runner_of(folder, quiet, env=deep_sea(size=4)).step, *begun(quiet, folder))
    discrete = [np.zeros(9, np.float32).reshape(9, 1), np.zeros(8, np.int32)]
    spec = Spec(spaces.Box(0.0, 1.0, (1,), np.float32), spaces.Discrete(2), "two")
    parts = [numbered()._replace(obs=discrete[0], action=discrete[1], lengths=np.asarray([8]))]
    dataset.write(tmp_path / "two", spec.observation, spec.action, parts, [None], {})
    masked = runner_of(str(tmp_path / "two"), functools.partial(bootstrapped_dqn, heads=2, hidden=(4,)), env=world()._replace(spec=spec))
    with pytest.raises(Refusal, match="keeps something with every step"):
        jax.eval_shape(masked.step, jax.eval_shape(masked.init, KEY), Clock(jnp.int32(0), jnp.float32(0)))


def begun(agent, folder):
    return jax.eval_shape(runner_of(folder, agent).init, KEY), Clock(jnp.int32(0), jnp.float32(0))


# --- runs --------------------------------------------------------------------------------------------------------------

PLANE = ["env=custom", "env._target_=tests.fit.worlds.plane", "+env.speed=0.1", "+env.limit=12", "+env.goal=0.1"]
OFFLINE = [*PLANE, "runner=offline", "exploration=none", "runner.lanes=2", "runner.batch_size=8", "total_steps=64"]


@pytest.fixture
def played(tmp_path):
    """Random walks in the plane, as a data set."""
    env, parts = plane(speed=0.1, limit=12, goal=0.1), []
    for seed in range(4):
        action = np.random.default_rng(seed).uniform(-1, 1, (12, 2)).astype(np.float32)
        obs = np.concatenate([np.zeros((1, 2), np.float32), np.cumsum(0.1 * action, axis=0)]).clip(-1, 1).astype(np.float32)
        last = np.arange(12) == 11
        parts.append(Episodes(obs, action, (obs[1:] > 0.1).all(1).astype(np.float32), last & False, last, {}, np.asarray([12])))
    dataset.write(tmp_path / "walks", env.spec.observation, env.spec.action, parts, [None] * 4, {})
    return str(tmp_path / "walks")


@pytest.mark.medium
@pytest.mark.parametrize("batching", ["vmap", "map"])
def test_resume_is_exact(played, batching, tmp_path):
    bonus = [o for o in OFFLINE if not o.startswith("exploration")] + ["exploration=rnd", "exploration.hidden=[8]", "exploration.embedding=4"]
    split_equals_whole([*bonus, "exploration.warmup=4", f"runner.data={played}", "agent=sac", "runner=offline", "agent.hidden=[8]"], batching, tmp_path)


def test_the_hash_of_a_run_knows_the_content(played, tmp_path):
    def made():
        return experiment(compose([*OFFLINE, "agent=random", f"runner.data={played}"])).config

    before = made()
    assert before["runner"]["checksum"] == dataset.read(played).checksum
    one = dataset.read(played)
    changed = one.episodes._replace(reward=one.episodes.reward + np.float32(1.0))
    Path(played).rename(tmp_path / "old")
    parts = [jax.tree.map(lambda x: x, changed)._replace(lengths=np.asarray([48]), obs=changed.obs[:49])]
    dataset.write(Path(played), one.observation, one.action, parts, [None], {})
    after = made()
    assert digest(before) != digest(after)
    batch, _, _ = assemble(experiment(before), "vmap")  # what a resumed run would do
    with pytest.raises(Refusal, match="is not what it was"):
        batch.plan()


@pytest.mark.medium
def test_a_run_is_evaluated_and_played_without_its_data(played, tmp_path):
    found = api.train(api.compose(*OFFLINE, "agent=random", "seeds=2", f"runner.data={played}", "logger.console=false"), tmp_path / "runs")
    assert found["steps"] == 64 and all(np.isfinite(m["metrics"]["evaluation/return"]) for m in found["members"])
    Path(played).rename(tmp_path / "away")
    policy = api.policy(found["run_dir"])
    assert policy.act(policy.start(3), KEY, np.zeros((3, 2), np.float32), np.ones(3, bool))[1].shape == (3, 2)


@pytest.mark.medium
def test_host_worlds_are_for_evaluation_only(tmp_path):
    """A DQN learns in LastMatters, from data, that action 1 pays 1: three steps make 3. Exact when resumed."""
    rng, parts = np.random.default_rng(0), []
    for episode in range(20):
        action = rng.integers(0, 2, 3).astype(np.int64)
        obs = np.stack([np.full(4, episode % 2 + 1), np.arange(4)], 1).astype(np.float64)
        last = np.arange(3) == 2
        parts.append(Episodes(obs, action, action.astype(np.float64), last & (episode % 2 == 0), last & (episode % 2 == 1), {}, np.asarray([3])))
    dataset.write(tmp_path / "last", spaces.Box(-np.inf, np.inf, (2,), np.float64), spaces.Discrete(2), parts, [None] * 20, {})
    world = ["env=gymnasium", "env.id=tests.envs.last_matters:LastMatters-v0", "runner=offline", f"runner.data={tmp_path / 'last'}"]
    settings = [*world, "agent=dqn", "agent.learning_rate=1e-2", "agent.hidden=[16]", "exploration=none", "runner.lanes=2", "runner.batch_size=32"]
    split_equals_whole([*settings, "runner.updates=4"], "vmap", tmp_path / "checkpoints")
    found = api.train(api.compose(*settings, "seeds=2", "total_steps=400", "logger.console=false"), tmp_path / "runs")
    assert [m["metrics"]["evaluation/return"] for m in found["members"]] == [3.0, 3.0]


def test_arguments_are_those_of_the_other_runners():
    from runners.off_policy import off_policy

    others, mine = (inspect.signature(f).parameters for f in (off_policy, offline))
    shared = set(others) & set(mine)
    assert shared >= {"lanes", "updates", "batch_size", "n_step", "discount", "extrinsic_weight", "reward_shift", "shift_mode", "evaluation_mode"}
    assert {name: others[name].default for name in shared} == {name: mine[name].default for name in shared}
