"""Fit: Go-Explore's exploration phase (arXiv 2004.12919) on DeepSea: an ``Archive`` of states chooses where lanes start again.

A cell is a state of the world. It keeps the snapshot reached with the best score, then the shortest way, and is chosen with
probability proportional to (seen + 1)^-power: 1/2 as published, 0 is uniform. Terminal states share one cell that is never chosen.
A random policy from the start finds the treasure with probability 2^-20 per episode.

Frames to the first treasure, size 20, 8 seeds, 8 lanes (measured): see ``test_the_archive_finds_the_treasure``.
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
from runners.batching import Batch
from runners.source import SourceState, jax_source

SIZE, LANES, SEEDS, CAPACITY = 20, 8, 8, 512
WORLD = deep_sea(size=SIZE)
ITERATIONS = 200  # of SIZE steps of all lanes: 32,000 frames
NEVER = np.iinfo(np.int32).max


class Trail(NamedTuple):
    """How a state was reached from the world's own start."""

    score: jax.Array  # f32[]; rewards so far
    length: jax.Array  # i32[]; steps so far
    actions: jax.Array  # i32[SIZE]; the first ``length`` of them count


class Snapshot(NamedTuple):
    world: PyTree
    obs: jax.Array
    trail: Trail


class Cells(NamedTuple):
    table: HashTable
    snapshots: Snapshot  # [CAPACITY, ...]; score -inf where empty
    seen: jax.Array  # i32[CAPACITY]; visits
    terminal: jax.Array  # bool[CAPACITY]


def cells(spec: Spec, power, stores) -> Archive:
    """Cells are told apart by their observations. ``stores`` = 0 keeps the start only, so that every episode begins there."""

    def put(state, snapshots, terminal, wanted):
        keys = jnp.where(wanted, hash_observation(snapshots.obs, 1), jnp.uint32(EMPTY))
        table, slots, _ = find_or_add(state.table, keys, spec.axis)
        slots = jnp.where(slots < 0, CAPACITY, slots)  # out of bounds: dropped
        old, new = jax.tree.map(lambda x: x[slots], state.snapshots.trail), snapshots.trail
        better = (new.score > old.score) | ((new.score == old.score) & (new.length < old.length))
        rank = jnp.argsort(jnp.lexsort((new.length, -new.score))).astype(jnp.int32)
        best = jnp.full(CAPACITY, NEVER).at[slots].min(rank, mode="drop")  # of those that came to the same cell
        place = jnp.where(better & (rank == best[slots]), slots, CAPACITY)
        stored = jax.tree.map(lambda a, b: a.at[place].set(b, mode="drop"), state.snapshots, snapshots)
        seen = state.seen.at[slots].add(1, mode="drop")
        return Cells(table, stored, seen, state.terminal.at[slots].set(terminal, mode="drop"))

    def init(key, snapshots):
        empty = jax.tree.map(lambda x: jnp.zeros((CAPACITY, *x.shape[1:]), x.dtype), snapshots)
        empty = empty._replace(trail=empty.trail._replace(score=jnp.full(CAPACITY, -jnp.inf)))
        state = Cells(hash_table(CAPACITY), empty, jnp.zeros(CAPACITY, jnp.int32), jnp.zeros(CAPACITY, bool))
        return put(state, snapshots, jnp.zeros(spec.lanes, bool), True)

    def insert(state, key, inputs):
        snapshots, steps = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), inputs)
        state = put(state, snapshots, steps.done, stores > 0)
        return state, {"cells": state.table.size}

    def select(state, key, n):
        weight = jnp.where((state.seen > 0) & ~state.terminal, -power * jnp.log(state.seen + 1.0), -jnp.inf)
        chosen = jax.random.categorical(key, weight, shape=(n,))
        return state, jax.tree.map(lambda x: x[chosen], state.snapshots)

    return Archive(init, insert, select)


class GoExploreState(NamedTuple):
    key: jax.Array
    source: SourceState
    trail: Trail  # [N]; of the states the lanes are in
    archive: Cells
    found: jax.Array  # i32[]; frames until the treasure, NEVER before


