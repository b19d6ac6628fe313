"""Fit: the coin flip network (CFN, arXiv 2306.03186) under a replay agent, DQN (Mnih et al., 2015).

Every visit of a state gets random coins c in {-1, +1}^d. The regression s -> c finds their mean, and for a state seen n times
E[|f(s)|^2 / d] = 1/n, so b(s) = sqrt(|f(s)|^2 / d) is a count bonus. It has a replay buffer of its own with priorities that favour
what was seldom trained on; ``update`` learns from that, not from the agent's batch, which is scored when it is drawn. f is a trained
network plus a frozen one with whitened outputs. Departures: Adam, and a reward of b - 1, which makes untried actions look good.
"""

from __future__ import annotations

from typing import NamedTuple

from gymnasium import spaces
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from agents.base import Agent, RewardStream, Signal
from agents.networks import Torso, dummy
from agents.normalizers import Moments, moments_init, moments_normalize, moments_update
from envs.base import Environment, PyTree, Spec, TimeStep, Transition
from exploration.base import Bonus, BonusInfo, bonus
from runners import metrics as m
from runners.base import Runner
from runners.source import SourceState, jax_source
from tests.fit.parts import ADAM, Ring, descend, draw, push, ring, trained

SIDE, LIMIT, LANES, SEEDS, ITERATIONS, COINS, CAPACITY = 10, 36, 8, 4, 800, 20, 2**13
MOVES = np.array([[1, 0], [-1, 0], [0, 1], [0, -1]], np.int32)


def grid() -> Environment:
    """From one corner to the other, where a reward of 1 ends the episode; it is cut after LIMIT steps."""

    def seen(place):
        return jax.nn.one_hot(place[0] * SIDE + place[1], SIDE**2)

    def reset(key):
        place = jnp.zeros(2, jnp.int32)
        return (place, jnp.int32(0)), seen(place)

    def step(state, key, action):
        place, time = jnp.clip(state[0] + jnp.asarray(MOVES)[action], 0, SIDE - 1), state[1] + 1
        goal = jnp.all(place == SIDE - 1)
        return (place, time), TimeStep(seen(place), goal.astype(jnp.float32), goal, time >= LIMIT, {})

    return Environment(Spec(spaces.Box(0.0, 1.0, (SIDE**2,)), spaces.Discrete(4), "grid", LIMIT), reset, step)


class CFNState(NamedTuple):
    params: PyTree
    prior: PyTree  # never trained
    moments: Moments  # of the prior's outputs
    optimizer: PyTree
    visits: Ring  # of {"obs", "coins", "priority", "drawn"}


def cfn(spec: Spec, *, learning_rate=1e-3, batch=256, balance=0.5) -> Bonus:
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


def dqn(spec: Spec, *, epsilon=0.1, learning_rate=2e-3, rate=0.05) -> Agent:
    """Q-learning on the weighted sum of the streams. State: (params, target params, Adam); the target follows at ``rate``."""
    net = Torso(spec.observation, (64, 64), "relu", final=int(spec.action.n))

    def init(key):
        params = net.init(key, dummy(spec.observation))
        return params, params, ADAM.init(params)

    def act(state, key, inputs):
        memory, obs, _, mode = inputs
        best = jnp.argmax(net.apply(state[0], obs), axis=-1).astype(jnp.int32)
        random = jax.random.bernoulli(key, epsilon, best.shape) & (mode == "explore")
        return memory, jnp.where(random, jax.random.randint(key, best.shape, 0, int(spec.action.n)), best), {}

    def learn(state, key, inputs):
        (params, target, optimizer), (batch, signal) = state, inputs
        future = jnp.where(batch.terminated, 0.0, jnp.max(net.apply(target, batch.next_obs), axis=-1))
        wanted = sum(stream.weight * stream.reward for stream in signal.streams) + signal.streams[0].discount * future

        def loss(params):
            return jnp.mean(jnp.square(jnp.take_along_axis(net.apply(params, batch.obs), batch.action[:, None], axis=-1)[:, 0] - wanted))

        error, grads = jax.value_and_grad(loss)(params)
        params, optimizer = descend(params, optimizer, grads, learning_rate)
        return (params, optax.incremental_update(params, target, rate), optimizer), {"q_loss": error}

    return Agent(init, lambda state, lanes: (), act, learn)


