"""Go-Explore's archive (Ecoffet et al., arXiv 1901.10995; "First return, then explore", arXiv 2004.12919), on the device.

A cell keeps the state that was reached with the best score, among those in the fewest steps, and the trajectory that leads there. Cells are numbered
as they are found, so nothing depends on the capacity, which doubles when it must. Cell 0 stands for all ends of episodes and is never chosen; cell 1
is the world's own start.

A batch of rollouts is merged in the order in which its cells were chosen, step by step, as if one came after the other: a step is accepted into its
cell when its score is higher than what is there, or equal with fewer steps. Counters of a cell: ``seen``, the rollouts that were in it; ``chosen``;
``chosen_since_new``, since a rollout from it was last accepted anywhere; ``actions`` taken in it. With ``reset_on_update`` the counters of accepted
cells are 0 again after the batch, which makes a better way attractive.

A cell is chosen with probability proportional to (arXiv 2004.12919, as in its released code; the offset was 0.001 in the first version's)::

    base + sum over counters a of  weight_a / (a + offset)^power  +  high_score_weight / sqrt(rank of its score)
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from envs.base import Lanes, Spec
from envs.builder import FLAG, FRACTION, NON_NEGATIVE, POSITIVE, Choice, Integer, Refusal, Text, options
from exploration.base import Archive, Explored, Starts
from exploration.cells import cell_function
from exploration.hash_table import EMPTY, HashTable, hash_table
from exploration.hash_table import insert as find_or_add
from exploration.host_cells import host_cell_function
from exploration.knowledge import Weights, known_of, weighted
from exploration.laws.play import expect
from exploration.merging import NEVER, Known, meet, merge
from exploration.representation import Search
from exploration.trajectories import Trail, Trajectories, append, narrow, trajectories, walk
from exploration.trajectories import grow as grow_trajectories

END, START = 0, 1  # the first two cells
COUNTERS = ("seen", "chosen", "chosen_since_new", "actions")


class Cells(NamedTuple):
    """C cells, of which the first ``size`` are in use."""

    table: HashTable  # 2 C places
    number: jax.Array  # i32[2 C]; the cell of a place
    keys: jax.Array  # u32[C, 2]
    kept: Lanes  # [C, ...]; noted with the Trail that leads there
    seen: jax.Array  # i32[C]
    chosen: jax.Array  # i32[C]
    chosen_since_new: jax.Array  # i32[C]
    actions: jax.Array  # i32[C]
    size: jax.Array  # i32[]
    tree: Trajectories
    best: jax.Array  # i32[]; the cell with the highest score, among those the fewest steps
    scratch: jax.Array  # i32[C]; of ``meet``: NEVER between calls, so that no call costs more the more room there is

    @property
    def score(self) -> jax.Array:
        return self.kept.episode_return

    @property
    def length(self) -> jax.Array:
        return self.kept.episode_length


@options(
    cell=Text("auto, state, observation, position, downscaled, dynamic, knowledge, or the import path of a function transition -> key"),
    width=Integer(1, 1024),
    height=Integer(1, 1024),
    depth=Integer(1, 255),
    seen_weight=NON_NEGATIVE,
    chosen_weight=NON_NEGATIVE,
    chosen_since_new_weight=NON_NEGATIVE,
    actions_weight=NON_NEGATIVE,
    high_score_weight=NON_NEGATIVE,
    horizontal_weight=NON_NEGATIVE,
    vertical_weight=NON_NEGATIVE,
    fewer_weight=NON_NEGATIVE,
    more_weight=NON_NEGATIVE,
    low_level_weight=FRACTION,
    power=NON_NEGATIVE,
    offset=POSITIVE,
    base=NON_NEGATIVE,
    reset_on_update=FLAG,
    lucky=FLAG,
    best=Choice(("score", "end")),
    first_search=Integer(1),
    search_every=Integer(1),
    search_above=Integer(1),
    search_iterations=Integer(1, 10**6),
    search_frames=Integer(2, 10**6),
    frame_rate=FRACTION,
    capacity=Integer(1, 2**28),
)
def go_explore(
    spec: Spec,
    *,
    cell: str = "auto",
    width: int = 11,
    height: int = 8,
    depth: int = 8,
    seen_weight: float = 1.0,
    chosen_weight: float = 0.0,
    chosen_since_new_weight: float = 0.0,
    actions_weight: float = 0.0,
    high_score_weight: float = 0.0,
    horizontal_weight: float = 0.0,
    vertical_weight: float = 0.0,
    fewer_weight: float = 0.0,
    more_weight: float = 0.0,
    low_level_weight: float = 1.0,
    power: float = 0.5,
    offset: float = 1.0,
    base: float = 0.0,
    reset_on_update: bool = True,
    lucky: bool = False,
    best: str = "score",
    first_search: int = 10_000,
    search_every: int = 10_000_000,
    search_above: int = 50_000,
    search_iterations: int = 3000,
    search_frames: int = 10_000,
    frame_rate: float = 0.01,
    capacity: int = 2**14,
) -> Archive:
    """The archive; for ``runner=go_explore``.

    Args:
      cell: what a cell is; see ``exploration/cells.py``.
      width, height, depth: of downscaled pictures.
      seen_weight, chosen_weight, chosen_since_new_weight, actions_weight, high_score_weight, power, offset, base: see the module docstring.
      horizontal_weight, vertical_weight, fewer_weight, more_weight, low_level_weight: of ``cell=knowledge``, see ``exploration/knowledge.py``.
      reset_on_update: counters of accepted cells start anew.
      lucky: allow worlds that are not deterministic; the archive then keeps outcomes that were luck, and trajectories do not replay.
      best: which trajectory is evaluated and exported: "score", the one with the highest score, wherever it leads; "end", the best that ended an episode.
      first_search, search_every, search_above, search_iterations, search_frames, frame_rate: of ``cell=dynamic``, see ``exploration/representation.py``:
        agent steps until the first search and between searches, cells above which it searches sooner, representations tried, frames that it
        looks at, and the probability that a step's is one of them.
      capacity: cells that there is room for at first; it doubles when a batch might not find room.

    Raises Refusal for a world that is not deterministic, unless ``lucky``, and for weights of knowledge without it.
    """
    if not (spec.deterministic or lucky):
        what = f"Go-Explore returns to states and replays trajectories, and the world {spec.name!r} is not deterministic, so a cell would keep what was luck"
        raise Refusal(f"{what}; take sticky actions and noise away, as env.sticky=0, or allow it with exploration.lucky=true")
    identify = functools.cache(lambda: cell_function(spec, cell, width, height, depth))
    if not spec.on_host:
        identify()  # refuses
    knowledge = Weights(horizontal_weight, vertical_weight, fewer_weight, more_weight, low_level_weight)
    if knowledge.matter() and cell != "knowledge":
        names = ", ".join(f"{name}_weight" for name in Weights._fields)
        raise Refusal(f"exploration.cell={cell}: the weights of domain knowledge ({names}) are for cells with a place; use exploration.cell=knowledge")
    known = known_of(spec.name) if knowledge.matter() else None
    weight = dict(zip(COUNTERS, (seen_weight, chosen_weight, chosen_since_new_weight, actions_weight), strict=True))

    def init(key, inputs):
        starts, actions = inputs
        number, steps = starts.first.shape[0], actions.shape[0]
        places = power_of_two(max(capacity, 2 * number * steps))
        kept = jax.tree.map(lambda x: jnp.zeros((places, *x.shape[1:]), x.dtype), starts._replace(note=()))
        score, length = kept.episode_return.at[:].set(-jnp.inf), kept.episode_length.at[:].set(NEVER)
        kept = kept._replace(note=nowhere(places), episode_return=score.at[START].set(0.0), episode_length=length.at[START].set(0))
        counters = {name: jnp.zeros(places, jnp.int32) for name in COUNTERS}
        return Cells(
            table=hash_table(2 * places),
            number=jnp.zeros(2 * places, jnp.int32),
            keys=jnp.full((places, 2), EMPTY, jnp.uint32),
            kept=kept,
            **counters,
            size=jnp.int32(2),
            tree=trajectories(power_of_two(max(capacity // 16, 2 * number)), actions, narrow(spec.action, actions.dtype)),
            best=jnp.int32(START),
            scratch=jnp.full(places, NEVER, jnp.int32),
        )

    def weights(state: Cells) -> jax.Array:
        """f32[C]; 0 where there is no cell, and for the ends."""
        total = jnp.full(state.seen.shape, base, jnp.float32)
        for name in COUNTERS:
            if isinstance(weight[name], jax.Array) or weight[name]:
                total += weight[name] * inverse_power(getattr(state, name).astype(jnp.float32) + offset, power)
        at = jnp.arange(total.shape[0])
        there = (at < state.size) & (at != END)
        if isinstance(high_score_weight, jax.Array) or high_score_weight:
            order = jnp.argsort(jnp.where(there, -state.score, jnp.inf))
            rank = jnp.zeros_like(at).at[order].set(at) + 1
            total += high_score_weight * jax.lax.rsqrt(rank.astype(jnp.float32))
        if known:
            total = weighted(known, knowledge, state.table, state.keys, there & (at != START), total)
        return jnp.where(there, total, 0.0)

    def select(state: Cells, key, number: int):
        cells = draw(weights(state), key, number)
        return state, Starts(cells, jax.tree.map(lambda x: x[cells], state.kept), cells == START)

    def insert(state: Cells, key, explored: Explored):
        del key
        places = state.seen.shape[0]
        turned = jax.tree.map(lambda x: jnp.swapaxes(x, 0, 1), (explored.reached, explored.steps, explored.valid))
        reached, steps, valid = turned  # [L, T, ...]: in the order of choice
        lanes, time = valid.shape
        fingerprints = identify()(steps) if explored.cells is None else jnp.swapaxes(explored.cells, 0, 1)
        state, cells, new = numbered(state, jnp.where((valid & ~steps.done)[..., None], fingerprints, jnp.uint32(EMPTY)))
        cells = jnp.where(valid, jnp.where(steps.done, END, cells), places)  # out of bounds: dropped
        met = jnp.concatenate([explored.chosen[:, None], cells], axis=1)
        scratch, rows = meet(state.scratch, met)
        known = (x[jnp.minimum(met, places - 1)].reshape(-1) for x in (state.score, state.length, state.seen, state.chosen_since_new))
        known, won = merge(Known(*known), rows, reached.episode_return, reached.episode_length)
        own = jnp.where(rows.reshape(-1) == jnp.arange(rows.size), met.reshape(-1), places)  # a cell once
        counters = (
            state.seen.at[own].set(known.seen, mode="drop"),
            state.chosen.at[explored.chosen].add(1),
            state.chosen_since_new.at[explored.chosen].set(known.since_new[rows[:, 0]]),
            state.actions.at[met[:, :-1]].add(valid.astype(jnp.int32), mode="drop"),
        )

        tree, added = append(state.tree, steps.action, explored.parents, jnp.any(won, axis=1))
        trails = Trail(
            jnp.broadcast_to(added[:, None], won.shape),
            jnp.broadcast_to(jnp.arange(1, time + 1, dtype=jnp.int32), won.shape),
            jnp.broadcast_to(explored.parents.origin[:, None], (*won.shape, 2)),
        )
        at = jnp.where(won, cells, places).reshape(-1)
        rewritten = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), reached._replace(note=trails))
        kept = jax.tree.map(lambda x, made: x.at[at].set(made, mode="drop"), state.kept, rewritten)
        if reset_on_update:
            counters = tuple(counter.at[at].set(0, mode="drop") for counter in counters)
        leading = leader(kept.episode_return, kept.episode_length, jnp.append(at, state.best)) if best == "score" else jnp.int32(END)
        happened = {"new": new, "accepted": jnp.sum(won, dtype=jnp.int32), "rollouts_accepted": jnp.sum(jnp.any(won, axis=1), dtype=jnp.int32)}
        return state._replace(kept=kept, **dict(zip(COUNTERS, counters, strict=True)), tree=tree, best=leading, scratch=scratch), happened

    def numbered(state: Cells, fingerprints):
        """(state, cells i32[L, T] of the fingerprints, out of bounds where there is none, how many are new); new ones are numbered in order."""
        places = state.seen.shape[0]
        asked = fingerprints.reshape(-1, 2)
        table, slots, is_new = find_or_add(state.table, asked, spec.axis)
        fresh = state.size + jnp.cumsum(is_new, dtype=jnp.int32) - 1
        number = state.number.at[jnp.where(is_new, slots, 2 * places)].set(fresh, mode="drop")
        keys = state.keys.at[jnp.where(is_new, fresh, places)].set(asked, mode="drop")
        cells = jnp.where(slots < 0, places, number[slots]).reshape(fingerprints.shape[:-1])
        new = jnp.sum(is_new, dtype=jnp.int32)
        return state._replace(table=table, number=number, keys=keys, size=state.size + new), cells, new

    def full(state: Cells, rollouts: int, steps: int):
        return {
            "cells": state.size + rollouts * steps > state.seen.shape[0],
            "rows": state.tree.rows + rollouts > state.tree.parent_row.shape[0],
        }

    def grow(state: Cells, what: str) -> Cells:
        if what == "rows":
            return state._replace(tree=grow_trajectories(state.tree))
        old = state.seen.shape[0]
        keys = jnp.full((2 * old, 2), EMPTY, jnp.uint32).at[:old].set(state.keys)
        table, slots, _ = find_or_add(hash_table(4 * old), keys, spec.axis)
        number = jnp.zeros(4 * old, jnp.int32).at[jnp.where(slots < 0, 4 * old, slots)].set(jnp.arange(2 * old, dtype=jnp.int32), mode="drop")

        def doubled(x):
            return jnp.concatenate([x, jnp.zeros_like(x)])

        kept = jax.tree.map(doubled, state.kept)
        kept = kept._replace(
            episode_return=kept.episode_return.at[old:].set(-jnp.inf), episode_length=kept.episode_length.at[old:].set(NEVER)
        )
        counters = {name: doubled(getattr(state, name)) for name in COUNTERS}
        return state._replace(table=table, number=number, keys=keys, kept=kept, **counters, scratch=jnp.full(2 * old, NEVER, jnp.int32))

    def leading(state: Cells, longest: int):
        trail, length = jax.tree.map(lambda x: x[state.best], (state.kept.note, state.length))
        length = jnp.where(length == NEVER, 0, length)
        return walk(state.tree, trail.row, trail.steps, length, longest), jnp.minimum(length, longest)

    def report(state: Cells):
        return {
            "cells": state.size - 2,
            "score": state.score[state.best],
            "best_length": state.length[state.best],
            "trajectories": state.tree.rows,
            "dropped": state.table.dropped,
        }

    searched = Search(first_search, search_every, search_above, search_iterations, search_frames, frame_rate, reset_on_update, best == "score")
    return Archive(
        init, select, insert, full, grow, leading, report, weights, lambda env: host_cell_function(env, cell, width, height, depth),
        search=searched if cell == "dynamic" else None,
    )  # fmt: skip


def power_of_two(least: int) -> int:
    return 1 << (least - 1).bit_length()


def nowhere(number: int) -> Trail:
    """Trails [number] of lanes at the world's own start, whose key is not known yet."""
    return Trail(jnp.full(number, -1, jnp.int32), jnp.zeros(number, jnp.int32), jnp.zeros((number, 2), jnp.uint32))


