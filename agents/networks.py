"""Networks, chosen from the observation space: an encoder per kind of observation, then a torso and heads.

============================  =======================================================  ==========================
observation                   encoder                                                  ``encoder=``
============================  =======================================================  ==========================
Box, float or int, rank <= 2  flatten                                                  ``mlp``
Box, integer codes, rank 3    one-hot codes of every cell and channel, flattened         ``grid``
Box, uint8, rank 3, >= 36 px  Mnih et al. (2015): 32 8x8/4, 64 4x4/2, 64 3x3/1          ``cnn``
Box, rank 3, where asked for  DrQ (arXiv 2004.13649): 32 3x3, strides 2, 1, 1, 1         ``drq``
Discrete                      one-hot: a row of the first layer's weights               ``mlp``
Dict                          each entry by its own rule, concatenated
============================  =======================================================  ==========================

Weights are orthogonal with gain sqrt(2) (tanh and relu layers) and zero bias, as in the common PPO implementations
("The 37 implementation details of PPO", 2022, details 2 and 15). Every encoder takes any leading shape.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from gymnasium import spaces

from envs.builder import Refusal

ACTIVATIONS: dict[str, Callable] = {"tanh": jnp.tanh, "relu": jax.nn.relu, "leaky_relu": jax.nn.leaky_relu, "silu": jax.nn.silu, "elu": jax.nn.elu}
ENCODERS = ("auto", "mlp", "cnn", "drq", "grid")
MNIH = ((32, 8, 4), (64, 4, 2), (64, 3, 1))  # channels, side of the kernel, stride of each convolution
DRQ = ((32, 3, 2), (32, 3, 1), (32, 3, 1), (32, 3, 1))


def orthogonal(gain: float = math.sqrt(2.0)):
    return nn.initializers.orthogonal(gain)


def activation(name: str) -> Callable:
    return ACTIVATIONS[name]


def encoder_kind(space: spaces.Space, wanted: str = "auto") -> str:
    """Which encoder serves ``space``. Raises Refusal when ``wanted`` cannot."""
    if isinstance(space, spaces.Dict):
        return "dict"
    rank = len(space.shape)
    if wanted == "auto":
        if rank != 3:
            return "mlp"
        return "cnn" if min(space.shape[:2]) >= 36 else ("grid" if np.issubdtype(space.dtype, np.integer) else "mlp")
    if wanted in ("cnn", "drq", "grid") and rank != 3:
        raise Refusal(f"agent.encoder={wanted} needs observations [height, width, channels]; here they are {space.shape}; try agent.encoder=auto")
    if wanted == "grid" and not np.issubdtype(space.dtype, np.integer):
        raise Refusal(f"agent.encoder=grid embeds integer codes; here observations are {space.dtype}; try agent.encoder=cnn or mlp")
    return wanted


class Category(NamedTuple):
    """A one-hot vector that nobody has written out: ``Dense`` looks up a row instead of multiplying by zeros."""

    index: jax.Array  # i32[...], 0 <= index < size
    size: int

    def written(self) -> jax.Array:
        return jax.nn.one_hot(self.index, self.size)


class Dense(nn.Module):
    """[..., in] or ``Category`` -> f32[..., features]; parameters and results are those of ``nn.Dense``.

    For a world of N x N numbered states the product with the one-hot vector is N^2 times the work of the row, and its gradient likewise.
    """

    features: int
    gain: float = math.sqrt(2.0)

    @nn.compact
    def __call__(self, x):
        size = x.size if isinstance(x, Category) else x.shape[-1]
        weights = self.param("kernel", orthogonal(self.gain), (size, self.features))
        bias = self.param("bias", nn.initializers.zeros, (self.features,))
        return (weights[x.index] if isinstance(x, Category) else x @ weights) + bias


class Flatten(nn.Module):
    """obs [..., *space.shape] -> f32 [..., size]; Discrete becomes one-hot, or a ``Category`` where ``rows``."""

    space: spaces.Space
    rows: bool = False

    @nn.compact
    def __call__(self, obs):
        if isinstance(self.space, spaces.Discrete):
            category = Category(obs - int(self.space.start), int(self.space.n))
            return category if self.rows else category.written()
        lead = obs.shape[: obs.ndim - len(self.space.shape)]
        flat = obs.reshape(*lead, -1).astype(jnp.float32)
        return flat / 255.0 if self.space.dtype == np.uint8 and np.all(self.space.high == 255) else flat


class BlockConv(nn.Module):
    """A valid convolution with a square kernel: [B, H, W, C] -> [B, H', W', features].

    Parameters and results are those of ``nn.Conv``. The input is cut into blocks of stride x stride pixels, so the kernel covers few blocks,
    and all of it is one matrix product. A kernel whose side is no multiple of the stride is filled up with zeros, and so is the input where it ends
    within the last block. On a CPU, XLA's own convolutions and their gradients are 10 to 100 times slower inside compiled loops.
    """

    features: int
    kernel: int
    stride: int

    @nn.compact
    def __call__(self, x):
        size, stride, channels = self.kernel, self.stride, x.shape[-1]
        weights = self.param("kernel", orthogonal(), (size, size, channels, self.features))
        bias = self.param("bias", nn.initializers.zeros, (self.features,))
        height, width = ((side - size) // stride + 1 for side in x.shape[1:3])
        across = -(-size // stride)  # blocks under the kernel
        rows, columns = height + across - 1, width + across - 1
        if beyond := across * stride - size:
            weights = jnp.pad(weights, ((0, beyond), (0, beyond), (0, 0), (0, 0)))
            missing = (max(blocks * stride - side, 0) for blocks, side in zip((rows, columns), x.shape[1:3], strict=True))
            x = jnp.pad(x, ((0, 0), *((0, pixels) for pixels in missing), (0, 0)))
        x = x[:, : rows * stride, : columns * stride].reshape(-1, rows, stride, columns, stride, channels)
        x = x.transpose(0, 1, 3, 2, 4, 5).reshape(-1, rows, columns, stride * stride * channels)
        weights = weights.reshape(across, stride, across, stride, channels, self.features).transpose(0, 2, 1, 3, 4, 5)
        covered = [x[:, i : i + height, j : j + width] for i in range(across) for j in range(across)]
        patches = jnp.concatenate(covered, axis=-1).reshape(-1, across * across * x.shape[-1])
        return (patches @ weights.reshape(-1, self.features)).reshape(-1, height, width, self.features) + bias


class Convolutions(nn.Module):
    """Convolutions, flattened: [..., H, W, C] -> f32 [..., features]; uint8 is divided by 255. Those too large for what is left of the picture are left out."""

    space: spaces.Space
    act: str = "relu"
    layers: Sequence[tuple[int, int, int]] = MNIH

    @nn.compact
    def __call__(self, obs):
        lead = obs.shape[:-3]
        x = obs.reshape(-1, *obs.shape[-3:]).astype(jnp.float32)
        x = x / 255.0 if self.space.dtype == np.uint8 else x
        for layer, (channels, kernel, stride) in enumerate(self.layers):
            if min(x.shape[1:3]) >= kernel:
                x = BlockConv(channels, kernel, stride, name=f"Conv_{layer}")(x)
                x = activation(self.act)(x)
        return x.reshape(*lead, -1)


class GridEncoder(nn.Module):
    """Integer codes [..., H, W, C] -> f32 [..., features]: one-hot codes of every cell and channel, flattened.

    The dense layer after it is then a learnt embedding per cell, channel and code, summed. Convolutions over such small views
    cost ten times as much on a CPU, where inside compiled loops they also run on one slow path.
    """

    space: spaces.Space

    @nn.compact
    def __call__(self, obs):
        codes = [int(c) + 1 for c in np.asarray(self.space.high).reshape(-1, self.space.shape[-1]).max(0)]
        onehot = jnp.concatenate([jax.nn.one_hot(obs[..., c], n) for c, n in enumerate(codes)], axis=-1)
        return onehot.reshape(*onehot.shape[:-3], -1)


class DictEncoder(nn.Module):
    """Each entry of a Dict space by its own rule, concatenated in the space's key order."""

    space: spaces.Dict
    encoder: str = "auto"

    @nn.compact
    def __call__(self, obs):
        parts = [make_encoder(space, "auto")(obs[name]) for name, space in self.space.spaces.items()]
        return jnp.concatenate(parts, axis=-1)


