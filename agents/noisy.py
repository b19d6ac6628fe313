"""Dense layers with factorised Gaussian noise on their weights (Fortunato et al., arXiv 1706.10295): exploration that is learnt.

    y = mu_w x + mu_b + f(e_out) * (sigma_w (f(e_in) * x) + sigma_b),    f(e) = sgn(e) sqrt|e|,    e ~ N(0, 1)

so that Var[y_j] = c (c sum_i sigma_ij^2 x_i^2 + sigma_j^2) with c = E|e| = sqrt(2 / pi). Every input vector (a lane, a sample) has noise of its
own, which factorised noise gives for a second matrix product; the paper holds one draw fixed over a batch. mu ~ U(+-1/sqrt(p)) and
sigma = sigma_0 / sqrt(p) for p inputs.
"""

from __future__ import annotations

import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp


def squashed(noise: jax.Array) -> jax.Array:
    """f(e) = sgn(e) sqrt|e|."""
    return jnp.sign(noise) * jnp.sqrt(jnp.abs(noise))


class NoisyDense(nn.Module):
    """[..., p] -> [..., features]. Without the stream of random numbers "noise" it is mu alone."""

    features: int
    sigma: Any  # sigma_0

    @nn.compact
    def __call__(self, x):
        width = x.shape[-1]
        bound = 1.0 / math.sqrt(width)

        def mu(key, shape):
            return jax.random.uniform(key, shape, jnp.float32, -bound, bound)

        def sigma(key, shape):
            return jnp.full(shape, self.sigma * bound, jnp.float32)

        weights, bias = self.param("kernel", mu, (width, self.features)), self.param("bias", mu, (self.features,))
        weights_sigma, bias_sigma = self.param("kernel_sigma", sigma, (width, self.features)), self.param("bias_sigma", sigma, (self.features,))
        y = x @ weights + bias
        if not self.has_rng("noise"):
            return y
        in_key, out_key = jax.random.split(self.make_rng("noise"))
        inputs, outputs = squashed(jax.random.normal(in_key, (width,))), squashed(jax.random.normal(out_key, (self.features,)))
        return y + outputs * ((x * inputs) @ weights_sigma + bias_sigma)
