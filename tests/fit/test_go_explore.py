"""Fit: Go-Explore's exploration phase (arXiv 2004.12919) on DeepSea: an ``Archive`` of states chooses where lanes start again.

A cell is a state of the world. It keeps the lane that reached it with the best score, among those the shortest way, and is chosen with
probability proportional to (seen + 1)^-power: 1/2 as published, 0 is uniform. All ends share one cell, which is never chosen. With
random actions from its own start, an episode of this world finds the treasure with probability 2^-20.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from envs.base import Lanes, Spec, sample_action
from envs.deep_sea import deep_sea, optimal_return
from exploration.base import Archive
from exploration.hash_table import EMPTY, HashTable, hash_observation, hash_table
from exploration.hash_table import insert as find_or_add
from runners import metrics as m
from runners.base import Runner
from runners.source import jax_source
from tests.fit.parts import trained

SIZE, LANES, SEEDS, CAPACITY, ITERATIONS = 20, 8, 16, 512, 120  # iterations of SIZE steps of all lanes: 19,200 frames
WORLD = deep_sea(size=SIZE)
NEVER, LOWEST = np.iinfo(np.int32).max, -np.inf


class Cells(NamedTuple):
    table: HashTable
    best: Lanes  # [CAPACITY, ...]; episode_return LOWEST where empty
    seen: jax.Array  # i32[CAPACITY]; visits
    terminal: jax.Array  # bool[CAPACITY]


def cells(spec: Spec, power, stores) -> Archive:
    """Cells are told apart by their observations. ``stores`` = 0 keeps the start only, so that every episode begins there."""

    def put(state, new, terminal, wanted):
        keys = jnp.where(wanted[:, None], hash_observation(new.obs, 1), jnp.uint32(EMPTY))
        table, slots, _ = find_or_add(state.table, keys, spec.axis)
        slots = jnp.where(slots < 0, CAPACITY, slots)  # out of bounds: dropped
        score, length = state.best.episode_return[slots], state.best.episode_length[slots]
        better = (new.episode_return > score) | ((new.episode_return == score) & (new.episode_length < length))
        rank = jnp.argsort(jnp.lexsort((new.episode_length, -new.episode_return))).astype(jnp.int32)
        first = jnp.full(CAPACITY, NEVER).at[slots].min(rank, mode="drop")  # of those that came to the same cell
        place = jnp.where(better & (rank == first[slots]), slots, CAPACITY)
        best = jax.tree.map(lambda a, b: a.at[place].set(b, mode="drop"), state.best, new)
        return Cells(table, best, state.seen.at[slots].add(1, mode="drop"), state.terminal.at[slots].set(terminal, mode="drop"))

    def init(key, starts):
        empty = jax.tree.map(lambda x: jnp.zeros((CAPACITY, *x.shape[1:]), x.dtype), starts)._replace(episode_return=jnp.full(CAPACITY, LOWEST))
        state = Cells(hash_table(CAPACITY), empty, jnp.zeros(CAPACITY, jnp.int32), jnp.zeros(CAPACITY, bool))
        return put(state, starts, False, jnp.ones(starts.first.shape, bool))

    def insert(state, key, inputs):
        reached, steps, valid = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), inputs)
        state = put(state, reached, steps.done, valid & (stores > 0))
        return state, {}

    def select(state, key, mask):
        weight = (state.seen.astype(jnp.float32) + 1.0) ** -power
        edges = jnp.cumsum(jnp.where((state.seen > 0) & ~state.terminal, weight, 0.0))
        chosen = jnp.searchsorted(edges, jax.random.uniform(key, mask.shape) * edges[-1])
        return state, jax.tree.map(lambda x: x[chosen], state.best)

    return Archive(init, insert, select, lambda state: {"cells": state.table.size})


class GoExploreState(NamedTuple):
    key: jax.Array
    lanes: Lanes  # noted with the actions since the world's own start, i32[SIZE]; the first episode_length of them count
    archive: Cells
    found: jax.Array  # i32[]; frames until the treasure, NEVER before


def go_explore(hyper) -> Runner:
    """Random actions from states of the archive; one iteration is SIZE steps of all lanes."""
    source = jax_source(WORLD, LANES, "members", note=jnp.zeros(SIZE, jnp.int32))
    archive = cells(source.spec, hyper["power"], hyper["stores"])

    def init(key):
        lanes = source.init(key)
        return GoExploreState(key, lanes, archive.init(key, lanes), jnp.int32(NEVER))

    def one(carry, key):
        lanes, archived = carry
        act_key, step_key, select_key, reset_key = jax.random.split(key, 4)
        before = lanes.episode_length
        lanes, step = source.step(lanes, step_key, sample_action(WORLD.spec.action, act_key, LANES))
        reached = lanes._replace(note=lanes.note.at[jnp.arange(LANES), before].set(step.action))
        archived, starts = archive.select(archived, select_key, step.done)
        return (source.restart(reached, reset_key, step.done, starts), archived), (reached, step)

    def step(state, clock):
        rollout_key, insert_key = jax.random.split(jax.random.fold_in(state.key, clock.iteration))
        (lanes, archived), (reached, steps) = jax.lax.scan(one, (state.lanes, state.archive), jax.random.split(rollout_key, SIZE))
        archived, _ = archive.insert(archived, insert_key, (reached, steps, jnp.ones((SIZE, LANES), bool)))
        success = jnp.any(steps.done & (reached.episode_return >= WORLD.spec.success_return), axis=1)
        frames = jnp.where(jnp.any(success), (clock.iteration * SIZE + jnp.argmax(success) + 1) * LANES, NEVER).astype(jnp.int32)
        metrics = {name: m.Last(value) for name, value in archive.report(archived).items()}
        return GoExploreState(state.key, lanes, archived, jnp.minimum(state.found, frames)), m.typed(metrics)

    return Runner(init, step, None, source.spec, SIZE * LANES)


def replay(cell: Lanes):
    """(world state, rewards added up) after the actions that a cell is noted with, from the world's own start."""

    def one(carry, inputs):
        t, action = inputs
        world, seen = WORLD.step(carry[0], jax.random.PRNGKey(0), action)
        return jax.tree.map(lambda a, b: jnp.where(t < cell.episode_length, a, b), (world, carry[1] + seen.reward), carry), None

    return jax.lax.scan(one, (WORLD.reset(jax.random.PRNGKey(0))[0], jnp.float32(0)), (jnp.arange(SIZE), cell.note))[0]


