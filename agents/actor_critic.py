"""Policy and value networks of on-policy agents: two towers when feed-forward, one recurrent trunk otherwise.

Last layers: gain 0.01 for the policy, 1 for the values ("The 37 implementation details of PPO", detail 2).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from gymnasium import spaces

from agents.distributions import Distribution, distribution
from agents.networks import Torso, dummy, orthogonal
from envs.base import Spec


class ActorCritic(NamedTuple):
    distribution: Distribution
    init: Callable  # key -> params
    start: Callable  # lanes -> memory
    apply: Callable  # (params, memory, obs [...], first [...]) -> (memory, parameters, values [..., heads]); one step
    unroll: Callable  # (params, memory, obs [T, B], first [T, B]) -> (parameters, values); [B] when feed-forward
    encode: Callable  # (params, obs) -> latent


class PolicyHead(nn.Module):
    size: int
    has_log_std: bool

    @nn.compact
    def __call__(self, x):
        if not self.has_log_std:
            return nn.Dense(self.size, kernel_init=orthogonal(0.01))(x)
        mean = nn.Dense(self.size // 2, kernel_init=orthogonal(0.01))(x)
        log_std = self.param("log_std", nn.initializers.zeros, (self.size // 2,))
        return jnp.concatenate([mean, jnp.broadcast_to(log_std, mean.shape)], axis=-1)


class Towers(nn.Module):
    """Separate networks for policy and values."""

    space: spaces.Space
    hidden: Sequence[int]
    act: str
    encoder: str
    size: int
    has_log_std: bool
    heads: int

    def setup(self):
        self.actor = Torso(self.space, self.hidden, self.act, self.encoder)
        self.critic = Torso(self.space, self.hidden, self.act, self.encoder)
        self.policy = PolicyHead(self.size, self.has_log_std)
        self.value = nn.Dense(self.heads, kernel_init=orthogonal(1.0))

    def __call__(self, obs):
        return self.policy(self.actor(obs)), self.value(self.critic(obs))

    def encode(self, obs):
        return self.actor(obs)


class Recurrent(nn.Module):
    """A shared torso, a GRU whose carry restarts at the first step of an episode, and two heads."""

    space: spaces.Space
    hidden: Sequence[int]
    act: str
    encoder: str
    width: int
    size: int
    has_log_std: bool
    heads: int

    def setup(self):
        self.torso = Torso(self.space, self.hidden, self.act, self.encoder)
        self.cell = nn.GRUCell(self.width)
        self.policy = PolicyHead(self.size, self.has_log_std)
        self.value = nn.Dense(self.heads, kernel_init=orthogonal(1.0))

    def __call__(self, memory, obs, first):
        memory, x = self.cell(jnp.where(first[..., None], 0.0, memory), self.torso(obs))
        return memory, self.policy(x), self.value(x)

    def encode(self, obs):
        return self.torso(obs)


def actor_critic(spec: Spec, *, heads: int, hidden, activation: str, encoder: str, recurrent: int) -> ActorCritic:
    """Networks for ``spec``; ``recurrent`` is the GRU's width, 0 for none."""
    policy = distribution(spec.action)
    shape = (spec.observation, tuple(hidden), activation, encoder)
    example = dummy(spec.observation)
    if not recurrent:
        module = Towers(*shape, policy.size, policy.has_log_std, heads)
        return ActorCritic(
            distribution=policy,
            init=lambda key: module.init(key, example),
            start=lambda lanes: (),
            apply=lambda params, memory, obs, first: (memory, *module.apply(params, obs)),
            unroll=lambda params, memory, obs, first: module.apply(params, obs),
            encode=lambda params, obs: module.apply(params, obs, method="encode"),
        )
    module = Recurrent(*shape, recurrent, policy.size, policy.has_log_std, heads)
    first = jnp.zeros((1,), bool)

    def unroll(params, memory, obs, first):
        def step(memory, inputs):
            memory, parameters, value = module.apply(params, memory, *inputs)
            return memory, (parameters, value)

        return jax.lax.scan(step, memory, (obs, first))[1]

    return ActorCritic(
        distribution=policy,
        init=lambda key: module.init(key, jnp.zeros((1, recurrent)), example, first),
        start=lambda lanes: jnp.zeros((lanes, recurrent)),
        apply=lambda params, memory, obs, first: module.apply(params, memory, obs, first),
        unroll=unroll,
        encode=lambda params, obs: module.apply(params, obs, method="encode"),
    )
