"""Fit: the coin flip network (CFN, arXiv 2306.03186) under a replay agent, DQN (Mnih et al., 2015).

Every visit of a state gets random coins c in {-1, +1}^d. The regression s -> c finds their mean, and for a state seen n times
E[|f(s)|^2 / d] = 1/n, so b(s) = sqrt(|f(s)|^2 / d) is a count bonus. It has a replay buffer of its own with priorities that favour
what was seldom trained on; ``update`` learns from that, not from the agent's batch, which is scored when it is drawn. f is a trained
network plus a frozen one with whitened outputs. Departures: Adam, and a reward of b - 1, which makes untried actions look good.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from agents.base import Agent, Learnt
from agents.networks import Torso, dummy
from agents.normalizers import Moments, moments_init, moments_normalize, moments_update
from envs.base import PyTree, Spec, Transition
from exploration.base import Bonus, BonusInfo, bonus
from tests.fit.parts import ADAM, Ring, descend, evaluated, off_policy, push, ring, trained
from tests.fit.worlds import grid

SIDE, LANES, SEEDS, ITERATIONS, COINS, CAPACITY = 10, 8, 4, 900, 40, 2**13
WORLD = grid(SIDE)


class CFNState(NamedTuple):
    params: PyTree
    prior: PyTree  # never trained
    moments: Moments  # of the prior's outputs
    optimizer: PyTree
    visits: Ring  # of {"obs", "coins", "priority", "drawn"}


def cfn(spec: Spec, *, learning_rate=3e-3, batch=256, balance=0.5) -> Bonus:
    """Priorities are balance / times drawn + (1 - balance) * estimate of 1/n."""
    net = Torso(spec.observation, (64, 64), "relu", final=COINS)

    def init(key):
        params, prior = (net.init(k, dummy(spec.observation)) for k in jax.random.split(key))
        row = {"obs": dummy(spec.observation, ()), "coins": jnp.zeros(COINS), "priority": jnp.float32(0), "drawn": jnp.float32(0)}
        return CFNState(params, prior, moments_init((COINS,)), ADAM.init(params), ring(row, CAPACITY))

    def flips(state, params, obs):
        return net.apply(params, obs) + jax.lax.stop_gradient(moments_normalize(state.moments, net.apply(state.prior, obs), 10.0))

    def score(state, transition):
        return jnp.sqrt(jnp.mean(jnp.square(flips(state, state.params, transition.next_obs)), axis=-1))

    def observe(state, key, transition):
        coins, ones = jax.random.rademacher(key, (spec.lanes, COINS), jnp.float32), jnp.ones(spec.lanes)
        visits = push(state.visits, {"obs": transition.next_obs, "coins": coins, "priority": ones, "drawn": ones})
        moments = moments_update(state.moments, net.apply(state.prior, transition.next_obs))
        return state._replace(visits=visits, moments=moments), {"stale": score(state, transition)}  # to compare with, not to learn from

    def update(state, key, inputs):
        table = state.visits.rows
        edges = jnp.cumsum(table["priority"])
        index = jnp.searchsorted(edges, jax.random.uniform(key, (batch,)) * edges[-1])
        rows = jax.tree.map(lambda x: x[index], table)

        def loss(params):
            guess = flips(state, params, rows["obs"])
            return jnp.mean(jnp.square(guess - rows["coins"])), jnp.mean(jnp.square(guess), axis=-1)

        (error, estimate), grads = jax.value_and_grad(loss, has_aux=True)(state.params)
        params, optimizer = descend(state.params, state.optimizer, grads, learning_rate)
        priority = table["priority"].at[index].set(balance / (rows["drawn"] + 1.0) + (1.0 - balance) * estimate)
        table = {**table, "priority": priority, "drawn": table["drawn"].at[index].add(1.0)}
        return state._replace(params=params, optimizer=optimizer, visits=state.visits._replace(rows=table)), {"coin_loss": error}

    info = BonusInfo(needs=("next_obs",), stores=("stale",), scored="batch")
    return bonus(init=init, observe=observe, score=score, update=update, value=lambda state, raw: raw - 1.0, info=info)


class DQNState(NamedTuple):
    params: PyTree
    target: PyTree
    optimizer: PyTree


def dqn(spec: Spec, *, epsilon=0.15, learning_rate=3e-3, rate=0.05) -> Agent:
    """Q-learning on the weighted sum of the streams; the target network follows at ``rate``."""
    net = Torso(spec.observation, (64, 64), "relu", final=int(spec.action.n))

    def init(key):
        params = net.init(key, dummy(spec.observation))
        return DQNState(params, params, ADAM.init(params))

    def act(state, key, inputs):
        memory, obs, _, mode = inputs
        best = jnp.argmax(net.apply(state.params, obs), axis=-1).astype(jnp.int32)
        random = jax.random.bernoulli(key, epsilon, best.shape) & (mode == "explore")
        return memory, jnp.where(random, jax.random.randint(key, best.shape, 0, int(spec.action.n)), best), {}

    def learn(state, key, inputs):
        batch, signal = inputs
        future = jnp.where(batch.terminated, 0.0, jnp.max(net.apply(state.target, batch.next_obs), axis=-1))
        wanted = sum(stream.weight * stream.reward for stream in signal.streams) + signal.streams[0].discount * future

        def loss(params):
            q = jnp.take_along_axis(net.apply(params, batch.obs), batch.action[:, None], axis=-1)[:, 0]
            return jnp.mean(jnp.square(q - wanted))

        error, grads = jax.value_and_grad(loss)(state.params)
        params, optimizer = descend(state.params, state.optimizer, grads, learning_rate)
        return DQNState(params, optax.incremental_update(params, state.target, rate), optimizer), Learnt({"q_loss": error})

    return Agent(init, lambda state, lanes: (), act, learn)


def make_runner(hyper):
    return off_policy(WORLD, dqn, cfn, lanes=LANES, discount=0.99, weight=hyper["weight"])


@pytest.mark.medium
def test_cfn_counts_and_its_replay_agent_reaches_the_goal():
    """Measured, ten seeds: the goal for all with the bonus, for none without; correlation 0.82 to 0.98, mean 0.94; fresh / stale 0.47."""
    batch = trained(make_runner, SEEDS, ITERATIONS, weight=[1.0, 0.0])
    returns = evaluated(batch)
    assert np.sum(returns[:SEEDS]) >= 3.0 and np.sum(returns[SEEDS:]) <= 1.0, returns

    states, everywhere = batch.snapshot()[0].bonus, Transition(None, None, None, jnp.eye(SIDE**2), None, None, None, {})
    bonuses = np.asarray(jax.vmap(lambda state: cfn(WORLD.spec).score(state, everywhere))(jax.tree.map(jnp.asarray, states)))
    counts = states.visits.rows["obs"].sum(axis=1)  # one-hot, and the buffer holds every visit
    assert counts.sum() == 2 * SEEDS * LANES * ITERATIONS
    correlations = [np.corrcoef(b[n > 0], 1.0 / np.sqrt(n[n > 0]))[0, 1] for b, n in zip(bonuses, counts, strict=True)]
    assert np.mean(correlations) >= 0.9, correlations

    scored = batch.take_metrics()[0]  # what the replayed steps were worth when they were made, and when they were drawn
    assert scored["fresh"] < 0.7 * scored["stale"]
