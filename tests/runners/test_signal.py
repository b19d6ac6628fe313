"""The bonus reaches the learner (a peer ships one that never does), and ends of episodes are what they are."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from envs.builder import Refusal, build
from runners.iteration import correlation
from runners.source import jax_source
from tests.runners.tiny import AGENTS, BONUSES, TINY, batch_of


@pytest.mark.parametrize("bonus", ["counts", pytest.param("rnd", marks=pytest.mark.medium), pytest.param("e3b", marks=pytest.mark.medium)])
@pytest.mark.parametrize("mix", ["heads", pytest.param("sum", marks=pytest.mark.medium), pytest.param("sum_then_clip", marks=pytest.mark.medium)])
def test_scale_changes_the_first_policy_gradient(bonus, mix):
    """One plain step on the first rollout: with one epoch of one minibatch the change of the parameters is the gradient's."""
    one_step = ["agent.epochs=1", "agent.minibatches=1", f"agent.mix={mix}", "agent.learning_rate_schedule=constant"]
    tiny = [setting for setting in TINY if not setting.startswith(("agent.epochs", "agent.minibatches"))]
    batch, total = batch_of([*tiny, *BONUSES[bonus], *one_step, "seeds=1", "vmap.exploration.scale=[0,1e-30,1]"], "vmap")
    batch.start()
    before = batch.snapshot()[0].agent.params["params"]
    batch.run(0, 1, total)
    after = batch.snapshot()[0].agent.params["params"]
    change = jax.tree.map(lambda a, b: a - b, after, before)
    policy = jax.tree.leaves({name: change[name] for name in ("actor", "policy")})
    assert all(np.array_equal(leaf[0], leaf[1]) for leaf in policy)  # next to nothing, the same gradient
    assert any(np.max(np.abs(leaf[0] - leaf[2])) > 1e-5 for leaf in policy)


def test_without_a_bonus_nothing_intrinsic_is_learnt_or_logged():
    batch, total = batch_of([*TINY, *BONUSES["none"], "seeds=1"], "vmap")
    batch.start()
    assert batch.snapshot()[0].agent.params["params"]["value"]["kernel"].shape[-1] == 1
    batch.run(0, total, total)
    assert not any(name.startswith("bonus/") for name in batch.take_metrics()[0])


def test_the_successor_is_the_true_one_and_truncation_is_not_termination():
    """CartPole cut after 5 steps: the last transition keeps its own successor, and only ``truncated`` is set."""
    from envs.gymnax import gymnax
    from runners.source import jax_source

    source = jax_source(gymnax(id="CartPole-v1", max_steps_in_episode=5), 3)
    state = source.init(jax.random.PRNGKey(0))
    for t in range(5):
        before = state
        state, step = source.step(state, jax.random.PRNGKey(t), jnp.array([t % 2] * 3))
        assert not step.terminated.any() and step.truncated.all() == (t == 4)
        np.testing.assert_array_equal(step.obs, before.obs)
    assert step.info["episode_length"].tolist() == [5, 5, 5] and step.info["episode_return"].tolist() == [5, 5, 5]
    fresh = source.restart(state, jax.random.PRNGKey(9), jnp.array([True, False, True]))
    np.testing.assert_array_equal(fresh.obs[1], step.next_obs[1])
    assert (np.abs(np.asarray(fresh.obs[0])) <= 0.05).all() and not np.allclose(fresh.obs[0], step.next_obs[0])
    assert fresh.first.tolist() == [True, False, True] and fresh.episode_length.tolist() == [0, 5, 0]


def test_given_starts_are_used():
    """An archive's choice of where episodes go on: return and length so far come along, whether or not the start is the first of its episode."""
    from envs.deep_sea import deep_sea
    from runners.source import jax_source

    source = jax_source(deep_sea(size=4), 2)
    state = source.init(jax.random.PRNGKey(0))
    later, _ = source.step(state, jax.random.PRNGKey(1), jnp.array([0, 0]))
    again = source.restart(state, jax.random.PRNGKey(2), jnp.array([False, True]), later)
    np.testing.assert_array_equal(again.obs[0], state.obs[0])
    np.testing.assert_array_equal(again.obs[1], later.obs[1])
    assert not np.array_equal(again.obs[0], again.obs[1])
    assert again.episode_length.tolist() == [0, 1] and again.first.tolist() == [True, False]
    assert again.episode_return[1] == later.episode_return[1]


