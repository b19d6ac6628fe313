"""The loop's own driver, for the fit tests: members of a runner, trained as ``farlands train`` trains them, without the files."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
import pytest

from runners.base import Runner
from runners.batching import Batch


@pytest.fixture
def trained() -> Callable[..., Batch]:
    """``trained(make_runner, seeds, iterations, **arms)``: every arm with every seed, side by side in one compiled program.

    ``arms`` are traced hyper-parameters, one value per arm: ``weight=[1.0, 0.0]`` with three seeds makes six members.
    """

    def train(make_runner: Callable[[dict], Runner], seeds: int, iterations: int, **arms: list[float]) -> Batch:
        count = len(next(iter(arms.values()), [0]))
        keys = jnp.tile(jax.random.split(jax.random.PRNGKey(0), seeds), (count, 1))
        batch = Batch(make_runner, keys, {name: jnp.repeat(jnp.array(values), seeds) for name, values in arms.items()}, "vmap")
        with jax.numpy_dtype_promotion("standard"):
            batch.plan()
        batch.compile()
        batch.start()
        batch.run(0, iterations, iterations)
        assert batch.finite().all()
        return batch

    return train
