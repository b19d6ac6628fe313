"""MaxInfoRL on TD3 and DrQ-v2: critics of the bonus by hand, what the actor follows, and the second temperature."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnasium import spaces

from agents.base import Regulariser, RewardStream, Sample, Signal
from agents.critics import critics
from agents.drq import max_info_drq_v2
from agents.td3 import td3
from envs.base import Spec
from envs.builder import Refusal
from tests.laws.data import quick

SPEC = Spec(spaces.Box(-1.0, 1.0, (3,), np.float32), spaces.Box(-2.0, 4.0, (2,), np.float32), "plane")
B, KEY = 32, jax.random.PRNGKey(0)
GAIN = Regulariser(lambda obs, action: jnp.sum(action, axis=-1), 1.0)


def tiny(**arguments):
    return td3(SPEC, **{"hidden": (8,), "learning_rate": 1e-2, "policy_delay": 1, "target_noise": 0.0, **arguments})


def sample(**changed):
    obs, next_obs = jax.random.normal(KEY, (2, B, 3))
    return Sample(obs, jnp.tanh(next_obs[:, :2]), next_obs, jnp.zeros(B, bool), jnp.ones(B))._replace(**changed)


def told(bonus=0.5, weight=1.0, episodic=True):
    streams = (RewardStream(jnp.ones(B), jnp.full(B, 0.9), 1.0, True), RewardStream(jnp.full(B, bonus), jnp.full(B, 0.8), 1.0, episodic))
    return Signal(streams, regulariser=GAIN._replace(weight=weight))


def learnt(agent, signal, given=None, state=None):
    state = quick(agent.init)(KEY) if state is None else state
    return state, *quick(lambda state: agent.learn(state, KEY, (sample() if given is None else given, signal)))(state)


def distance(a, b):
    return max(float(jnp.max(jnp.abs(x - y))) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True))


def test_without_a_gain_it_is_refused():
    with pytest.raises(Refusal, match="information_gain"):
        learnt(tiny(max_info=True), told()._replace(regulariser=None))


@pytest.mark.medium
def test_without_weight_it_is_plain_td3():
    _, plain, _ = learnt(tiny(), Signal(told().streams[:1]))
    _, zero, _ = learnt(tiny(max_info=True), told(weight=0.0))
    _, full, _ = learnt(tiny(max_info=True), told())
    assert distance((zero.actor, zero.critic, zero.target), (plain.actor, plain.critic, plain.target)) < 1e-6
    assert distance(full.critic, plain.critic) < 1e-6 < 1e-4 < distance(full.actor.params, plain.actor.params)


@pytest.mark.parametrize("episodic", [True, False])
def test_the_critics_of_the_bonus_learn_from_it_alone(episodic):
    """y = ig + discount_e min_k Q_e,k'(s', pi'(s')), by hand; whether an end of the episode counts is the stream's."""
    agent, ended = tiny(max_info=True), jnp.arange(B) % 2 == 0
    state = quick(agent.init)(KEY)
    state = state._replace(seeker=state.seeker._replace(target=jax.tree.map(lambda x: x + 0.1, state.seeker.target)))
    given, values = sample(terminated=ended), critics(SPEC, 2, (8,), "relu", "auto").values
    action = agent.act(state, KEY, ((), given.next_obs, ended, "greedy"))[1]
    future = jnp.min(values(state.seeker.target, given.next_obs, action), axis=0)
    wanted = 0.5 + 0.8 * jnp.where(ended & episodic, 0.0, future)
    errors = values(state.seeker.critic.params, given.obs, given.action) - wanted
    _, after, found = learnt(agent, told(episodic=episodic), given, state)
    assert float(found.metrics["loss/information_critic"]) == pytest.approx(float(jnp.mean(jnp.sum(jnp.square(errors), axis=0))), rel=1e-4)
    _, other, _ = learnt(agent, told(bonus=3.0, episodic=episodic), given, state)
    assert distance(after.critic, other.critic) == 0.0 < distance(after.seeker.critic.params, other.seeker.critic.params)


def test_the_actor_follows_both_critics():
    """-(Q_1(s, a) + a2 min_k Q_e,k(s, a)), by hand, with the critics after their updates."""
    agent = tiny(max_info=True, initial_gain_temperature=0.7)
    state, after, found = learnt(agent, told(weight=2.0))
    values = critics(SPEC, 2, (8,), "relu", "auto").values
    action = agent.act(state, KEY, ((), sample().obs, jnp.zeros(B, bool), "greedy"))[1]
    worth = values(after.critic.params, sample().obs, action)[0] + 1.4 * jnp.min(values(after.seeker.critic.params, sample().obs, action), axis=0)
    assert float(found.metrics["loss/actor"]) == pytest.approx(-float(jnp.mean(worth)), rel=1e-4)
    assert float(found.metrics["policy/information_temperature"]) == pytest.approx(1.4)


def test_the_second_temperature_follows_the_moving_average():
    agent = tiny(max_info=True)
    state = quick(agent.init)(KEY)
    for sign in (1.0, -1.0):
        head = state.slow_actor["params"]["head"]
        slow = {"params": state.slow_actor["params"] | {"head": head | {"bias": head["bias"] - 2.0 * sign}}}  # its gain is lower (or higher)
        begun = state._replace(slow_actor=slow)
        _, new, _ = learnt(agent, told(), state=begun)
        assert float(new.seeker.gain.params - begun.seeker.gain.params) == pytest.approx(-sign * 1e-2, rel=1e-3)


@pytest.mark.medium
def test_the_bonus_teaches_no_encoder():
    """DrQ-v2: the critics of the bonus see the shared latents, and neither they nor the actor move the encoder; all slow networks go a part of the way."""
    pictures = spaces.Box(0, 255, (12, 12, 1), np.uint8)
    agent = max_info_drq_v2(SPEC._replace(observation=pictures), hidden=(8,), latent=6, augment=1, learning_rate=1e-2, target_rate=0.25)
    obs, next_obs = (jax.random.randint(k, (B, 12, 12, 1), 0, 256).astype(np.uint8) for k in jax.random.split(KEY))
    given = sample(obs=obs, next_obs=next_obs)
    state, small, _ = learnt(agent, told(), given)
    _, large, _ = learnt(agent, told(bonus=30.0), given, state)
    assert distance(small.critic, large.critic) == 0.0 < distance(small.seeker.critic.params, large.seeker.critic.params)
    assert {x.shape[-2] for x in jax.tree.leaves(state.seeker.critic.params) if x.ndim == 3} == {6 + 2, 8}
    for slow, before, now in (
        (small.seeker.target, state.seeker.target, small.seeker.critic.params),
        (small.slow_actor, state.slow_actor, small.actor.params),
    ):
        assert distance(slow, jax.tree.map(lambda a, b: a + 0.25 * (b - a), before, now)) < 1e-6
