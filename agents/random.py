"""Uniform random policies: the floor of every comparison, and what Go-Explore explores with."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from agents.base import Agent, Learnt
from envs.base import Spec, sample_action
from envs.builder import Real, options


def random(spec: Spec) -> Agent:
    """Uniform actions of a Discrete or bounded Box space; never learns."""

    def act(state, key, inputs):
        memory, _, first, _ = inputs
        return memory, sample_action(spec.action, key, first.shape[0]), {}

    return Agent(init=lambda key: (), start=lambda state, lanes: (), act=act, learn=lambda state, key, inputs: (state, Learnt()), learns_from="anything")


@options(mean_run=Real(1.0))
def repeated_random(spec: Spec, *, mean_run: float = 20.0) -> Agent:
    """Uniform actions, each kept for a number of steps that is geometric with mean ``mean_run`` (Go-Explore, arXiv 2004.12919); never learns.
    In a rollout's or an episode's first step a new one is drawn."""

    def start(state, lanes):
        return sample_action(spec.action, jax.random.PRNGKey(0), lanes)

    def act(state, key, inputs):
        held, _, first, _ = inputs
        draw_key, action_key = jax.random.split(key)
        new = first | (jax.random.uniform(draw_key, first.shape) * mean_run < 1.0)
        drawn = sample_action(spec.action, action_key, first.shape[0])
        action = jnp.where(new.reshape(-1, *[1] * (drawn.ndim - 1)), drawn, held)
        return action, action, {}

    return Agent(init=lambda key: (), start=start, act=act, learn=lambda state, key, inputs: (state, Learnt()), learns_from="anything")
