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

from envs.base import PyTree, sample_action
from envs.deep_sea import deep_sea, optimal_return
from exploration.base import Archive
from exploration.hash_table import EMPTY, HashTable, hash_observation, hash_table
from exploration.hash_table import insert as find_or_add
from runners import metrics as m
from runners.base import Runner
from runners.batching import Batch
from runners.source import SourceState, jax_source

SIZE, LANES, SEEDS, CAPACITY = 20, 8, 8, 512
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


def cells(identify, power, stores) -> Archive:
    """``identify(transition) -> id``. ``stores`` = 0 keeps the start only, so that every episode begins in it."""

    def init(key, snapshots):
        start = jax.tree.map(lambda x: x[0], snapshots)
        table, slots, _ = find_or_add(hash_table(CAPACITY), hash_observation(jnp.int32([0]), 1))
        empty = jax.tree.map(lambda x: jnp.zeros((CAPACITY, *x.shape), x.dtype), start)
        trail = empty.trail._replace(score=jnp.full(CAPACITY, -jnp.inf), length=jnp.full(CAPACITY, NEVER))
        stored = jax.tree.map(lambda old, new: old.at[slots[0]].set(new), empty._replace(trail=trail), start)
        return Cells(table, stored, jnp.zeros(CAPACITY, jnp.int32), jnp.zeros(CAPACITY, bool))

    def insert(state, key, inputs):
        snapshots, steps = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), inputs)
        keys = hash_observation(identify(steps), 1)
        table, slots, is_new = find_or_add(state.table, jnp.where(stores > 0, keys, jnp.uint32(EMPTY)), "members")
        slots = jnp.where(slots < 0, CAPACITY, slots)
        old, (score, length, _) = state.snapshots.trail, snapshots.trail
        # the best score, among those the shortest, among those the first
        top = old.score.at[slots].max(score, mode="drop")
        at_top = jnp.where(score == top[slots], slots, CAPACITY)
        short = jnp.where(top > old.score, NEVER, old.length).at[at_top].min(length, mode="drop")
        better = (score > old.score[slots]) | ((score == old.score[slots]) & (length < old.length[slots]))
        wins = jnp.where(better & (length == short[slots]), at_top, CAPACITY)
        order = jnp.arange(slots.size, dtype=jnp.int32)
        first = jnp.full(CAPACITY, NEVER).at[wins].min(order, mode="drop")
        place = jnp.where(first[wins] == order, wins, CAPACITY)
        stored = jax.tree.map(lambda a, b: a.at[place].set(b, mode="drop"), state.snapshots, snapshots)
        seen = state.seen.at[slots].add(1, mode="drop")
        terminal = state.terminal.at[slots].set(steps.done, mode="drop")
        return Cells(table, stored, seen, terminal), {"cells": table.size, "new": jnp.sum(is_new)}

    def select(state, key, n):
        known = (state.snapshots.trail.score > -jnp.inf) & ~state.terminal
        weight = -power * jnp.log(state.seen + 1.0)
        chosen = jax.random.categorical(key, jnp.where(known, weight, -jnp.inf), shape=(n,))
        return state, jax.tree.map(lambda x: x[chosen], state.snapshots)

    return Archive(init, insert, select)


class GoExploreState(NamedTuple):
    key: jax.Array
    source: SourceState
    trail: Trail  # [N]; of the states the lanes are in
    archive: Cells
    found: jax.Array  # i32[]; frames until the treasure, NEVER before


def go_explore(env, hyper) -> Runner:
    source = jax_source(env, LANES, "members")
    archive = cells(lambda t: t.info["state_id"], hyper["power"], hyper["stores"])
    nowhere = Trail(jnp.zeros(LANES), jnp.zeros(LANES, jnp.int32), jnp.zeros((LANES, SIZE), jnp.int32))

    def init(key):
        state = source.init(key)
        return GoExploreState(key, state, nowhere, archive.init(key, Snapshot(state.world, state.obs, nowhere)), jnp.int32(NEVER))

    def step(state, clock):
        def one(carry, key):
            source_state, trail, archive_state = carry
            act_key, step_key, select_key, reset_key = jax.random.split(key, 4)
            source_state, transition = source.step(source_state, step_key, sample_action(env.spec.action, act_key, LANES))
            actions = trail.actions.at[jnp.arange(LANES), trail.length].set(transition.action)
            trail = Trail(trail.score + transition.reward, trail.length + 1, actions)
            snapshot = Snapshot(source_state.world, source_state.obs, trail)
            archive_state, starts = archive.select(archive_state, select_key, LANES)
            source_state = source.restart(source_state, reset_key, transition.done, (starts.world, starts.obs))
            after = jax.tree.map(lambda a, b: jnp.where(transition.done.reshape(-1, *[1] * (a.ndim - 1)), a, b), starts.trail, trail)
            return (source_state, after, archive_state), (snapshot, transition)

        rollout_key, insert_key = jax.random.split(jax.random.fold_in(state.key, clock.iteration))
        carry = (state.source, state.trail, state.archive)
        (source_state, trail, archived), (snapshots, steps) = jax.lax.scan(one, carry, jax.random.split(rollout_key, SIZE))
        archived, happened = archive.insert(archived, insert_key, (snapshots, steps))
        success = steps.done & (snapshots.trail.score >= env.spec.success_return)
        now = jnp.where(jnp.any(success), (clock.iteration * SIZE + jnp.argmax(jnp.any(success, 1)) + 1) * LANES, NEVER)
        found = jnp.minimum(state.found, now)
        metrics = m.typed({"frames": m.Last(found), "cells": m.Last(happened["cells"])})
        return GoExploreState(state.key, source_state, trail, archived, found), metrics

    return Runner(init, step, None, source.spec, SIZE * LANES)


def replay(env, trail: Trail):
    """(world state, rewards) after a trail's actions, from the world's own start."""

    def one(world, inputs):
        t, action = inputs
        new, seen = env.step(world, jax.random.PRNGKey(0), action)
        kept = t < trail.length
        return jax.tree.map(lambda a, b: jnp.where(kept, a, b), new, world), jnp.where(kept, seen.reward, 0.0)

    world, rewards = jax.lax.scan(one, env.reset(jax.random.PRNGKey(0))[0], (jnp.arange(SIZE), trail.actions))
    return world, jnp.sum(rewards)
