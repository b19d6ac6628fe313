"""A convolutional autoencoder of pictures: its code is a descriptor that nobody had to think of, its error says how strange a picture is.

The network of STAX's code (Paolo et al., arXiv 2111.01919; TAXONS, arXiv 1909.05508): the encoder has four convolutions 4 x 4 of stride 2 with 32, 64,
32 and 16 channels and a dense layer to ``latent`` numbers, the decoder a dense layer and four transposed convolutions with 32, 64, 32 and 3 channels; SELU
everywhere, a ReLU at the end. The surprise of a picture is the mean over its pixels and channels of the squared error. Training minimises it with Adam in
epochs over 80 % of the pictures, until the error of the other 20 % has risen four times in a row.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from agents.networks import BlockConv
from envs.base import PyTree

CHANNELS = (32, 64, 32, 16)
VALIDATION, RISES, BATCH = 0.2, 4, 128


class Model(NamedTuple):
    params: PyTree
    optimizer: PyTree
    trained: jax.Array  # i32[]; trainings so far
    error: jax.Array  # f32[]; of the validation pictures, in the last epoch of the last training


class UpConv(nn.Module):
    """The transpose of a 4 x 4 convolution of stride 2 and padding 1: [B, H, W, C] -> [B, 2 H, 2 W, features].

    Each of the four positions of an output pixel within its block sees 2 x 2 input pixels, so it is four matrix products: XLA's own transposed
    convolutions are slow inside compiled loops on a CPU.
    """

    features: int

    @nn.compact
    def __call__(self, x):
        b, height, width, channels = x.shape
        weights = self.param("kernel", nn.initializers.lecun_normal(), (2, 2, 4 * channels, self.features))  # [row, column] within the block
        bias = self.param("bias", nn.initializers.zeros, (self.features,))
        padded = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
        blocks = []
        for row in (0, 1):
            for column in (0, 1):
                near = [padded[:, row + i : row + i + height, column + j : column + j + width] for i in (0, 1) for j in (0, 1)]
                blocks.append(jnp.concatenate(near, axis=-1).reshape(-1, 4 * channels) @ weights[row, column])
        out = jnp.stack(blocks, axis=1).reshape(b, height, width, 2, 2, self.features).transpose(0, 1, 3, 2, 4, 5)
        return out.reshape(b, 2 * height, 2 * width, self.features) + bias


class Autoencoder(nn.Module):
    latent: int
    pixels: int

    def setup(self):
        self.down = [BlockConv(channels, 4, 2) for channels in CHANNELS]
        self.side = self.pixels // 2 ** len(CHANNELS)
        self.into = nn.Dense(self.latent)
        self.out_of = nn.Dense(self.side**2 * CHANNELS[-1])
        self.up = [UpConv(channels) for channels in (*CHANNELS[-2::-1], 3)]

    def encode(self, pictures):
        """u8[N, pixels, pixels, 3] -> f32[N, latent]."""
        x = pictures.astype(jnp.float32) / 255.0
        for layer in self.down:
            x = jax.nn.selu(layer(jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))))
        return jax.nn.selu(self.into(x.reshape(x.shape[0], -1)))

    def decode(self, code):
        """f32[N, latent] -> f32[N, pixels, pixels, 3], in parts of 255."""
        x = jax.nn.selu(self.out_of(code)).reshape(-1, self.side, self.side, CHANNELS[-1])
        for layer in self.up[:-1]:
            x = jax.nn.selu(layer(x))
        return jax.nn.relu(self.up[-1](x))

    def __call__(self, pictures):
        """(code f32[N, latent], surprise f32[N])."""
        code = self.encode(pictures)
        return code, jnp.mean(jnp.square(self.decode(code) - pictures.astype(jnp.float32) / 255.0), axis=(1, 2, 3))


class Functions(NamedTuple):
    init: Callable  # key -> Model
    describe: Callable  # (Model, pictures u8[N, frames, pixels, pixels, 3]) -> (codes f32[N, frames * latent], surprise f32[N])
    train: Callable  # (Model, key, pictures [N, frames, ...], known bool[N]) -> Model


def autoencoder(frames: int, pixels: int, latent: int, learning_rate: jax.Array | float, epochs: int) -> Functions:
    """The functions. With several ``frames`` codes are put side by side and surprises summed; ``epochs``: at most, in a training."""
    network, adam = Autoencoder(latent, pixels), optax.adam(learning_rate)

    def init(key):
        params = network.init(key, jnp.zeros((1, pixels, pixels, 3), jnp.uint8))
        return Model(params, adam.init(params), jnp.int32(0), jnp.float32(0))

    def describe(model, pictures):
        number = pictures.shape[0]
        flat = pictures.reshape(-1, pixels, pixels, 3)
        size = math.gcd(flat.shape[0], 64) if flat.shape[0] % 64 else 64
        code, surprise = jax.lax.map(lambda some: network.apply(model.params, some), flat.reshape(-1, size, pixels, pixels, 3))
        return code.reshape(number, frames * latent), jnp.sum(surprise.reshape(number, frames), axis=-1)

    def loss(params, pictures, weights):
        surprise = network.apply(params, pictures.reshape(-1, pixels, pixels, 3))[1].reshape(-1, frames)
        return jnp.sum(jnp.mean(surprise, axis=-1) * weights) / jnp.maximum(jnp.sum(weights), 1.0)

    def train(model, key, pictures, known):
        split_key, epoch_key = jax.random.split(key)
        total = jnp.sum(known, dtype=jnp.int32)
        order = jnp.argsort(jnp.where(known, jax.random.uniform(split_key, known.shape), 2.0))  # those that are known first, shuffled
        held = jnp.floor(total * VALIDATION).astype(jnp.int32)
        learnt = total - held

        def batch(places, at, count):
            """Pictures and weights of a batch from ``at`` on, of the first ``count`` places."""
            index = at + jnp.arange(BATCH)
            return pictures[places[jnp.minimum(index, known.shape[0] - 1)]], (index < count).astype(jnp.float32)

        def validate(params):
            def one(i, sums):
                some, weights = batch(order, i * BATCH, held)
                count = jnp.sum(weights)
                return sums[0] + loss(params, some, weights) * count, sums[1] + count

            summed = jax.lax.fori_loop(0, -(-held // BATCH), one, (jnp.float32(0), jnp.float32(0)))
            return summed[0] / jnp.maximum(summed[1], 1.0)

        def epoch(carry):
            number, params, optimizer, before, rises = carry
            inside = jnp.arange(known.shape[0]) < total
            mixed = jnp.where(inside & (jnp.arange(known.shape[0]) >= held), jax.random.uniform(jax.random.fold_in(epoch_key, number), known.shape), 2.0)
            places = order[jnp.argsort(mixed)]

            def one(i, carry):
                params, optimizer = carry
                some, weights = batch(places, i * BATCH, learnt)
                update, optimizer = adam.update(jax.grad(loss)(params, some, weights), optimizer)
                return optax.apply_updates(params, update), optimizer

            params, optimizer = jax.lax.fori_loop(0, -(-learnt // BATCH), one, (params, optimizer))
            error = validate(params)
            return number + 1, params, optimizer, error, jnp.where(error > before, rises + 1, 0)

        def going(carry):
            return (carry[0] < epochs) & (carry[4] < RISES)

        start = (jnp.int32(0), model.params, model.optimizer, jnp.float32(jnp.inf), jnp.int32(0))
        _, params, optimizer, error, _ = jax.lax.while_loop(going, epoch, start)
        return Model(params, optimizer, model.trained + 1, error)

    return Functions(init, describe, train)
