"""Encoders of observations into f32 features, for the bonuses that measure in feature space: random ones that stay as they are, and ones
trained by an inverse model that tells the action from two successive observations (Pathak et al., arXiv 1705.05363, equation 2)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from gymnasium import spaces

from agents.networks import MLP, dummy
from envs.base import Key, PyTree, Spec
from envs.builder import Choice, Refusal
from exploration.learning import Embedder, float_space, to_floats

KINDS = Choice(("inverse", "random"))


class Encoder(NamedTuple):
    """``encode`` works on any leading shape; ``loss`` is that of one flat minibatch, None where nothing is learnt."""

    init: Callable[[Key], PyTree]
    encode: Callable[[PyTree, PyTree], jax.Array]  # (params, obs) -> f32[..., embedding]
    loss: Callable[[PyTree, PyTree, PyTree, jax.Array], jax.Array] | None  # (params, obs [B], next_obs [B], action [B]) -> f32[]
    learns_from: tuple[str, ...]  # transition fields that ``loss`` reads


def encoder(spec: Spec, kind: str, hidden: Sequence[int], embedding: int, name: str = "this bonus") -> Encoder:
    """The encoder for ``spec``'s observations and actions. ``hidden``: widths of its dense layers, and of the inverse model's.

    Raises Refusal for kind="inverse" with actions that are neither Discrete nor Box.
    """
    space = float_space(spec.observation)
    embedder = Embedder(space, tuple(hidden), embedding)

    def encode(params, obs):
        return embedder.apply(params["encoder"], to_floats(spec.observation, obs))

    if kind == "random":
        return Encoder(lambda key: {"encoder": embedder.init(key, dummy(space))}, encode, None, ())

    discrete = isinstance(spec.action, spaces.Discrete)
    if not (discrete or isinstance(spec.action, spaces.Box)):
        raise Refusal(f"{name} with encoder=inverse predicts Discrete or Box actions, not {type(spec.action).__name__}; use encoder=random")
    head = MLP(tuple(hidden), "relu", action_width(spec))

    def init(key):
        encoder_key, head_key = jax.random.split(key)
        return {"encoder": embedder.init(encoder_key, dummy(space)), "head": head.init(head_key, jnp.zeros((1, 2 * embedding)))}

    def loss(params, obs, next_obs, action):
        predicted = head.apply(params["head"], jnp.concatenate([encode(params, obs), encode(params, next_obs)], axis=-1))
        if discrete:
            taken = action.astype(jnp.int32)[:, None] - int(spec.action.start)
            return -jnp.mean(jnp.take_along_axis(jax.nn.log_softmax(predicted), taken, axis=-1))
        return jnp.mean(jnp.square(predicted - action.reshape(predicted.shape).astype(jnp.float32)))

    return Encoder(init, encode, loss, ("obs", "next_obs", "action"))


def action_width(spec: Spec) -> int:
    """How many numbers ``action_floats`` makes of an action."""
    return int(spec.action.n) if isinstance(spec.action, spaces.Discrete) else int(np.prod(spec.action.shape or (1,)))


def action_floats(spec: Spec, action: jax.Array) -> jax.Array:
    """Actions of any leading shape as f32[..., width]: Discrete ones as one-hot, Box ones flat."""
    if isinstance(spec.action, spaces.Discrete):
        return jax.nn.one_hot(action - int(spec.action.start), int(spec.action.n), dtype=jnp.float32)
    lead = action.ndim - len(spec.action.shape)
    return action.reshape(*action.shape[:lead], -1).astype(jnp.float32)
