"""Small deterministic controllers whose weights are one flat vector, for methods that search over policies instead of learning them.

The network of SERENE and STAX (Paolo et al., arXiv 2102.03140, 2111.01919, their code): dense layers, ``2 sigmoid(z) - 1 = tanh(z / 2)`` after each one, the
last included, and a bias that is *one number per layer*, added to all its units. A genome is, layer by layer, the weights f32[in, out] row by row and then the
bias, so it has sum(in * out + 1) genes: 48 for Point2D with two hidden layers of 5. ``bias=unit`` is the usual bias of every unit.

Observations go in as they are (``normalize`` divides by the bounds of the space). Outputs in [-1, 1] become actions of a Box linearly; of a Discrete space the
largest output is taken.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from gymnasium import spaces

from agents.base import Agent, Genome, Learnt
from envs.base import Spec
from envs.builder import FLAG, POSITIVE, Choice, Refusal, Sizes, options

ACTIVATIONS = {"half_tanh": lambda xp, z: xp.tanh(0.5 * z), "tanh": lambda xp, z: xp.tanh(z), "relu": lambda xp, z: xp.maximum(z, 0)}  # xp: numpy or jax.numpy


@options(hidden=Sizes(), activation=Choice(tuple(ACTIVATIONS)), bias=Choice(("shared", "unit", "none")), bound=POSITIVE, normalize=FLAG)
def controller(
    spec: Spec, *, hidden: Sequence[int] = (5, 5), activation: str = "half_tanh", bias: str = "shared", bound: float = 5.0, normalize: bool = False
) -> Agent:
    """A feed-forward policy.

    Args:
      hidden: widths of the hidden layers.
      activation: of the hidden layers; the last one has half_tanh with it, tanh with the others.
      bias: shared (one number per layer), unit (one per unit), none.
      bound: genes lie in [-bound, bound].
      normalize: divide observations by the larger side of their bounds, where those are finite.

    Its state is the genome, f32[G]. Raises Refusal for observations that are not a Box, and actions that are neither Box nor Discrete.
    """
    if not isinstance(spec.observation, spaces.Box):
        raise Refusal(f"agent=controller takes numbers as observations (a Box); {spec.name!r} gives {type(spec.observation).__name__}")
    discrete = isinstance(spec.action, spaces.Discrete)
    inputs = math.prod(spec.observation.shape)
    outputs = int(spec.action.n) if discrete else math.prod(spec.action.shape)
    widths = [inputs, *hidden, outputs]
    biases = {"shared": lambda width: 1, "unit": lambda width: width, "none": lambda width: 0}[bias]
    shapes = [(a, b, biases(b)) for a, b in zip(widths, widths[1:], strict=False)]
    genes = sum(a * b + c for a, b, c in shapes)
    inner = ACTIVATIONS[activation]
    outer = inner if activation == "half_tanh" else ACTIVATIONS["tanh"]
    scale = None
    if normalize:
        largest = np.maximum(np.abs(spec.observation.low), np.abs(spec.observation.high)).reshape(-1)
        scale = np.where(np.isfinite(largest) & (largest > 0), largest, 1.0).astype(np.float32)

    def forward(xp, genome, obs):
        x, start = obs.reshape(obs.shape[0], -1).astype(xp.float32), 0
        x = x if scale is None else x / scale
        for layer, (a, b, c) in enumerate(shapes):
            weights = genome[start : start + a * b].reshape(a, b)
            offset = genome[start + a * b : start + a * b + c] if c else 0.0
            # a sum of products, not a matrix product: under vmap over genomes that would be many tiny ones, each a call of its own
            x = xp.sum(x[..., None] * weights, axis=-2) + offset
            x = outer(xp, x) if layer == len(shapes) - 1 else inner(xp, x)
            start += a * b + c
        return x

    low, high = (None, None) if discrete else finite_bounds(spec.action)

    def chosen(xp, genome, obs):
        out = forward(xp, genome, obs)
        if discrete:
            return xp.argmax(out, axis=-1) + int(spec.action.start)
        return low + 0.5 * (out.reshape(-1, *spec.action.shape) + 1.0) * (high - low)

    def act(genome, key, inputs):
        memory, obs, _, _ = inputs
        return memory, chosen(jnp, genome, obs), {}

    return Agent(
        init=lambda key: jnp.clip(jax.random.normal(key, (genes,)), -bound, bound),
        start=lambda state, lanes: (),
        act=act,
        learn=lambda state, key, inputs: (state, Learnt()),
        learns_from="anything",
        genome=Genome(spaces.Box(-bound, bound, (genes,), np.float32), lambda genome: genome, lambda genome, obs: chosen(np, genome, obs[None])[0]),
    )


def finite_bounds(space: spaces.Box) -> tuple[np.ndarray, np.ndarray]:
    """(low, high) f32 of a Box, in numpy; infinite sides become -1 and 1."""
    return tuple(np.where(np.isfinite(side), side, default).astype(np.float32) for side, default in ((space.low, -1.0), (space.high, 1.0)))


def open_loop(spec: Spec) -> Agent:
    """One action for every step, whatever is observed: the genome is the action (a Box), flattened; bounds are those of the space."""
    if not isinstance(spec.action, spaces.Box):
        raise Refusal(f"agent=open_loop holds an action of a Box; the actions of {spec.name!r} are {type(spec.action).__name__}; use agent=controller")
    low, high = (side.reshape(-1) for side in finite_bounds(spec.action))

    def act(genome, key, inputs):
        memory, _, first, _ = inputs
        return memory, jnp.broadcast_to(genome.reshape(spec.action.shape), (first.shape[0], *spec.action.shape)), {}

    return Agent(
        init=lambda key: jax.random.uniform(key, low.shape, minval=low, maxval=high),
        start=lambda state, lanes: (),
        act=act,
        learn=lambda state, key, inputs: (state, Learnt()),
        learns_from="anything",
        genome=Genome(spaces.Box(low, high), lambda genome: genome, lambda genome, obs: genome.reshape(spec.action.shape)),
    )