@pytest.mark.medium
def test_the_archive_finds_the_treasure_and_its_trails_replay():
    """Three arms: as published; uniform choice of cells; every episode from the world's own start. Medians over 64 seeds: 7,076
    frames, 12,320, never; the method card has 7,002 and 14,891 for one lane."""
    state: GoExploreState = trained(go_explore, SEEDS, ITERATIONS, power=[0.5, 0.0, 0.0], stores=[1.0, 1.0, 0.0]).snapshot()[0]
    weighted, uniform, alone = state.found.reshape(3, SEEDS)
    assert np.all(weighted < NEVER) and np.all(alone == NEVER)
    assert 3_500 < np.median(weighted) < 14_000 and np.median(weighted) < np.median(uniform), (weighted, uniform)

    stored = jax.tree.map(lambda x: jnp.asarray(x[0]), state.archive)
    kept = jax.tree.map(lambda x: x[stored.seen > 0], stored.best)
    worlds, rewards = jax.jit(jax.vmap(replay))(kept)
    jax.tree.map(np.testing.assert_array_equal, worlds, kept.world)
    np.testing.assert_allclose(rewards, kept.episode_return, atol=1e-6)
    np.testing.assert_allclose(np.max(kept.episode_return), optimal_return(SIZE), atol=1e-6)
