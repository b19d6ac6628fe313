"""The replay runner: what the agent is given, when it learns, and what cannot be combined."""

from __future__ import annotations

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from agents.base import Agent, Learnt, RewardStream
from agents.ppo import ppo
from agents.replay import Drawn
from envs.base import Transition
from envs.builder import Refusal, build
from envs.deep_sea import deep_sea
from exploration.base import none
from exploration.counts import counts
from exploration.intrinsic import intrinsic
from runners.base import Clock
from runners.compose import groups
from runners.host_batch import HostBatch
from runners.off_policy import off_policy
from runners.on_policy import on_policy
from runners.replaying import prepared
from tests.runners.tiny import batch_of

KEY, LANES, SIZE = jax.random.PRNGKey(0), 4, 4


def spy(look, priorities=None):
    """An agent that always takes action 0, and tells as metrics what ``look(sample, signal)`` finds in its lessons."""

    def act(state, key, inputs):
        memory, _, first, _ = inputs
        return memory, jnp.zeros(first.shape, jnp.int32), {}

    def learn(state, key, inputs):
        return state + 1, Learnt({name: jnp.asarray(x, jnp.float32) for name, x in look(*inputs).items()}, priorities and priorities(inputs[0]))

    return lambda spec: Agent(lambda key: jnp.int32(0), lambda state, lanes: (), act, learn, learns_from="replay")


def run(agent, iterations=3, bonus=none, mdp=None, **arguments):
    """(state, [metrics as numbers, per iteration]); an iteration is an episode of DeepSea."""
    given = {"lanes": LANES, "rollout": SIZE, "updates": 2, "batch_size": 64, "capacity": 4000, "learning_starts": 0, "random_steps": 0} | arguments
    runner = off_policy(mdp or deep_sea(size=SIZE), agent, lambda spec: intrinsic(spec, bonus(spec), normalize="none", scale=0.5), **given)
    state, step, found = jax.jit(runner.init)(KEY), jax.jit(runner.step), []
    for i in range(iterations):
        state, metrics = step(state, Clock(jnp.int32(i), jnp.float32(i / iterations)))
        found.append({name: float(m.total / m.weight) for name, m in metrics.items() if hasattr(m, "weight") and float(m.weight)})
    return state, found


def test_rewards_are_summed_after_they_were_scored():
    """Windows of three steps, by hand: cut by the episode's end, by the newest step, and whole."""
    within = jnp.asarray([[True, True, False], [True, False, False], [True, True, True]])
    reward, flags = jnp.asarray([[1.0, 2.0, 4.0]] * 3), jnp.zeros((3, 3), bool)
    terminated = flags.at[0, 1].set(True).at[1, 2].set(True)  # the second is beyond its window
    steps = Transition(jnp.zeros((3, 3, 1)), jnp.arange(9).reshape(3, 3), reward, jnp.zeros((3, 3, 1)), terminated, flags, flags, {})
    drawn = Drawn(steps, within, jnp.asarray([2, 1, 3]), jnp.zeros((3, 1)), jnp.ones((3, 1)), (), jnp.arange(3), jnp.ones(3))

    def rescore(agent_state, bonus_state, transitions):
        return (RewardStream(transitions.reward, 0.5, 1.0, True), RewardStream(10 * transitions.reward, 0.1, 2.0, True)), transitions

    sample, (world, bonus), first = prepared(SimpleNamespace(rescore=rescore), None, None, drawn)
    np.testing.assert_allclose(world.reward, [2.0, 1.0, 3.0])
    np.testing.assert_allclose(world.discount, [0.25, 0.5, 0.125])
    np.testing.assert_allclose(bonus.reward, [12.0, 10.0, 12.4], rtol=1e-6)
    np.testing.assert_allclose(bonus.discount, [0.01, 0.1, 0.001], rtol=1e-6)
    assert sample.terminated.tolist() == [True, False, False] and sample.action.tolist() == [0, 3, 6]
    assert first.reward.tolist() == [1.0, 1.0, 1.0] and bonus.weight == 2.0
    np.testing.assert_array_equal(sample.next_obs, 1.0)


def test_learning_starts_when_it_was_told_to():
    state, found = run(spy(lambda sample, signal: {"one": 1.0}), iterations=5, learning_starts=3 * LANES * SIZE, updates=3)
    assert int(state.agent) == 9  # after iterations 3, 4 and 5
    assert ["one" in metrics for metrics in found] == [False, False, True, True, True]


def test_random_steps_come_first():
    look = spy(lambda sample, signal: {"other": jnp.mean(sample.action != 0), "weights": jnp.min(sample.weights)})
    never, twice = run(look)[1], run(look, random_steps=2 * LANES * SIZE)[1]
    assert all(metrics["other"] == 0.0 for metrics in never)
    assert twice[0]["other"] > 0.2 and 0.1 < twice[2]["other"] < twice[0]["other"] and twice[2]["weights"] == 1.0


