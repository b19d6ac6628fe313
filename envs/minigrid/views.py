"""What the agent sees, with the codes and the layout of Farama's minigrid: arrays [column, row, channel]."""

from __future__ import annotations

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
    clear_rows = jnp.sum(jnp.where(clear, bits[:, None], 0), axis=0)
    full, rows = (1 << size) - 1, [None] * size
    ahead = jnp.int32(1 << (size // 2))
    for row in reversed(range(size)):
        seen, open_cells, ahead = ahead, clear_rows[row], jnp.int32(0)
        for _ in range(size - 1):
            seen = seen | ((seen & open_cells) << 1) & full
        spread = seen & open_cells & (full >> 1)  # the last cell does not spread on the way right, nor the first on the way left
        ahead = ahead | spread | (spread << 1)
        for _ in range(size - 1):
            seen = seen | ((seen & open_cells) >> 1)
        spread = seen & open_cells & (full - 1)
        ahead = ahead | spread | (spread >> 1)
        rows[row] = seen
    return (jnp.stack(rows)[None] & bits[:, None]) > 0


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
