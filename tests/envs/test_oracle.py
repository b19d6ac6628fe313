"""Exact values against known answers, against each other, and against the enumeration of every policy."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from envs import oracle
from envs.finite_mdp import FiniteMDP
from envs.tabular import named_mdp

BEST = [
    ("riverswim_osband", {"horizon": 15}, 1.59755),
    ("riverswim_osband", {"horizon": 20}, 3.397264),
    ("riverswim_osband", {"horizon": 25}, 5.41929),
    ("riverswim_osband", {"horizon": 50}, 16.07211),
    ("riverswim_osband", {"horizon": 20, "states": 8}, 1.40194),
    ("riverswim_osband", {"horizon": 20, "states": 10}, 0.38923),
    ("riverswim_osband", {"horizon": 20, "states": 12}, 0.10627),
    ("riverswim_osband", {"horizon": 20, "states": 20}, 0.1),  # too far: left is best
    ("double_chain", {"horizon": 20}, 1.752123),
    ("double_chain", {"horizon": 30}, 9.134643),
    ("double_chain", {"horizon": 50}, 25.125),
    ("double_chain", {"horizon": 100}, 65.125),
    ("grid_world", {"horizon": 20}, 4.369488),
]


def made_up(seed: int = 0, states: int = 3, actions: int = 2, horizon: int = 4) -> FiniteMDP:
    generator = np.random.default_rng(seed)
    P = generator.dirichlet(np.ones(states), (states, actions))
    return FiniteMDP(P, generator.normal(size=P.shape), generator.dirichlet(np.ones(states)), horizon)


def uniform(mdp: FiniteMDP) -> np.ndarray:
    return np.full((mdp.num_states, mdp.num_actions), 1 / mdp.num_actions)


def always(mdp: FiniteMDP, action: int) -> np.ndarray:
    return np.full(mdp.num_states, action)


@pytest.mark.parametrize(("id", "arguments", "value"), BEST)
def test_best_returns(id, arguments, value):
    assert oracle.optimal_return(named_mdp(id, **arguments)) == pytest.approx(value, abs=1e-5)


@pytest.mark.parametrize(("id", "value"), [("riverswim_strehl_littman", 3_336_494), ("six_arms", 29_400_000)])
def test_best_returns_of_five_thousand_steps(id, value):
    assert oracle.optimal_return(named_mdp(id)) == pytest.approx(value, abs=0.5)


@pytest.mark.parametrize(("id", "value"), [("riverswim_osband", 0.428622), ("riverswim_strehl_littman", 668.807), ("six_arms", 6000), ("line", 0)])
def test_gains(id, value):
    assert oracle.gain(named_mdp(id)) == pytest.approx(value, rel=1e-6, abs=5e-7)


def test_paying_wherever_the_current_goes_is_another_riverswim():
    """The common error of ports: 10000 for every right in the last state, not only where one stays."""
    mdp = named_mdp("riverswim_strehl_littman")
    wrong = mdp.R.copy()
    wrong[5, 0, :] = 10000
    assert oracle.gain(mdp._replace(R=wrong)) == pytest.approx(2229.36, abs=0.005)


@pytest.mark.parametrize("horizon", [1, 20, 50])
def test_swimming_left_earns_its_crumbs(horizon):
    mdp = named_mdp("riverswim_osband", horizon=horizon)
    assert oracle.policy_return(mdp, always(mdp, 0)) == pytest.approx(0.005 * horizon, abs=1e-12)


def test_left_and_the_first_arm_for_five_thousand_steps():
    river, arms = named_mdp("riverswim_strehl_littman"), named_mdp("six_arms")
    assert oracle.evaluate(river, always(river, 1))[0, 0] == pytest.approx(25_000)
    assert oracle.policy_return(river, always(river, 1)) == pytest.approx(25_000 - 5 * 1.5)  # one or two steps to the first state
    assert oracle.policy_return(arms, always(arms, 0)) == pytest.approx(249_950)


def test_regret_of_an_agent_that_is_stuck_at_the_left():
    mdp = named_mdp("riverswim_osband", horizon=20)
    assert oracle.regret(mdp, always(mdp, 0)) == pytest.approx(3.297264, abs=1e-5)
    assert oracle.regret(mdp, oracle.optimal(mdp)[0].argmax(-1)) == pytest.approx(0, abs=1e-12)
    soft = np.eye(2)[oracle.optimal(mdp)[0].argmax(-1)] * 0.9 + 0.05  # 0.1-greedy
    assert 0 < oracle.regret(mdp, soft) < oracle.regret(mdp, uniform(mdp)) == pytest.approx(3.397264 - 0.043789, abs=2e-5)


def test_optimal_is_the_best_of_all_policies():
    mdp = made_up()
    policies = np.array(list(itertools.product((0, 1), repeat=12))).reshape(-1, 4, 3)
    best = max(oracle.policy_return(mdp, policy) for policy in policies)
    assert oracle.optimal_return(mdp) == pytest.approx(best, abs=1e-12)
    action_values, values = oracle.optimal(mdp)
    assert action_values.shape == (4, 3, 2) and values.shape == (5, 3) and not values[-1].any()
    assert oracle.policy_return(mdp, action_values.argmax(-1)) == pytest.approx(best, abs=1e-12)


def test_evaluation_agrees_with_where_the_policy_is():
    """Forwards: the sum over time of the probability of (s, a, s') times its reward."""
    mdp, policy = made_up(1), np.random.default_rng(2).dirichlet(np.ones(2), (4, 3))
    at, earned = mdp.p0, 0.0
    for h in range(4):
        flow = at[:, None, None] * policy[h][:, :, None] * mdp.P
        earned, at = earned + (flow * mdp.R).sum(), flow.sum((0, 1))
    assert oracle.policy_return(mdp, policy) == pytest.approx(earned, abs=1e-12)


def test_kinds_of_policies():
    mdp = made_up(3)
    actions = np.array([1, 0, 1])
    values = oracle.evaluate(mdp, actions)
    for same in (np.eye(2)[actions], np.tile(actions, (4, 1)), np.tile(np.eye(2)[actions], (4, 1, 1))):
        np.testing.assert_allclose(oracle.evaluate(mdp, same), values, atol=1e-12)
    assert oracle.evaluate(mdp, actions, horizon=2).shape == (3, 3)
    np.testing.assert_allclose(oracle.evaluate(mdp, actions, horizon=2), values[2:], atol=1e-12)


@pytest.mark.parametrize("discount", [0.0, 0.5, 0.95])
def test_discounted_values_are_what_value_iteration_comes_to(discount):
    mdp = made_up(4, states=6, actions=3)
    values = np.zeros(6)
    for _ in range(1000):
        action_values = (mdp.P * (mdp.R + discount * values)).sum(-1)
        values = action_values.max(-1)
    np.testing.assert_allclose(oracle.discounted(mdp, discount)[0], action_values, atol=1e-9)
    np.testing.assert_allclose(oracle.discounted(mdp, discount)[1], values, atol=1e-9)


def test_small_discounts_stay_left_and_large_ones_swim():
    mdp = named_mdp("riverswim_osband")
    short, long = (oracle.discounted(mdp, discount) for discount in (0.5, 0.99))
    assert short[1][0] == pytest.approx(0.005 / (1 - 0.5)) and short[0][0].argmax() == 0
    assert (long[0].argmax(-1) == 1).all()
    with pytest.raises(ValueError, match="discount=1.0"):
        oracle.discounted(mdp, 1.0)


def test_gain_of_a_cycle_and_of_two_islands():
    cycle = np.array([[[0.0, 1]], [[1, 0]]])
    assert oracle.gain(FiniteMDP(cycle, np.array([[[0.0, 1]], [[0, 0]]]), np.ones(2) / 2, 1)) == pytest.approx(0.5)
    islands = FiniteMDP(np.eye(2)[:, None], np.eye(2)[:, None] * [[[1.0]], [[3.0]]], np.ones(2) / 2, 1)
    with pytest.raises(ValueError, match="between 1 and 3"):
        oracle.gain(islands, iterations=100)


def test_reachable_states():
    line = named_mdp("line", states=9)
    assert [int(oracle.reachable(line, h).sum()) for h in range(6)] == [1, 3, 5, 7, 9, 9]
    one_way = line._replace(P=line.P[:, 1:], R=line.R[:, 1:])
    assert np.flatnonzero(oracle.reachable(one_way)).tolist() == [4, 5, 6, 7, 8]
    assert oracle.reachable(named_mdp("double_chain", horizon=14)).sum() == 29 and oracle.reachable(named_mdp("double_chain")).all()


def test_returns_inside_a_compiled_program():
    mdp = named_mdp("riverswim_osband", horizon=20)
    actions = np.random.default_rng(0).integers(0, 2, (5, 20, 6))
    returns = jax.jit(jax.vmap(oracle.return_function(mdp)))(jnp.asarray(actions, jnp.int32))
    np.testing.assert_allclose(returns, [oracle.policy_return(mdp, policy) for policy in actions], rtol=1e-5)
    best = jnp.asarray(np.eye(2)[oracle.optimal(mdp)[0].argmax(-1)], jnp.float32)
    assert float(oracle.return_function(mdp)(best)) == pytest.approx(3.397264, abs=1e-5)
    assert float(oracle.return_function(mdp)(jnp.zeros(6, jnp.int32))) == pytest.approx(0.1, abs=1e-6)
