"""TD3: its target by hand, its noise, its delay."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnasium import spaces

from agents.base import RewardStream, Sample, Signal
from agents.critics import critics
from agents.td3 import td3
from envs.base import Spec
from envs.builder import Refusal
from tests.laws.data import quick

SPEC = Spec(spaces.Box(-1.0, 1.0, (3,), np.float32), spaces.Box(-2.0, 4.0, (2,), np.float32), "plane")
B, KEY = 32, jax.random.PRNGKey(0)


def tiny(**arguments):
    return td3(SPEC, **{"hidden": (8,), "learning_rate": 1e-2, **arguments})


def sample(**changed):
    obs, next_obs = jax.random.normal(KEY, (2, B, 3))
    return Sample(obs, jnp.tanh(next_obs[:, :2]), next_obs, jnp.zeros(B, bool), jnp.ones(B))._replace(**changed)


def learnt(agent, given=None, state=None, reward=1.0):
    """(state before, state after, Learnt) of one update with discount 0.9."""
    state = quick(agent.init)(KEY) if state is None else state
    signal = Signal((RewardStream(jnp.full(B, reward), jnp.full(B, 0.9), 1.0, True),))
    return state, *quick(lambda state: agent.learn(state, KEY, (sample() if given is None else given, signal)))(state)


def distance(a, b):
    return max(float(jnp.max(jnp.abs(x - y))) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True))


def acted(agent, state, mode, key=KEY):
    obs = jnp.broadcast_to(sample().obs[:1], (4000, 3))
    return np.asarray(agent.act(state, key, ((), obs, jnp.zeros(4000, bool), mode))[1])


def test_only_discrete_worlds_are_refused():
    with pytest.raises(Refusal, match="agent=dqn"):
        td3(SPEC._replace(action=spaces.Discrete(3)))


@pytest.mark.medium
def test_the_target_is_the_lesser_slow_critic_at_the_slow_actors_action():
    """Without target noise y = r + discount min_k Q'_k(s', pi'(s')), by hand; a successor that ended the MDP counts nothing."""
    ended = jnp.arange(B) % 2 == 0
    agent = tiny(target_noise=0.0, reward_scale=2.0)
    state = quick(agent.init)(KEY)
    state = state._replace(target=jax.tree.map(lambda x: x + 0.1, state.target), slow_actor=jax.tree.map(lambda x: x - 0.2, state.slow_actor))
    given, values = sample(terminated=ended), critics(SPEC, 2, (8,), "relu", "auto").values
    action = agent.act(state._replace(actor=state.actor._replace(params=state.slow_actor)), KEY, ((), given.next_obs, ended, "greedy"))[1]
    future = jnp.min(values(state.target, given.next_obs, action), axis=0)
    wanted = values(state.critic.params, given.obs, given.action) - (2.0 + 0.9 * jnp.where(ended, 0.0, future))
    _, _, found = learnt(agent, given, state)
    assert float(found.metrics["loss/critic"]) == pytest.approx(float(jnp.mean(jnp.sum(jnp.square(wanted), axis=0))), rel=1e-4)
    _, _, noisy = learnt(tiny(reward_scale=2.0), given, state)
    assert float(noisy.metrics["loss/critic"]) != pytest.approx(float(found.metrics["loss/critic"]), rel=1e-4)
    _, _, clipped = learnt(tiny(reward_scale=2.0, noise_clip=1e-6), given, state)
    assert float(clipped.metrics["loss/critic"]) == pytest.approx(float(found.metrics["loss/critic"]), rel=1e-4)


def test_actor_and_slow_networks_wait():
    agent = tiny(policy_delay=2)
    state, first, _ = learnt(agent)
    _, second, _ = learnt(agent, state=first)
    for name in ("slow_actor", "target"):
        assert distance(getattr(first, name), getattr(state, name)) == 0.0 < distance(getattr(second, name), getattr(first, name)) < 1e-3, name
    assert distance(first.actor.params, state.actor.params) == 0.0 < distance(second.actor.params, first.actor.params)
    assert distance(first.critic.params, state.critic.params) > 0.0


def test_the_actor_climbs_the_first_critic():
    """After a hundred steps on frozen critics (rate 0 would stop the actor too, so they are put back) the first critic likes its actions better."""
    agent = tiny(policy_delay=1)
    state = begun = quick(agent.init)(KEY)
    values = critics(SPEC, 2, (8,), "relu", "auto").values

    def worth(state):
        action = agent.act(state, KEY, ((), sample().obs, jnp.zeros(B, bool), "greedy"))[1]
        return float(jnp.mean(values(begun.critic.params, sample().obs, action)[0]))

    update = quick(lambda state: agent.learn(state, KEY, (sample(), Signal((RewardStream(jnp.ones(B), jnp.zeros(B), 1.0, True),))))[0])
    before = worth(state)
    for _ in range(100):
        state = update(state)._replace(critic=begun.critic)
    assert worth(state) > before + 0.05


def test_noise_is_in_units_of_half_the_box_and_stays_inside():
    agent = tiny(exploration_noise=0.1)
    state = quick(agent.init)(KEY)
    greedy, noisy = acted(agent, state, "greedy"), acted(agent, state, "explore")
    np.testing.assert_array_equal(greedy, greedy[:1].repeat(4000, axis=0))
    np.testing.assert_allclose((noisy - greedy).std(axis=0), 0.3, rtol=0.1)  # half of the box is 3
    wild = acted(tiny(exploration_noise=5.0), state, "explore")
    assert wild.min() == -2.0 and wild.max() == 4.0


@pytest.mark.medium
def test_pairs_learn_with_their_shifts():
    """A single pair with a shift is TD3 on shifted rewards; pairs that begin alike and share a shift stay alike; the actor follows one of them."""
    state, plain, _ = learnt(tiny(), reward=1.5)
    _, shifted, _ = learnt(tiny(shifts=(0.5,)), reward=1.0)
    assert distance(plain, shifted) < 1e-6

    agent = tiny(shifts=(-1.0, -1.0, 2.0), policy_delay=1, shift_period=2)
    state = quick(agent.init)(KEY)
    alike = jax.tree.map(lambda x: jnp.tile(x[:2], (3, *[1] * (x.ndim - 1))), state.critic.params)
    state = state._replace(critic=state.critic._replace(params=alike), target=alike, pair=jnp.int32(2))
    _, after, found = learnt(agent, state=state)
    parts = [jax.tree.map(lambda x, i=i: x[2 * i : 2 * i + 2], after.critic.params) for i in range(3)]
    assert distance(parts[0], parts[1]) == 0.0 < distance(parts[0], parts[2])
    assert int(after.pair) == 2 and float(found.metrics["policy/shift"]) == 2.0
    greedy = agent.act(state, KEY, ((), sample().obs, jnp.zeros(B, bool), "greedy"))[1]
    followed = critics(SPEC, 2, (8,), "relu", "auto").values(parts[2], sample().obs, greedy)[0]
    assert float(-jnp.mean(followed)) == pytest.approx(float(found.metrics["loss/actor"]), rel=1e-5)


def test_the_pair_is_drawn_once_in_a_period():
    agent = tiny(shifts=(0.0, 1.0, 2.0, 3.0), shift_period=3)
    state, pairs = quick(agent.init)(KEY), []
    step = quick(lambda state, key: agent.learn(state, key, (sample(), Signal((RewardStream(jnp.ones(B), jnp.full(B, 0.9), 1.0, True),))))[0])
    for i in range(30):
        state = step(state, jax.random.fold_in(KEY, i))
        pairs.append(int(state.pair))
    changes = [i + 1 for i in range(1, 30) if pairs[i] != pairs[i - 1]]
    assert set(pairs) == {0, 1, 2, 3} and all(i % 3 == 0 for i in changes)
