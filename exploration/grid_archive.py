"""An archive with one elite per cell of the descriptor's box (MAP-Elites, Mouret and Clune, arXiv 1504.04909).

In a regular grid a descriptor's cell is computed, not looked for, so an insertion costs the same however fine the grid is; other cells are those of
``exploration/tessellation.py``. A batch is inserted at once: of those that fall into one cell the fittest competes (among equals the first), so all of an elite
comes from one individual.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from gymnasium import spaces

from envs.base import Key
from envs.builder import Refusal
from exploration.base import Elites, Evaluation


class Grid(NamedTuple):
    genomes: jax.Array  # f32[C, G]
    fitness: jax.Array  # f32[C]; -inf: empty
    descriptor: jax.Array  # f32[C, d]


class Added(NamedTuple):
    """What an insertion did, for each of the batch; emitters rank by it."""

    new: jax.Array  # bool[P]; it is the first in its cell
    improved: jax.Array  # bool[P]; it replaced another
    value: jax.Array  # f32[P]; its fitness less that of the cell's elite before; its fitness where the cell was empty; -inf where it is not valid


def empty(cells: int, genes: int, width: int) -> Grid:
    """Of so many cells, for genomes of ``genes`` numbers and descriptors of ``width``."""
    return Grid(jnp.zeros((cells, genes), jnp.float32), jnp.full(cells, -jnp.inf), jnp.zeros((cells, width), jnp.float32))


def cell_of(descriptor: jax.Array, box: spaces.Box, cells: Sequence[int]) -> jax.Array:
    """f32[..., d] -> i32[...], 0 to prod(cells) - 1; outside the box it is the cell at the border."""
    shape = jnp.asarray(cells, jnp.int32)
    share = (descriptor - box.low) / (box.high - box.low)
    at = jnp.clip((share * shape).astype(jnp.int32), 0, shape - 1)
    index = at[..., 0]
    for axis in range(1, len(cells)):
        index = index * cells[axis] + at[..., axis]
    return index


def insert(grid: Grid, cell: jax.Array, genomes: jax.Array, evaluation: Evaluation, ties: bool = False) -> tuple[Grid, Added]:
    """The grid with a batch of P. ``cell`` i32[P]. ``ties``: an equal fitness replaces the elite too (SERENE's code), else only a higher one."""
    count, number = grid.fitness.shape[0], cell.shape[0]
    fitness = jnp.where(evaluation.valid, evaluation.fitness, -jnp.inf)
    place = jnp.where(jnp.isfinite(fitness), cell, count)  # out of range: not written
    highest = jnp.full(count + 1, -jnp.inf).at[place].max(fitness)
    index = jnp.arange(number, dtype=jnp.int32)
    first = jnp.full(count + 1, number, jnp.int32).at[place].min(jnp.where(fitness == highest[place], index, number))
    before = jnp.concatenate([grid.fitness, jnp.full(1, jnp.inf)])[place]
    better = (fitness >= before if ties else fitness > before) & (place < count)
    wins = better & (first[place] == index)
    target = jnp.where(wins, place, count)
    new = Grid(
        grid.genomes.at[target].set(genomes, mode="drop"),
        grid.fitness.at[target].set(fitness, mode="drop"),
        grid.descriptor.at[target].set(evaluation.descriptor, mode="drop"),
    )
    was_empty = jnp.isneginf(before)
    value = jnp.where(place < count, jnp.where(was_empty, fitness, fitness - before), -jnp.inf)
    return new, Added(wins & was_empty, wins & ~was_empty, value)


def choose(grid: Grid, key: Key, number: int) -> jax.Array:
    """i32[number]: filled cells, uniformly, with replacement; 0 where none is filled."""
    counted = jnp.cumsum(jnp.isfinite(grid.fitness), dtype=jnp.int32)
    drawn = jax.random.randint(key, (number,), 0, jnp.maximum(counted[-1], 1))
    return jnp.minimum(jnp.searchsorted(counted, drawn, side="right"), grid.fitness.shape[0] - 1).astype(jnp.int32)


def elites(grid: Grid) -> Elites:
    return Elites(grid.genomes, grid.fitness, grid.descriptor, jnp.isfinite(grid.fitness))


def descriptor_box(spec) -> spaces.Box:
    """The box of ``info["descriptor"]``. Raises Refusal where the world gives none."""
    if "descriptor" not in spec.info:
        raise Refusal(
            f"the world {spec.name!r} gives no descriptor of behaviour; say what it is with runner.descriptor=your.function and runner.box=[low,high]"
        )
    return spec.info["descriptor"]


def check_cells(cells: Sequence[int], box: spaces.Box, key: str) -> None:
    """Raises Refusal where the grid has not one number per dimension of the descriptor, or too many cells."""
    if len(cells) != box.shape[0]:
        raise Refusal(f"{key}={list(cells)} must have a number per dimension of the descriptor, which has {box.shape[0]}; try {key}={[50] * box.shape[0]}")
    if math.prod(cells) > 2**24:
        raise Refusal(f"{key}={list(cells)} makes {math.prod(cells):,} cells; at most {2**24:,} are kept: give fewer")
