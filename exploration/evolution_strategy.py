"""OpenAI-ES (Salimans et al., arXiv 1703.03864): the gradient of a smoothed return, estimated by tries around one policy. It does not explore: a baseline.

    grad = 1 / (n sigma) sum_i F_i e_i,   e_i ~ N(0, I) in pairs (e, -e),   F_i = rank of the return among the n, from -0.5 to 0.5

followed by Adam, with weight decay. What is kept is the best policy found in each cell of a grid, so that archives compare.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from envs.base import PyTree, Spec
from envs.builder import NON_NEGATIVE, POSITIVE, Choice, Integer, Sizes, options
from exploration import genomes as made
from exploration import grid_archive
from exploration.base import Population


class ESState(NamedTuple):
    grid: grid_archive.Grid
    mean: jax.Array  # f32[G]
    optimizer: PyTree
    noise: jax.Array  # f32[pairs, G]; of the batch that was asked for


@options(
    cells=Sizes(), pairs=Integer(1, 2**16), sigma=POSITIVE, learning_rate=NON_NEGATIVE, weight_decay=NON_NEGATIVE, initial=Choice(tuple(made.INITIAL))
)
def evolution_strategy(
    spec: Spec,
    *,
    cells: Sequence[int] = (50, 50),
    pairs: int = 50,
    sigma: float | jax.Array = 0.05,
    learning_rate: float | jax.Array = 0.01,
    weight_decay: float | jax.Array = 0.005,
    initial: str = "normal",
) -> Population:
    """The search.

    Args:
      cells: of the grid that keeps the elites.
      pairs: n / 2.
      sigma: of the tries.
      learning_rate, weight_decay: of Adam.
      initial: normal (N(0, 1), clipped to the genes' box) or uniform.
    """
    genes, box = made.genome_space(spec), grid_archive.descriptor_box(spec)
    grid_archive.check_cells(cells, box, "exploration.cells")
    adam = optax.scale_by_adam()

    def init(key):
        mean = made.INITIAL[initial](key, 1, genes)[0]
        return ESState(grid_archive.empty(math.prod(cells), genes.shape[0], len(cells)), mean, adam.init(mean), jnp.zeros((pairs, genes.shape[0])))

    def ask(state, key, phase):
        noise = jax.random.normal(key, state.noise.shape)
        around = state.mean + sigma * jnp.concatenate([noise, -noise])
        return state._replace(noise=noise), made.clipped(around, genes), jnp.ones(2 * pairs, bool)

    def tell(state, key, inputs):
        _, genomes, evaluation = inputs
        grid, added = grid_archive.insert(state.grid, grid_archive.cell_of(evaluation.descriptor, box, cells), genomes, evaluation)
        f = evaluation.fitness
        below = jnp.sum(f[None] < f[:, None], axis=-1) + 0.5 * (jnp.sum(f[None] == f[:, None], axis=-1) - 1)  # equal returns share a rank
        ranks = below / (2 * pairs - 1) - 0.5
        gradient = (ranks[:pairs] - ranks[pairs:]) @ state.noise / (2 * pairs * sigma)
        update, optimizer = adam.update(gradient, state.optimizer)
        mean = made.clipped(state.mean * (1 - learning_rate * weight_decay) + learning_rate * update, genes)
        return ESState(grid, mean, optimizer, state.noise), {"new": jnp.sum(added.new, dtype=jnp.int32)}

    return Population({"offspring": 2 * pairs}, 2 * pairs, init, ask, tell, lambda state: grid_archive.elites(state.grid))