def test_costly_resets_start_each_lane_as_it_would_start_anyway():
    """Drawn for few lanes at a time, every start is the one its own key gives, and lanes that go on are left alone."""
    env = build({"_target_": "envs.minigrid.world.minigrid", "id": "MiniGrid-DoorKey-5x5-v0"})
    few, all_at_once = (jax_source(env._replace(costly_reset=costly), 300) for costly in (True, False))
    state = few.init(jax.random.PRNGKey(0))
    for mask in (jnp.arange(300) % 7 == 0, jnp.zeros(300, bool), jnp.ones(300, bool)):
        restarted = [jax.jit(source.restart)(state, jax.random.PRNGKey(1), mask) for source in (few, all_at_once)]
        jax.tree.map(np.testing.assert_array_equal, *restarted)
        assert not np.array_equal(restarted[0].obs, state.obs) == bool(mask.any())


def test_the_bonus_is_held_against_true_counts():
    """In worlds that number their states: counts agree with 1/sqrt(N) of the whole run, and a run without a bonus has no such number."""
    batch, total = batch_of([*TINY, "exploration=counts", "seeds=1"], "vmap")
    batch.start()
    batch.run(0, total, total)
    assert 0.6 < batch.take_metrics()[0]["bonus/count_correlation"] <= 1.0
    batch, _ = batch_of([*TINY, "exploration=none", "seeds=1"], "vmap")
    batch.start()
    batch.run(0, 1, total)
    assert "bonus/count_correlation" not in batch.take_metrics()[0]


def test_true_counts_of_fingerprints():
    """A world whose states are too many to number: whole-level counts agree with the record, counts of views less so."""
    found = {}
    for key in ("state", "observation"):
        settings = ["env=minigrid", "env.id=MiniGrid-Empty-5x5-v0", "runner.lanes=8", "runner.rollout=32", "agent.hidden=[8]", "total_steps=2048", "seeds=1"]
        batch, total = batch_of([*settings, "exploration=counts", f"exploration.key={key}"], "vmap")
        batch.start()
        batch.run(0, total, total)
        found[key] = batch.take_metrics()[0]["bonus/count_correlation"]
    assert 0.6 < found["state"] <= 1.0 and found["observation"] < found["state"], found


SMALL = [setting for setting in TINY if not setting.startswith("env.")]  # of worlds that never show an observation of zeros: its code is chance


def counted_codes(world: list[str], *settings: str) -> float:
    """What counts of codes (SimHash, exact: rounding does not matter) pay on average over a tiny run."""
    codes = ["exploration=simhash", "exploration.table=exact", "exploration.capacity=1024", "exploration.bits=64"]
    batch, total = batch_of([*world, *codes, "seeds=1", *settings], "vmap")
    batch.start()
    batch.run(0, total, total)
    paid = batch.take_metrics()[0]["bonus/raw"]
    batch.close()
    return paid


@pytest.mark.medium
@pytest.mark.parametrize("world", [["env=tabular", "env.id=line", *SMALL], ["env=gymnasium", "env.id=FrozenLake-v1", *SMALL]], ids=["jax", "host"])
def test_a_bonus_may_be_given_the_agents_encoding(world):
    """``input=latent``: as long as the agent does not learn, every observation has an encoding of its own, and counts are the same. When it
    learns, a state seen again looks new."""
    still, learning, latent = "agent.learning_rate=1e-30", "agent.learning_rate=0.03", "exploration.input=latent"
    assert counted_codes(world, still, latent) == pytest.approx(counted_codes(world, still), rel=1e-5)
    assert counted_codes(world, learning, latent) > 1.1 * counted_codes(world, learning)


def test_an_encoding_that_does_not_exist_is_refused():
    with pytest.raises(Refusal, match="this agent has none"):
        batch_of([*AGENTS["random"], "exploration=counts", "exploration.input=latent", "seeds=1"], "vmap")
    shown = ["exploration=custom", "exploration._target_=exploration.combinators.augment", "+exploration.bonus._target_=exploration.e3b.e3b"]
    with pytest.raises(Refusal, match="augment"):
        batch_of([*TINY, *shown, "exploration.input=latent", "seeds=1"], "vmap")


def test_correlation_is_pearsons():
    x, y = np.random.default_rng(0).normal(size=(2, 6, 5)).astype(np.float32)
    found = correlation(jnp.asarray(x), jnp.asarray(y))
    np.testing.assert_allclose(found.total / found.weight, np.corrcoef(x.ravel(), y.ravel())[0, 1], rtol=1e-4)
    assert float(correlation(jnp.ones((3, 2)), jnp.asarray(y[:3, :2])).weight) == 0
