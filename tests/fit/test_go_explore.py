"""Fit: Go-Explore's exploration phase (arXiv 2004.12919) on DeepSea: an ``Archive`` of states chooses where lanes start again.

A cell is a state of the world. It keeps the snapshot reached with the best score, among those the shortest way, and is chosen with
probability proportional to (seen + 1)^-power: 1/2 as published, 0 is uniform. All ends share one cell, which is never chosen. With
random actions from its own start, an episode of this world finds the treasure with probability 2^-20.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from envs.base import PyTree, Spec, sample_action
from envs.deep_sea import deep_sea, optimal_return
from exploration.base import Archive
from exploration.hash_table import EMPTY, HashTable, hash_observation, hash_table
from exploration.hash_table import insert as find_or_add
from runners import metrics as m
from runners.base import Runner
from runners.source import SourceState, jax_source
from tests.fit.parts import trained

SIZE, LANES, SEEDS, CAPACITY, ITERATIONS = 20, 8, 16, 512, 120  # iterations of SIZE steps of all lanes: 19,200 frames
WORLD = deep_sea(size=SIZE)
NEVER, LOWEST = np.iinfo(np.int32).max, np.finfo(np.float32).min  # finite: the loop freezes members whose state is not


class Snapshot(NamedTuple):
    """A state, and how it was reached from the world's own start."""

    world: PyTree
    obs: jax.Array
    score: jax.Array  # f32[]; rewards so far
    length: jax.Array  # i32[]; steps so far
    actions: jax.Array  # i32[SIZE]; the first ``length`` of them count


class Cells(NamedTuple):
    table: HashTable
    best: Snapshot  # [CAPACITY, ...]; score LOWEST where empty
    seen: jax.Array  # i32[CAPACITY]; visits
    terminal: jax.Array  # bool[CAPACITY]


def cells(spec: Spec, power, stores) -> Archive:
    """Cells are told apart by their observations. ``stores`` = 0 keeps the start only, so that every episode begins there."""

    def put(state, new, terminal, wanted):
        keys = jnp.where(wanted, hash_observation(new.obs, 1), jnp.uint32(EMPTY))
        table, slots, _ = find_or_add(state.table, keys, spec.axis)
        slots = jnp.where(slots < 0, CAPACITY, slots)  # out of bounds: dropped
        score, length = state.best.score[slots], state.best.length[slots]
        better = (new.score > score) | ((new.score == score) & (new.length < length))
        rank = jnp.argsort(jnp.lexsort((new.length, -new.score))).astype(jnp.int32)
        first = jnp.full(CAPACITY, NEVER).at[slots].min(rank, mode="drop")  # of those that came to the same cell
        place = jnp.where(better & (rank == first[slots]), slots, CAPACITY)
        best = jax.tree.map(lambda a, b: a.at[place].set(b, mode="drop"), state.best, new)
        return Cells(table, best, state.seen.at[slots].add(1, mode="drop"), state.terminal.at[slots].set(terminal, mode="drop"))

    def init(key, snapshots):
        empty = jax.tree.map(lambda x: jnp.zeros((CAPACITY, *x.shape[1:]), x.dtype), snapshots)._replace(score=jnp.full(CAPACITY, LOWEST))
        state = Cells(hash_table(CAPACITY), empty, jnp.zeros(CAPACITY, jnp.int32), jnp.zeros(CAPACITY, bool))
        return put(state, snapshots, False, True)

    def insert(state, key, inputs):
        snapshots, steps = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), inputs)
        state = put(state, snapshots, steps.done, stores > 0)
        return state, {"cells": state.table.size}

    def select(state, key, n):
        weight = (state.seen.astype(jnp.float32) + 1.0) ** -power
        edges = jnp.cumsum(jnp.where((state.seen > 0) & ~state.terminal, weight, 0.0))
        chosen = jnp.searchsorted(edges, jax.random.uniform(key, (n,)) * edges[-1])
        return state, jax.tree.map(lambda x: x[chosen], state.best)

    return Archive(init, insert, select)


class GoExploreState(NamedTuple):
    key: jax.Array
    source: SourceState
    reached: Snapshot  # [N]; where the lanes are
    archive: Cells
    found: jax.Array  # i32[]; frames until the treasure, NEVER before


def go_explore(hyper) -> Runner:
    """Random actions from states of the archive; one iteration is SIZE steps of all lanes."""
    source = jax_source(WORLD, LANES, "members")
    archive = cells(source.spec, hyper["power"], hyper["stores"])

    def init(key):
        state = source.init(key)
        reached = Snapshot(state.world, state.obs, jnp.zeros(LANES), jnp.zeros(LANES, jnp.int32), jnp.zeros((LANES, SIZE), jnp.int32))
        return GoExploreState(key, state, reached, archive.init(key, reached), jnp.int32(NEVER))

    def one(carry, key):
        state, reached, archived = carry
        act_key, step_key, select_key, reset_key = jax.random.split(key, 4)
        state, step = source.step(state, step_key, sample_action(WORLD.spec.action, act_key, LANES))
        actions = reached.actions.at[jnp.arange(LANES), reached.length].set(step.action)
        new = Snapshot(state.world, state.obs, reached.score + step.reward, reached.length + 1, actions)
        archived, starts = archive.select(archived, select_key, LANES)
        state = source.restart(state, reset_key, step.done, (starts.world, starts.obs))
        reached = jax.tree.map(lambda a, b: jnp.where(step.done.reshape(LANES, *[1] * (a.ndim - 1)), a, b), starts, new)
        return (state, reached, archived), (new, step)

    def step(state, clock):
        rollout_key, insert_key = jax.random.split(jax.random.fold_in(state.key, clock.iteration))
        carry = (state.source, state.reached, state.archive)
        (lanes, reached, archived), (snapshots, steps) = jax.lax.scan(one, carry, jax.random.split(rollout_key, SIZE))
        archived, happened = archive.insert(archived, insert_key, (snapshots, steps))
        success = jnp.any(steps.done & (snapshots.score >= WORLD.spec.success_return), axis=1)
        frames = jnp.where(jnp.any(success), (clock.iteration * SIZE + jnp.argmax(success) + 1) * LANES, NEVER).astype(jnp.int32)
        found = jnp.minimum(state.found, frames)
        return GoExploreState(state.key, lanes, reached, archived, found), m.typed({"cells": m.Last(happened["cells"])})

    return Runner(init, step, None, source.spec, SIZE * LANES)


def replay(snapshot: Snapshot):
    """(world state, rewards added up) after the actions of a snapshot, from the world's own start."""

    def one(carry, inputs):
        t, action = inputs
        world, seen = WORLD.step(carry[0], jax.random.PRNGKey(0), action)
        return jax.tree.map(lambda a, b: jnp.where(t < snapshot.length, a, b), (world, carry[1] + seen.reward), carry), None

    return jax.lax.scan(one, (WORLD.reset(jax.random.PRNGKey(0))[0], jnp.float32(0)), (jnp.arange(SIZE), snapshot.actions))[0]


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
    np.testing.assert_allclose(rewards, kept.score, atol=1e-6)
    np.testing.assert_allclose(np.max(kept.score), optimal_return(SIZE), atol=1e-6)
