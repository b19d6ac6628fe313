"""pyribs' novelty search on Kheperax's standard maze with the settings of the ``population`` benchmark, as its tutorial has them; runs in an environment of its
own (see docs/speed.md).

    python ribs_maze.py EVALUATIONS     five CMA-ES of 30 samples, an archive with the threshold 0.01, 15 neighbours, results in 100 x 100 cells
"""

from __future__ import annotations

import sys

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from timing import Stopwatch, tell

jax.tree_leaves, jax.tree_map = jax.tree.leaves, jax.tree.map  # kheperax 0.2.0 asks for names that jax has no more

from kheperax.tasks.config import KheperaxConfig  # noqa: E402
from kheperax.tasks.main import KheperaxTask  # noqa: E402
from ribs.archives import GridArchive, ProximityArchive  # noqa: E402
from ribs.emitters import EvolutionStrategyEmitter  # noqa: E402
from ribs.schedulers import Scheduler  # noqa: E402

EMITTERS, SAMPLES, STEPS, WARM = 5, 30, 250, 3


def main(evaluations: int) -> None:
    key = jax.random.PRNGKey(0)
    config = KheperaxConfig.get_default()
    config.episode_length, config.mlp_policy_hidden_layer_sizes = STEPS, (8, 8)
    env, network, score = KheperaxTask.create_default_task(config, key)
    example = network.init(key, jnp.zeros(env.observation_size))
    flat, unflatten = ravel_pytree(example)
    assert flat.size == 138
    evaluate = jax.jit(lambda batch: score(jax.vmap(unflatten)(batch), key)[1])

    archive = ProximityArchive(solution_dim=flat.size, measure_dim=2, k_neighbors=15, novelty_threshold=0.01, seed=0)
    result = GridArchive(solution_dim=flat.size, dims=(100, 100), ranges=((0, 1), (0, 1)), seed=0)
    strategy = dict(x0=np.zeros(flat.size), sigma0=0.5, ranker="nov", selection_rule="mu", restart_rule="basic", batch_size=SAMPLES)
    emitters = [EvolutionStrategyEmitter(archive, **strategy, seed=seed) for seed in range(EMITTERS)]
    scheduler = Scheduler(archive, emitters, result_archive=result)

    def iteration():
        found = np.asarray(evaluate(jnp.asarray(scheduler.ask(), jnp.float32)))
        scheduler.tell(np.zeros(len(found)), found)  # the archive of results wants an objective

    compiling = Stopwatch()
    for _ in range(WARM):
        iteration()
    compiled, watch, iterations = compiling.read()["seconds"], Stopwatch(), evaluations // (EMITTERS * SAMPLES)
    for _ in range(iterations):
        iteration()
    made = iterations * EMITTERS * SAMPLES * STEPS
    tell({"steps": made, **watch.read(), "compile_seconds": compiled, "returned": float(result.stats.coverage)})


if __name__ == "__main__":
    main(int(sys.argv[1]))
