"""Returns and advantages over rollouts, with truncation and non-episodic streams treated as what they are."""

from __future__ import annotations

import jax
import jax.numpy as jnp

UNROLL = 16  # scan steps fused into one loop body; the loop's overhead dominates otherwise


def gae(reward, value, next_value, discount, gae_lambda, terminated, done):
    """Generalised advantage estimation (Schulman et al., arXiv 1506.02438, eq. 16), all inputs [T, N], time first.

    ``next_value[t]`` is the value of the true successor of step t. ``terminated`` stops the bootstrap, ``done`` stops the
    trace. For a non-episodic stream give zeros for both and the value of the observation after the reset: its returns
    continue across episode ends (RND, arXiv 1810.12894, section 2.3). Returns the advantages [T, N].
    """
    delta = reward + discount * (1.0 - terminated) * next_value - value
    decay = discount * gae_lambda * (1.0 - done)

    def backward(advantage, inputs):
        delta_t, decay_t = inputs
        advantage = delta_t + decay_t * advantage
        return advantage, advantage

    _, advantages = jax.lax.scan(backward, jnp.zeros_like(delta[0]), (delta, decay), reverse=True, unroll=UNROLL)
    return advantages


def stream_advantages(stream, value, following, successor, terminated, done, gae_lambda):
    """Advantages [T, N] of one reward stream.

    value: [T, N] of the observations acted on. following: [T, N] of the observations acted on next (after resets).
    successor: [T, N] of the true successors; only read where an episode was truncated.
    """
    episodic = jnp.asarray(stream.episodic, jnp.float32)
    ended = done.astype(jnp.float32) * episodic
    next_value = jnp.where(ended > 0, successor, following)
    return gae(stream.reward, value, next_value, stream.discount, gae_lambda, terminated.astype(jnp.float32) * episodic, ended)
