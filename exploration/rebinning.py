"""An archive whose cells become others: what its cells keep, sorted anew under other fingerprints ("First return, then explore", arXiv 2004.12919).

The archive is made again from the cells of all former archives, newest first, by the rule of acceptance: the highest score stays, of equal ones the fewest
steps, of these the first. With ``reset_on_update`` a cell goes on with the counters of what it keeps; without, with the sums over those of the newest archive
that fell into it. The cells of ends and of the world's own start stay what they are. Numpy, between two calls of the program.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from exploration.go_explore import COUNTERS, END, NEVER, START, Cells, leader
from exploration.hash_table import EMPTY, hash_table
from exploration.hash_table import insert as find_or_add
from exploration.trajectories import Trail

FIRST = max(END, START) + 1  # of the cells that change


class Records(NamedTuple):
    """What n cells keep, in order: the newest archive's in the order of their numbers, then those of older ones, newest first."""

    world: np.ndarray  # i32[n]; the number of the snapshot
    score: np.ndarray  # f32[n]
    length: np.ndarray  # i32[n]
    row: np.ndarray  # i32[n]; of the tree of trajectories
    steps: np.ndarray  # i32[n]
    origin: np.ndarray  # u32[n, 2]
    counters: np.ndarray  # i32[n, 4]
    present: np.ndarray  # bool[n]; in the newest archive


def records_of(state: Cells) -> Records:
    """What the cells of ``state`` keep, without ends and the start."""
    size, kept = int(state.size), state.kept
    counters = [np.asarray(getattr(state, name))[FIRST:size] for name in COUNTERS]
    fields = (kept.world, state.score, state.length, kept.note.row, kept.note.steps, kept.note.origin)
    return Records(*(np.asarray(x)[FIRST:size] for x in fields), np.stack(counters, axis=-1), np.ones(size - FIRST, bool))


def best_of_each(records: Records, keys: np.ndarray, resets: bool) -> tuple[Records, np.ndarray]:
    """The record that each of the fingerprints u32[n, 2] keeps, in the order in which these are first met, and the fingerprints [m, 2]."""
    _, first, group = np.unique(keys, axis=0, return_index=True, return_inverse=True)
    group = group.reshape(-1)
    order = np.lexsort((np.arange(len(group)), records.length, -records.score, group))
    winners = order[np.unique(group[order], return_index=True)[1]]
    by_time = np.argsort(first)
    best = jax.tree.map(lambda x: x[winners[by_time]], records)
    if not resets:
        sums = np.zeros((len(first), len(COUNTERS)), np.int32)
        np.add.at(sums, group[records.present], records.counters[records.present])
        best = best._replace(counters=sums[by_time])
    return best, keys[winners[by_time]]


def rebuilt(state: Cells, records: Records, keys: np.ndarray, follows_score: bool) -> Cells:
    """``state`` with the cells of ``records`` under ``keys``, all different; there must be room."""
    places, size = state.seen.shape[0], FIRST + len(keys)
    if size > places:
        raise ValueError(f"{size} cells do not fit into {places} places")

    def put(old, new, empty):
        return old.at[FIRST:].set(empty).at[FIRST:size].set(jnp.asarray(new))

    stored = put(state.keys, keys, jnp.uint32(EMPTY))
    table, slots, _ = find_or_add(hash_table(2 * places), stored)
    number = jnp.zeros_like(state.number).at[jnp.where(slots < 0, 2 * places, slots)].set(jnp.arange(places, dtype=jnp.int32), mode="drop")
    old = state.kept
    trail = Trail(put(old.note.row, records.row, -1), put(old.note.steps, records.steps, 0), put(old.note.origin, records.origin, 0))
    score, length = put(state.score, records.score, -jnp.inf), put(state.length, records.length, NEVER)
    kept = old._replace(world=put(old.world, records.world, 0), note=trail, episode_return=score, episode_length=length)
    counters = {name: put(getattr(state, name), records.counters[:, n], 0) for n, name in enumerate(COUNTERS)}
    best = leader(score, length, jnp.arange(size, dtype=jnp.int32)) if follows_score else state.best
    return state._replace(
        table=table._replace(dropped=state.table.dropped), number=number, keys=stored, kept=kept, size=jnp.int32(size), best=best, **counters
    )
