"""MAP-Elites (Mouret and Clune, arXiv 1504.04909): the best policy for every kind of behaviour.

The behaviour space is cut into cells, of a grid or of centroids (CVT-MAP-Elites, arXiv 1610.05729), each keeps the fittest policy seen there. A batch of
parents is drawn uniformly from the filled cells, varied, tried, and competes for its own cells. ``variation=gaussian`` adds N(0, sigma^2) to every gene (as in
SERENE's code); ``iso_line`` moves towards another elite too (arXiv 1804.03906). The first batch is drawn afresh.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp

from envs.base import Spec
from envs.builder import FLAG, NON_NEGATIVE, Choice, Integer, Sizes, options
from exploration import genomes as made
from exploration import grid_archive
from exploration.base import Population
from exploration.tessellation import ARCHIVES, tessellation


class MapElitesState(NamedTuple):
    grid: grid_archive.Grid
    started: jax.Array  # bool[]; the first batch is in


@options(
    archive=Choice(ARCHIVES),
    cells=Sizes(),
    centroids=Integer(1, 2**24),
    batch=Integer(1, 2**20),
    initial=Choice(tuple(made.INITIAL)),
    variation=Choice(("gaussian", "iso_line")),
    sigma=NON_NEGATIVE,
    line_sigma=NON_NEGATIVE,
    ties=FLAG,
)
def map_elites(
    spec: Spec,
    *,
    archive: str = "grid",
    cells: Sequence[int] = (50, 50),
    centroids: int = 1024,
    batch: int = 100,
    initial: str = "normal",
    variation: str = "gaussian",
    sigma: float | jax.Array = 0.05,
    line_sigma: float | jax.Array = 0.2,
    ties: bool = True,
) -> Population:
    """The search.

    Args:
      archive: grid or cvt (``exploration/tessellation.py``).
      cells: of the grid, a number per dimension of the descriptor.
      centroids: cells of the cvt.
      batch: policies tried at a time.
      initial: normal (N(0, 1), clipped to the genes' box) or uniform.
      variation: gaussian or iso_line.
      sigma: standard deviation of the noise on every gene.
      line_sigma: of the step towards another elite, as a share of the way; iso_line only.
      ties: an equal fitness replaces the elite.
    """
    genes, box = made.genome_space(spec), grid_archive.descriptor_box(spec)
    cut = tessellation(archive, box, cells, centroids)

    def init(key):
        return MapElitesState(grid_archive.empty(cut.number, genes.shape[0], box.shape[0]), jnp.bool_(False))

    def ask(state, key, phase):
        fresh_key, parent_key, other_key, noise_key = jax.random.split(key, 4)
        parents = state.grid.genomes[grid_archive.choose(state.grid, parent_key, batch)]
        if variation == "gaussian":
            children = made.gaussian(noise_key, parents, sigma, genes)
        else:
            others = state.grid.genomes[grid_archive.choose(state.grid, other_key, batch)]
            children = made.iso_line(noise_key, parents, others, sigma, line_sigma, genes)
        children = jax.lax.cond(state.started, lambda: children, lambda: made.INITIAL[initial](fresh_key, batch, genes))
        return state, children, jnp.ones(batch, bool)

    def tell(state, key, inputs):
        _, genomes, evaluation = inputs
        grid, added = grid_archive.insert(state.grid, cut.cell_of(evaluation.descriptor), genomes, evaluation, ties)
        happened = {"new": jnp.sum(added.new, dtype=jnp.int32), "improved": jnp.sum(added.improved, dtype=jnp.int32)}
        return MapElitesState(grid, state.started | jnp.any(evaluation.valid)), happened

    return Population({"offspring": batch}, batch, init, ask, tell, lambda state: grid_archive.elites(state.grid))
