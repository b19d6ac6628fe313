"""Merging a batch of rollouts into an archive of cells, in the order of the rollouts and step by step, as if one came after the other.

A batch meets few of an archive's cells, so what is known of these is fetched at once, in the batch's own arrays, and the merge does not touch the archive:
a step costs nearly the same in a large one as in a small one. A cell is known by its row, the first position [rollout, step] of the batch that is in it.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from exploration.laws.play import expect

NEVER = np.iinfo(np.int32).max


class Known(NamedTuple):
    """What is known of the cells of P positions."""

    score: jax.Array  # f32[P]; the best that it was reached with
    length: jax.Array  # i32[P]; the fewest steps that this took
    seen: jax.Array  # i32[P]; rollouts that were in it
    since_new: jax.Array  # i32[P]; rollouts from it since one of them was accepted anywhere


def meet(scratch: jax.Array, cells: jax.Array) -> tuple[jax.Array, jax.Array]:
    """(scratch, rows i32[L, T], out of bounds where there is no cell) of ``cells`` i32[L, T], out of bounds of the scratch i32[C] where there is none.

    The scratch holds NEVER everywhere, before and after; it spares a search for equal cells."""
    flat, places, most = cells.reshape(-1), scratch.shape[0], cells.size
    scratch = scratch.at[flat].min(jnp.arange(most, dtype=jnp.int32), mode="drop")
    rows = jnp.where(flat < places, scratch[jnp.minimum(flat, places - 1)], most)
    scratch = scratch.at[jnp.where(rows < most, flat, places)].set(NEVER, mode="drop")
    return scratch, rows.reshape(cells.shape)


def merge(known: Known, rows: jax.Array, points: jax.Array, count: jax.Array) -> tuple[Known, jax.Array]:
    """Merge L rollouts of T steps.

    Args:
      known: of the positions [L (T + 1)]; what counts is what stands in the rows.
      rows: i32[L, T + 1] of the cell that a rollout was started from and of those that its steps reached.
      points, count: f32[L, T] and i32[L, T], the score and the length of the episode after a step.

    Returns:
      ``known`` after the batch, in the rows, and the winners bool[L, T]: the steps that their cells are to be reached by from now on.
    """
    lanes, time = points.shape
    most = rows.size
    numbers = jnp.arange(lanes * time, dtype=jnp.int32).reshape(lanes, time)

    def one(carry, rollout):
        score, length, seen, since_new, winner, stamps = carry
        (came, cell), points, count, numbers = (rollout[0][0], rollout[0][1:]), *rollout[1:]
        there, at = cell < most, jnp.minimum(cell, most - 1)
        better = there & ((points > score[at]) | (points == score[at]) & (count < length[at]))
        higher = points > score[at]
        score = score.at[jnp.where(better, cell, most)].max(points, mode="drop")
        top = better & (points == score[at])
        length = length.at[jnp.where(top & higher, cell, most)].set(NEVER, mode="drop")
        length = length.at[jnp.where(top, cell, most)].min(count, mode="drop")
        won = top & (count == length[at])
        winner = winner.at[jnp.where(won, cell, most)].set(numbers, mode="drop")
        stamps = stamps.at[cell].min(numbers, mode="drop")
        first = there & (stamps[at] == numbers)  # of the rollout's visits to a cell
        stamps = stamps.at[jnp.where(first, cell, most)].set(NEVER, mode="drop")
        seen = seen.at[jnp.where(first & (cell != came), cell, most)].add(1, mode="drop").at[came].add(1)
        since_new = since_new.at[came].set(jnp.where(jnp.any(better), 0, since_new[came] + 1))
        return (score, length, seen, since_new, winner, stamps), None

    nobody, never = jnp.full(most, -1, jnp.int32), jnp.full(most, NEVER, jnp.int32)
    (*after, winner, _), _ = jax.lax.scan(one, (*known, nobody, never), (rows, points, count, numbers))
    reached = rows[:, 1:]
    return Known(*after), (reached < most) & (winner[jnp.minimum(reached, most - 1)] == numbers)


# --- known answers -----------------------------------------------------------------------------------------------------


def _higher_scores_and_fewer_steps_win() -> str:
    cells = jnp.array([[0, 1, 2, 1], [0, 1, 2, 9], [2, 1, 9, 9]])  # there are 3; 9: no step
    _, rows = meet(jnp.full(3, NEVER, jnp.int32), cells)
    expect(rows, [[0, 1, 2, 1], [0, 1, 2, 12], [2, 1, 12, 12]])
    known = Known(jnp.full(12, -jnp.inf).at[0].set(0.0), jnp.full(12, NEVER, jnp.int32).at[0].set(0), *[jnp.zeros(12, jnp.int32)] * 2)
    points, count = jnp.array([[0.0, 0, 1], [1, 0, 0], [1, 0, 0]]), jnp.array([[1, 2, 3], [1, 2, 3], [1, 2, 3]])
    after, won = merge(known, rows, points, count)
    expect(won, [[False, True, False], [True, False, False], [False, False, False]])
    expect(after.score[:3], [0, 1, 0])
    expect(after.length[:3], [0, 1, 2])
    expect(after.since_new[:3], [0, 0, 1])
    return expect(after.seen[:3], [2, 3, 3])


KNOWN_ANSWERS = (
    ("three rollouts: a higher score wins, then fewer steps, then the earlier; a rollout is counted once in a cell", _higher_scores_and_fewer_steps_win),
)
