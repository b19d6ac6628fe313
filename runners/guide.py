"""``Guide``: who has a say in where episodes start, when they end early and which steps are learnt from (``runners/backward.py``,
``runners/policy_go_explore.py``); evaluations are without it."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from envs.base import PyTree
from runners.iteration import Assessed
from runners.source import Source


class Guide(NamedTuple):
    """For one member. The first four are for any world; the others steer lanes of JAX worlds (those on the host: ``runners/host_steering.py``)."""

    init: Callable[[], PyTree] = lambda: ()  # -> state
    tell: Callable[..., tuple[PyTree, dict]] = lambda state, steps, notes: (state, {})  # (state, steps [T, N], the lanes' notes [N] now) -> (state, metrics)
    learnt: Callable[[Assessed], Assessed] = lambda assessed: assessed  # with weights of the steps, and steps to imitate
    counted: Callable[[Assessed], Assessed] = lambda assessed: assessed  # as episodes are counted
    source: Source | None = None  # of evaluations
    begin: Callable | None = None  # (state, key, fresh lanes) -> lanes, before the first rollout
    steer: Callable[[PyTree], Source] | None = None  # state -> the source of a rollout
    watched: Callable[[PyTree], Source] | None = None  # state -> the source of evaluations, where it depends on the state


def unguided(source: Source | None = None) -> Guide:
    """Everything is as the world has it."""
    return Guide(source=source, steer=lambda state: source)