class State(NamedTuple):
    key: jax.Array
    source: SourceState
    agent: PyTree
    bonus: CFNState
    replay: Ring | None  # of Transition


def make_runner(hyper) -> Runner:
    """One iteration: a step of all lanes, then a batch of the replay, scored as it is drawn."""
    source = jax_source(grid(), LANES, "members")
    agent, explorer = dqn(source.spec), cfn(source.spec)

    def interact(state, key, mode):
        act_key, step_key, reset_key, coin_key = jax.random.split(key, 4)
        _, action, _ = agent.act(state.agent, act_key, ((), state.source.obs, state.source.first, mode))
        source_state, step = source.step(state.source, step_key, action)
        explored, notes = explorer.observe(state.bonus, coin_key, step)
        source_state = source.restart(source_state, reset_key, step.done)
        return state._replace(source=source_state, bonus=explored), step._replace(annotations=notes)

    def init(key):
        keys = jax.random.split(key, 3)
        state = State(key, source.init(keys[0]), agent.init(keys[1]), explorer.init(keys[2]), None)
        _, step = jax.eval_shape(lambda: interact(state, key, "explore"))  # nothing else says what a transition holds
        return state._replace(replay=ring(jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape[1:], x.dtype), step), CAPACITY))

    def step(state, clock):
        keys = jax.random.split(jax.random.fold_in(state.key, clock.iteration), 4)
        state, new = interact(state, keys[0], "explore")
        replay = push(state.replay, new)
        batch = draw(replay, keys[1], 128)
        fresh = explorer.score(state.bonus, batch)
        streams = RewardStream(batch.reward, 0.99, 1.0, True), RewardStream(explorer.value(state.bonus, fresh), 0.99, hyper["weight"], True)
        learnt, aux = agent.learn(state.agent, keys[2], (batch, Signal(streams, clock.progress)))
        explored, metrics = explorer.update(state.bonus, keys[3], (batch, aux))
        found = {**aux, **metrics, "stale": batch.annotations["stale"], "fresh": fresh}
        return state._replace(agent=learnt, bonus=explored, replay=replay), m.typed(found)

    def evaluate(state, key):
        fresh = state._replace(source=source.init(key))
        steps = jax.lax.scan(lambda s, k: interact(s, k, "greedy"), fresh, jax.random.split(key, LIMIT))[1]
        return {"return": m.mean(steps.info["episode_return"], steps.done)}

    return Runner(init, step, evaluate, source.spec, LANES)


@pytest.mark.medium
def test_cfn_counts_and_its_replay_agent_reaches_the_goal():
    batch = trained(make_runner, SEEDS, ITERATIONS, weight=[1.0, 0.0])
    returns = np.array([found["return"] for found in batch.evaluate(jax.random.split(jax.random.PRNGKey(1), 2 * SEEDS))])
    assert np.all(returns[:SEEDS] == 1.0) and np.all(returns[SEEDS:] == 0.0), returns  # without a bonus the goal is never found

    states, everywhere = batch.snapshot()[0].bonus, Transition(None, None, None, jnp.eye(SIDE**2), None, None, None, {})
    bonuses = jax.vmap(lambda state: cfn(grid().spec).score(state, everywhere))(jax.tree.map(jnp.asarray, states))
    counts = states.visits.rows["obs"].sum(axis=1)  # one-hot, and the buffer holds every visit
    correlations = [np.corrcoef(b[n > 0], 1.0 / np.sqrt(n[n > 0]))[0, 1] for b, n in zip(np.asarray(bonuses), counts, strict=True)]
    assert counts.sum() == 2 * SEEDS * LANES * ITERATIONS
    print(correlations, returns)
    assert np.min(correlations) > 0.9, correlations

    scored = batch.take_metrics()[0]  # what the replayed steps were worth when they were made, and what when they were drawn
    print(scored)
    assert scored["fresh"] < 0.7 * scored["stale"]
