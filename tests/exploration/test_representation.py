"""Dynamic cells: the search for what pictures are shrunk to, and archives made again under another representation."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from envs.base import Lanes
from exploration.go_explore import COUNTERS, NEVER, START, go_explore
from exploration.host_cells import shrink
from exploration.rebinning import FIRST, Records, best_of_each, rebuilt, records_of
from exploration.representation import SMALLEST, Shrunk, objective, packed, search, unpacked
from tests.exploration.test_go_explore_archive import LANES, STEPS, WORLD, made_up_batch


@pytest.fixture(scope="module")
def squares():
    """A white square at 16 places of a picture of 48 x 40, with a little noise: 16 cells are right for 128 frames, T = 16."""
    rng, frames = np.random.default_rng(0), np.zeros((128, 48, 40), np.uint8)
    for n, frame in enumerate(frames):
        row, column = divmod(n % 16, 4)
        frame[row * 12 : row * 12 + 12, column * 10 : column * 10 + 10] = 200
        frame += rng.integers(0, 4, frame.shape, np.uint8)
    return frames


def test_frames_are_shrunk_as_workers_do(squares):
    shrunk = Shrunk(squares)
    for width, height, depth in ((4, 4, 8), (11, 8, 8), (39, 47, 255)):
        counts = {}
        for frame in squares:
            cell = shrink(frame, width, height, depth).tobytes()
            counts[cell] = counts.get(cell, 0) + 1
        assert sorted(shrunk.counts(width, height, depth)) == sorted(counts.values())


def test_the_search_finds_what_tells_the_places_apart(squares):
    found = search(squares, np.random.default_rng(0), SMALLEST, 200)
    assert found.objective == objective(Shrunk(squares).counts(*found.sizes)) > 0.99 and found.before < 0.8
    again = search(squares, np.random.default_rng(0), SMALLEST, 200)
    assert again == found and search(squares, np.random.default_rng(1), found.sizes, 50).objective >= found.objective


def test_a_picture_is_packed_exactly(squares):
    np.testing.assert_array_equal(unpacked(packed(squares[7])), squares[7])


def test_what_a_cell_keeps_is_the_best_of_what_falls_into_it():
    keys = np.uint32([[5, 0], [9, 9], [5, 0], [9, 9], [5, 0], [2, 1]])
    score, length = np.float32([1, 4, 3, 4, 3, 0]), np.int32([9, 8, 7, 6, 7, 1])
    numbers, present = np.arange(6, dtype=np.int32), np.array([1, 1, 1, 0, 0, 0], bool)
    counters = np.arange(24, dtype=np.int32).reshape(6, 4)
    records = Records(numbers, score, length, numbers, numbers, np.stack([numbers, numbers], -1).astype(np.uint32), counters, present)
    for resets, expected in ((True, counters[[2, 3, 5]]), (False, [counters[0] + counters[2], counters[1], np.zeros(4)])):
        best, kept_keys = best_of_each(records, keys, resets)
        assert best.world.tolist() == [2, 3, 5] and kept_keys.tolist() == [[5, 0], [9, 9], [2, 1]]
        np.testing.assert_array_equal(best.counters, expected)


@pytest.mark.medium
def test_an_archive_made_again_under_its_own_fingerprints_is_the_same_and_goes_on_the_same():
    archive, rng = go_explore(WORLD, capacity=64), np.random.default_rng(0)
    empty = jnp.zeros(LANES, jnp.int32)
    state = jax.jit(archive.init)(jax.random.PRNGKey(0), (Lanes(empty, (), empty == 0, empty.astype(jnp.float32), empty, ()), jnp.zeros(STEPS, jnp.int32)))
    insert, select = jax.jit(archive.insert), jax.jit(archive.select, static_argnums=2)

    def go_on(state, number):
        state, chosen = select(state, jax.random.PRNGKey(number), LANES)
        explored = made_up_batch(rng, chosen)
        return insert(state, jax.random.PRNGKey(number), explored._replace(reached=explored.reached._replace(obs=())))[0]

    for number in range(4):
        state = go_on(state, number)
    size = int(state.size)
    same = rebuilt(state, records_of(state), np.asarray(state.keys)[FIRST:size], True)

    def told(state):
        size = int(state.size)
        cells = jax.tree.map(lambda x: np.asarray(x)[:size], (state.keys, state.kept, {name: getattr(state, name) for name in COUNTERS}))
        return cells, size, int(state.best), jax.tree.map(np.asarray, state.tree)

    jax.tree.map(np.testing.assert_array_equal, told(same), told(state))
    rng = np.random.default_rng(1)
    first = told(go_on(state, 9))
    rng = np.random.default_rng(1)
    jax.tree.map(np.testing.assert_array_equal, told(go_on(same, 9)), first)
    fewer = rebuilt(state, *best_of_each(records_of(state), np.zeros((size - FIRST, 2), np.uint32), True), True)
    assert int(fewer.size) == FIRST + 1 and float(fewer.score[FIRST]) == float(jnp.max(state.score[FIRST:size]))
    assert np.all(np.asarray(fewer.length[FIRST + 1 :]) == NEVER) and float(fewer.score[START]) == float(state.score[START])
