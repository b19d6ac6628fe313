"""PPO's losses: steps of weight 0 are left out, and demonstrated actions are imitated where they paid more than was expected."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnasium import spaces

from agents.actor_critic import actor_critic
from agents.base import Imitation, Rollout, Signal
from agents.base import RewardStream as Stream
from agents.ppo import ppo
from envs.base import Spec, Transition
from tests.laws.data import assert_equal, quick

T, N, KEY = 4, 3, jax.random.PRNGKey(0)
BOX = spaces.Box(-1.0, 3.0, (2,), np.float32)


def learner(action=None, **options):
    spec = Spec(spaces.Box(-1, 1, (2,)), action or spaces.Discrete(3, start=1), lanes=N)
    return ppo(spec, hidden=(8,), epochs=1, minibatches=1, learning_rate=1e-2, entropy_coef=0.0, **options)


def acted(agent, state, reward, mode="explore"):
    """A rollout of random observations with rewards [T, N]."""
    obs, no = jax.random.normal(KEY, (T, N, 2)), jnp.zeros((T, N), bool)

    def one(memory, inputs):
        key, obs = inputs
        memory, action, extras = agent.act(state, key, (memory, obs, no[0], mode))
        return memory, (action, extras)

    memory, (action, extras) = jax.lax.scan(one, agent.start(state, N), (jax.random.split(KEY, T), obs))
    steps = Transition(obs, action, jnp.asarray(reward, jnp.float32), obs, ~no, no, no, {})
    return Rollout(steps, extras, agent.start(state, N), memory, obs[0], no[0])


@pytest.mark.parametrize("recurrent", [0, 5])
def test_what_has_no_weight_is_as_if_it_were_not_there(recurrent):
    """Whatever a lane was paid and did: its steps of weight 0 change nothing; of weight 1 they do."""
    agent = learner(recurrent=recurrent)
    rewards = jax.random.normal(jax.random.fold_in(KEY, 9), (T, N))
    changed, ones = rewards.at[:, 1].add(5.0), jnp.ones((T, N))
    weights = ones.at[:, 1].set(0.0)

    @quick
    def after(reward, weights):
        state = agent.init(KEY)
        signal = Signal((Stream(reward, 0.9, 1.0, True),), weights=weights)
        return agent.learn(state, KEY, (acted(agent, state, reward), signal))[0].params

    assert_equal(after(rewards, weights), after(changed, weights))
    whole = after(rewards, ones)
    assert not all(jax.tree.leaves(jax.tree.map(np.array_equal, whole, after(changed, ones))))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5), whole, after(rewards, None))


@pytest.mark.parametrize("action", [spaces.Discrete(3, start=1), BOX], ids=["discrete", "box"])
@pytest.mark.parametrize(("returns", "moves"), [(50.0, True), (-50.0, False)])
def test_demonstrated_actions_become_likelier_where_they_paid_more(action, returns, moves):
    """Also where the policy itself had drawn another one; nothing else is learnt from here."""
    agent = learner(action)
    target = 3 if isinstance(action, spaces.Discrete) else 2.5
    imitated = jnp.zeros((T, N)).at[:, 2].set(1.0)

    @quick
    def lesson():
        state = agent.init(KEY)
        rollout = acted(agent, state, np.zeros((T, N)))
        shown = jnp.full((T, N, *action.shape), target)
        rollout = rollout._replace(transitions=rollout.transitions._replace(action=shown))
        signal = Signal((Stream(rollout.transitions.reward, 0.9, 1.0, True),), weights=jnp.zeros((T, N)))
        signal = signal._replace(imitation=Imitation(imitated, jnp.full((T, N), returns), 1.0, 0.0))
        after, learnt = jax.lax.scan(lambda state, _: agent.learn(state, KEY, (rollout, signal)), state, None, length=100)
        before, now = (agent.act(s, KEY, ((), rollout.transitions.obs[:, 2], jnp.zeros(T, bool), "greedy"))[1] for s in (state, after))
        return before, now, learnt.metrics["loss/imitation"]

    before, now, loss = (np.asarray(x) for x in lesson())
    if moves:
        np.testing.assert_allclose(now, np.full_like(now, target), atol=0.3)
        assert loss[-1] < loss[0]
    else:
        np.testing.assert_array_equal(now, before)
        assert not loss.any()


def test_what_is_imitated_is_worth_what_normalised_rewards_are():
    """Rewards and returns a hundred times as large, in an agent that divides rewards by their deviation, change nothing."""
    agent = learner(normalize_rewards=True)
    rewards = jax.random.normal(jax.random.fold_in(KEY, 9), (T, N))

    @quick
    def after(scale):
        state = agent.init(KEY)
        signal = Signal((Stream(scale * rewards, 0.9, 1.0, True),), imitation=Imitation(jnp.ones((T, N)), scale * jnp.full((T, N), 3.0), 1.0, 0.1))
        state, learnt = agent.learn(state, KEY, (acted(agent, state, scale * rewards), signal))
        return learnt.metrics["loss/imitation"]

    assert after(1.0) > 0.1
    np.testing.assert_allclose(after(100.0), after(1.0), rtol=1e-2)


@pytest.mark.parametrize("recurrent", [0, 4])
@pytest.mark.parametrize("action", [spaces.Discrete(3, start=1), BOX], ids=["discrete", "box"])
def test_actions_are_drawn_and_judged_by_a_wider_policy(action, recurrent):
    """Temperatures divide logits and multiply deviations, whatever network; before anything is learnt the policy is the one that acted: no divergence."""
    agent, spec = learner(action, recurrent=recurrent), Spec(spaces.Box(-1, 1, (2,)), action)
    network = actor_critic(spec, heads=1, hidden=(8,), activation="tanh", encoder="auto", recurrent=recurrent)
    temperature = jnp.array([1.0, 2.0, 3.0])

    @quick
    def life():
        state = agent.init(KEY)
        state = state._replace(params=jax.tree.map(lambda x: 5 * x, state.params))
        rollout = acted(agent, state, np.ones((T, N)), temperature)
        signal = Signal((Stream(jnp.ones((T, N)), 0.9, 1.0, True),))
        divergence = agent.learn(state, KEY, (rollout, signal))[1].metrics["policy/kl"]
        _, parameters, value = network.apply(state.params, network.start(N), rollout.transitions.obs[0], jnp.zeros(N, bool))
        cold = agent.act(state, KEY, (agent.start(state, N), rollout.transitions.obs[0], jnp.zeros(N, bool), "explore"))[2]
        same = agent.act(state, KEY, (agent.start(state, N), rollout.transitions.obs[0], jnp.zeros(N, bool), jnp.ones(N)))[2]
        return parameters, value, rollout.extras, divergence, cold, same

    parameters, value, extras, divergence, cold, same = jax.tree.map(np.asarray, life())
    np.testing.assert_allclose(extras["value"][0], value, rtol=1e-5)
    if isinstance(action, spaces.Discrete):
        wanted = jax.nn.log_softmax(parameters / np.asarray(temperature)[:, None])
        wanted = np.take_along_axis(np.asarray(wanted), extras["raw"][0][:, None], -1)[:, 0]
    else:
        mean, deviation = parameters[:, :2], np.exp(parameters[:, 2:]) * np.asarray(temperature)[:, None]
        normal = -0.5 * np.square((extras["raw"][0] - mean) / deviation) - np.log(deviation) - 0.5 * np.log(2 * np.pi)
        wanted = np.sum(normal - np.log(2.0 * (1.0 - np.square(np.tanh(extras["raw"][0])))), axis=1)  # the actions are 4 wide
    np.testing.assert_allclose(extras["log_prob"][0], wanted, rtol=1e-3, atol=1e-4)
    assert abs(divergence) < 1e-5
    for name in cold:
        np.testing.assert_allclose(same[name], cold[name], rtol=1e-5, atol=1e-6)
