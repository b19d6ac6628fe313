"""How the box of a descriptor is cut into cells that keep an elite each: a regular grid, or the cells of centroids (CVT).

A centroidal Voronoi tessellation (CVT-MAP-Elites, Vassiliades, Chatzilygeroudis and Mouret, arXiv 1610.05729) has as many cells as one asks for, whatever the
number of dimensions: centroids by k-means over points drawn uniformly in the box, a descriptor belongs to the nearest one. Distances are measured in
shares of the box's sides. The centroids are the same for every member and every run: they are no part of the search's state.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from gymnasium import spaces

from envs.builder import Refusal
from exploration.grid_archive import cell_of, check_cells

ARCHIVES = ("grid", "cvt")
SAMPLES, ROUNDS, SEED = 50_000, 30, 0  # of k-means


class Tessellation(NamedTuple):
    number: int  # of cells
    cell_of: Callable[[jax.Array], jax.Array]  # descriptor f32[P, d] -> cell i32[P]


def tessellation(archive: str, box: spaces.Box, cells: Sequence[int], centroids: int) -> Tessellation:
    """``archive``: grid (``cells``, a number per dimension) or cvt (``centroids``). Raises Refusal for cells that do not fit the descriptor."""
    if archive == "grid":
        check_cells(cells, box, "exploration.cells")
        return Tessellation(int(np.prod(cells)), lambda descriptor: cell_of(descriptor, box, cells))
    if centroids > SAMPLES // 2:
        raise Refusal(f"exploration.centroids={centroids} must be at most {SAMPLES // 2}: k-means has {SAMPLES:,} points; or exploration.archive=grid")
    middles = centroids_of(box.shape[0], centroids)

    def nearest(descriptor):
        share = (descriptor - box.low) / (box.high - box.low)
        return jax.lax.map(lambda one: jnp.argmin(jnp.sum(jnp.square(middles - one), axis=-1)).astype(jnp.int32), share, batch_size=64)

    return Tessellation(centroids, nearest)


@functools.cache
def centroids_of(width: int, number: int) -> np.ndarray:
    """f32[number, width] in the unit cube, by Lloyd's algorithm. An empty cluster keeps its centroid."""
    from scipy.spatial import cKDTree  # half a second that only this should cost

    random = np.random.default_rng(SEED)
    points = random.random((SAMPLES, width))
    middles = points[:number]
    for _ in range(ROUNDS):
        owner = cKDTree(middles).query(points)[1]
        count = np.bincount(owner, minlength=number)
        sums = np.stack([np.bincount(owner, weights=points[:, d], minlength=number) for d in range(width)], axis=-1)
        middles = np.where(count[:, None] > 0, sums / np.maximum(count, 1)[:, None], middles)
    return middles.astype(np.float32)
