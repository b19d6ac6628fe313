"""BCQ: its target by hand, the actions it considers, and the one it takes."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnasium import spaces

from agents.base import RewardStream, Sample, Signal
from agents.bcq import bcq
from agents.critics import critics as make_critics
from envs.base import Spec
from envs.builder import Refusal
from tests.laws.data import quick

SPEC = Spec(spaces.Box(-1.0, 1.0, (3,), np.float32), spaces.Box(np.float32([-2.0, 0.0]), np.float32([2.0, 1.0])), "plane")
B, KEY = 32, jax.random.PRNGKey(0)
JUDGES = make_critics(SPEC, 2, (8,), "relu", "auto")


def sample(number=B, key=KEY, **changed):
    """Actions depend on the observation: 0.5 and 0.625 of the box where obs[0] > 0, else -0.5 and 0.375."""
    obs, next_obs = jax.random.normal(key, (2, number, 3))
    side = jnp.where(obs[:, :1] > 0, 1.0, -1.0)
    action = side * jnp.asarray([1.0, 0.125]) + jnp.asarray([0.0, 0.5])
    return Sample(obs, action, next_obs, jnp.zeros(number, bool), jnp.ones(number))._replace(**changed)


def signal(number=B, reward=1.0, discount=0.9):
    return Signal((RewardStream(jnp.full(number, reward), jnp.full(number, discount), 1.0, True),))


def tiny(**arguments):
    return bcq(SPEC, **{"hidden": (8,), "vae_hidden": (8,), "learning_rate": 1e-2, "candidates": 5, **arguments})


def learnt(agent, state, **changed):
    return quick(lambda state: agent.learn(state, KEY, (sample(**changed), signal())))(state)


def constant(params, *values):
    """Critics that say the given values everywhere."""
    head = dict(params["params"]["Dense_1"], kernel=0.0 * params["params"]["Dense_1"]["kernel"], bias=jnp.asarray(values)[:, None])
    return {"params": params["params"] | {"Dense_1": head}}


@pytest.mark.medium
@pytest.mark.parametrize("weight", [0.75, 0.2])
def test_targets_are_between_the_lesser_and_the_greater_critic(weight):
    agent = tiny(lambda_=weight)
    state = agent.init(KEY)
    state = state._replace(target=constant(state.target, 5.0, 3.0))
    values = JUDGES.values(state.critic.params, sample().obs, sample().action)
    for ended, target in ((False, 1.0 + 0.9 * (3.0 * weight + 5.0 * (1.0 - weight))), (True, 1.0)):
        found = learnt(agent, state, terminated=jnp.full(B, ended))[1].metrics["loss/critic"]
        assert float(found) == pytest.approx(float(jnp.mean(jnp.sum(jnp.square(values - target), axis=0))), rel=1e-4)


def test_of_its_candidates_it_takes_the_best():
    """A hundred candidates are worth more than one, to the first critic; the same ones again when acting greedily, others when exploring."""
    obs, first = sample().obs, jnp.ones(B, bool)

    def acts(number, mode, key=KEY):
        agent = tiny(candidates=number, phi=0.3)
        state = agent.init(KEY)
        return agent.act(state, key, ((), obs, first, mode))[1], state

    worth = [JUDGES.values(state.critic.params, obs, action)[0] for action, state in (acts(100, "greedy"), acts(1, "greedy"))]
    assert bool(jnp.all(worth[0] >= worth[1] - 1e-6)) and float(jnp.mean(worth[0] - worth[1])) > 0.0  # the one is the first of the hundred
    other = jax.random.PRNGKey(7)
    np.testing.assert_array_equal(acts(3, "greedy")[0], acts(3, "greedy", other)[0])
    assert float(jnp.max(jnp.abs(acts(3, "explore")[0] - acts(3, "explore", other)[0]))) > 1e-4


@pytest.mark.medium
def test_the_actions_it_considers_are_those_of_the_data():
    """After 600 updates its actions are those of the data, but for phi of half the box."""
    agent = tiny(vae_hidden=(64, 64), phi=0.05, hidden=(8,), learning_rate=3e-3)

    def once(n, state):
        key = jax.random.fold_in(KEY, n)
        return agent.learn(state, key, (sample(128, key), signal(128)))[0]

    state = jax.jit(lambda: jax.lax.fori_loop(0, 600, once, agent.init(KEY)))()
    given = sample(400, jax.random.PRNGKey(5))
    given = jax.tree.map(lambda x: x[jnp.abs(given.obs[:, 0]) > 0.3], given)
    number = given.obs.shape[0]
    action = agent.act(state, KEY, ((), given.obs, jnp.ones(number, bool), "explore"))[1]
    off = np.abs(np.asarray(action - given.action)) / np.asarray([2.0, 0.5])
    assert np.quantile(off, 0.95) < 0.05 + 0.1, np.quantile(off, [0.5, 0.95, 1.0])


@pytest.mark.medium
def test_the_perturbation_learns_and_phi_limits_it():
    for phi in (0.0, 0.05):
        agent = tiny(phi=phi)
        state = quick(agent.init)(KEY)
        new = learnt(agent, state)[0]
        moved = max(float(jnp.max(jnp.abs(a - b))) for a, b in zip(*map(jax.tree.leaves, (new.perturbation.params, state.perturbation.params)), strict=True))
        assert (moved > 1e-5) == (phi > 0)
    free, bound = (tiny(phi=phi, candidates=1).act(state, KEY, ((), sample().obs, jnp.ones(B, bool), "greedy"))[1] for phi in (0.0, 0.05))
    off = np.abs(np.asarray(free - bound)) / np.asarray([2.0, 0.5])
    assert 0.0 < off.max() <= 0.05 + 1e-5


def test_discrete_actions_are_refused():
    with pytest.raises(Refusal, match="agent=dqn"):
        bcq(SPEC._replace(action=spaces.Discrete(3)))
