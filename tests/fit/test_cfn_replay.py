"""Fit: the coin flip network (CFN, arXiv 2306.03186) under a replay agent, DQN, on DeepSea.

Every visit of a state gets random coins c in {-1, +1}^d; the mean that regression s -> c finds for a state seen n times has
E[|f(s)|^2 / d] = 1/n, so b(s) = sqrt(|f(s)|^2 / d) is a count bonus. The bonus has a replay buffer of its own, with priorities that
favour what was seldom trained on; ``update`` learns from it and not from the agent's batch. A batch of the agent's replay is scored
when it is drawn. f is a trained network plus a frozen random one with whitened outputs, so unseen states start at about 1.
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

SIDE, LIMIT, LANES, SEEDS, ITERATIONS, COINS = 10, 36, 8, 3, 800, 20


def grid() -> Environment:
    """From one corner to the other: reward 1 and the end there, else 0; four moves, cut after LIMIT steps."""

    def seen(place):
        return jax.nn.one_hot(place[0] * SIDE + place[1], SIDE * SIDE)

    def reset(key):
        return (jnp.zeros(2, jnp.int32), jnp.int32(0)), seen(jnp.zeros(2, jnp.int32))

    def step(state, key, action):
        place = jnp.clip(state[0] + jnp.array([[1, 0], [-1, 0], [0, 1], [0, -1]])[action], 0, SIDE - 1)
        goal, time = jnp.all(place == SIDE - 1), state[1] + 1
        return (place, time), TimeStep(seen(place), goal.astype(jnp.float32), goal, time >= LIMIT, {"state_id": place[0] * SIDE + place[1]})

    spec = Spec(spaces.Box(0.0, 1.0, (SIDE * SIDE,)), spaces.Discrete(4), "grid", LIMIT, {"state_id": spaces.Discrete(SIDE * SIDE)}, SIDE * SIDE, 1.0)
    return Environment(spec, reset, step)


WORLD = grid()


class Ring(NamedTuple):
    """A replay buffer: rows of any pytree, overwritten in turn."""

    rows: PyTree  # [capacity, ...]
    written: jax.Array  # i32[]; rows ever written


def ring(example: PyTree, capacity: int = 2**14) -> Ring:
    return Ring(jax.tree.map(lambda x: jnp.zeros((capacity, *x.shape), x.dtype), example), jnp.int32(0))


def push(state: Ring, rows: PyTree) -> Ring:
    at = (state.written + jnp.arange(LANES)) % len(jax.tree.leaves(state.rows)[0])
    return Ring(jax.tree.map(lambda old, new: old.at[at].set(new), state.rows, rows), state.written + LANES)


class CFNState(NamedTuple):
    params: PyTree
    prior: PyTree  # never trained
    moments: Moments  # of the prior's outputs
    optimizer: PyTree
    visits: Ring  # {"obs", "coins", "priority", "drawn"}


def cfn(spec: Spec, *, learning_rate: float = 1e-3, batch: int = 256, balance: float = 0.5) -> Bonus:
    """``balance``: share of the priority that is 1 / times drawn; the rest is the estimate of 1/n."""
    net = Torso(spec.observation, (64, 64), "relu", final=COINS)
    optimizer = optax.adam(learning_rate)

    def init(key):
        params, prior = (net.init(k, dummy(spec.observation)) for k in jax.random.split(key))
        row = {"obs": dummy(spec.observation, ()), "coins": jnp.zeros(COINS), "priority": jnp.float32(0), "drawn": jnp.float32(0)}
        return CFNState(params, prior, moments_init((COINS,)), optimizer.init(params), ring(row))

    def flips(state, params, obs):
        return net.apply(params, obs) + jax.lax.stop_gradient(moments_normalize(state.moments, net.apply(state.prior, obs), 10.0))

    def observe(state, key, transition):
        ones = jnp.ones(LANES)
        coins = jax.random.rademacher(key, (LANES, COINS), jnp.float32)
        visits = push(state.visits, {"obs": transition.next_obs, "coins": coins, "priority": ones, "drawn": ones})
        moments = moments_update(state.moments, net.apply(state.prior, transition.next_obs))
        return state._replace(visits=visits, moments=moments), {"cfn": score(state, transition)}

    def score(state, transition):
        return jnp.sqrt(jnp.mean(jnp.square(flips(state, state.params, transition.next_obs)), axis=-1))

    def loss(params, state, rows):
        guess = flips(state, params, rows["obs"])
        return jnp.mean(jnp.square(guess - rows["coins"])), jnp.mean(jnp.square(guess), axis=-1)

    def update(state, key, inputs):
        table = state.visits.rows
        edges = jnp.cumsum(table["priority"])
        index = jnp.searchsorted(edges, jax.random.uniform(key, (batch,)) * edges[-1])
        rows = jax.tree.map(lambda x: x[index], table)
        (error, estimate), grads = jax.value_and_grad(loss, has_aux=True)(state.params, state, rows)
        updates, opt = optimizer.update(grads, state.optimizer)
        priority = table["priority"].at[index].set(balance / (rows["drawn"] + 1.0) + (1.0 - balance) * estimate)
        table = {**table, "priority": priority, "drawn": table["drawn"].at[index].add(1.0)}
        params = optax.apply_updates(state.params, updates)
        return state._replace(params=params, optimizer=opt, visits=state.visits._replace(rows=table)), {"loss": error}

    info = BonusInfo(needs=("next_obs",), stores=("cfn",), scored="batch")
    return bonus(init=init, observe=observe, score=score, update=update, value=lambda state, raw: raw - 1.0, info=info)


class DQNState(NamedTuple):
    params: PyTree
    target: PyTree
    optimizer: PyTree


def dqn(spec: Spec, *, epsilon: float = 0.02, learning_rate: float = 1e-3, rate: float = 0.02) -> Agent:
    """Deep Q-learning (Mnih et al., 2015) on the weighted sum of the streams; the target follows at ``rate``."""
    net = Torso(spec.observation, (64, 64), "relu", final=int(spec.action.n))
    optimizer = optax.adam(learning_rate)

    def init(key):
        params = net.init(key, dummy(spec.observation))
        return DQNState(params, params, optimizer.init(params))

    def act(state, key, inputs):
        memory, obs, first, mode = inputs
        best = jnp.argmax(net.apply(state.params, obs), axis=-1)
        flip, other = jax.random.bernoulli(key, epsilon, best.shape), jax.random.randint(key, best.shape, 0, int(spec.action.n))
        return memory, jnp.where(flip & (mode == "explore"), other, best), {}

    def learn(state, key, inputs):
        batch, signal = inputs
        reward = sum(stream.weight * stream.reward for stream in signal.streams)
        value = jnp.max(net.apply(state.target, batch.next_obs), axis=-1)
        wanted = reward + signal.streams[0].discount * jnp.where(batch.terminated, 0.0, value)

        def loss(params):
            q = jnp.take_along_axis(net.apply(params, batch.obs), batch.action[:, None], axis=-1)[:, 0]
            return jnp.mean(jnp.square(q - wanted))

        error, grads = jax.value_and_grad(loss)(state.params)
        updates, opt = optimizer.update(grads, state.optimizer)
        params = optax.apply_updates(state.params, updates)
        return DQNState(params, optax.incremental_update(params, state.target, rate), opt), {"loss": error}

    return Agent(init, lambda state, lanes: (), act, learn)


class State(NamedTuple):
    key: jax.Array
    source: SourceState
    agent: DQNState
    bonus: CFNState
    replay: Ring  # of Transition
    visits: jax.Array  # i32[states]; the truth


def make_runner(hyper) -> Runner:
    source = jax_source(WORLD, LANES, "members")
    agent, explorer = dqn(source.spec), cfn(source.spec)

    def act(state, source_state, key, mode):
        act_key, step_key, reset_key = jax.random.split(key, 3)
        _, action, _ = agent.act(state.agent, act_key, ((), source_state.obs, source_state.first, mode))
        source_state, step = source.step(source_state, step_key, action)
        return source.restart(source_state, reset_key, step.done), step

    def init(key):
        keys = jax.random.split(key, 4)
        start, explored = source.init(keys[0]), explorer.init(keys[1])
        state = State(key, start, agent.init(keys[2]), explored, None, jnp.zeros(WORLD.spec.num_states, jnp.int32))
        _, step = act(state, start, keys[3], "explore")
        noted = step._replace(annotations={"cfn": step.reward})
        return state._replace(replay=ring(jax.tree.map(lambda x: x[0], noted)))

    def step(state, clock):
        keys = jax.random.split(jax.random.fold_in(state.key, clock.iteration), 4)
        source_state, step = act(state, state.source, keys[0], "explore")
        explored, notes = explorer.observe(state.bonus, keys[1], step)
        replay = push(state.replay, step._replace(annotations=notes))
        index = jax.random.randint(keys[2], (128,), 0, jnp.minimum(replay.written, 2**14))
        batch = jax.tree.map(lambda x: x[index], replay.rows)
        fresh = explorer.score(explored, batch)
        streams = RewardStream(batch.reward, 0.99, 1.0, True), RewardStream(explorer.value(explored, fresh), 0.99, hyper["weight"], True)
        learnt, aux = agent.learn(state.agent, keys[3], (batch, Signal(streams, clock.progress)))
        explored, _ = explorer.update(explored, keys[3], (batch, aux))
        visits = state.visits.at[step.info["state_id"]].add(1)
        found = {"success": m.mean(step.info["episode_return"] > 0.5, step.done), "stale": batch.annotations["cfn"], "fresh": fresh, **aux}
        return State(state.key, source_state, learnt, explored, replay, visits), m.typed(found)

    def evaluate(state, key):
        end, steps = jax.lax.scan(lambda s, k: act(state, s, k, "greedy"), source.init(key), jax.random.split(key, LIMIT))
        return {"return": m.mean(steps.info["episode_return"], steps.done)}

    return Runner(init, step, evaluate, source.spec, LANES)


@pytest.mark.medium
def test_cfn(trained):
    batch = trained(make_runner, SEEDS, ITERATIONS, weight=[0.1, 0.0])
    states = batch.snapshot()[0]
    returns = np.array([found["return"] for found in batch.evaluate(jax.random.split(jax.random.PRNGKey(1), 2 * SEEDS))])
    print(batch.take_metrics(), returns)
    everywhere = jnp.eye(SIZE * SIZE).reshape(-1, SIZE, SIZE)
    asked = Transition(None, None, None, everywhere, None, None, None, {})
    for n in range(2 * SEEDS):
        state = jax.tree.map(lambda x: x[n], states)
        b = np.asarray(cfn(WORLD.spec).score(state.bonus, asked))
        seen = state.visits[:-1] > 0
        print(seen.sum(), np.corrcoef(b[seen], 1/np.sqrt(state.visits[:-1][seen]))[0,1], b[~seen].mean(), state.visits[:-1][seen].min())
