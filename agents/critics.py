"""Ensembles of state-action values: K critics as one batched network, [K, B], and the targets that take the least of some of them.

REDQ (arXiv 2101.05982) draws ``subset`` of the K critics for every batch; with two critics and a subset of two it is the clipped double Q of TD3 and
SAC. Dropout and layer norms are those of DroQ (arXiv 2110.02034).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from gymnasium import spaces

from agents.networks import activation, dummy, make_encoder, orthogonal
from envs.base import Key, PyTree, Spec


class Critics(NamedTuple):
    init: Callable[[Key], PyTree]
    values: Callable[..., jax.Array]  # (params, obs [B], action [B], key=None) -> f32[K, B]; a key switches dropout on


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


def critics(spec: Spec, number: int, hidden: Sequence[int], act: str, encoder: str, dropout: float = 0.0, layer_norm: bool = False) -> Critics:
    """``number`` critics that differ in their initial weights."""
    net = Critic(spec.observation, tuple(hidden), act, encoder, dropout, layer_norm)

    def init(key):
        action = jnp.zeros((1, *spec.action.shape), jnp.float32)
        return jax.vmap(lambda k: net.init(k, dummy(spec.observation), action))(jax.random.split(key, number))

    def values(params, obs, action, key=None):
        if not dropout or key is None:
            return jax.vmap(lambda p: net.apply(p, obs, action))(params)
        return jax.vmap(lambda p, k: net.apply(p, obs, action, train=True, rngs={"dropout": k}))(params, jax.random.split(key, number))

    return Critics(init, values)


def least_of_some(values: jax.Array, key: Key, subset: int) -> jax.Array:
    """The least f32[B] of ``subset`` of the critics' values f32[K, B], drawn anew for every batch."""
    number = values.shape[0]
    if subset < number:
        values = values[jax.random.permutation(key, number)[:subset]]
    return jnp.min(values, axis=0)