def make_encoder(space: spaces.Space, encoder: str = "auto", rows: bool = False) -> nn.Module:
    """The encoder for ``space``: obs of any leading shape -> f32 [..., features]; with ``rows`` a Discrete space gives a ``Category``, for a ``Dense``."""
    kind = encoder_kind(space, encoder)
    if kind == "mlp":
        return Flatten(space, rows)
    if kind == "drq":
        return Convolutions(space, layers=DRQ)
    return {"cnn": Convolutions, "grid": GridEncoder, "dict": DictEncoder}[kind](space)


class MLP(nn.Module):
    """Dense layers with an activation after each; [..., in] or ``Category`` -> [..., hidden[-1]]."""

    hidden: Sequence[int]
    act: str = "tanh"
    final: int | None = None  # width of a last layer without activation
    final_gain: float = math.sqrt(2.0)

    @nn.compact
    def __call__(self, x):
        for width in self.hidden:
            x = activation(self.act)(Dense(width)(x))
        if self.final is not None:
            x = Dense(self.final, self.final_gain)(x)
        return x


class Projection(nn.Module):
    """Features [..., in] -> f32[..., latent] within (-1, 1): a dense layer, layer norm, tanh (SAC+AE, DrQ)."""

    latent: int

    @nn.compact
    def __call__(self, x):
        return jnp.tanh(nn.LayerNorm()(nn.Dense(self.latent, kernel_init=orthogonal())(x)))


class Torso(nn.Module):
    """Encoder, then dense layers: obs of any leading shape -> f32 [..., final or hidden[-1]]."""

    space: spaces.Space
    hidden: Sequence[int] = (64, 64)
    act: str = "tanh"
    encoder: str = "auto"
    final: int | None = None
    final_gain: float = math.sqrt(2.0)

    @nn.compact
    def __call__(self, obs):
        x = make_encoder(self.space, self.encoder, rows=bool(self.hidden) or self.final is not None)(obs)
        return MLP(tuple(self.hidden), self.act, self.final, self.final_gain)(x)


def dummy(space: spaces.Space, lead: tuple[int, ...] = (1,)):
    """Zeros shaped like observations of ``space``, for ``init``."""
    if isinstance(space, spaces.Dict):
        return {name: dummy(inner, lead) for name, inner in space.spaces.items()}
    return jnp.zeros((*lead, *space.shape), jax.dtypes.canonicalize_dtype(space.dtype))
