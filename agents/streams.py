"""Several reward streams as one, for agents with one value: their weighted sum, clipped or not, with the discount of the first."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from agents.base import RewardStream
from envs.builder import Choice

MIXES = Choice(("sum", "sum_then_clip"))


def total(streams: tuple[RewardStream, ...], mix: str) -> RewardStream:
    """``sum``: r = sum of weight x reward. ``sum_then_clip``: the same, limited to [-1, 1] (CFN, arXiv 2306.03186)."""
    reward: jax.Array = sum(jnp.asarray(s.weight, jnp.float32) * s.reward for s in streams)  # type: ignore[assignment]
    return streams[0]._replace(reward=jnp.clip(reward, -1.0, 1.0) if mix == "sum_then_clip" else reward, weight=1.0)
