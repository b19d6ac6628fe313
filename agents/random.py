"""The uniform random policy: the floor of every comparison."""

from __future__ import annotations

from agents.base import Agent, Learnt
from envs.base import Spec, sample_action


def random(spec: Spec) -> Agent:
    """Uniform actions of a Discrete or bounded Box space; never learns."""

    def act(state, key, inputs):
        memory, _, first, _ = inputs
        return memory, sample_action(spec.action, key, first.shape[0]), {}

    return Agent(init=lambda key: (), start=lambda state, lanes: (), act=act, learn=lambda state, key, inputs: (state, Learnt()), learns_from="anything")
