"""What a network says of the return of an action: its mean, or a distribution over fixed values (C51, Bellemare et al., arXiv 1707.06887).

A head is a record of pure functions over the network's outputs [..., width]; leading axes are free. ``reward`` and ``discount`` are those of
one or several steps, with a discount of 0 where the MDP ended.

Mean: target r + discount q', loss huber or half the square of q - target, priority |q - target|.
C51: z_i = v_min + i (v_max - v_min) / (n - 1). The target r + discount z_j, limited to [v_min, v_max], gives its probability to the two nearest
atoms (section 4); loss is the cross-entropy of the outputs to it, and priority sqrt(loss + 1e-10), as in Dopamine's Rainbow.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp


class ReturnHead(NamedTuple):
    width: int  # numbers per action
    mean: Callable  # outputs [..., width] -> f32[...]
    target: Callable  # (outputs of the bootstrap [..., width], reward [...], discount [...]) -> [..., width]
    error: Callable  # (outputs [..., width], target [..., width]) -> (loss [...], priority [...])


def mean_head(huber: bool) -> ReturnHead:
    """``huber``: linear beyond an error of 1."""

    def error(outputs, target):
        size = jnp.abs(outputs[..., 0] - target[..., 0])
        square = 0.5 * jnp.square(size)
        return jnp.where(size <= 1.0, square, size - 0.5) if huber else square, size

    return ReturnHead(1, lambda outputs: outputs[..., 0], lambda following, reward, discount: reward[..., None] + discount[..., None] * following, error)


def categorical_head(atoms: int, v_min: Any, v_max: Any) -> ReturnHead:
    """C51: outputs are logits of ``atoms`` values from v_min to v_max."""
    gap = (v_max - v_min) / (atoms - 1)
    support = v_min + gap * jnp.arange(atoms, dtype=jnp.float32)

    def target(following, reward, discount):
        values = reward[..., None] + discount[..., None] * support
        return project(values, jax.nn.softmax(following), support)

    def error(outputs, target):
        loss = -jnp.sum(target * jax.nn.log_softmax(outputs), axis=-1)
        return loss, jnp.sqrt(loss + 1e-10)

    return ReturnHead(atoms, lambda outputs: jnp.sum(jax.nn.softmax(outputs) * support, axis=-1), target, error)


def project(values: jax.Array, probabilities: jax.Array, support: jax.Array) -> jax.Array:
    """Probabilities [..., n] at ``values`` [..., n] as probabilities at ``support`` [m], evenly spaced: [..., m].

    Atom i is given sum_j p_j max(0, 1 - |clip(values_j) - z_i| / gap): mass is kept, and the mean as well where all values lie inside.
    """
    inside = jnp.clip(values, support[0], support[-1])
    share = jnp.clip(1.0 - jnp.abs(inside[..., None, :] - support[:, None]) / (support[1] - support[0]), 0.0, 1.0)
    return jnp.sum(share * probabilities[..., None, :], axis=-1)
