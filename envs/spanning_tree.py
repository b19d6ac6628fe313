"""Random mazes on device: uniform spanning trees of a grid of cells, by Wilson's algorithm.

Wilson (1996), "Generating random spanning trees more quickly than the cover time". The tree begins as one cell. From the next cell that
is not in it, walk at random until the tree is met, noting in each cell the direction in which it was last left; then the way along
these directions, from where the walk began, joins the tree. Every spanning tree is equally likely.

A lane of ``vmap`` does one move per turn, walking or joining, so that lanes do not wait for each other's walks. A walk against
the border stays where it is: loops of one cell change no tree's probability. The first cell of the tree is in the middle, where
walks find it soon.

Popping all cycles at once (Propp and Wilson 1998) gives the same distribution in a few gathers per round, but in many rounds: 50 to 75
times slower here, with 256 lanes on a CPU.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from envs.maze_layouts import DOWN, LEFT, MOVES, RIGHT, UP

BLOCK = 64  # moves between two looks at whether all lanes have finished
IN_TREE = 4  # bit of a cell; the two below are the direction in which it was last left


class Growth(NamedTuple):
    cells: jax.Array  # uint8[cells]
    at: jax.Array  # i32[]
    begun: jax.Array  # i32[]; where the walk began: all cells before are in the tree
    joining: jax.Array  # bool[]; the walk has met the tree
    size: jax.Array  # i32[]; cells in the tree


def neighbours(rows: int, columns: int) -> np.ndarray:
    """i32[rows * columns, 4]: the cell up, right, down and left of each; -1 where the grid ends."""
    row, column = np.divmod(np.arange(rows * columns)[:, None], columns)
    row, column = row + MOVES[:, 0], column + MOVES[:, 1]
    inside = (row >= 0) & (row < rows) & (column >= 0) & (column < columns)
    return np.where(inside, row * columns + column, -1).astype(np.int32)


def spanning_tree(key: jax.Array, rows: int, columns: int) -> jax.Array:
    """A uniform spanning tree of the grid, i32[rows * columns]: the next cell on the way to the root, which has itself."""
    cells = rows * columns
    root = rows // 2 * columns + columns // 2

    def beyond(at, direction):
        """The cell that lies in ``direction``; the same cell at the border. Computed: with a table, several lanes would be slower."""
        down = (direction == DOWN).astype(jnp.int32) - (direction == UP).astype(jnp.int32)
        right = (direction == RIGHT).astype(jnp.int32) - (direction == LEFT).astype(jnp.int32)
        return jnp.clip(at // columns + down, 0, rows - 1) * columns + jnp.clip(at % columns + right, 0, columns - 1)

    def move(state, direction):
        here = state.cells[state.at]
        met = here >= IN_TREE
        left = jnp.where(state.joining, here & 3 | IN_TREE, direction)
        done = met & (state.joining | (state.at == state.begun))
        begun = jnp.minimum(state.begun + done.astype(jnp.int32), cells - 1)
        new = Growth(
            cells=state.cells.at[state.at].set(jnp.where(met, here, left)),
            at=jnp.where(met, begun, beyond(state.at, left & 3)),
            begun=begun,
            joining=jnp.where(met, ~done, state.joining),
            size=state.size + (~met & state.joining).astype(jnp.int32),
        )
        return new, None

    def moves(carry):
        state, block = carry
        directions = jax.random.bits(jax.random.fold_in(key, block), (BLOCK,), jnp.uint8) & 3
        return jax.lax.scan(move, state, directions)[0], block + 1

    seedling = jnp.zeros(cells, jnp.uint8).at[root].set(IN_TREE)
    first = Growth(seedling, jnp.int32(0), jnp.int32(0), jnp.bool_(False), jnp.int32(1))
    grown, _ = jax.lax.while_loop(lambda carry: carry[0].size < cells, moves, (first, jnp.int32(0)))
    return beyond(jnp.arange(cells, dtype=jnp.int32), grown.cells & 3).at[root].set(root)


def random_maze(key: jax.Array, rows: int, columns: int, braid: float | jax.Array = 0.0) -> jax.Array:
    """Walls bool[2 rows + 1, 2 columns + 1] around the passages of a uniform spanning tree; cells are the squares with odd coordinates.

    A dead end is opened with probability ``braid`` (may be traced), through one of its walls to another cell, so that there are loops.
    """
    tree_key, dead_key, wall_key = jax.random.split(key, 3)
    row, column = np.divmod(np.arange(rows * columns, dtype=np.int32), np.int32(columns))
    tree = spanning_tree(tree_key, rows, columns)

    walls = np.ones((2 * rows + 1, 2 * columns + 1), bool)
    walls[1::2, 1::2] = False
    walls = jnp.asarray(walls).at[row + tree // columns + 1, column + tree % columns + 1].set(False)  # the root opens itself

    beside = 2 * row[:, None] + 1 + MOVES[:, 0], 2 * column[:, None] + 1 + MOVES[:, 1]
    closed = walls[beside]
    dead = (closed.sum(axis=1) == 3) & (jax.random.uniform(dead_key, row.shape) < braid)
    chance = jnp.where(closed & jnp.asarray(neighbours(rows, columns) >= 0), jax.random.uniform(wall_key, closed.shape), -1.0)
    opened = dead[:, None] & (chance == chance.max(axis=1, keepdims=True)) & (chance >= 0)
    return walls & ~jnp.zeros_like(walls).at[beside].max(opened)
