"""What the fit programs share: the loop's driver without the files, Adam, and a replay buffer (as long as agents/ has none)."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from envs.base import Key, PyTree
from runners.base import Runner
from runners.batching import Batch


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
    assert batch.finite().all()
    return batch


ADAM = optax.scale_by_adam()


def descend(params: PyTree, optimizer: PyTree, grads: PyTree, learning_rate) -> tuple[PyTree, PyTree]:
    """One step of Adam -> (params, optimizer state of ``ADAM``)."""
    updates, optimizer = ADAM.update(grads, optimizer)
    return jax.tree.map(lambda p, u: p - learning_rate * u, params, updates), optimizer


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
