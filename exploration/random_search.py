"""Random search over policies: genomes are drawn afresh every time. The floor of every comparison of populations.

Nothing is learnt; what is kept is the best policy found in each cell of a grid, so that archives compare.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import jax.numpy as jnp

from envs.base import Spec
from envs.builder import Choice, Integer, Sizes, options
from exploration import genomes as made
from exploration import grid_archive
from exploration.base import Population


@options(cells=Sizes(), batch=Integer(1, 2**20), initial=Choice(tuple(made.INITIAL)))
def random_search(spec: Spec, *, cells: Sequence[int] = (50, 50), batch: int = 100, initial: str = "normal") -> Population:
    """The search. cells: of the grid that keeps the elites; batch: policies tried at a time; initial: normal (N(0, 1), clipped) or uniform."""
    genes, box = made.genome_space(spec), grid_archive.descriptor_box(spec)
    grid_archive.check_cells(cells, box, "exploration.cells")

    def ask(grid, key, phase):
        return grid, made.INITIAL[initial](key, batch, genes), jnp.ones(batch, bool)

    def tell(grid, key, inputs):
        _, genomes, evaluation = inputs
        grid, added = grid_archive.insert(grid, grid_archive.cell_of(evaluation.descriptor, box, cells), genomes, evaluation)
        return grid, {"new": jnp.sum(added.new, dtype=jnp.int32)}

    return Population({"offspring": batch}, batch, lambda key: grid_archive.empty(math.prod(cells), genes.shape[0], len(cells)), ask, tell, grid_archive.elites)
