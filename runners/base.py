"""The record that the loop drives, whatever the experiment."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax

from envs.base import Key, PyTree, Spec


class Clock(NamedTuple):
    """Where the run stands. Reaches ``step`` unbatched, so ``lax.cond`` on it stays a branch under vmap."""

    iteration: jax.Array  # i32[]; iterations done before this one
    progress: jax.Array  # f32[]; share of the run's iterations done, in [0, 1)


class Runner(NamedTuple):
    """One iteration of an experiment, for one member.

    Keys inside ``step`` are derived from the member's own key and the clock, never threaded: resuming and reordering change
    nothing. Metrics are the kinds of ``runners/metrics.py``.
    """

    init: Callable[[Key], PyTree]  # key -> state
    step: Callable[[PyTree, Clock], tuple[PyTree, dict[str, Any]]]  # (state, clock) -> (state, metrics)
    evaluate: Callable[[PyTree, Key], dict[str, Any]] | None  # (state, key) -> metrics, in worlds of its own
    spec: Spec
    steps_per_iteration: int  # environment steps of one iteration, all lanes
