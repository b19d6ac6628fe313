"""Networks of action values: an encoder, dense layers, and outputs per action; several members of them side by side, with random priors.

Duelling (Wang et al., arXiv 1511.06581, equation 9): outputs are V + A - mean over actions of A, both from the same last hidden layer.
Random priors (Osband et al., arXiv 1806.03335): member m is f_m + prior_scale g_m, with g_m of the same shape and never trained.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from gymnasium import spaces

from agents.networks import Dense, activation, dummy, make_encoder
from agents.noisy import NoisyDense
from envs.base import Key, PyTree


class QNetwork(nn.Module):
    """obs [..., *shape] -> f32[..., actions, width]."""

    space: spaces.Space
    hidden: Sequence[int]
    act: str
    encoder: str
    actions: int
    width: int
    dueling: bool
    noisy: bool  # all dense layers
    sigma: Any

    def setup(self):
        self.encoding = make_encoder(self.space, self.encoder, rows=bool(self.hidden) and not self.noisy)
        self.layers = [self.dense(size) for size in self.hidden]
        self.values = self.dense(self.actions * self.width, gain=1.0)
        if self.dueling:
            self.baseline = self.dense(self.width, gain=1.0)

    def dense(self, size, **gain):
        return NoisyDense(size, self.sigma) if self.noisy else Dense(size, **gain)

    def latent(self, obs):
        """The last hidden layer."""
        x = self.encoding(obs)
        for layer in self.layers:
            x = activation(self.act)(layer(x))
        return x

    def __call__(self, obs):
        x = self.latent(obs)
        values = self.values(x)
        values = values.reshape(*values.shape[:-1], self.actions, self.width)
        if self.dueling:
            values = values - jnp.mean(values, axis=-2, keepdims=True) + self.baseline(x)[..., None, :]
        return values


class QStack(NamedTuple):
    """``members`` networks. Without a key there is no noise."""

    init: Callable[[Key], PyTree]  # key -> parameters of all members
    outputs: Callable[[PyTree, PyTree, PyTree, Key | None], jax.Array]  # (params, priors, obs [...], key) -> f32[members, ..., actions, width]
    each_lane: Callable[[PyTree, PyTree, PyTree, Key], jax.Array]  # the same for obs [N, ...], with noise of its own for every lane
    latent: Callable[[PyTree, PyTree], jax.Array]  # (params, obs) -> [..., last hidden]; of the first member


def q_stack(space: spaces.Space, members: int, *, prior_scale: Any = None, offset: Any = None, **arguments: Any) -> QStack:
    """``members`` networks for ``space``. ``prior_scale``: None for no priors; ``offset``: added to every output, which is the same as a last
    bias that starts there. ``arguments``: those of ``QNetwork``."""
    network = QNetwork(space, **arguments)

    def init(key):
        if members == 1:
            return network.init(key, dummy(space))
        # one after the other: several QR decompositions in one vmapped program hang some versions of jaxlib on a CPU
        return jax.lax.map(lambda k: network.init(k, dummy(space)), jax.random.split(key, members))

    def each(params, obs, key):
        noise = None if key is None else jax.random.split(key, members)
        if members == 1:
            return network.apply(params, obs, rngs=None if noise is None else {"noise": noise[0]})[None]
        return jax.vmap(lambda p, k: network.apply(p, obs, rngs=None if k is None else {"noise": k}), in_axes=(0, None if noise is None else 0))(params, noise)

    def outputs(params, priors, obs, key):
        found = each(params, obs, key if arguments["noisy"] else None)
        if prior_scale is not None:
            found = found + prior_scale * jax.lax.stop_gradient(each(priors, obs, None))
        return found if offset is None else found + offset

    def each_lane(params, priors, obs, key):
        if not arguments["noisy"]:
            return outputs(params, priors, obs, None)
        keys = jax.random.split(key, jax.tree.leaves(obs)[0].shape[0])
        return jax.vmap(lambda o, k: outputs(params, priors, o, k), out_axes=1)(obs, keys)

    def latent(params, obs):
        first = params if members == 1 else jax.tree.map(lambda x: x[0], params)
        return network.apply(first, obs, method="latent")

    return QStack(init, outputs, each_lane, latent)
