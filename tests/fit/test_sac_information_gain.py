"""Fit: SAC (arXiv 1801.01290) with information gain inside its losses: MaxInfoRL (arXiv 2412.12098).

    critic target  r + gamma (min Q'(s', a') + a2 I(s', a') - a1 log pi(a'|s')),    actor  max min Q(s, a) + a2 I(s, a) - a1 log pi(a|s)

I(s, a) = mean_j log(1 + var_j / 1e-6), var over an ensemble that predicts (s' - s, r), standardised: a ``Bonus`` with gradients that
reaches the agent as ``Signal.regulariser``. a2 rises while the policy is less informative than its own moving average. Departures: a2
also falls to 0 during the first two thirds of the run, and all networks share one optimiser.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from agents.base import Agent, Learnt, Regulariser, RewardStream, Signal
from agents.distributions import distribution
from agents.networks import MLP, Torso, dummy
from envs.base import PyTree, Spec, Transition
from exploration.base import Bonus, BonusInfo, bonus
from exploration.combinators import normalize
from tests.fit.parts import ADAM, descend, distance, evaluated, off_policy, regulariser, trained
from tests.fit.worlds import plane

SEEDS, WORLD = 3, plane(speed=0.1, limit=40, goal=0.8, action_cost=0.05)
held = jax.lax.stop_gradient


class GainState(NamedTuple):
    params: PyTree  # [K, ...]
    optimizer: PyTree


def information_gain(spec: Spec, *, heads=5, learning_rate=1e-3) -> Bonus:
    net = MLP((64,), "silu", spec.observation.shape[0] + 1)

    def init(key):
        params = jax.vmap(lambda k: net.init(k, jnp.concatenate([dummy(spec.observation), dummy(spec.action)], -1)))(jax.random.split(key, heads))
        return GainState(params, ADAM.init(params))

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

    info = BonusInfo(needs=("obs", "action"), learns_from=("next_obs", "reward"), differentiable=True)
    return normalize(spec, bonus=bonus(init=init, score=score, update=update, info=info), by="standard")  # not clipped: that takes gradients away


class SACState(NamedTuple):
    params: PyTree  # {"actor", "critic" [2, ...], "log_a1", "log_a2"}
    target: PyTree  # the moving average of them
    optimizer: PyTree


def sac(spec: Spec, *, learning_rate=2e-3, rate=0.02) -> Agent:
    policy = distribution(spec.action)
    actor, critic = Torso(spec.observation, (64, 64), "relu", final=policy.size, final_gain=0.01), MLP((64, 64), "relu", 1)

    def init(key):
        critics = jax.vmap(lambda k: critic.init(k, jnp.concatenate([dummy(spec.observation), dummy(spec.action)], -1)))(jax.random.split(key))
        params = {"actor": actor.init(key, dummy(spec.observation)), "critic": critics, "log_a1": jnp.float32(-1), "log_a2": jnp.float32(0)}
        return SACState(params, params, ADAM.init(params))

    def act(state, key, inputs):
        memory, obs, _, mode = inputs
        parameters = actor.apply(state.params["actor"], obs)
        return memory, policy.to_action(policy.sample(parameters, key) if mode == "explore" else policy.mode(parameters)), {}

    def drawn(params, obs, key):
        parameters = actor.apply(params["actor"], obs)
        raw = policy.sample(parameters, key)
        return policy.to_action(raw), policy.log_prob(parameters, raw)

    def values(params, obs, action):
        return jax.vmap(critic.apply, (0, None))(params["critic"], jnp.concatenate([obs, action], axis=-1))[..., 0]

    def learn(state, key, inputs):
        batch, signal = inputs
        (gain, weight), stream = signal.regulariser or Regulariser(lambda obs, action: jnp.zeros(obs.shape[0]), 0.0), signal.streams[0]
        next_key, key, average_key = jax.random.split(key, 3)
        a1, a2 = jnp.exp(state.params["log_a1"]), weight * jnp.maximum(1.0 - 1.5 * signal.progress, 0.0) * jnp.exp(state.params["log_a2"])
        action, log_prob = drawn(state.params, batch.next_obs, next_key)
        future = jnp.min(values(state.target, batch.next_obs, action), axis=0) + a2 * gain(batch.next_obs, action) - a1 * log_prob
        wanted = stream.weight * stream.reward + stream.discount * jnp.where(batch.terminated, 0.0, future)
        average_gain = gain(batch.obs, drawn(state.target, batch.obs, average_key)[0])

        def loss(params):
            action, log_prob = drawn(params, batch.obs, key)
            gained = gain(batch.obs, action)
            critic_loss = jnp.mean(jnp.sum(jnp.square(values(params, batch.obs, batch.action) - held(wanted)), axis=0))
            actor_loss = jnp.mean(a1 * log_prob - jnp.min(values(held(params), batch.obs, action), axis=0) - a2 * gained)
            gaps = held(jnp.mean(-log_prob) + spec.action.shape[0]), held(jnp.mean(gained - average_gain))
            return critic_loss + actor_loss + params["log_a1"] * gaps[0] + params["log_a2"] * gaps[1], {"a1": a1, "a2": a2}

        grads, metrics = jax.grad(loss, has_aux=True)(state.params)
        params, optimizer = descend(state.params, state.optimizer, grads, learning_rate)
        return SACState(params, jax.tree.map(lambda old, new: old + rate * (new - old), state.target, params), optimizer), Learnt(metrics)

    return Agent(init, lambda state, lanes: (), act, learn)


def make_runner(hyper):
    return off_policy(WORLD, sac, information_gain, lanes=16, discount=0.97, weight=hyper["weight"])


@pytest.mark.medium
def test_information_gain_reaches_the_corner_that_sac_gives_up_on():
    """Acting costs, so plain SAC learns to stay and gets 0. Measured, eight seeds: 28.7 to 30.7 (the best is 31); 0 for seven, 7.6."""
    returns = evaluated(trained(make_runner, SEEDS, 1000, weight=[2.0, 0.0]))
    assert np.min(returns[:SEEDS]) > 20.0 and np.median(returns[SEEDS:]) < 1.0, returns


@pytest.mark.medium
def test_the_gain_acts_through_the_action_and_weight_0_is_plain_sac():
    keys = jax.random.split(jax.random.PRNGKey(0), 3)
    explorer, no = information_gain(WORLD.spec), jnp.zeros(64, bool)
    learner, state = jax.jit(sac(WORLD.spec).init)(keys[0]), jax.jit(explorer.init)(keys[1])
    obs, action = jax.random.uniform(keys[2], (2, 64, 2))
    batch = Transition(obs, action, jnp.ones(64), obs + 0.1 * action, no, no, no, {})

    @jax.jit
    def updated(weight, through=None):
        """Parameters after one update; the gain's gradient through the action is scaled by ``through``. None: plain SAC."""
        gain = regulariser(explorer, state, weight)
        bent = gain._replace(value=lambda o, a: gain.value(o, through * a + (1.0 - through) * held(a)))
        signal = Signal((RewardStream(batch.reward, 0.97, 1.0, True),), regulariser=None if through is None else bent)
        return sac(WORLD.spec).learn(learner, keys[0], (batch, signal))[0].params

    plain, zero, full, detached = updated(1.0), updated(0.0, 1.0), updated(1.0, 1.0), updated(1.0, 0.0)
    assert max(distance(zero[part], plain[part]) for part in ("actor", "critic", "log_a1")) < 1e-6
    assert min(distance(full[part], plain[part]) for part in ("actor", "critic")) > 1e-5
    assert distance(full["actor"], detached["actor"]) > 1e-5 and distance(full["critic"], detached["critic"]) < 1e-6
