"""What the agent sees, with the codes and the layout of Farama's minigrid: arrays [column, row, channel]."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from envs.minigrid.core import AGENT, MOVES, NOTHING, UNSEEN, WALL_CELL, State, colour_of, kind_of, see_behind, state_of


def partial(state: State, size: int, see_through: bool) -> jax.Array:
    """uint8[size, size, 3] (kind, colour, state): what lies before the agent, who stands in the middle of the last row and looks up.
    What it carries is shown where it stands; what walls and doors hide is (0, 0, 0) unless ``see_through``."""
    height, width = state.grid.shape
    forward = jnp.asarray(MOVES)[state.direction]
    right = jnp.stack([forward[1], -forward[0]])
    across, down = jnp.arange(size) - size // 2, size - 1 - jnp.arange(size)
    rows = state.position[0] + across[:, None] * right[0] + down[None] * forward[0]  # [column of the view, row of the view]
    columns = state.position[1] + across[:, None] * right[1] + down[None] * forward[1]
    inside = (rows >= 0) & (rows < height) & (columns >= 0) & (columns < width)
    at = jnp.clip(rows, 0, height - 1) * width + jnp.clip(columns, 0, width - 1)
    seen = jnp.where(inside, state.grid.reshape(-1)[at], WALL_CELL)
    visible = None if see_through else visibility(see_behind(seen))
    seen = seen.at[size // 2, size - 1].set(state.carried)
    coded = codes(seen)
    return coded if visible is None else jnp.where(visible[..., None], coded, np.uint8(UNSEEN))


def codes(cells: jax.Array) -> jax.Array:
    """uint8[..., 3]: (kind, colour, state)."""
    return jnp.stack([kind_of(cells), colour_of(cells), state_of(cells)], axis=-1).astype(jnp.uint8)


def visibility(clear: jax.Array) -> jax.Array:
    """bool[size, size]: which cells of a view can be seen; ``clear`` tells where one sees through.

    minigrid's ``process_vis``: from the agent's row upwards, sight spreads right and then left along a row through clear cells, and each
    clear cell that is seen shows the three cells before it. Rows are numbers here, and a cell is a bit.
    """
    size = clear.shape[0]
    bits = jnp.asarray(1 << np.arange(size), jnp.int32)
    last = (1 << size) - 1

    def row(ahead, through):
        rightwards = _flood(ahead & through, through, size, jnp.left_shift)
        seen = ahead | (rightwards << 1) & last
        leftwards = _flood(seen & through, through, size, jnp.right_shift)
        spread, back = rightwards & (last >> 1), leftwards & (last - 1)  # the last cell does not spread on the way right, nor the first on the way back
        return spread | (spread << 1) | back | (back >> 1), seen | (leftwards >> 1)

    # a loop, because XLA would work out all rows again for every cell of the view
    clear_rows = jnp.sum(jnp.where(clear, bits[:, None], 0), axis=0)
    _, seen = jax.lax.scan(row, jnp.int32(1 << (size // 2)), clear_rows, reverse=True)
    return (seen[None] & bits[:, None]) > 0


def _flood(cells, through, size: int, shift: Callable):
    """The set bits spread in one direction through the bits of ``through``, in log2(size) steps."""
    step = 1
    while step < size:
        cells = cells | (through & shift(cells, step))
        through = through & shift(through, step)
        step *= 2
    return cells


def full(state: State) -> jax.Array:
    """uint8[width, height, 3]: the whole grid; the agent's cell is (10, 0, direction)."""
    row, column = state.position
    agent = jnp.stack([jnp.int32(AGENT), jnp.int32(0), state.direction]).astype(jnp.uint8)
    return codes(state.grid.T).at[column, row].set(agent)


def symbolic(state: State) -> jax.Array:
    """i32[width, height, 3]: (column, row, kind), where empty cells are -1 and the agent is 10."""
    row, column = state.position
    kind = kind_of(state.grid.T).astype(jnp.int32)
    kind = jnp.where(state.grid.T == NOTHING, -1, kind).at[column, row].set(AGENT)
    columns, rows = jnp.indices(kind.shape, dtype=jnp.int32)
    return jnp.stack([columns, rows, kind], axis=-1)
