"""The records of the learner: an agent, what it learns from, and what a rollout holds.

Order everywhere: ``(state, key, inputs) -> (state, outputs)``. Agents never import exploration: a learning signal reaches
them as an argument.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import numpy as np
from gymnasium import spaces

from envs.base import Key, PyTree, Transition


class RewardStream(NamedTuple):
    """One stream of rewards with its own horizon. Streams stay apart until the agent's ``mix``."""

    reward: jax.Array  # f32[T, N] or [B], already normalised
    discount: jax.Array | float
    weight: jax.Array | float  # of its advantages (mix=heads) or of its rewards (mix=sum_then_clip)
    episodic: jax.Array | bool  # False: returns continue across episode ends


class Regulariser(NamedTuple):
    """A differentiable bonus of actions that were never taken, for losses that maximise it (MaxInfoRL's information gain)."""

    value: Callable[[PyTree, jax.Array], jax.Array]  # (obs [B], action [B]) -> f32[B], differentiable with respect to both
    weight: jax.Array | float  # the scale of its ``exploration=`` entry


class Imitation(NamedTuple):
    """Which steps of a rollout did what a demonstration does there, to be imitated where that is better than what was expected:

        L = coef mean[-log pi(a) max(G - V, 0) + value_coef 1/2 max(G - V, 0)^2]

    (self-imitation learning, Oh et al., arXiv 1806.05635; V of the policy term is that of the acting network)."""

    weight: jax.Array  # f32[T, N]; 1 for those steps, 0 for others
    returns: jax.Array  # f32[T, N]; the demonstration's discounted rewards from there on, G
    coef: jax.Array | float
    value_coef: jax.Array | float


class Signal(NamedTuple):
    """What ``learn`` receives beside the batch."""

    streams: tuple[RewardStream, ...]  # in the order of ``spec.streams``
    progress: jax.Array | float = 0.0  # share of the run's steps that are done, for schedules
    weights: jax.Array | None = None  # f32[T, N]; of an on-policy agent's losses: 0 for steps to be left out (None: none is)
    imitation: Imitation | None = None
    regulariser: Regulariser | None = None


class Rollout(NamedTuple):
    """What an on-policy agent learns from: T steps of N lanes, and what is needed to continue after them."""

    transitions: Transition  # [T, N]
    extras: PyTree  # [T, N]; what ``act`` returned (log probabilities, values, ...)
    memory: PyTree  # [N]; before the first step
    last_memory: PyTree  # [N]; after the last step
    last_obs: PyTree  # [N]; the observation to act on next (after resets)
    last_first: jax.Array  # bool[N]


class Sample(NamedTuple):
    """What a replay agent learns from: B samples, each one or several steps of an episode. Their rewards, summed over those steps, and
    the discounts to the power of their number are in the ``Signal``."""

    obs: PyTree  # [B]
    action: jax.Array  # [B]; at ``obs``
    next_obs: PyTree  # [B]; after the steps
    terminated: jax.Array  # bool[B]; the MDP ended in them: no bootstrap
    weights: jax.Array  # f32[B]; of the losses: importance weights of prioritised draws, 0 for what is to be left out
    extras: PyTree = ()  # [B]; what ``act`` returned at ``obs``


class Learnt(NamedTuple):
    """What ``learn`` returns beside the new state."""

    metrics: dict = {}  # scalars
    priorities: jax.Array | None = None  # f32[B]; for a prioritised replay, of the batch's samples
    payload: PyTree = None  # handed to ``Bonus.update``: what the learner computed and a bonus may use


class Genome(NamedTuple):
    """Policies as points of a box, for methods that search over whole policies."""

    space: spaces.Box  # of flat genomes f32[G]; searches stay inside
    decode: Callable[[jax.Array], PyTree]  # f32[G] -> agent state
    act: Callable[[np.ndarray, np.ndarray], np.ndarray]  # (genome f32[G], one obs) -> action, in numpy: for workers that step worlds on the host


class Agent(NamedTuple):
    """A learner. ``mode`` is "greedy" or "explore"; an agent that learns from rollouts may also be given temperatures f32[N]: it explores with a policy that
    is as much wider (``Distribution.tempered``), and its ``learn`` judges the actions by that policy."""

    init: Callable[[Key], PyTree]  # key -> state
    start: Callable[[PyTree, int], PyTree]  # (state, lanes) -> memory
    act: Callable[[PyTree, Key, tuple], tuple[PyTree, jax.Array, PyTree]]  # (state, key, (memory, obs, first, mode)) -> (memory, action, extras)
    learn: Callable[[PyTree, Key, tuple], tuple[PyTree, Learnt]]  # (state, key, (batch, signal)) -> (state, Learnt)
    encode: Callable[[PyTree, PyTree], jax.Array] | None = None  # (state, obs) -> latent
    learns_from: str = "rollout"  # what its ``learn`` takes: "rollout" (Rollout), "replay" (Sample), "anything"
    genome: Genome | None = None  # of agents that can be searched over


__all__ = ["Agent", "Genome", "Imitation", "Key", "Learnt", "PyTree", "Regulariser", "RewardStream", "Rollout", "Sample", "Signal", "Transition"]
