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
from envs.builder import Refusal
from tests.laws.data import assert_equal, quick

T, N, KEY = 4, 3, jax.random.PRNGKey(0)
BOX = spaces.Box(-1.0, 3.0, (2,), np.float32)


def learner(action=None, **options):
    spec = Spec(spaces.Box(-1, 1, (2,)), action or spaces.Discrete(3, start=1), lanes=N)
    return ppo(spec, hidden=(8,), epochs=1, minibatches=1, learning_rate=1e-2, entropy_coef=0.0, **options)


def acted(agent, state, reward):
    """A rollout of random observations with rewards [T, N]."""
    obs, no = jax.random.normal(KEY, (T, N, 2)), jnp.zeros((T, N), bool)

    def one(memory, inputs):
        key, obs = inputs
        memory, action, extras = agent.act(state, key, (memory, obs, no[0], "explore"))
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


def test_the_first_steps_of_an_episode_are_drawn_with_another_temperature():
    """In its first two steps logits are halved; an episode that ends begins again; the loss is of the same policy."""
    agent, spec = learner(start_temperature=2.0, start_steps=2), Spec(spaces.Box(-1, 1, (2,)), spaces.Discrete(3, start=1))
    network = actor_critic(spec, heads=1, hidden=(8,), activation="tanh", encoder="auto", recurrent=0)
    first = jnp.array([[True], [False], [False], [False], [True]]) & jnp.ones(N, bool)

    @quick
    def life():
        state = agent.init(KEY)
        state = state._replace(params=jax.tree.map(lambda x: 20 * x, state.params))
        obs, memory, found = jax.random.normal(KEY, (N, 2)), agent.start(state, N), []
        for t in range(5):
            memory, _, extras = agent.act(state, jax.random.fold_in(KEY, t), (memory, obs, first[t], "explore"))
            found.append(extras)
        return network.apply(state.params, (), obs, first[0])[1], jax.tree.map(lambda *x: jnp.stack(x), *found)

    logits, found = life()
    divisor = np.array([2, 2, 1, 1, 2])[:, None, None]
    expected = np.take_along_axis(np.asarray(jax.nn.log_softmax(logits / divisor)), np.asarray(found["raw"])[..., None], -1)[..., 0]
    np.testing.assert_allclose(found["log_prob"], expected, rtol=1e-4, atol=1e-5)
    with pytest.raises(Refusal, match="divides logits"):
        learner(BOX, start_temperature=2.0)


def test_a_first_update_knows_the_temperature_that_was_acted_with():
    """Before anything is learnt the policy is the one that acted: no divergence."""
    agent = learner(start_temperature=3.0, start_steps=1)

    @quick
    def divergence():
        state = agent.init(KEY)
        state = state._replace(params=jax.tree.map(lambda x: 5 * x, state.params))
        signal = Signal((Stream(jnp.ones((T, N)), 0.9, 1.0, True),))
        return agent.learn(state, KEY, (acted(agent, state, np.zeros((T, N))), signal))[1].metrics["policy/kl"]

    assert abs(float(divergence())) < 1e-6
