"""Tiny runs for the tests of the runners: real configurations, seconds to compile."""

from __future__ import annotations

import jax
import numpy as np

from runners.batching import Batch
from runners.compose import compose
from runners.experiment import experiment
from runners.host_batch import HostBatch
from runners.train import assemble

TINY = ["env.size=4", "runner.lanes=4", "runner.rollout=8", "agent.hidden=[8]", "agent.minibatches=2", "agent.epochs=2", "total_steps=256"]
AGENTS = {
    "ppo": TINY,
    "recurrent": [*TINY, "agent.recurrent=4"],
    "replay": [
        "agent=random",
        "runner=off_policy",
        *(o for o in TINY if not o.startswith("agent")),
        "runner.capacity=128",
        "runner.batch_size=16",
        "runner.learning_starts=64",
        "runner.n_step=2",
    ],
    "random": ["agent=random", *(o for o in TINY if not o.startswith("agent"))],
}
BONUSES = {
    "none": ["exploration=none"],
    "counts": ["exploration=counts"],
    "rnd": ["exploration=rnd", "exploration.hidden=[8]", "exploration.embedding=4", "exploration.minibatches=2", "exploration.warmup=8"],
    "e3b": ["exploration=e3b", "exploration.hidden=[8]", "exploration.embedding=4", "exploration.minibatches=2"],
}


def batch_of(overrides: list[str], batching: str) -> tuple[Batch | HostBatch, int]:
    """(compiled batch without states, iterations)."""
    batch, _, _ = assemble(experiment(compose(overrides)), batching)
    batch.plan()
    batch.compile()
    return batch, 8


def assert_equal(a, b):
    """Bit for bit, NaN equal to NaN."""
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for (path, x), y in zip(jax.tree_util.tree_flatten_with_path(a)[0], jax.tree.leaves(b), strict=True):
        name = jax.tree_util.keystr(path)
        assert x.dtype == y.dtype, name
        np.testing.assert_array_equal(x, y, err_msg=name)
