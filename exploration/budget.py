"""Who gets the next chunk of a budget: a bandit between exploring and exploiting (STAX, Paolo et al., arXiv 2111.01919, its code).

Each is tried once; then the one with the higher upper confidence bound, the mean of what its chunks earned + sqrt(log n / n_i), n_i of n chunks so far. A chunk
of exploring earns -tanh(new candidates), one of exploiting tanh(change of the number of living emitters), or -1 where none lives after it. So exploring pays
least when it has found much to exploit.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

EXPLORE, EXPLOIT = 0, 1


class Bandit(NamedTuple):
    """By phase, EXPLORE and EXPLOIT."""

    earned: jax.Array  # f32[2]; means over the chunks
    chunks: jax.Array  # i32[2]
    before: jax.Array  # i32[2]; candidates found, and living emitters, when the present chunk began
    found: jax.Array  # i32[]; candidates, ever


def bandit() -> Bandit:
    return Bandit(jnp.zeros(2, jnp.float32), jnp.zeros(2, jnp.int32), jnp.zeros(2, jnp.int32), jnp.int32(0))


def paid(state: Bandit, phase: jax.Array, ended: jax.Array, living: jax.Array) -> Bandit:
    """The bandit after a chunk of ``phase`` i32[], if it has ``ended`` bool[]; ``living`` i32[]: emitters that are alive now."""
    now = jnp.stack([state.found, living])
    change = jnp.tanh((now - state.before).astype(jnp.float32))
    reward = jnp.where(phase == EXPLORE, -change[EXPLORE], jnp.where(living > 0, change[EXPLOIT], -1.0))
    here = (jnp.arange(2) == phase) & ended
    chunks = state.chunks + here.astype(jnp.int32)
    earned = state.earned + jnp.where(here, (reward - state.earned) / jnp.maximum(chunks, 1), 0.0)
    return Bandit(earned, chunks, jnp.where(ended, now, state.before), state.found)


def preferred(state: Bandit) -> jax.Array:
    """i32[]: the phase with the higher bound; one that had no chunk yet comes first."""
    bound = state.earned + jnp.sqrt(jnp.log(jnp.maximum(jnp.sum(state.chunks), 1).astype(jnp.float32)) / jnp.maximum(state.chunks, 1))
    return jnp.argmax(jnp.where(state.chunks == 0, jnp.inf, bound)).astype(jnp.int32)
