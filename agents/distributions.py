"""Action distributions: categorical for Discrete spaces, tanh-normal for bounded Box spaces.

A distribution is a NamedTuple of pure functions over the network's output ``parameters``; ``action`` is what the world
takes, ``raw`` is what the log probability is computed from (for tanh-normal the value before squashing: inverting tanh
loses precision near the bounds).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from gymnasium import spaces

from envs.base import box_bounds
from envs.builder import Refusal

LOG_STD_MIN, LOG_STD_MAX = -10.0, 2.0


class Distribution(NamedTuple):
    size: int  # numbers the network must give
    sample: Callable  # (parameters [..., size], key) -> raw
    mode: Callable  # parameters -> raw
    log_prob: Callable  # (parameters, raw) -> [...]
    entropy: Callable  # (parameters, raw) -> [...]; for tanh-normal a one-sample estimate at ``raw``
    to_action: Callable  # raw -> action
    from_action: Callable  # action -> raw
    tempered: Callable  # (parameters, temperature [...]) -> parameters: logits divided by it, standard deviations times it
    has_log_std: bool = False  # the network adds a state-independent log standard deviation


def categorical(space: spaces.Discrete) -> Distribution:
    start = int(space.start)

    def log_prob(logits, raw):
        return jnp.take_along_axis(jax.nn.log_softmax(logits), raw[..., None], axis=-1)[..., 0]

    def entropy(logits, raw):
        log_p = jax.nn.log_softmax(logits)
        return -jnp.sum(jnp.exp(log_p) * log_p, axis=-1)

    return Distribution(
        size=int(space.n),
        sample=lambda logits, key: jax.random.categorical(key, logits).astype(jnp.int32),
        mode=lambda logits: jnp.argmax(logits, axis=-1).astype(jnp.int32),
        log_prob=log_prob,
        entropy=entropy,
        to_action=lambda raw: raw + start,
        from_action=lambda action: (action - start).astype(jnp.int32),
        tempered=lambda logits, temperature: logits / temperature[..., None],
    )


def tanh_normal(space: spaces.Box) -> Distribution:
    """a = low + (high - low) (tanh(x) + 1) / 2 with x ~ N(mean, std); log densities are of the action, with the Jacobian."""
    low, high = box_bounds(space)
    half = (high - low) / 2.0
    size = math.prod(space.shape)
    flat_half = half.reshape(-1)

    def split(parameters):
        mean, log_std = jnp.split(parameters, 2, axis=-1)
        return mean, jnp.clip(log_std, LOG_STD_MIN, LOG_STD_MAX)

    def log_prob(parameters, raw):
        mean, log_std = split(parameters)
        normal = -0.5 * jnp.square((raw - mean) * jnp.exp(-log_std)) - log_std - 0.5 * math.log(2 * math.pi)
        # log(1 - tanh(x)^2) = 2 (log 2 - x - softplus(-2x)), stable for large |x|
        jacobian = 2.0 * (math.log(2.0) - raw - jax.nn.softplus(-2.0 * raw)) + jnp.log(flat_half)
        return jnp.sum(normal - jacobian, axis=-1)

    def sample(parameters, key):
        mean, log_std = split(parameters)
        return mean + jnp.exp(log_std) * jax.random.normal(key, mean.shape)

    def from_action(action):
        """Actions at the bounds have no finite ``raw``: they count as a thousandth inside."""
        inside = jnp.clip((action - low) / half - 1.0, -0.999, 0.999)
        return jnp.arctanh(inside).reshape(*action.shape[: action.ndim - len(space.shape)], size)

    return Distribution(
        size=2 * size,
        sample=sample,
        mode=lambda parameters: split(parameters)[0],
        log_prob=log_prob,
        entropy=lambda parameters, raw: -log_prob(parameters, raw),
        to_action=lambda raw: low + half * (jnp.tanh(raw).reshape(*raw.shape[:-1], *space.shape) + 1.0),
        from_action=from_action,
        tempered=lambda parameters, temperature: parameters.at[..., size:].add(jnp.log(temperature)[..., None]),
        has_log_std=True,
    )


def distribution(space: spaces.Space) -> Distribution:
    """The distribution for an action space. Raises Refusal for spaces without one."""
    if isinstance(space, spaces.Discrete):
        return categorical(space)
    if isinstance(space, spaces.Box):
        return tanh_normal(space)
    raise Refusal(f"actions of type {type(space).__name__} are not supported; Discrete and Box are")
