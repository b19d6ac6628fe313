"""Conservative Q-learning (CQL, Kumar et al., arXiv 2006.04779): what it adds to the losses of SAC's critics.

    gap_k = weight (log sum_a exp(Q_k(s, a) - log p(a)) - Q_k(s, a_data)),    a of ``samples`` each: uniform, from pi(s), and from pi(s')
    critics   + sum_k price (gap_k - threshold),    log price goes up by the mean of price (gap_k - threshold)

This is the authors' ``min_q_version`` 3, with importance weights; 2 leaves log p out and has Q_k(s, a_data) in the sum. Without a threshold the price is 1.
Densities are in units of half the box, as SAC's. Where the MDP ended there is no s', and those actions are drawn from pi(s) as well.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from agents.base import Sample
from agents.critics import Critics
from agents.descent import Part, descend, part
from envs.base import Key, PyTree, Spec, sample_action

LARGEST_PRICE = 1e6


class Others(NamedTuple):
    """Actions that are not the data's."""

    action: jax.Array  # [3 samples, B, ...]
    log_prob: jax.Array  # f32[3 samples, B]


class Conservative(NamedTuple):
    init: Callable[[], Part | tuple]  # -> log price; () where it is fixed
    others: Callable[[Callable, Sample, Key], Others]  # (obs [B], key -> actions and log densities [B]; sample; key)
    gaps: Callable[[PyTree, Sample, Others, jax.Array], jax.Array]  # (critics' parameters, sample, others, values of the data f32[K, B]) -> f32[K, B]
    price: Callable[[Part | tuple], jax.Array]  # log price -> f32[]
    adapt: Callable  # (log price, mean over samples of the gaps of all critics less the threshold f32[]) -> log price
    threshold: Any
    actor_rate: Any  # learning rate of the policy and its temperature
    entropy_backup: bool  # whether targets hold the price of certainty


def conservative(
    spec: Spec,
    critics: Critics,
    *,
    version: int,
    weight: Any,
    threshold: Any | None,
    samples: int,
    rate: Any,
    actor_rate: Any,
    entropy_backup: bool,
) -> Conservative:
    """``critics`` are SAC's; ``threshold`` None fixes the price; ``rate`` is the price's."""

    def others(drawn, sample, key):
        random_key, now_key, next_key = jax.random.split(key, 3)
        lanes = sample.terminated.shape[0]
        uniform = sample_action(spec.action, random_key, samples * lanes)
        uniform = uniform.reshape(samples, lanes, *uniform.shape[1:])
        even = jnp.full((samples, lanes), -jnp.log(2.0) * uniform[0, 0].size)
        ended = sample.terminated
        after = jax.tree.map(lambda a, b: jnp.where(ended.reshape(-1, *[1] * (a.ndim - 1)), a, b), sample.obs, sample.next_obs)
        found = [jax.vmap(lambda k, obs=obs: drawn(obs, k))(jax.random.split(k, samples)) for obs, k in ((sample.obs, now_key), (after, next_key))]
        made = Others(*(jnp.concatenate(parts) for parts in zip((uniform, even), *found, strict=True)))
        return jax.lax.stop_gradient(made)

    def gaps(params, sample, others, values):
        elsewhere = jax.vmap(lambda action: critics.values(params, sample.obs, action), out_axes=1)(others.action)
        terms = elsewhere - others.log_prob if version == 3 else jnp.concatenate([elsewhere, values[:, None]], axis=1)
        return weight * (jax.nn.logsumexp(terms, axis=1) - values)

    def price(state):
        return jnp.float32(1.0) if threshold is None else jnp.minimum(jnp.exp(state.params), LARGEST_PRICE)

    def adapt(state, excess):
        return state if threshold is None else descend(state, -price(state) * excess, rate)

    def init():
        return () if threshold is None else part(jnp.float32(0.0))

    return Conservative(init, others, gaps, price, adapt, 0.0 if threshold is None else threshold, actor_rate, entropy_backup)
