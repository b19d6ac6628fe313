"""What actions do, in a space of features: an encoder phi, and a forward model that predicts phi(s') from phi(s) and the action.

    phi_hat' = f(phi(s), a),      forward loss = mean over steps of 1/2 ||phi_hat' - phi(s')||^2

The features are those of ``exploration/encoders.py``: learnt by an inverse model, or random. The two published codes differ in whether the
forward loss trains the encoder too: in noreward-rl (Pathak et al., arXiv 1705.05363) it does, ``joint=True``; in large-scale-curiosity
(Burda et al., arXiv 1808.04355) it does not. Random features are never trained.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from gymnasium import spaces

from agents.networks import MLP
from envs.base import Key, PyTree, Spec
from envs.builder import Refusal
from exploration.encoders import action_floats, action_width
from exploration.encoders import encoder as make_encoder


class ForwardModel(NamedTuple):
    """``predict`` works on any leading shape."""

    init: Callable[[Key], PyTree]
    predict: Callable[[PyTree, jax.Array, jax.Array], jax.Array]  # (params, phi f32[..., k], action) -> f32[..., k]


class Dynamics(NamedTuple):
    """Encoder and forward model under one pytree of parameters."""

    init: Callable[[Key], PyTree]
    encode: Callable[[PyTree, PyTree], jax.Array]  # (params, obs) -> f32[..., k]
    error: Callable[[PyTree, PyTree, PyTree, jax.Array], jax.Array]  # (params, obs, next_obs, action) -> ||phi_hat' - phi'||^2 f32[...]
    losses: Callable[[PyTree, PyTree, PyTree, jax.Array], dict]  # of a flat batch -> forward_loss and, where learnt, inverse_loss; f32[] each


def forward_model(spec: Spec, hidden: Sequence[int], embedding: int, name: str) -> ForwardModel:
    """Dense layers on features and action. Raises Refusal for actions that are neither Discrete nor Box."""
    if not isinstance(spec.action, (spaces.Discrete, spaces.Box)):
        raise Refusal(f"{name} predicts what Discrete or Box actions do, not {type(spec.action).__name__}; try exploration=rnd, which reads no action")
    network = MLP(tuple(hidden), "relu", embedding)

    def predict(params, phi, action):
        return network.apply(params, jnp.concatenate([phi, action_floats(spec, action)], axis=-1))

    return ForwardModel(lambda key: network.init(key, jnp.zeros((1, embedding + action_width(spec)))), predict)


def dynamics(spec: Spec, encoder: str, hidden: Sequence[int], embedding: int, *, joint: bool, name: str) -> Dynamics:
    """Encoder of the given kind and forward model; ``hidden``: widths of the dense layers of each network."""
    features, forward = make_encoder(spec, encoder, hidden, embedding, name), forward_model(spec, hidden, embedding, name)
    joint = joint and features.loss is not None

    def init(key):
        features_key, forward_key = jax.random.split(key)
        return {"features": features.init(features_key), "forward": forward.init(forward_key)}

    def encode(params, obs):
        return features.encode(params["features"], obs)

    def error(params, obs, next_obs, action):
        before, after = encode(params, obs), encode(params, next_obs)
        if not joint:
            before, after = jax.lax.stop_gradient((before, after))
        return jnp.sum(jnp.square(forward.predict(params["forward"], before, action) - after), axis=-1)

    def losses(params, obs, next_obs, action):
        found = {"forward_loss": 0.5 * jnp.mean(error(params, obs, next_obs, action))}
        if features.loss is not None:
            found["inverse_loss"] = features.loss(params["features"], obs, next_obs, action)
        return found

    return Dynamics(init, encode, error, losses)
