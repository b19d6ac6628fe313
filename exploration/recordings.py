"""Episodes that are kept step by step, for as long as the best way into some cell is the beginning of one of them.

There are E tapes for the episodes of N < E lanes. An episode is recorded while it goes on, on the tape that the fewest best ways begin on, of those that no
other lane is writing on and nobody is reading. What is beyond the length of a tape is not recorded, nor are the ways that end there.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from envs.base import PyTree
from exploration.laws.play import expect


class Recordings(NamedTuple):
    steps: PyTree  # [E, L, ...]; what is recorded of each step
    used: jax.Array  # i32[E]; best ways that begin on the tape
    age: jax.Array  # i32[E]; how often the tape was written over
    writes: jax.Array  # i32[N]; the tape that a lane is writing on
    tape: jax.Array  # i32[C]; where the best way into the cell is recorded
    at_age: jax.Array  # i32[C]; of the tape then
    length: jax.Array  # i32[C]; steps of that way; 0: it is not recorded


def recordings(tapes: int, longest: int, lanes: int, cells: int, step: PyTree) -> Recordings:
    """Nothing recorded yet. ``step``: what is recorded of one, un-batched."""
    nothing, none = jnp.zeros(tapes, jnp.int32), jnp.zeros(cells, jnp.int32)
    steps = jax.tree.map(lambda x: jnp.zeros((tapes, longest, *x.shape), x.dtype), step)
    return Recordings(steps, nothing, nothing, jnp.arange(lanes, dtype=jnp.int32), none, none, none)


def recorded(state: Recordings) -> jax.Array:
    """bool[C]; the best way into the cell can be shown."""
    return (state.length > 0) & (state.at_age == state.age[state.tape])


class Written(NamedTuple):
    """T steps of N lanes."""

    first: jax.Array  # bool[T, N]; an episode began with the step
    number: jax.Array  # i32[T, N]; of the step in its episode, from 0
    cell: jax.Array  # i32[T, N]; the cell that it reached
    better: jax.Array  # bool[T, N]; by the best way into it that is known
    step: PyTree  # [T, N, ...]


def write(state: Recordings, written: Written, read: jax.Array | None = None) -> Recordings:
    """Record ``written``, as if one step had come after the other, lane after lane in each. ``read`` i32[K]: tapes that are left as they are; E: none."""
    longest = jax.tree.leaves(state.steps)[0].shape[1]
    cells = state.tape.shape[0]
    time, lanes = written.first.shape
    lane = jnp.broadcast_to(jnp.arange(lanes, dtype=jnp.int32), (time, lanes)).reshape(-1)

    def one(state: Recordings, inputs):
        lane, (first, number, cell, better, step) = inputs
        others = jnp.zeros(state.used.shape, bool).at[state.writes].set(True).at[state.writes[lane]].set(False)
        others = others if read is None else others.at[read].set(True, mode="drop")
        least = jnp.argmin(jnp.where(others, cells + 1, state.used)).astype(jnp.int32)
        tape = jnp.where(first, least, state.writes[lane])
        age, used = state.age.at[tape].add(first.astype(jnp.int32)), state.used.at[tape].multiply(jnp.where(first, 0, 1))
        steps = jax.tree.map(lambda old, new: old.at[tape, number].set(new, mode="drop"), state.steps, step)
        known = jnp.maximum(cell, 0)
        was = (state.length[known] > 0) & (state.at_age[known] == age[state.tape[known]])
        fits = better & (number < longest)
        used = used.at[state.tape[known]].add(-(better & was).astype(jnp.int32)).at[tape].add(fits.astype(jnp.int32))
        at = jnp.where(better, cell, cells)
        placed = (state.tape, state.at_age, state.length)
        new = (tape, age[tape], jnp.where(fits, number + 1, 0))
        placed = (old.at[at].set(value, mode="drop") for old, value in zip(placed, new, strict=True))
        return Recordings(steps, used, age, state.writes.at[lane].set(tape), *placed), None

    flat = jax.tree.map(lambda x: x.reshape(time * lanes, *x.shape[2:]), written)
    return jax.lax.scan(one, state, (lane, flat))[0]


def at(state: Recordings, tape: jax.Array, number: jax.Array) -> PyTree:
    """The steps ``number`` i32[K] of ``tape`` i32[K]."""
    return jax.tree.map(lambda x: x[tape, number], state.steps)


# --- known answers -----------------------------------------------------------------------------------------------------


def _told(cells: list, better: list, first: list, number: list) -> Written:
    column = lambda x, dtype: jnp.asarray(x, dtype)[:, None]  # noqa: E731
    return Written(column(first, bool), column(number, jnp.int32), column(cells, jnp.int32), column(better, bool), column(cells, jnp.float32) * 10)


def _the_way_is_the_beginning_of_its_episode() -> str:
    state = write(recordings(2, 3, 1, 4, jnp.float32(0)), _told([0, 1, 0, 2], [1, 1, 0, 1], [1, 0, 0, 0], [0, 1, 2, 3]))
    expect(recorded(state), [True, True, False, False])  # the fourth step is beyond the tape
    expect(state.length, [1, 2, 0, 0])
    return expect(at(state, state.tape[jnp.array([1, 1])], jnp.array([0, 1])), [0.0, 10.0])


def _what_nobody_needs_goes_first() -> str:
    """Of three episodes on two tapes the second one led nowhere new, and the third has its tape; the fourth has that of the first,
    which is needed less, unless somebody reads it."""
    state = recordings(2, 3, 1, 4, jnp.float32(0))
    state = write(state, _told([0, 0, 1, 2], [1, 0, 1, 1], [1, 1, 1, 0], [0, 0, 0, 1]))
    expect(recorded(state), [True, True, True, False])
    expect(state.used, [1, 2])
    read = write(state, _told([3], [1], [1], [0]), jnp.array([0]))
    expect(recorded(read), [True, False, False, True])
    state = write(state, _told([3], [1], [1], [0]))
    expect(state.used, [1, 2])
    return expect(recorded(state), [False, True, True, True])


KNOWN_ANSWERS = (
    ("the way into a cell is the beginning of the episode that found it, as far as there is tape", _the_way_is_the_beginning_of_its_episode),
    ("the tape is written over that the fewest best ways begin on", _what_nobody_needs_goes_first),
)
