"""What the bonuses' networks share: observations as floats, a small network for any of them, and a fit over shuffled minibatches."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from gymnasium import spaces

from agents.networks import MLP, Convolutions, dummy, encoder_kind
from envs.base import Key, PyTree, foreign_code
from exploration.normalizers import lead_ndim

ADAM = optax.scale_by_adam(eps=1e-8)  # the learning rate is applied apart, so that it may be traced


class Embedder(nn.Module):
    """Float observations [..., *shape] -> f32 [..., embedding]."""

    space: spaces.Space  # a space of floats
    hidden: Sequence[int]
    embedding: int

    @nn.compact
    def __call__(self, obs):
        inner = self.space.spaces if isinstance(self.space, spaces.Dict) else {"": self.space}
        parts = []
        for name, space in inner.items():
            part = obs[name] if name else obs
            lead = part.shape[: part.ndim - len(space.shape)]
            pixels = encoder_kind(space) == "cnn"
            parts.append(Convolutions(space, "leaky_relu")(part) if pixels else part.reshape(*lead, -1))
        return MLP(tuple(self.hidden), "relu", self.embedding)(jnp.concatenate(parts, axis=-1))


def float_space(space: spaces.Space) -> spaces.Space:
    """The space of ``to_floats(space, obs)``."""
    if isinstance(space, spaces.Dict):
        return spaces.Dict({name: float_space(inner) for name, inner in space.spaces.items()})
    shape = (int(space.n),) if isinstance(space, spaces.Discrete) else space.shape
    return spaces.Box(-np.inf, np.inf, shape, np.float32)


def to_floats(space: spaces.Space, obs: PyTree) -> PyTree:
    """Observations as f32 of any leading shape: Discrete ones as one-hot, codes and pixels divided by their largest value."""
    if isinstance(space, spaces.Dict):
        return {name: to_floats(inner, obs[name]) for name, inner in space.spaces.items()}
    if isinstance(space, spaces.Discrete):
        return jax.nn.one_hot(obs - int(space.start), int(space.n), dtype=jnp.float32)
    largest = int(np.max(space.high)) if np.issubdtype(space.dtype, np.integer) else 1
    return obs.astype(jnp.float32) / (largest if 1 < largest <= 255 else 1.0)


def flat_floats(space: spaces.Space, obs: PyTree) -> jax.Array:
    """``to_floats`` with all numbers of an observation in one axis: f32[..., flat_width(space)]."""
    axes = lead_ndim(space, obs)
    return jnp.concatenate([x.reshape(*x.shape[:axes], -1) for x in jax.tree.leaves(to_floats(space, obs))], axis=-1)


def flat_width(space: spaces.Space) -> int:
    return sum(leaf.size for leaf in jax.tree.leaves(dummy(float_space(space))))


def flatten_lead(tree: PyTree, lead: int) -> PyTree:
    """Merge the first ``lead`` axes of every leaf into one."""
    return jax.tree.map(lambda x: x.reshape(-1, *x.shape[lead:]), tree)


def fit(
    key: Key,
    params: PyTree,
    optimizer: PyTree,
    data: PyTree,
    loss: Callable[[PyTree, PyTree, Key], tuple[jax.Array, dict]],
    *,
    learning_rate: jax.Array | float,
    minibatches: int,
    epochs: int,
) -> tuple[PyTree, PyTree, dict]:
    """Adam over shuffled minibatches of ``data`` [B, ...], ``epochs`` times -> (params, optimizer state, mean metrics).

    ``loss(params, minibatch, key) -> (f32[], metrics)``. Minibatches have B // minibatches samples; the rest sits this pass out.
    """
    samples = jax.tree.leaves(data)[0].shape[0]
    minibatches = min(minibatches, samples)
    size = samples // minibatches
    shuffle_key, loss_key = jax.random.split(key)
    orders = jax.vmap(lambda k: jax.random.permutation(k, samples))(jax.random.split(shuffle_key, epochs))
    indices = orders[:, : minibatches * size].reshape(epochs * minibatches, size)

    def step(carry, inputs):
        params, optimizer = carry
        index, key = inputs
        minibatch = jax.tree.map(lambda x: x[index], data)
        grads, metrics = jax.grad(loss, has_aux=True)(params, minibatch, key)
        with foreign_code():
            updates, optimizer = ADAM.update(grads, optimizer)
        params = jax.tree.map(lambda p, u: p - learning_rate * u, params, updates)
        return (params, optimizer), metrics

    keys = jax.random.split(loss_key, epochs * minibatches)
    (params, optimizer), metrics = jax.lax.scan(step, (params, optimizer), (indices, keys))
    return params, optimizer, jax.tree.map(jnp.mean, metrics)
