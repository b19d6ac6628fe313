"""Fit: SAC (arXiv 1801.01290) with information gain inside its losses: MaxInfoRL (arXiv 2412.12098).

    critic target  r + gamma (min Q'(s', a') + a2 I(s', a') - a1 log pi(a'|s')),    actor  max min Q(s, a) + a2 I(s, a) - a1 log pi(a|s)

I(s, a) = mean_j log(1 + var_j / 1e-6), var over an ensemble that predicts (s' - s, r), standardised by its own running moments. It is
a ``Bonus`` with gradients, and reaches the agent as ``Signal.regularise``; gradients flow through the action. a2 rises while the policy
is less informative than its own moving average.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from agents.base import Agent, RewardStream, Signal
from agents.distributions import distribution
from agents.networks import MLP, Torso, dummy
from agents.normalizers import Moments, moments_init, moments_update, std_of
from envs.base import PyTree, Spec, Transition
from exploration.base import Bonus, BonusInfo, bonus
from tests.fit.parts import ADAM, descend, off_policy, regulariser, trained
from tests.fit.worlds import plane

LANES, SEEDS, ITERATIONS, LIMIT = 16, 3, 1200, 40
WORLD = plane(speed=0.1, limit=LIMIT, goal=0.8, action_cost=0.05)


class GainState(NamedTuple):
    params: PyTree  # [K, ...]
    optimizer: PyTree
    moments: Moments  # of the raw gain


def information_gain(spec: Spec, *, heads=5, learning_rate=1e-3) -> Bonus:
    net = MLP((64,), "silu", spec.observation.shape[0] + 1)

    def init(key):
        example = jnp.zeros((1, spec.observation.shape[0] + spec.action.shape[0]))
        params = jax.vmap(lambda k: net.init(k, example))(jax.random.split(key, heads))
        return GainState(params, ADAM.init(params), moments_init())

    def predictions(params, batch):
        return jax.vmap(net.apply, (0, None))(params, jnp.concatenate([batch.obs, batch.action], axis=-1))

    def score(state, batch):
        return jnp.mean(jnp.log1p(jnp.var(predictions(state.params, batch), axis=0) / 1e-6), axis=-1)

    def update(state, key, inputs):
        batch, _ = inputs
        wanted = jnp.concatenate([batch.next_obs - batch.obs, batch.reward[:, None]], axis=-1)
        loss, grads = jax.value_and_grad(lambda params: jnp.mean(jnp.square(predictions(params, batch) - wanted)))(state.params)
        params, optimizer = descend(state.params, state.optimizer, grads, learning_rate)
        return state._replace(params=params, optimizer=optimizer), {"model_loss": loss}

    info = BonusInfo(needs=("obs", "action", "next_obs", "reward"), differentiable=True)

    def calibrate(state, raw):
        return state._replace(moments=moments_update(state.moments, raw))

    def value(state, raw):
        return (raw - state.moments.mean) / std_of(state.moments)  # not clipped, which would take away the gradient

    return bonus(init=init, score=score, update=update, calibrate=calibrate, value=value, info=info)


class SACState(NamedTuple):
    params: PyTree  # {"actor", "critic" [2, ...], "log_a1", "log_a2"}
    target: PyTree  # the moving average of them
    optimizer: PyTree


def sac(spec: Spec, *, learning_rate=2e-3, rate=0.01, gain_weight=1.0) -> Agent:
    policy = distribution(spec.action)
    actor, critic = Torso(spec.observation, (64, 64), "relu", final=policy.size, final_gain=0.01), MLP((64, 64), "relu", 1)

    def init(key):
        actor_key, critic_key = jax.random.split(key)
        pair = jnp.zeros((1, spec.observation.shape[0] + spec.action.shape[0]))
        critics = jax.vmap(lambda k: critic.init(k, pair))(jax.random.split(critic_key))
        params = {"actor": actor.init(actor_key, dummy(spec.observation)), "critic": critics, "log_a1": jnp.float32(-1), "log_a2": jnp.float32(0)}
        return SACState(params, params, ADAM.init(params))

    def act(state, key, inputs):
        memory, obs, _, mode = inputs
        parameters = actor.apply(state.params["actor"], obs)
        return memory, policy.to_action(policy.sample(parameters, key) if mode == "explore" else policy.mode(parameters)), {}

    def drawn(params, obs, key):
        """An action of the policy and its log probability, differentiable."""
        parameters = actor.apply(params["actor"], obs)
        raw = policy.sample(parameters, key)
        return policy.to_action(raw), policy.log_prob(parameters, raw)

    def values(params, obs, action):
        return jax.vmap(critic.apply, (0, None))(params["critic"], jnp.concatenate([obs, action], axis=-1))[..., 0]

    def learn(state, key, inputs):
        batch, signal = inputs
        gain = signal.regularise or (lambda obs, action: jnp.zeros(obs.shape[0]))
        next_key, key, average_key = jax.random.split(key, 3)
        a1, a2 = jnp.exp(state.params["log_a1"]), gain_weight * jnp.maximum(1.0 - 1.5 * signal.progress, 0.0) * jnp.exp(state.params["log_a2"])
        next_action, next_log_prob = drawn(state.params, batch.next_obs, next_key)
        future = jnp.min(values(state.target, batch.next_obs, next_action), 0) + a2 * gain(batch.next_obs, next_action) - a1 * next_log_prob
        stream = signal.streams[0]
        wanted = stream.weight * stream.reward + stream.discount * jnp.where(batch.terminated, 0.0, future)
        average_gain = gain(batch.obs, drawn(state.target, batch.obs, average_key)[0])

        def loss(params):
            frozen = jax.lax.stop_gradient(params)
            action, log_prob = drawn(params, batch.obs, key)
            gained = gain(batch.obs, action)
            critic_loss = jnp.mean(jnp.sum(jnp.square(values(params, batch.obs, batch.action) - jax.lax.stop_gradient(wanted)), axis=0))
            actor_loss = jnp.mean(a1 * log_prob - jnp.min(values(frozen, batch.obs, action), axis=0) - a2 * gained)
            entropy_gap = jax.lax.stop_gradient(jnp.mean(-log_prob) + spec.action.shape[0])
            gain_gap = jax.lax.stop_gradient(jnp.mean(gained - average_gain))
            total = critic_loss + actor_loss + params["log_a1"] * entropy_gap + params["log_a2"] * gain_gap
            return total, {"critic_loss": critic_loss, "gain": jnp.mean(gained), "a1": a1, "a2": a2}

        grads, aux = jax.grad(loss, has_aux=True)(state.params)
        params, optimizer = descend(state.params, state.optimizer, grads, learning_rate)
        return SACState(params, optax.incremental_update(params, state.target, rate), optimizer), aux

    return Agent(init, lambda state, lanes: (), act, learn)


def make_runner(hyper):
    agent = lambda spec: sac(spec, gain_weight=hyper["weight"])  # noqa: E731
    return off_policy(WORLD, agent, information_gain, lanes=LANES, limit=LIMIT, discount=0.97)


@pytest.mark.medium
def test_information_gain_reaches_the_corner_that_sac_gives_up_on():
    batch = trained(make_runner, SEEDS, ITERATIONS, weight=[2.0, 0.0])
    returns = np.array([found["return"] for found in batch.evaluate(jax.random.split(jax.random.PRNGKey(1), 2 * SEEDS))])
    print(returns)
    assert np.median(returns[:SEEDS]) > 25.0 and np.median(returns[SEEDS:]) < 1.0, returns


def test_the_gain_is_in_the_loss_and_nowhere_else():
    spec, key = WORLD.spec, jax.random.PRNGKey(0)
    explorer, agent = information_gain(spec), sac(spec)
    state, learner = explorer.init(key), agent.init(key)
    obs, action, reward = jax.random.uniform(key, (64, 2)), jax.random.uniform(jax.random.PRNGKey(1), (64, 2)), jnp.ones(64)
    batch = Transition(obs, action, reward, obs + 0.1 * action, jnp.zeros(64, bool), jnp.zeros(64, bool), jnp.zeros(64, bool), {})
    gain = regulariser(explorer, state)
    assert jnp.all(jnp.any(jax.grad(lambda a: jnp.sum(gain(obs, a)))(action) != 0.0, axis=-1))

    def updated(agent, regularise):
        signal = Signal((RewardStream(reward, 0.97, 1.0, True),), regularise=regularise)
        return jax.jit(lambda s: agent.learn(s, key, (batch, signal))[0])(learner).params

    def distance(a, b, part):
        return max(float(jnp.max(jnp.abs(x - y))) for x, y in zip(jax.tree.leaves(a[part]), jax.tree.leaves(b[part]), strict=True))

    plain, with_gain, none = updated(agent, None), updated(agent, gain), updated(sac(spec, gain_weight=0.0), gain)
    detached = updated(agent, lambda obs, action: gain(obs, jax.lax.stop_gradient(action)))
    assert max(distance(none, plain, part) for part in ("actor", "critic", "log_a1")) < 1e-6
    assert distance(with_gain, plain, "actor") > 1e-4 and distance(with_gain, plain, "critic") > 1e-4
    assert distance(with_gain, detached, "actor") > 1e-4 and distance(with_gain, detached, "critic") < 1e-6  # through the action
    same = state._replace(params=jax.tree.map(lambda x: jnp.broadcast_to(x[:1], x.shape), state.params))
    assert jnp.all(explorer.score(same, batch) == 0.0)  # heads that agree have nothing to learn