def go_explore(hyper) -> Runner:
    """Random actions from states of the archive; one iteration is SIZE steps of all lanes."""
    source = jax_source(WORLD, LANES, "members")
    archive = cells(source.spec, hyper["power"], hyper["stores"])

    def init(key):
        state = source.init(key)
        trail = Trail(jnp.zeros(LANES), jnp.zeros(LANES, jnp.int32), jnp.zeros((LANES, SIZE), jnp.int32))
        return GoExploreState(key, state, trail, archive.init(key, Snapshot(state.world, state.obs, trail)), jnp.int32(NEVER))

    def one(carry, key):
        source_state, trail, archived = carry
        act_key, step_key, select_key, reset_key = jax.random.split(key, 4)
        source_state, step = source.step(source_state, step_key, sample_action(WORLD.spec.action, act_key, LANES))
        trail = Trail(trail.score + step.reward, trail.length + 1, trail.actions.at[jnp.arange(LANES), trail.length].set(step.action))
        snapshot = Snapshot(source_state.world, source_state.obs, trail)
        archived, starts = archive.select(archived, select_key, LANES)
        source_state = source.restart(source_state, reset_key, step.done, (starts.world, starts.obs))
        trail = jax.tree.map(lambda a, b: jnp.where(step.done.reshape(LANES, *[1] * (a.ndim - 1)), a, b), starts.trail, trail)
        return (source_state, trail, archived), (snapshot, step)

    def step(state, clock):
        rollout_key, insert_key = jax.random.split(jax.random.fold_in(state.key, clock.iteration))
        carry = (state.source, state.trail, state.archive)
        (source_state, trail, archived), (snapshots, steps) = jax.lax.scan(one, carry, jax.random.split(rollout_key, SIZE))
        archived, happened = archive.insert(archived, insert_key, (snapshots, steps))
        success = jnp.any(steps.done & (snapshots.trail.score >= WORLD.spec.success_return), axis=1)
        frames = jnp.where(jnp.any(success), (clock.iteration * SIZE + jnp.argmax(success) + 1) * LANES, NEVER).astype(jnp.int32)
        found = jnp.minimum(state.found, frames)
        metrics = {"found": m.Last(found, found < NEVER), "cells": m.Last(happened["cells"])}
        return GoExploreState(state.key, source_state, trail, archived, found), m.typed(metrics)

    return Runner(init, step, None, source.spec, SIZE * LANES)


def replay(trail: Trail):
    """(world state, rewards added up) after the actions of a trail, from the world's own start."""

    def one(carry, inputs):
        (world, total), (t, action) = carry, inputs
        new, seen = WORLD.step(world, jax.random.PRNGKey(0), action)
        return jax.tree.map(lambda a, b: jnp.where(t < trail.length, a, b), (new, total + seen.reward), carry), None

    start = WORLD.reset(jax.random.PRNGKey(0))[0], jnp.float32(0)
    return jax.lax.scan(one, start, (jnp.arange(SIZE), trail.actions))[0]


@pytest.mark.medium
def test_the_archive_finds_the_treasure_and_its_trails_replay():
    arms = {"power": [0.5, 0.0, 0.0], "stores": [1.0, 1.0, 0.0]}  # as published; uniform choice of cells; the world's own start
    hyper = {name: jnp.repeat(jnp.array(values), SEEDS) for name, values in arms.items()}
    batch = Batch(go_explore, jax.random.split(jax.random.PRNGKey(0), 3 * SEEDS), hyper, "vmap")
    batch.plan()
    batch.compile()
    batch.start()
    batch.run(0, ITERATIONS, ITERATIONS)
    state: GoExploreState = batch.snapshot()[0]
    weighted, uniform, alone = np.asarray(state.found).reshape(3, SEEDS)
    print(weighted, uniform, alone, np.asarray(state.archive.table.size).reshape(3, SEEDS))
    assert np.max(weighted) < NEVER
    assert np.median(weighted) < np.median(uniform)
    assert np.all(alone == NEVER)

    stored = jax.tree.map(lambda x: x[0], state.archive)
    kept = jax.tree.map(lambda x: x[stored.seen > 0], stored.snapshots)
    worlds, rewards = jax.vmap(replay)(jax.tree.map(jnp.asarray, kept.trail))
    jax.tree.map(np.testing.assert_array_equal, worlds, kept.world)
    np.testing.assert_allclose(rewards, kept.trail.score, atol=1e-6)
    assert abs(kept.trail.score.max() - optimal_return(SIZE)) < 1e-6
