"""CMA-ES (Hansen, arXiv 1604.00772): a normal distribution that follows the better half of its samples, as pure functions; fitness is maximised.

    x = m + sigma B D z,  z ~ N(0, I),  C = B D^2 B^T
    m <- sum w_i x_i over the mu best;   y_w = (m' - m) / sigma
    p_s <- (1 - c_s) p_s + sqrt(c_s (2 - c_s) mu_eff) C^-1/2 y_w;   sigma <- sigma exp(c_s / d_s (|p_s| / E|N(0, I)| - 1))
    p_c <- (1 - c_c) p_c + h sqrt(c_c (2 - c_c) mu_eff) y_w
    C <- (1 - c_1 - c_mu) C + c_1 (p_c p_c^T + (1 - h) c_c (2 - c_c) C) + c_mu sum w_i y_i y_i^T

Weights are positive (equation 49 without its negative part), all constants the tutorial's defaults (table 1). ``told`` takes an order instead of a fitness, so
that emitters can rank by improvement.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from envs.base import Key

SMALLEST, LARGEST, CONDITION = 1e-12, 1e6, 1e14  # of the step size; of the covariance's condition number


class CMAState(NamedTuple):
    mean: jax.Array  # f32[n]
    sigma: jax.Array  # f32[]
    covariance: jax.Array  # f32[n, n]
    axes: jax.Array  # f32[n, n]; columns are eigenvectors of the covariance
    scales: jax.Array  # f32[n]; roots of its eigenvalues
    path: jax.Array  # f32[n]; p_c
    sigma_path: jax.Array  # f32[n]; p_s
    generation: jax.Array  # i32[]


class Constants(NamedTuple):
    weights: np.ndarray  # f32[samples]; 0 for the worse half
    mu_eff: float
    c_s: float
    d_s: float
    c_c: float
    c_1: float
    c_mu: float
    length: float  # E|N(0, I)|


def constants(dimensions: int, samples: int) -> Constants:
    """The tutorial's defaults (table 1) for samples of ``samples`` in ``dimensions``."""
    n, mu = dimensions, samples // 2
    raw = np.log((samples + 1) / 2) - np.log(np.arange(1, mu + 1))
    weights = raw / raw.sum()
    mu_eff = 1.0 / np.square(weights).sum()
    c_s = (mu_eff + 2) / (n + mu_eff + 5)
    d_s = 1 + 2 * max(0.0, math.sqrt((mu_eff - 1) / (n + 1)) - 1) + c_s
    c_c = (4 + mu_eff / n) / (n + 4 + 2 * mu_eff / n)
    c_1 = 2 / ((n + 1.3) ** 2 + mu_eff)
    c_mu = min(1 - c_1, 2 * (mu_eff - 2 + 1 / mu_eff) / ((n + 2) ** 2 + mu_eff))
    length = math.sqrt(n) * (1 - 1 / (4 * n) + 1 / (21 * n**2))
    return Constants(np.pad(weights, (0, samples - mu)).astype(np.float32), float(mu_eff), c_s, d_s, c_c, c_1, c_mu, length)


def begin(mean: jax.Array, sigma: jax.Array | float) -> CMAState:
    """Isotropic around ``mean``, f32[n]."""
    n = mean.shape[0]
    zeros, unit = jnp.zeros(n, jnp.float32), jnp.eye(n, dtype=jnp.float32)
    return CMAState(mean, jnp.float32(sigma), unit, unit, jnp.ones(n, jnp.float32), zeros, zeros, jnp.int32(0))


def sample(state: CMAState, key: Key, number: int) -> jax.Array:
    """f32[number, n]."""
    z = jax.random.normal(key, (number, state.mean.shape[0]))
    return state.mean + state.sigma * (z * state.scales) @ state.axes.T


def told(state: CMAState, samples: jax.Array, order: jax.Array, c: Constants) -> CMAState:
    """The state after the samples f32[samples, n]; ``order`` i32[samples] are their places, the best first."""
    weights = jnp.asarray(c.weights)
    steps = (samples[order] - state.mean) / state.sigma
    step = weights @ steps
    whitened = state.axes @ ((state.axes.T @ step) / state.scales)
    sigma_path = (1 - c.c_s) * state.sigma_path + math.sqrt(c.c_s * (2 - c.c_s) * c.mu_eff) * whitened
    generation = state.generation + 1
    size = jnp.sqrt(jnp.sum(jnp.square(sigma_path)))
    n = state.mean.shape[0]
    expected = jnp.sqrt(1 - (1 - c.c_s) ** (2.0 * generation))
    moves = (size / expected < (1.4 + 2 / (n + 1)) * c.length).astype(jnp.float32)
    path = (1 - c.c_c) * state.path + moves * math.sqrt(c.c_c * (2 - c.c_c) * c.mu_eff) * step
    kept = 1 - c.c_1 - c.c_mu + (1 - moves) * c.c_1 * c.c_c * (2 - c.c_c)
    covariance = kept * state.covariance + c.c_1 * jnp.outer(path, path) + c.c_mu * (steps.T * weights) @ steps
    covariance = 0.5 * (covariance + covariance.T)
    values, axes = jnp.linalg.eigh(covariance)
    scales = jnp.sqrt(jnp.maximum(values, 1e-20))
    sigma = jnp.clip(state.sigma * jnp.exp(jnp.minimum(1.0, c.c_s / c.d_s * (size / c.length - 1))), SMALLEST, LARGEST)
    return CMAState(state.mean + state.sigma * step, sigma, covariance, axes, scales, path, sigma_path, generation)


def exhausted(state: CMAState) -> jax.Array:
    """bool[]: the distribution has shrunk to a point, or to a line: nothing more is to be expected."""
    widest, narrowest = jnp.max(state.scales), jnp.min(state.scales)
    return (state.sigma * widest < SMALLEST * 10) | (jnp.square(widest / narrowest) > CONDITION)
