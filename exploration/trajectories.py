"""Trajectories as a tree: every row holds the actions of one rollout and says where it began, so a way shared by many is stored once.

A ``Trail`` is a place in the tree: the first ``steps`` actions of row ``row``, after everything that row came from. Row -1 is the world's own
start. Nothing is ever changed or removed; ``grow`` doubles the rows. Numbers of actions are stored in as few bytes as hold them: one byte for each step of a
rollout that was accepted somewhere, which is what decides how much memory a long run takes.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from gymnasium import spaces


class Trail(NamedTuple):
    """Where a trajectory ends in the tree, with any leading shape."""

    row: jax.Array  # i32; -1: no steps since the world's own start
    steps: jax.Array  # i32; actions of that row
    origin: jax.Array  # u32[..., 2]; the key of the reset that the trajectory began with


class Trajectories(NamedTuple):
    actions: jax.Array  # [R, T, ...]; of Discrete spaces u8 or u16, where that holds them
    parent_row: jax.Array  # i32[R]
    parent_steps: jax.Array  # i32[R]
    rows: jax.Array  # i32[]; in use


def narrow(space: spaces.Space, dtype: Any) -> Any:
    """The dtype that actions of ``space`` are stored with; ``dtype`` is what they come with."""
    if not isinstance(space, spaces.Discrete) or space.start < 0:
        return dtype
    return next((kind for kind in (jnp.uint8, jnp.uint16) if space.start + space.n - 1 <= jnp.iinfo(kind).max), dtype)


def wide(dtype: Any) -> Any:
    """The dtype that actions stored as ``dtype`` are given back with."""
    return np.int32 if jnp.issubdtype(dtype, jnp.unsignedinteger) else dtype


def trajectories(rows: int, actions: jax.Array, dtype: Any = None) -> Trajectories:
    """An empty tree; ``actions`` [T, ...] have the shape of a rollout's and its dtype, or are stored as ``dtype``."""
    return Trajectories(jnp.zeros((rows, *actions.shape), dtype or actions.dtype), jnp.full(rows, -1, jnp.int32), jnp.zeros(rows, jnp.int32), jnp.int32(0))


def append(tree: Trajectories, actions: jax.Array, parents: Trail, wanted: jax.Array) -> tuple[Trajectories, jax.Array]:
    """Add the rollouts [L, T, ...] of a mask bool[L], which began at ``parents`` [L] -> (tree, rows i32[L]; out of bounds where not wanted)."""
    capacity = tree.parent_row.shape[0]
    rows = jnp.where(wanted, tree.rows + jnp.cumsum(wanted, dtype=jnp.int32) - 1, capacity)
    return Trajectories(
        tree.actions.at[rows].set(actions.astype(tree.actions.dtype), mode="drop"),
        tree.parent_row.at[rows].set(parents.row, mode="drop"),
        tree.parent_steps.at[rows].set(parents.steps, mode="drop"),
        tree.rows + jnp.sum(wanted, dtype=jnp.int32),
    ), rows


def grow(tree: Trajectories) -> Trajectories:
    """Room for twice as many rows."""
    bigger = trajectories(2 * tree.parent_row.shape[0], tree.actions[0])
    return jax.tree.map(lambda new, old: new.at[: old.shape[0]].set(old) if old.ndim else old, bigger, tree)


def walk(tree: Trajectories, row: jax.Array, steps: jax.Array, length: jax.Array, longest: int) -> jax.Array:
    """The ``length`` actions that lead to a place, in order: [longest, ...], zeros after them; what is beyond ``longest`` is cut off."""
    time = jnp.arange(tree.actions.shape[1], dtype=jnp.int32)

    def back(carry):
        row, steps, end, actions = carry
        at = jnp.where(time < steps, end - steps + time, longest)
        actions = actions.at[jnp.where(at < 0, longest, at)].set(tree.actions[row].astype(wide(tree.actions.dtype)), mode="drop")
        return tree.parent_row[row], tree.parent_steps[row], end - steps, actions

    empty = jnp.zeros((longest, *tree.actions.shape[2:]), wide(tree.actions.dtype))
    return jax.lax.while_loop(lambda carry: carry[0] >= 0, back, (row, steps, length, empty))[3]


def walked(actions: np.ndarray, parent_row: np.ndarray, parent_steps: np.ndarray, row: int, steps: int) -> np.ndarray:
    """``walk`` in numpy, of any length: [length, ...]."""
    parts = []
    while row >= 0:
        parts.append(actions[row, :steps])
        row, steps = int(parent_row[row]), int(parent_steps[row])
    return (np.concatenate(parts[::-1]) if parts else actions[0, :0]).astype(wide(actions.dtype))
