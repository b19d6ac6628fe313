"""The records of the learner: an agent, what it learns from, and what a rollout holds.

Order everywhere: ``(state, key, inputs) -> (state, outputs)``. Agents never import exploration: a learning signal reaches
them as an argument.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax

from envs.base import Key, PyTree, Transition


class RewardStream(NamedTuple):
    """One stream of rewards with its own horizon. Streams stay apart until the agent's ``mix``."""

    reward: jax.Array  # f32[T, N] or [B], already normalised
    discount: jax.Array | float
    weight: jax.Array | float  # of its advantages (mix=heads) or of its rewards (mix=sum_then_clip)
    episodic: jax.Array | bool  # False: returns continue across episode ends


class Signal(NamedTuple):
    """What ``learn`` receives beside the batch."""

    streams: tuple[RewardStream, ...]  # in the order of ``spec.streams``
    progress: jax.Array | float = 0.0  # share of the run's steps that are done, for schedules
    demonstrations: PyTree = None
    regularise: Callable[[PyTree, jax.Array], jax.Array] | None = None  # (obs [B], action [B]) -> [B], differentiable


class Rollout(NamedTuple):
    """What an on-policy agent learns from: T steps of N lanes, and what is needed to continue after them."""

    transitions: Transition  # [T, N]
    extras: PyTree  # [T, N]; what ``act`` returned (log probabilities, values, ...)
    memory: PyTree  # [N]; before the first step
    last_memory: PyTree  # [N]; after the last step
    last_obs: PyTree  # [N]; the observation to act on next (after resets)
    last_first: jax.Array  # bool[N]


class Agent(NamedTuple):
    """A learner. ``mode`` is the Python string "explore" or "greedy"."""

    init: Callable[[Key], PyTree]  # key -> state
    start: Callable[[PyTree, int], PyTree]  # (state, lanes) -> memory
    act: Callable[[PyTree, Key, tuple], tuple[PyTree, jax.Array, PyTree]]  # (state, key, (memory, obs, first, mode)) -> (memory, action, extras)
    learn: Callable[[PyTree, Key, tuple], tuple[PyTree, dict]]  # (state, key, (batch, signal)) -> (state, aux)
    encode: Callable[[PyTree, PyTree], jax.Array] | None = None  # (state, obs) -> latent


__all__ = ["Agent", "Key", "PyTree", "RewardStream", "Rollout", "Signal", "Transition"]