@pytest.mark.parametrize("scored", ["batch", "step"])
def test_a_bonus_is_worth_what_it_is_now_or_what_it_was_then(scored):
    """Action 0 in DeepSea: after n episodes of 4 lanes each of the states was reached 4 n times."""

    def look(sample, signal):
        reward = signal.streams[1].reward
        return {"low": jnp.min(reward), "high": jnp.max(reward), "weight": signal.streams[1].weight}

    _, found = run(spy(look), bonus=lambda spec: counts(spec, scored=scored))
    for n, metrics in enumerate(found, start=1):
        newest = 1.0 / np.sqrt(LANES * n)
        np.testing.assert_allclose([metrics["low"], metrics["high"]], [newest, newest if scored == "batch" else 0.5], rtol=1e-6)
        assert metrics["weight"] == 0.5


def test_priorities_decide_what_is_drawn():
    """Only rewarded samples keep a priority: they are soon all that is drawn. Without the agent's priorities it is refused."""
    world = build({"_target_": "envs.tabular.tabular", "id": "chain"})
    look = spy(lambda sample, signal: {"paid": jnp.mean(signal.streams[0].reward > 0.5)}, lambda sample: 1e-6 + sample.obs[:, -1])
    settings = {"mdp": world, "prioritized": True, "priority_exponent": 1.0, "random_steps": 10_000, "rollout": 20, "updates": 30}
    uniform = run(look, **settings | {"prioritized": False})[1][-1]["paid"]
    assert run(look, **settings)[1][-1]["paid"] > 2 * uniform > 0
    with pytest.raises(Refusal, match="prioritized"):
        run(spy(lambda sample, signal: {}), prioritized=True)


def test_agents_and_runners_that_do_not_fit():
    with pytest.raises(Refusal, match="use runner=on_policy"):
        run(lambda spec: ppo(spec))
    with pytest.raises(Refusal, match="use runner=off_policy"):
        on_policy(deep_sea(size=SIZE), spy(lambda *_: {}), lambda spec: intrinsic(spec, none(spec)))


@pytest.mark.medium
@pytest.mark.parametrize("prioritized", [False, True])
def test_lessons_ahead_lag_by_the_steps_of_one_iteration(prioritized):
    """The place in the episode of the newest observation that a lesson has seen, iteration by iteration, and how many lessons there were."""

    def look(sample, signal):
        return {"newest": jnp.max(jnp.where(sample.weights > 0, sample.obs[:, 1], 0.0))}

    def lived(overlap):
        env = build({"_target_": "envs.gymnasium.gymnasium", "id": "tests.envs.last_matters:LastMatters-v0"})
        settings = {"lanes": 1, "updates": 2, "batch_size": 64, "capacity": 64, "learning_starts": 0, "random_steps": 0}

        def made(hyper):
            agent = spy(look, lambda sample: 1.0 + sample.obs[:, 1])
            return off_policy(env, agent, lambda spec: intrinsic(spec, none(spec)), prioritized=prioritized, overlap=overlap, axis="members", **settings)

        batch, found = HostBatch(made, jax.random.split(KEY, 1), {}, made({})), []
        batch.plan()
        batch.compile()
        batch.start()
        for n in range(3):
            batch.run(n, 1, 3)
            found.append(batch.take_metrics()[0].get("newest"))
        learns = int(np.asarray(batch.snapshot()[0].agent)[0])
        batch.close()
        return found, learns

    assert lived(False) == ([0.0, 1.0, 2.0], 6)
    assert lived(True) == ([None, 0.0, 1.0], 4)


MADE = [
    "agent=random",
    "runner=off_policy",
    "runner.lanes=4",
    "runner.rollout=2",
    "runner.updates=2",
    "runner.batch_size=16",
    "runner.capacity=256",
    "runner.learning_starts=8",
    "runner.random_steps=0",
    "runner.n_step=2",
    "seeds=1",
]
SMALLER = {name: ["exploration.warmup=4"] for name in ("rnd", "noveld", "ngu")}
SMALLER["cfn"] = ["exploration.warmup=4", "exploration.updates_per_batch=1", "exploration.batch_size=16"]


@pytest.mark.slow
@pytest.mark.parametrize("world", [["env=gymnax", "env.id=MountainCarContinuous-v0"], ["env=gymnasium", "env.id=CartPole-v1"]], ids=["jax", "host"])
@pytest.mark.parametrize("bonus", [name for name in groups()["exploration"] if name not in ("custom", "none")])
def test_every_bonus_pays_and_learns_from_a_replay(bonus, world):
    batch, total = batch_of([*world, *MADE, f"exploration={bonus}", *SMALLER.get(bonus, [])], "vmap")
    batch.start()
    batch.run(0, total, total)
    found = {name: value for name, value in batch.take_metrics()[0].items() if name.startswith("bonus/") and value is not None}
    batch.close()
    assert batch.sound().all() and np.isfinite(list(found.values())).all()
    assert found["bonus/raw"] > 0.0
