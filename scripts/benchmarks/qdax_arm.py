"""QDax's MAP-Elites on the planar arm with the settings of the ``population`` benchmark; runs in an environment of its own (see docs/speed.md).

    python qdax_arm.py JOINTS SIDE BATCH ITERATIONS     a grid of SIDE x SIDE
"""

from __future__ import annotations

import functools
import sys

import jax
import jax.numpy as jnp
from qdax.core.containers.mapelites_repertoire import compute_euclidean_centroids
from qdax.core.emitters.mutation_operators import isoline_variation
from qdax.core.emitters.standard_emitters import MixingEmitter
from qdax.core.map_elites import MAPElites
from qdax.tasks.arm import arm_scoring_function
from qdax.utils.metrics import default_qd_metrics
from timing import compile_ahead, tell, timed


def main(joints: int, side: int, batch: int, iterations: int) -> None:
    key = jax.random.key(0)
    variation = functools.partial(isoline_variation, iso_sigma=0.01, line_sigma=0.2, minval=0.0, maxval=1.0)
    emitter = MixingEmitter(mutation_fn=None, variation_fn=variation, variation_percentage=1.0, batch_size=batch)
    search = MAPElites(arm_scoring_function, emitter, functools.partial(default_qd_metrics, qd_offset=1.0))
    first = jax.random.uniform(key, (batch, joints))
    centroids = compute_euclidean_centroids(grid_shape=(side, side), minval=0.0, maxval=1.0)
    repertoire, emitter_state, _ = jax.jit(search.init)(first, centroids, key)

    def run(carry):
        return jax.lax.scan(search.scan_update, carry, (), length=iterations)[0]

    carry = (repertoire, emitter_state, key)
    program, compiling = compile_ahead(run, carry)
    (repertoire, _, _), spent = timed(program, carry)
    coverage = float(jnp.mean(repertoire.fitnesses != -jnp.inf))
    tell({"steps": batch * iterations, **spent, "compile_seconds": compiling, "returned": coverage})


if __name__ == "__main__":
    main(*map(int, sys.argv[1:5]))
