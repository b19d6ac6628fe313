"""Ensembles of state-action values: K critics as one batched network, [K, B], and the targets that take the least of some of them.

Each critic has an encoder of its own, and the policy sees observations; or, with ``latent``, all critics share one (DrQ, arXiv 2004.13649): the encoder that
observations of this kind have, then a projection to so many numbers. It is a part of the critics' parameters, so it learns from their loss, and a slow copy
of the critics has a slow copy of it. The policy then sees its features before the projection, without gradient.

REDQ (arXiv 2101.05982) draws ``subset`` of the K critics for every batch; with two critics and a subset of two it is the clipped double Q of TD3 and
SAC. Dropout and layer norms are those of DroQ (arXiv 2110.02034).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from gymnasium import spaces

from agents.networks import Projection, activation, dummy, make_encoder, orthogonal
from envs.base import Key, PyTree, Spec


class Critics(NamedTuple):
    init: Callable[[Key], PyTree]
    values: Callable[..., jax.Array]  # (params, obs [B], action [B], key=None) -> f32[K, B]; a key switches dropout on
    some: Callable[..., PyTree]  # (params, first i32, number) -> params of so many critics, from the first on
    seen: spaces.Space  # what the policy sees of an observation
    see: Callable[[PyTree, PyTree], PyTree]  # (params, obs [B]) -> that; no gradient reaches params
    encode: Callable[[PyTree, PyTree], jax.Array] | None = None  # (params, obs [B]) -> f32[B, latent]; where critics share an encoder


class Critic(nn.Module):
    """One value of an observation and an action."""

    space: spaces.Space
    hidden: Sequence[int]
    act: str
    encoder: str
    dropout: float
    layer_norm: bool

    @nn.compact
    def __call__(self, obs, action, train: bool = False):
        x = jnp.concatenate([make_encoder(self.space, self.encoder)(obs), action.reshape(*action.shape[:1], -1)], axis=-1)
        for width in self.hidden:
            x = nn.Dense(width, kernel_init=orthogonal())(x)
            if self.dropout:
                x = nn.Dropout(self.dropout, deterministic=not train)(x)
            if self.layer_norm:
                x = nn.LayerNorm()(x)
            x = activation(self.act)(x)
        return nn.Dense(1, kernel_init=orthogonal(1.0))(x)[..., 0]


class SharedEncoder(nn.Module):
    """obs [B, ...] -> f32[B, latent]."""

    space: spaces.Space
    encoder: str
    latent: int

    def setup(self):
        self.net, self.projection = make_encoder(self.space, self.encoder), Projection(self.latent)

    def __call__(self, obs):
        return self.projection(self.net(obs))

    def features(self, obs):
        return self.net(obs)


def critics(
    spec: Spec,
    number: int,
    hidden: Sequence[int],
    act: str,
    encoder: str,
    dropout: float = 0.0,
    layer_norm: bool = False,
    latent: int | None = None,
) -> Critics:
    """``number`` critics that differ in their initial weights. With ``latent`` they share an encoder to so many numbers."""
    if latent is not None:
        inside = spec._replace(observation=spaces.Box(-1.0, 1.0, (latent,), np.float32))
        return sharing(spec, critics(inside, number, hidden, act, "mlp", dropout, layer_norm), SharedEncoder(spec.observation, encoder, latent))
    net = Critic(spec.observation, tuple(hidden), act, encoder, dropout, layer_norm)

    def init(key):
        action = jnp.zeros((1, *spec.action.shape), jnp.float32)
        return jax.vmap(lambda k: net.init(k, dummy(spec.observation), action))(jax.random.split(key, number))

    def values(params, obs, action, key=None):
        if not dropout or key is None:
            return jax.vmap(lambda p: net.apply(p, obs, action))(params)
        return jax.vmap(lambda p, k: net.apply(p, obs, action, train=True, rngs={"dropout": k}))(params, jax.random.split(key, number))

    def some(params, first, number):
        return jax.tree.map(lambda x: jax.lax.dynamic_slice_in_dim(x, first, number), params)

    return Critics(init, values, some, spec.observation, lambda params, obs: obs)


def sharing(spec: Spec, inner: Critics, net: SharedEncoder) -> Critics:
    """``inner``, critics of latents, behind ``net``; parameters {"critics", "encoder"}."""

    def init(key):
        return {"critics": inner.init(key), "encoder": net.init(jax.random.fold_in(key, 1), dummy(spec.observation))}

    def encode(params, obs):
        return net.apply(params["encoder"], obs)

    def values(params, obs, action, key=None):
        return inner.values(params["critics"], encode(params, obs), action, key)

    def some(params, first, number):
        return params | {"critics": inner.some(params["critics"], first, number)}

    def see(params, obs):
        return jax.lax.stop_gradient(net.apply(params["encoder"], obs, method="features"))

    features = jax.eval_shape(lambda key: see(init(key), dummy(spec.observation)), jax.random.PRNGKey(0))
    return Critics(init, values, some, spaces.Box(-np.inf, np.inf, features.shape[1:], np.float32), see, encode)


def least_of_some(values: jax.Array, key: Key, subset: int) -> jax.Array:
    """The least f32[B] of ``subset`` of the critics' values f32[K, B], drawn anew for every batch."""
    number = values.shape[0]
    if subset < number:
        values = values[jax.random.permutation(key, number)[:subset]]
    return jnp.min(values, axis=0)
