"""Behaviour cloning (Pomerleau, "ALVINN", 1988): a policy that does what the data do, by maximum likelihood of their actions.

    L = -sum_i w_i log pi(a_i | s_i) / #{w_i > 0}

The networks are PPO's, feed-forward, so that ``init_from=RUN`` lets PPO go on from what was cloned (its values begin afresh). Rewards are not learnt from.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax

from agents import actor_critic
from agents.base import Agent, Learnt
from agents.descent import descend, mean_of, part
from envs.base import Spec
from envs.builder import POSITIVE, Choice, Sizes, options


@options(
    hidden=Sizes(),
    activation=Choice(("tanh", "relu", "leaky_relu", "silu", "elu")),
    encoder=Choice(("auto", "mlp", "cnn", "grid")),
    learning_rate=POSITIVE,
)
def behaviour_cloning(spec: Spec, *, hidden: Sequence[int] = (64, 64), activation: str = "tanh", encoder: str = "auto", learning_rate: Any = 1e-3) -> Agent:
    """Cloned from a replay or a data set; Discrete and Box actions."""
    network = actor_critic.actor_critic(spec, heads=1, hidden=hidden, activation=activation, encoder=encoder, recurrent=0)
    policy = network.distribution

    def act(state, key, inputs):
        memory, obs, first, mode = inputs
        parameters = network.apply(state.params, (), obs, first)[1]
        raw = policy.sample(parameters, key) if mode == "explore" else policy.mode(parameters)
        return memory, policy.to_action(raw), {}

    def learn(state, key, inputs):
        sample, _ = inputs
        mean, raw = mean_of(sample.weights), policy.from_action(sample.action)

        def loss(params):
            parameters = network.apply(params, (), sample.obs, sample.terminated)[1]
            return -mean(policy.log_prob(parameters, raw)), mean(policy.entropy(parameters, raw))

        (lost, entropy), grads = jax.value_and_grad(loss, has_aux=True)(state.params)
        return descend(state, grads, learning_rate), Learnt({"loss/policy": lost, "policy/entropy": entropy})

    return Agent(
        init=lambda key: part(network.init(key)),
        start=lambda state, lanes: (),
        act=act,
        learn=learn,
        encode=lambda state, obs: network.encode(state.params, obs),
        learns_from="replay",
    )
