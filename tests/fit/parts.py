"""What the fit programs share as long as the library has no off-policy side: a replay buffer, a runner, Adam, and the loop's driver."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from agents.base import Regulariser, RewardStream, Signal
from envs.base import Environment, Key, Lanes, PyTree, Transition
from exploration.base import Bonus
from runners import metrics as m
from runners.base import Runner
from runners.batching import Batch
from runners.source import jax_source

ADAM = optax.scale_by_adam()


def descend(params: PyTree, optimizer: PyTree, grads: PyTree, learning_rate) -> tuple[PyTree, PyTree]:
    """One step of Adam -> (params, optimizer state of ``ADAM``)."""
    updates, optimizer = ADAM.update(grads, optimizer)
    return jax.tree.map(lambda p, u: p - learning_rate * u, params, updates), optimizer


def trained(make_runner: Callable[[dict], Runner], seeds: int, iterations: int, **arms: list[float]) -> Batch:
    """Every arm with every seed, side by side in one compiled program, driven as ``farlands train`` drives it.

    ``arms`` are traced hyper-parameters, one value per arm: ``weight=[1.0, 0.0]`` with three seeds makes six members.
    """
    keys = jnp.tile(jax.random.split(jax.random.PRNGKey(0), seeds), (len(next(iter(arms.values()))), 1))
    batch = Batch(make_runner, keys, {name: jnp.repeat(jnp.array(values), seeds) for name, values in arms.items()}, "vmap")
    batch.plan()
    batch.compile()
    batch.start()
    batch.run(0, iterations, iterations)
    assert batch.sound().all()
    return batch


def evaluated(batch: Batch, name: str = "evaluation/return") -> np.ndarray:
    """One metric of every member's evaluation, f[M]."""
    return np.array([found[name] for found in batch.evaluate(jax.random.split(jax.random.PRNGKey(1), batch.members))])


def distance(a: PyTree, b: PyTree) -> float:
    """Largest absolute difference."""
    return max(float(jnp.max(jnp.abs(x - y))) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True))


class Ring(NamedTuple):
    """A replay buffer: rows of any pytree, the oldest overwritten first."""

    rows: PyTree  # [capacity, ...]
    written: jax.Array  # i32[]; rows ever written


def ring(example: PyTree, capacity: int) -> Ring:
    """An empty buffer of rows like ``example`` (arrays, or shapes and dtypes)."""
    return Ring(jax.tree.map(lambda x: jnp.zeros((capacity, *x.shape), x.dtype), example), jnp.int32(0))


def push(state: Ring, rows: PyTree) -> Ring:
    """Write rows [N, ...]."""
    count, capacity = (len(jax.tree.leaves(tree)[0]) for tree in (rows, state.rows))
    at = (state.written + jnp.arange(count)) % capacity
    return Ring(jax.tree.map(lambda old, new: old.at[at].set(new), state.rows, rows), state.written + count)


def draw(state: Ring, key: Key, count: int) -> PyTree:
    """Uniformly drawn rows [count, ...], with replacement."""
    capacity = len(jax.tree.leaves(state.rows)[0])
    index = jax.random.randint(key, (count,), 0, jnp.minimum(state.written, capacity))
    return jax.tree.map(lambda x: x[index], state.rows)


class OffPolicyState(NamedTuple):
    key: jax.Array  # the member's key; never changes
    source: Lanes
    memory: PyTree
    agent: PyTree
    bonus: PyTree
    replay: Ring | None  # of Transition


def regulariser(bonus: Bonus, state: PyTree, weight=1.0) -> Regulariser:
    """Of a differentiable bonus that scores obs and action alone."""
    assert bonus.info.differentiable and set(bonus.info.needs) <= {"obs", "action"}
    return Regulariser(lambda obs, action: bonus.value(state, bonus.score(state, Transition(obs, action, *[None] * 5, {}))), weight)


def off_policy(env: Environment, make_agent: Callable, make_bonus: Callable, *, lanes, discount, weight=1.0, capacity=2**14, batch=128) -> Runner:
    """One iteration: a step of all lanes, then a batch of the replay, scored as it is drawn. A differentiable bonus reaches the agent as
    ``Signal.regulariser``, any other as a reward stream of ``weight``. Evaluation is one greedy episode per lane."""
    source = jax_source(env, lanes, "members")
    agent, bonus = make_agent(source.spec), make_bonus(source.spec)

    def interact(state, key, mode):
        act_key, step_key, observe_key, reset_key = jax.random.split(key, 4)
        memory, action, _ = agent.act(state.agent, act_key, (state.memory, state.source.obs, state.source.first, mode))
        source_state, new = source.step(state.source, step_key, action)
        bonus_state, notes = bonus.observe(state.bonus, observe_key, new)
        bonus_state, source_state = bonus.reset(bonus_state, new.done), source.restart(source_state, reset_key, new.done)
        return state._replace(source=source_state, memory=memory, bonus=bonus_state), new._replace(annotations=notes)

    def init(key):
        keys = jax.random.split(key, 3)
        agent_state = agent.init(keys[1])
        state = OffPolicyState(key, source.init(keys[0]), agent.start(agent_state, lanes), agent_state, bonus.init(keys[2]), None)
        _, new = jax.eval_shape(lambda: interact(state, key, "explore"))  # nothing else says what a transition holds
        row = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape[1:], x.dtype), new)
        return state._replace(replay=ring(row, capacity))

    def step(state, clock):
        keys = jax.random.split(jax.random.fold_in(state.key, clock.iteration), 4)
        state, new = interact(state, keys[0], "explore")
        replay = push(state.replay, new)
        drawn = draw(replay, keys[1], batch)
        bonus_state = bonus.calibrate(state.bonus, bonus.score(state.bonus, jax.tree.map(lambda x: x[None], new)))  # [1, N], in time order
        raw = bonus.score(bonus_state, drawn)
        signal = Signal((RewardStream(drawn.reward, discount, 1.0, True),), clock.progress)
        if bonus.info.differentiable:
            signal = signal._replace(regulariser=regulariser(bonus, bonus_state, weight))
        else:
            signal = signal._replace(streams=(*signal.streams, RewardStream(bonus.value(bonus_state, raw), discount, weight, True)))
        agent_state, learnt = agent.learn(state.agent, keys[2], (drawn, signal))
        bonus_state, found = bonus.update(bonus_state, keys[3], (drawn, learnt.payload))
        metrics = {**learnt.metrics, **found, **drawn.annotations, "reward": new.reward, "fresh": raw}
        return state._replace(agent=agent_state, bonus=bonus_state, replay=replay), m.typed(metrics)

    def evaluate(state, key):
        fresh = state._replace(source=source.init(key), memory=agent.start(state.agent, lanes))
        steps = jax.lax.scan(lambda s, k: interact(s, k, "greedy"), fresh, jax.random.split(key, env.spec.max_steps))[1]
        return {"evaluation/return": m.mean(steps.info["episode_return"], steps.done)}

    return Runner(init, step, evaluate, source.spec, lanes)
