"""What policy-based Go-Explore remembers ("First return, then explore", arXiv 2004.12919): for every cell the best way into it, as the cells on that way.

A way is better when its score is higher, or equal with fewer steps. Nothing can be put back here, so no states are kept. An episode begins with a cell that
is drawn in proportion to 1 / (1 + actions taken in it / 2), and the cells on its way are the sub-goals of the policy that is to go there.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from envs.base import PyTree
from exploration.go_explore import draw
from exploration.hash_table import HashTable, hash_table, insert
from exploration.laws.play import expect
from exploration.merging import NEVER


class Routes(NamedTuple):
    """Ways into at most C cells, of at most M cells each; the steps of N lanes are told in order."""

    table: HashTable  # C places; a cell is known by its place
    score: jax.Array  # f32[C]; -inf where no way is known
    length: jax.Array  # i32[C]; steps of the episode then
    actions: jax.Array  # i32[C]; taken in it
    cells: jax.Array  # i32[C, M]; the way, the cell itself last
    count: jax.Array  # i32[C]; cells of the way
    look: PyTree  # [C, ...]; what the cell looks like, for the policy that is to go there
    path: jax.Array  # i32[N, M]; of the lanes' episodes so far
    passed: jax.Array  # i32[N]; cells of it; M + 1: more than there is room for


def routes(capacity: int, longest: int, lanes: int, look: PyTree) -> Routes:
    """No ways yet. ``look``: what a cell looks like, un-batched."""
    return Routes(
        table=hash_table(capacity),
        score=jnp.full(capacity, -jnp.inf, jnp.float32),
        length=jnp.full(capacity, NEVER, jnp.int32),
        actions=jnp.zeros(capacity, jnp.int32),
        cells=jnp.zeros((capacity, longest), jnp.int32),
        count=jnp.zeros(capacity, jnp.int32),
        look=jax.tree.map(lambda x: jnp.zeros((capacity, *jnp.shape(x)), jnp.asarray(x).dtype), look),
        path=jnp.zeros((lanes, longest), jnp.int32),
        passed=jnp.zeros(lanes, jnp.int32),
    )


def weights(state: Routes, actions_weight=0.5) -> jax.Array:
    """f32[C]; in proportion to which cells are chosen."""
    return jnp.where(state.count > 0, 1.0 / (1.0 + actions_weight * state.actions), 0.0)


def choose(state: Routes, key: jax.Array, number: int, actions_weight=0.5) -> jax.Array:
    """Cells i32[number], with replacement; any where none is known."""
    return draw(weights(state, actions_weight), key, number)


def best(state: Routes) -> jax.Array:
    """i32[]; the cell with the highest score, of those the one that took the fewest steps."""
    return jnp.argmin(jnp.where(state.score == jnp.max(state.score), state.length, NEVER)).astype(jnp.int32)


class Steps(NamedTuple):
    """T steps of N lanes."""

    keys: jax.Array  # u32[T, N, 2]; of the cells that they reached
    first: jax.Array  # bool[T, N]; an episode began with the step
    done: jax.Array  # bool[T, N]; it ended with it, which counts as an action in the cell that was reached
    score: jax.Array  # f32[T, N]; of the episode after it
    length: jax.Array  # i32[T, N]; the same
    look: PyTree  # [T, N, ...]; what was reached looks like


def tell(state: Routes, steps: Steps, erase_loops: bool = False, axis: str | None = None) -> tuple[Routes, dict]:
    """Learn from ``steps``, as if one had come after the other. With ``erase_loops`` a way that comes back to a cell goes on from there as if it had not left
    it, and a way is better with fewer cells, not fewer steps.

    Returns the state and ``new``: the number of cells that were not known; of each step [T, N] ``cell``: the one that it reached (-1: no room), ``better``:
    by a better way than was known.
    """
    capacity, longest = state.cells.shape
    time, lanes = steps.first.shape
    table, slots, is_new = insert(state.table, steps.keys.reshape(-1, 2), axis)
    lane = jnp.broadcast_to(jnp.arange(lanes, dtype=jnp.int32), (time, lanes)).reshape(-1)
    flat = jax.tree.map(lambda x: x.reshape(time * lanes, *x.shape[2:]), steps._replace(keys=()))

    def one(state: Routes, inputs):
        lane, cell, (_, first, done, score, length, look) = inputs
        passed = jnp.where(first, 0, state.passed[lane])
        before = state.path[lane, jnp.clip(passed - 1, 0, longest - 1)]
        inside = (passed > 0) & (passed <= longest)
        actions = state.actions.at[jnp.where(inside, before, capacity)].add(1, mode="drop")
        actions = actions.at[jnp.where(done & (cell >= 0), cell, capacity)].add(1, mode="drop")
        if erase_loops:
            been = (state.path[lane] == cell) & (jnp.arange(longest) < passed) & (passed <= longest)
            passed = jnp.where(jnp.any(been), jnp.argmax(been).astype(jnp.int32) + 1, passed)
            before = jnp.where(jnp.any(been), cell, before)
        moved = ~inside | (before != cell)
        fits = moved & (cell >= 0) & (passed < longest)
        path = state.path.at[lane, jnp.where(fits, passed, longest)].set(cell, mode="drop")
        passed = jnp.where(moved, jnp.where(fits, passed + 1, longest + 1), passed)
        known = jnp.maximum(cell, 0)
        less = (passed < state.count[known]) | (state.count[known] == 0) if erase_loops else length < state.length[known]
        better = (score > state.score[known]) | (score == state.score[known]) & less
        better = better & (cell >= 0) & (passed <= longest)
        at = jnp.where(better, cell, capacity)
        put = lambda old, new: old.at[at].set(new, mode="drop")  # noqa: E731
        kept = (state.score, state.length, state.count, state.cells, state.look)
        kept = jax.tree.map(put, kept, (score, length, passed, path[lane], look))
        names = ("score", "length", "count", "cells", "look")
        state = state._replace(actions=actions, path=path, passed=state.passed.at[lane].set(passed), **dict(zip(names, kept, strict=True)))
        return state, better

    state, better = jax.lax.scan(one, state._replace(table=table), (lane, slots, flat))
    each = {name: x.reshape(time, lanes) for name, x in {"cell": slots, "better": better}.items()}
    return state, {"new": jnp.sum(is_new, dtype=jnp.int32), **each}


def advance(cells: jax.Array, count: jax.Array, pointer: jax.Array, reached: jax.Array, window: int) -> jax.Array:
    """Pointers i32[N] after ``reached`` i32[N] (-1: a cell that no way knows): one past the furthest of the next ``window`` cells of the ways
    ``cells`` i32[N, M], of which there are ``count`` i32[N], that was reached; where it is none of them, as they were."""
    at = pointer[:, None] + jnp.arange(window, dtype=jnp.int32)
    ahead = jnp.take_along_axis(cells, jnp.minimum(at, cells.shape[1] - 1), axis=1)
    hit = (at < count[:, None]) & (ahead == reached[:, None]) & (reached >= 0)[:, None]
    return jnp.max(jnp.where(hit, at + 1, pointer[:, None]), axis=1)


# --- known answers -----------------------------------------------------------------------------------------------------


def _weights_of_the_card() -> str:
    state = routes(4, 2, 1, jnp.float32(0))._replace(actions=jnp.array([0, 2, 6, 18]), count=jnp.ones(4, jnp.int32))
    return expect(weights(state), [1, 0.5, 0.25, 0.1], rtol=1e-6)


def _the_window_is_soft() -> str:
    cells, count = jnp.array([[7, 3, 5, 3, 9]] * 5), jnp.full(5, 5)
    found = advance(cells, count, jnp.array([0, 0, 0, 3, 4]), jnp.array([7, 3, 9, 9, -1]), window=4)
    return expect(found, [1, 4, 0, 5, 4])


def _better_ways_replace_worse_ones() -> str:
    keys = jnp.array([[1, 1], [2, 2], [3, 3], [3, 3], [1, 1], [3, 3]], jnp.uint32)[:, None]  # two episodes of a lane: 1 2 3 3 and 1 3
    first = jnp.array([[True], [False], [False], [False], [True], [False]])
    length = jnp.array([[1], [2], [3], [4], [1], [2]])
    steps = Steps(keys, first, jnp.zeros((6, 1), bool).at[5].set(True), jnp.zeros((6, 1)), length, jnp.arange(6)[:, None])
    state, happened = tell(routes(8, 3, 1, jnp.int32(0)), steps)
    _, place, _ = insert(state.table, keys[:3, 0])
    expect(jnp.stack([happened["new"], jnp.sum(happened["better"])]), [3, 4])
    expect(state.count[place], [1, 2, 2])
    expect(state.cells[place[2], :2], [place[0], place[2]])
    expect(state.look[place], [0, 1, 5])
    return expect(state.actions[place], [2, 1, 2])


def _loops_are_left_out() -> str:
    keys = jnp.array([1, 2, 3, 2, 1, 4], jnp.uint32)[:, None, None] * jnp.ones(2, jnp.uint32)  # 1 2 3 2 1 4
    rest = (jnp.arange(6)[:, None] == 0, jnp.zeros((6, 1), bool), jnp.zeros((6, 1)), jnp.arange(1, 7)[:, None], jnp.arange(6)[:, None])
    state, _ = tell(routes(8, 3, 1, jnp.int32(0)), Steps(keys, *rest), erase_loops=True)
    _, place, _ = insert(state.table, keys[jnp.array([0, 1, 2, 5]), 0])
    expect(state.cells[place[3], :2], [place[0], place[3]])
    expect(state.length[place], [1, 2, 3, 6])
    return expect(state.count[place], [1, 2, 3, 2])


KNOWN_ANSWERS = (
    ("cells in which 0, 2, 6 and 18 actions were taken weigh 1, 1/2, 1/4 and 1/10", _weights_of_the_card),
    ("any of the next cells of a way counts as reached, the furthest most; cells beyond the window and behind do not", _the_window_is_soft),
    ("a way with fewer steps replaces a longer one; staying or ending in a cell is an action in it, not in the way", _better_ways_replace_worse_ones),
    ("without loops the way 1 2 3 2 1 4 is 1 4", _loops_are_left_out),
)