def inverse_power(x, power):
    """x^-power, x > 0."""
    return jax.lax.rsqrt(x) if not isinstance(power, jax.Array) and power == 0.5 else jnp.exp(-power * jnp.log(x))


def leader(score, length, among):
    """Of the cells ``among`` i32[K] (out of bounds: none), the one with the highest score, of those the fewest steps, of those the lowest number; i32[]."""
    there = among < score.shape[0]
    cells = jnp.where(there, among, START)
    points, steps = jnp.where(there, score[cells], -jnp.inf), length[cells]
    steps = jnp.where(there & (points == jnp.max(points)), steps, NEVER)
    return jnp.min(jnp.where(there & (points == jnp.max(points)) & (steps == jnp.min(steps)), cells, NEVER))


def draw(weights: jax.Array, key, number: int) -> jax.Array:
    """i32[number], each drawn in proportion to ``weights`` f32[C], C a power of two; with replacement. Prefix sums run inside blocks and over their sums,
    so no small weight is lost among many."""
    places = weights.shape[0]
    width = min(places, 1024)
    blocks = weights.reshape(places // width, width)
    sums = jnp.sum(blocks, axis=1)
    block_key, cell_key = jax.random.split(key)
    block = inside(sums[None], jax.random.uniform(block_key, (number, 1)))
    return block * width + inside(blocks[block], jax.random.uniform(cell_key, (number, 1)))


def inside(weights: jax.Array, uniform: jax.Array) -> jax.Array:
    """The place i32[N] of every row of ``weights`` [N or 1, W] that a number [N, 1] in [0, 1) falls on; never one with weight 0."""
    edges = jnp.cumsum(weights, axis=1)
    last = jnp.max(jnp.where(weights > 0, jnp.arange(weights.shape[1], dtype=jnp.int32), 0), axis=1)
    return jnp.minimum(jnp.sum(edges <= uniform * edges[:, -1:], axis=1, dtype=jnp.int32), last)


# --- known answers -----------------------------------------------------------------------------------------------------


def _weights_of_the_card() -> str:
    seen = jnp.array([0.0, 3.0, 8.0, 15.0])
    found = inverse_power(seen + 1.0, 0.5)
    expect(found / jnp.sum(found), [0.48, 0.24, 0.16, 0.12], rtol=1e-5)
    return expect(found, [1, 0.5, 1 / 3, 0.25], rtol=1e-5)


def _draws_are_in_proportion() -> str:
    weights = jnp.array([0.0, 1.0, 0.5, 1 / 3, 0.25, 0.0, 0.0, 0.0])
    drawn = np.bincount(np.asarray(draw(weights, jax.random.PRNGKey(0), 200_000)), minlength=8) / 200_000
    return expect(drawn, [0, 0.48, 0.24, 0.16, 0.12, 0, 0, 0], rtol=0.03)


KNOWN_ANSWERS = (
    ("cells seen 0, 3, 8 and 15 times weigh 1, 1/2, 1/3 and 1/4, and are chosen with .48, .24, .16 and .12", _weights_of_the_card),
    ("200,000 draws are in that proportion, and cells without weight are never drawn", _draws_are_in_proportion),
)
