"""Weights of domain knowledge: neighbours that are missing, things carried, levels; rooms that hang together."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from envs.builder import Refusal
from exploration.go_explore import go_explore
from exploration.hash_table import hash_table
from exploration.hash_table import insert as find_or_add
from exploration.knowledge import KNOWLEDGE, NO_WEIGHTS, packed, read, weighted
from tests.exploration.test_go_explore_archive import WORLD

insert = jax.jit(find_or_add)


@functools.partial(jax.jit, static_argnums=0)
def weighing(game, *inputs):
    return weighted(KNOWLEDGE[game], *inputs)


def weigh(game, cells, counted=0.0, **weights):
    """What cells (level, room, things, column, row) weigh."""
    keys = jnp.uint32([packed(*cell) for cell in cells] + [(0xFFFFFFFF, 0xFFFFFFFF)] * (8 - len(cells)))
    there, traced = jnp.arange(8) < len(cells), jax.tree.map(jnp.float32, NO_WEIGHTS._replace(**weights))
    found = weighing(game, traced, insert(hash_table(64), keys)[0], keys, there, jnp.full(8, counted))
    return found[: len(cells)].tolist()


def test_neighbours_that_are_missing_attract():
    """A row of three in room 1, one above the middle: 1 and 1 missing at the sides, 1 or 2 above and below."""
    cells = [(0, 1, 0, column, 9) for column in (8, 9, 10)] + [(0, 1, 0, 9, 10)]
    assert weigh("montezuma_revenge", cells, horizontal=1.0) == [1, 0, 1, 2]
    assert weigh("montezuma_revenge", cells, vertical=1.0) == [2, 1, 2, 1]
    assert weigh("montezuma_revenge", cells, 0.25, horizontal=0.5, vertical=2.0) == [4.75, 2.25, 4.75, 3.25]
    assert weigh("montezuma_revenge", [*cells, (0, 1, 4, 7, 9), (1, 1, 0, 7, 9)], horizontal=1.0)[0] == 1  # of other things, of another level


def test_neighbours_are_looked_for_in_the_next_room():
    def sides(game, *cells, **weights):
        return weigh(game, [(0, room, 0, column, row) for room, column, row in cells], **weights)

    assert sides("montezuma_revenge", (1, 18, 14), (2, 0, 14), horizontal=1.0) == [1, 1]
    assert sides("montezuma_revenge", (2, 9, 8), (6, 9, 15), vertical=1.0) == [1, 1]
    assert sides("montezuma_revenge", (0, 0, 14), horizontal=1.0) == [1]  # the pyramid ends there: only the right one is missing
    assert sides("montezuma_revenge", (15, 9, 8), vertical=1.0) == [1]
    assert sides("pitfall", (196, 18, 2), (137, 1, 2), horizontal=1.0) == [1, 1]
    assert sides("pitfall", (196, 18, 5), (37, 1, 5), (137, 1, 5), horizontal=1.0) == [1, 1, 2]


def test_few_and_many_things_attract():
    cells = [(0, 1, things, 9, 9) for things in (0b0, 0b1, 0b10, 0b11)] + [(0, 1, 0b1, 8, 9)]
    assert weigh("montezuma_revenge", cells, fewer=1.0) == [1, 0, 0, 0, 1]
    assert weigh("montezuma_revenge", cells, more=1.0) == [0, 0, 0, 1, 1]


def test_lower_levels_weigh_less():
    assert np.allclose(weigh("montezuma_revenge", [(level, 1, 0, 9, 9) for level in (0, 1, 2)], 2.0, low_level=0.1), [0.02, 0.2, 2])


def test_a_cell_is_read_from_the_memory():
    ram = np.zeros(128, np.uint8)
    ram[[57, 3, 65, 42, 43]] = 1, 5, 6, 77, 235
    assert np.frombuffer(read(KNOWLEDGE["montezuma_revenge"], lambda what: ram), np.uint32).tolist() == list(packed(1, 5, 6, 9, 14))


@pytest.mark.parametrize(
    ("settings", "world", "reason"),
    [
        ({"horizontal_weight": 0.1}, WORLD, "use exploration.cell=knowledge"),
        ({"cell": "knowledge", "vertical_weight": 0.1}, WORLD._replace(name="pitfal", on_host=True), "did you mean pitfall"),
    ],
)
def test_weights_without_knowledge_are_refused(settings, world, reason):
    with pytest.raises(Refusal, match=reason):
        go_explore(world, **settings)
