"""What agents with one value make of a signal: several reward streams as one, their weighted sum with the discount of the first, and a differentiable bonus."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from agents.base import Regulariser, RewardStream, Signal
from envs.builder import Choice, Refusal

MIXES = Choice(("sum", "sum_then_clip"))


def total(streams: tuple[RewardStream, ...], mix: str) -> RewardStream:
    """``sum``: r = sum of weight x reward. ``sum_then_clip``: the same, limited to [-1, 1] (CFN, arXiv 2306.03186)."""
    reward: jax.Array = sum(jnp.asarray(s.weight, jnp.float32) * s.reward for s in streams)  # type: ignore[assignment]
    return streams[0]._replace(reward=jnp.clip(reward, -1.0, 1.0) if mix == "sum_then_clip" else reward, weight=1.0)


def information_of(signal: Signal) -> Regulariser:
    """The differentiable bonus of a MaxInfoRL agent. Raises Refusal where there is none."""
    if signal.regulariser is None:
        raise Refusal("agent.max_info=true needs a bonus with gradients, which reads obs and action alone; use exploration=information_gain")
    return signal.regulariser
