"""Learning from pictures: who teaches the shared encoder, DrQ-v2's noise by hand, and both with an information gain of latents."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnasium import spaces

from agents.base import RewardStream, Sample, Signal
from agents.critics import critics
from agents.drq import drq, drq_v2, max_info_drq, max_info_drq_v2
from agents.sac import sac
from agents.td3 import td3
from envs.base import Spec
from envs.builder import Refusal
from exploration.information_gain import information_gain
from exploration.intrinsic import given, intrinsic
from tests.agents.test_sac_learns import returns
from tests.fit.worlds import picture, plane
from tests.laws.data import quick

B, KEY = 32, jax.random.PRNGKey(0)
PICTURES, VECTOR = spaces.Box(0, 255, (12, 12, 1), np.uint8), spaces.Box(-1.0, 1.0, (3,), np.float32)
SPEC = Spec(PICTURES, spaces.Box(-2.0, 4.0, (2,), np.float32), "pictures")
TINY = {"hidden": (8,), "latent": 6, "augment": 2, "learning_rate": 1e-2}


def sample(space=PICTURES):
    keys = jax.random.split(KEY, 3)
    obs, next_obs = (jax.random.randint(k, (B, *space.shape), 0, 256).astype(space.dtype) for k in keys[:2])
    if space is VECTOR:
        obs, next_obs = obs / 255.0, next_obs / 255.0
    return Sample(obs, jax.random.uniform(keys[2], (B, 2), minval=-2.0, maxval=4.0), next_obs, jnp.zeros(B, bool), jnp.ones(B))


def learnt(agent, state=None, over=None):
    """(state before, state after, metrics) of one update with reward 1 and discount 0.9."""
    state = quick(agent.init)(KEY) if state is None else state
    signal = Signal((RewardStream(jnp.ones(B), jnp.full(B, 0.9), 1.0, True),))
    after, found = quick(lambda state: agent.learn(state, KEY, (sample() if over is None else over, signal)))(state)
    return state, after, found.metrics


def distance(a, b):
    return max(float(jnp.max(jnp.abs(x - y))) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True))


@pytest.mark.medium
@pytest.mark.parametrize("agent", [drq, drq_v2])
def test_the_encoder_learns_from_the_critics_alone(agent):
    """It moves with them, by the same amount whether the actor learns or waits; its slow copy goes a part of the way; the agent's encoding is its."""
    made = [agent(SPEC, policy_delay=delay, target_rate=0.25, **TINY) for delay in (1, 2)]
    (before, both, _), (_, waiting, _) = map(learnt, made)
    eyes = [state.critic.params["encoder"] for state in (before, both, waiting)]
    assert distance(eyes[0], eyes[1]) > 1e-4 and distance(eyes[1], eyes[2]) < 1e-5
    assert distance(both.actor.params, before.actor.params) > 1e-4 and distance(waiting.actor.params, before.actor.params) == 0.0
    moved = jax.tree.map(lambda a, b: a + 0.25 * (b - a), eyes[0], eyes[1])
    assert distance(both.target["encoder"], moved) < 1e-6
    latents = [made[0].encode(state, sample().obs) for state in (before, both, before._replace(actor=both.actor))]
    assert latents[0].shape == (B, 6) and distance(latents[0], latents[1]) > 1e-4 and distance(latents[0], latents[2]) == 0.0


@pytest.mark.medium
def test_no_gradient_of_the_actor_reaches_what_it_sees():
    judges = critics(SPEC, 2, (8,), "relu", "drq", latent=6)
    params = judges.init(KEY)
    seen = jax.grad(lambda params: jnp.sum(jnp.square(judges.see(params, sample().obs))))(params)
    valued = jax.grad(lambda params: jnp.sum(jnp.square(judges.values(params, sample().obs, sample().action))))(params)
    assert distance(seen, jax.tree.map(jnp.zeros_like, seen)) == 0.0
    assert min(float(jnp.max(jnp.abs(x))) for x in jax.tree.leaves(valued["encoder"])) > 0.0
    assert judges.see(params, sample().obs).shape == (B, *judges.seen.shape)


@pytest.mark.medium
def test_pictures_are_shifted_for_learning():
    """Pictures of one colour look the same however they are shifted; others do not."""
    plain, shifting = (sac(SPEC, encoder="drq", **TINY | {"augment": pad}) for pad in (0, 2))
    even = sample()._replace(**{name: jnp.broadcast_to(getattr(sample(), name)[:, :1, :1], (B, 12, 12, 1)) for name in ("obs", "next_obs")})
    assert distance(learnt(plain, over=even)[1], learnt(shifting, over=even)[1]) < 1e-5
    assert distance(learnt(plain)[1], learnt(shifting)[1]) > 1e-4
    with pytest.raises(Refusal, match=r"agent\.augment=2"):
        sac(SPEC._replace(observation=VECTOR), augment=2)


# --- DrQ-v2's noise ----------------------------------------------------------------------------------------------------

NUMBERS = SPEC._replace(observation=VECTOR)


def noisy(**arguments):
    return td3(NUMBERS, **{"hidden": (8,), "learning_rate": 1e-2, "noisy_policy": True, "policy_delay": 1, **arguments})


