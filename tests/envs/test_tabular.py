"""Finite MDPs as worlds: what is drawn agrees with the arrays, and what the best policy earns with the oracle."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnasium import spaces

from envs import oracle
from envs.builder import Refusal
from envs.finite_mdp import FiniteMDP, FiniteMDPState, outcomes, world
from envs.tabular import named_mdp, tabular, value_table
from envs.tabular_mdps import MDPS
from runners.compose import compose
from runners.experiment import experiment
from runners.source import jax_source
from tests.runners.tiny import batch_of

each_mdp = pytest.mark.parametrize("id", MDPS)
TWO = FiniteMDP(np.array([[[0.25, 0.75]], [[1.0, 0]]]), np.array([[[0.2, 0.6]], [[1.0, 5]]]), np.array([0.5, 0.5]), 3)


def rollout(env, policy, episodes, seed=0):
    """Time steps [H, episodes] of ``policy`` i[H, S]."""
    horizon, policy = env.spec.max_steps, jnp.asarray(policy, jnp.int32)

    def step(states, inputs):
        key, actions = inputs
        states, steps = jax.vmap(env.step)(states, jax.random.split(key, episodes), actions[states.state])
        return states, steps

    def run(key):
        states, _ = jax.vmap(env.reset)(jax.random.split(key, episodes))
        return jax.lax.scan(step, states, (jax.random.split(jax.random.fold_in(key, 1), horizon), policy))[1]

    return jax.tree.map(np.asarray, jax.jit(run)(jax.random.key(seed)))


def draws(env, number):
    """Rewards and successors [S, A, number] of every state and action."""
    spec = env.spec

    def one(state, action, key):
        new, made = env.step(FiniteMDPState(state, jnp.int32(0)), key, action)
        return made.reward, new.state

    every = jax.vmap(jax.vmap(jax.vmap(one, (None, None, 0)), (None, 0, None)), (0, None, None))
    made = jax.jit(every)(jnp.arange(spec.num_states), jnp.arange(spec.action.n), jax.random.split(jax.random.key(7), number))
    return tuple(map(np.asarray, made))


@each_mdp
def test_successors_and_rewards_are_those_of_the_arrays(id):
    mdp, number = named_mdp(id), 4000
    rewards, successors = draws(tabular(id=id), number)
    for s in range(mdp.num_states):
        for a in range(mdp.num_actions):
            found = np.bincount(successors[s, a], minlength=mdp.num_states) / number
            error = np.sqrt(mdp.P[s, a] * (1 - mdp.P[s, a]) / number)
            assert (np.abs(found - mdp.P[s, a]) <= 5 * error).all(), (s, a)  # so 0 and 1 are exact
            np.testing.assert_array_equal(rewards[s, a], mdp.R[s, a, successors[s, a]].astype(np.float32))


@pytest.mark.parametrize(("id", "horizon"), [("riverswim_osband", 20), ("riverswim_strehl_littman", 60), ("six_arms", 80), ("double_chain", 20), ("chain", 20)])
def test_the_best_policy_earns_what_the_oracle_says(id, horizon):
    mdp = named_mdp(id, horizon=horizon)
    steps = rollout(tabular(id=id, horizon=horizon), oracle.optimal(mdp)[0].argmax(-1), 20_000)
    returns = steps.reward.astype(float).sum(0)
    assert returns.std() > 0
    assert returns.mean() == pytest.approx(oracle.optimal_return(mdp), abs=4 * returns.std() / np.sqrt(len(returns)))


def test_the_best_policy_of_the_grid():
    steps = rollout(tabular(id="grid_world"), oracle.optimal(named_mdp("grid_world"))[0].argmax(-1), 5000)
    returns = steps.reward.sum(0)
    assert returns.mean() == pytest.approx(4.369488, abs=4 * returns.std() / np.sqrt(5000))


def test_where_the_reward_of_riverswim_is_paid():
    """TabulaRL pays for swimming right in the last state, Strehl and Littman for staying there."""
    osband, successors = draws(tabular(id="riverswim_osband"), 100)
    assert (osband[5, 1] == 1).all() and set(successors[5, 1].tolist()) == {4, 5}
    littman, successors = draws(tabular(id="riverswim_strehl_littman"), 100)
    assert set(littman[5, 0].tolist()) == {0, 10000} and ((littman[5, 0] > 0) == (successors[5, 0] == 5)).all()
    assert (littman[0, 1] == 5).all() and (littman[:5, 0] == 0).all()


def test_starts():
    starts = jax.jit(jax.vmap(tabular(id="riverswim_strehl_littman").reset))(jax.random.split(jax.random.key(0), 10_000))[0].state
    assert set(np.unique(starts).tolist()) == {1, 2} and np.mean(starts == 1) == pytest.approx(0.5, abs=0.02)
    fixed = {"riverswim_osband": 0, "six_arms": 0, "double_chain": 15, "grid_world": 220, "chain": 0, "line": 3}
    for id, state in fixed.items():
        assert int(tabular(id=id).reset(jax.random.key(1))[0].state) == state, id


@pytest.mark.parametrize(("id", "continuing"), [*((id, None) for id in MDPS), ("six_arms", False), ("line", True)])
def test_the_horizon_terminates_and_that_of_a_continuing_mdp_truncates(id, continuing):
    env = tabular(id=id, horizon=5, continuing=continuing)
    steps = rollout(env, np.zeros((5, env.spec.num_states)), 2)
    truncates = id in ("riverswim_strehl_littman", "six_arms") if continuing is None else continuing
    over, never = (steps.truncated, steps.terminated) if truncates else (steps.terminated, steps.truncated)
    assert not never.any() and not over[:-1].any() and over[-1].all()


def test_observations():
    shown = {}
    for kind in ("one_hot", "index", "time"):
        env = tabular(id="line", observation=kind)
        _, first = env.reset(jax.random.key(0))
        steps = rollout(env, np.ones((12, 7)), 1)
        shown[kind] = np.concatenate([np.asarray(first)[None], steps.obs[:, 0]])
        assert all(env.spec.observation.contains(obs) for obs in shown[kind])
    assert shown["index"].tolist() == [3, 4, 5, *[6] * 10] and isinstance(tabular(id="line", observation="index").spec.observation, spaces.Discrete)
    np.testing.assert_array_equal(shown["one_hot"], np.eye(7)[shown["index"]])
    np.testing.assert_array_equal(shown["time"][:, :7], shown["one_hot"])
    np.testing.assert_allclose(shown["time"][:, 7], np.arange(12, -1, -1) / 12, atol=1e-7)


def test_bernoulli_rewards_are_zero_or_one_with_the_same_mean():
    rewards, successors = draws(world(TWO._replace(R=TWO.R.clip(0, 1)), bernoulli=True), 10_000)
    assert set(np.unique(rewards).tolist()) == {0, 1}
    for successor, mean in ((0, 0.2), (1, 0.6)):
        paid = rewards[0, 0][successors[0, 0] == successor]
        assert paid.mean() == pytest.approx(mean, abs=4 * np.sqrt(0.25 / paid.size))  # drawn apart from the successor
    assert (rewards[1, 0] == 1).all()
    world(TWO, bernoulli=True)  # the 5 is never paid
    with pytest.raises(Refusal, match=r"env.bernoulli=true needs rewards in \[0, 1\]; those of six_arms lie in \[0, 6000\]"):
        tabular(id="six_arms", bernoulli=True)


def test_what_the_spec_says():
    maps = {id: tabular(id=id).spec for id in MDPS if id != "six_arms"}
    assert {id: (spec.grid, spec.num_cells) for id, spec in maps.items()} == {
        "riverswim_osband": ((1, 6), 6),
        "riverswim_strehl_littman": ((1, 6), 6),
        "double_chain": ((1, 31), 31),
        "grid_world": ((21, 21), 441),
        "chain": ((1, 5), 5),
        "line": ((1, 7), 7),
    }
    arms = tabular(id="six_arms").spec
    assert arms.grid is None and "position" not in arms.info and arms.num_states == 7
    assert tabular(id="grid_world", horizon=3).spec.num_cells == 25 and tabular(id="double_chain", horizon=4).spec.num_cells == 9
    assert [id for id in MDPS if tabular(id=id).spec.deterministic] == ["line"]
    assert tabular(id="grid_world", fail_probability=0.0).spec.deterministic and tabular(id="chain", fail_probability=1.0).spec.deterministic
    assert not tabular(id="chain", fail_probability=0.0, bernoulli=True).spec.deterministic  # 0.05 is drawn
    assert tabular(id="riverswim_osband", states=8).spec.name == "riverswim_osband-8"


def test_positions_are_the_cells_of_the_map():
    steps = rollout(tabular(id="grid_world", fail_probability=0.0), np.repeat([3] * 12 + [1] * 8, 441).reshape(20, 441), 1)
    assert steps.info["position"][[0, 10, 12, 19], 0].tolist() == [[11, 10], [20, 10], [20, 11], [20, 18]]
    np.testing.assert_array_equal(steps.info["state_id"], steps.info["position"] @ [21, 1])
    assert rollout(tabular(id="line"), np.zeros((12, 7)), 1).info["position"][:4, 0].tolist() == [[0, 2], [0, 1], [0, 0], [0, 0]]


def test_only_what_may_happen_is_kept():
    assert {id: outcomes(named_mdp(id).P, named_mdp(id).R).successors.shape[-1] for id in MDPS} == {
        "riverswim_osband": 3, "riverswim_strehl_littman": 3, "six_arms": 2, "double_chain": 2, "grid_world": 4, "chain": 2, "line": 1
    }  # fmt: skip


def test_regret_of_the_returns():
    """Swimming left is certain, so what is lost is exact; the episode that has not ended does not count."""
    env = tabular(id="riverswim_osband", horizon=20)
    source = jax_source(env, lanes=2)

    def step(lanes, key):
        lanes, transition = source.step(lanes, key, jnp.zeros(2, jnp.int32))
        return source.restart(lanes, key, transition.done), transition

    _, transitions = jax.lax.scan(step, source.init(jax.random.key(0)), jax.random.split(jax.random.key(1), 50))
    report = env.tally.report(env.tally.update(env.tally.init(), transitions))
    assert float(report["regret"]) == pytest.approx(4 * 3.297264, abs=1e-4) and float(report["regret_per_episode"]) == pytest.approx(3.297264, abs=1e-5)


def test_pictures():
    env = tabular(id="line")
    state, _ = env.reset(jax.random.key(0))
    image = env.render(state)
    assert image.shape == (30, 168, 3) and image[12, 3 * 24 + 12].tolist() == [255, 255, 255] and image[12, 12].tolist() == [38, 42, 52]
    later = env.render(FiniteMDPState(jnp.int32(6), jnp.int32(6)))
    assert later[12, 3 * 24 + 12].tolist() == [44, 78, 128] and later[12, 6 * 24 + 12].tolist() == [255, 255, 255]
    assert [np.sum(picture[26] == (96, 176, 120)) // 3 for picture in (image, later)] == [168, 84]  # the time that remains
    gold = tabular(id="grid_world").render(state)
    assert gold.shape == (21 * 12 + 6, 252, 3) and gold[16 * 12 + 6, 16 * 12 + 6].tolist() == [244, 196, 64]


def test_refusals():
    with pytest.raises(Refusal, match="env.id=river_swim_osband.*did you mean riverswim_osband.*six_arms"):
        tabular(id="river_swim_osband")
    with pytest.raises(Refusal, match="env.states: six_arms has no such option, it takes horizon; leave it at env.states=null"):
        tabular(id="six_arms", states=9)
    with pytest.raises(Refusal, match="env.fail_probability: line has no such option, it takes states, horizon"):
        experiment(compose(["env=tabular", "env.id=line", "env.fail_probability=0.5"])).make_runner({})
    for wrong in ("env.states=1", "env.horizon=0", "env.fail_probability=1.5", "env.observation=pixels", "env.continuing=2"):
        with pytest.raises(Refusal, match=wrong.split("=")[0] + "=.*must be"):
            experiment(compose(["env=tabular", wrong]))
    with pytest.raises(Refusal, match="cannot differ inside one"):
        experiment(compose(["env=tabular", "env.id=chain", "vmap.env.fail_probability=[0.1,0.2]"]))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"P": np.ones((2, 3))}, r"P must be \[S, A, S\].*\(2, 3\)"),
        ({"P": TWO.P * 0.9}, "row 0 of 2 sums to 0.9"),
        ({"P": np.array([[[1.5, -0.5]], [[0, 1]]])}, "every row of P must be probabilities"),
        ({"R": np.zeros((2, 1))}, r"R must be \(2, 1, 2\)"),
        ({"p0": np.array([0.5, 0.4])}, "row 0 of 1 sums to 0.9"),
        ({"horizon": 0}, "the horizon 1 or more; it is 0"),
    ],
)
def test_arrays_that_are_no_mdp(change, said):
    with pytest.raises(Refusal, match=said):
        world(TWO._replace(**change))


def test_a_grid_that_does_not_fit():
    with pytest.raises(Refusal, match="a grid of 2 x 2 has 4 cells, and the MDP 2 states"):
        world(TWO, grid=(2, 2))


def test_the_page_shows_the_exact_values():
    page = (Path(__file__).resolve().parents[2] / "docs" / "tabular.md").read_text()
    assert value_table() in page


@pytest.mark.medium
def test_a_run_on_the_line():
    tiny = ["env=tabular", "env.id=line", "exploration=counts", "runner.lanes=4", "runner.rollout=12", "total_steps=384", "seeds=1"]
    batch, total = batch_of([*tiny, "agent.hidden=[8]", "agent.minibatches=2", "agent.epochs=2"], "vmap")
    batch.start()
    batch.run(0, total, total)
    metrics = batch.take_metrics()[-1]
    assert metrics["episode/length"] == 12 and metrics["episode/return"] == 0 and metrics["world/regret"] == 0
    assert metrics["episode/coverage"] == 1.0 and metrics["episode/count"] == 32
