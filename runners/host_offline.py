"""Learning without steps, evaluated in worlds on the host: the members of a ``HostRunner`` that makes no steps (``runners/offline.py``)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from runners.base import Acting, HostRunner, Runner
from runners.batching import Batch
from runners.host_batch import HostBatch


class WatchedBatch(Batch):
    """Learns as any ``Batch`` does; only its evaluations step worlds, as those of ``HostBatch`` do."""

    def __init__(self, make_runner: Callable[[dict], HostRunner], keys: jax.Array, hyper: dict[str, Any], batching: str, runner: HostRunner):
        super().__init__(lambda given: learner(make_runner(given)), keys, hyper, batching)
        self._worlds = HostBatch(make_runner, keys, hyper, runner)

    def evaluate(self, keys: Any) -> list[dict[str, Any]]:
        """Each member's evaluation; ``keys`` uint32 [M, 2]."""
        groups = jax.device_get([Acting(states.agent, states.bonus) for states in self._states])
        return self._worlds.evaluate(keys, jax.tree.map(lambda *parts: np.concatenate(parts)[: self.members], *groups))

    def close(self) -> None:
        self._worlds.close()


def learner(runner: HostRunner) -> Runner:
    """The part of a runner that needs no world."""
    init, step = runner.init, runner.finish
    return Runner(lambda key: init(key, None), step, None, runner.spec, runner.steps_per_iteration, parts=lambda: {"drawing, learning, and the rest": step})