def greedy(agent, state, obs):
    return agent.act(state, KEY, ((), obs, jnp.zeros(len(obs), bool), "greedy"))[1]


def test_noise_falls_with_updates():
    agent = noisy(exploration_noise=1.0, final_noise=0.1, noise_updates=100)
    state, lanes = quick(agent.init)(KEY), jnp.zeros((4000, 3))
    for updates, expected in ((0, 1.0), (50, 0.55), (100, 0.1), (1000, 0.1)):
        now = state._replace(updates=jnp.int32(updates))
        moved = agent.act(now, KEY, ((), lanes, jnp.zeros(4000, bool), "explore"))[1] - greedy(agent, now, lanes)
        assert float(jnp.median(jnp.abs(moved))) / 3.0 == pytest.approx(0.6745 * expected, rel=0.1)  # half of the box is 3; the box cuts less than half off


@pytest.mark.medium
def test_a_noisy_policys_losses_by_hand():
    """With next to no noise: y = r + discount min_k Q'_k(s', pi(s')) with the policy as it is, and the actor follows the lesser of the new critics."""
    given, values = sample(VECTOR), critics(NUMBERS, 2, (8,), "relu", "auto").values
    agent = noisy(exploration_noise=0.0)
    state = quick(agent.init)(KEY)
    state = state._replace(target=jax.tree.map(lambda x: x + 0.1, state.target))
    future = jnp.min(values(state.target, given.next_obs, greedy(agent, state, given.next_obs)), axis=0)
    errors = values(state.critic.params, given.obs, given.action) - (1.0 + 0.9 * future)
    _, after, metrics = learnt(agent, state, given)
    assert after.slow_actor == ()
    assert float(metrics["loss/critic"]) == pytest.approx(float(jnp.mean(jnp.sum(jnp.square(errors), axis=0))), rel=1e-4)
    worth = jnp.min(values(after.critic.params, given.obs, greedy(agent, state, given.obs)), axis=0)
    assert float(metrics["loss/actor"]) == pytest.approx(-float(jnp.mean(worth)), rel=1e-4)
    _, _, limited = learnt(noisy(exploration_noise=1.0, noise_clip=1e-6), state, given)
    _, _, wide = learnt(noisy(exploration_noise=1.0, noise_clip=0.3), state, given)
    for name in ("loss/critic", "loss/actor"):
        assert float(limited[name]) == pytest.approx(float(metrics[name]), rel=1e-4) != pytest.approx(float(wide[name]), rel=1e-4)


def test_the_actor_learns_from_actions_beyond_the_box():
    """All noise far outside: the actions are corners, and there are gradients all the same."""
    state, after, _ = learnt(noisy(exploration_noise=1e6, noise_clip=1e3), over=sample(VECTOR))
    assert distance(state.actor.params, after.actor.params) > 1e-4


# --- in worlds ---------------------------------------------------------------------------------------------------------


def homing():
    """A plane where episodes begin anywhere and being within 0.2 of the middle pays 1, so that no action is good everywhere; agents see a blurred disc,
    uint8 [20, 20, 1]. Going straight there gets 35.8 on average, random actions 1.6."""
    env = plane(speed=0.1, limit=40)

    def drawn(place):
        return jnp.round(255.0 * picture(place, 20)).astype(jnp.uint8).reshape(20, 20, 1)

    def reset(key):
        state, _ = env.reset(key)
        place = jax.random.uniform(key, (2,), minval=-1.0, maxval=1.0)
        return state._replace(place=place), drawn(place)

    def step(state, key, action):
        state, made = env.step(state, key, action)
        home = jnp.all(jnp.abs(state.place) < 0.2).astype(jnp.float32)
        return state, made._replace(obs=drawn(state.place), reward=home)

    return env._replace(spec=env.spec._replace(observation=spaces.Box(0, 255, (20, 20, 1), np.uint8)), reset=reset, step=step)


SMALL = {"hidden": (64,), "latent": 16, "augment": 1, "learning_rate": 1e-3, "target_rate": 0.02}


@pytest.mark.slow
@pytest.mark.parametrize("agent", [functools.partial(drq, policy_delay=1), functools.partial(drq_v2, noise_updates=1000)])
def test_the_way_home_is_seen(agent):
    """Measured, longer and without shifts too: docs/methods/drq.md."""
    found = returns(homing(), functools.partial(agent, **SMALL), 1000, lanes=8, discount=0.95, batch_size=64)
    assert np.median(found) > 25.0, found


@pytest.mark.parametrize("kind", [pytest.param(max_info_drq, marks=pytest.mark.medium), pytest.param(max_info_drq_v2, marks=pytest.mark.slow)])
def test_the_gain_of_latents_goes_with_pictures(kind):
    """A few iterations of MaxInfoRL on DrQ, the ensemble predicting the shared encoder's latents."""

    def gain(spec):
        return intrinsic(spec, information_gain(given(spec, "latent"), hidden=(8,)), normalize="standard", input="latent")

    agent = functools.partial(kind, **SMALL)
    found = returns(homing(), agent, 20, gain, lanes=4, batch_size=16, random_steps=16, learning_starts=16)
    assert np.isfinite(found).all()
