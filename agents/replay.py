"""Replay buffers on the device: steps of N lanes, every observation stored once.

Each lane has a ring of rows of its own. A row holds the observation to act on and, once the action is known, the step. Its successor is the
next row; where an episode ended, a row without a step keeps the true last observation, and the row after it begins the next episode. Of
stacked frames a row keeps the newest, and a stack is put together again when it is drawn: before an episode's first frame come zeros, or
that frame again, whichever its first observation has.

What is drawn is a window of up to ``n_step`` steps, ended by the episode or by the newest step. Rewards are summed by whoever scores
them: a bonus may be worth something else by then. Uniform draws take a lane, then a row, and take another where the row has no step; after
``TRIES`` such rows the sample has weight 0. Prioritised draws (arXiv 1511.05952) know the rows that have steps; new steps get the largest
priority seen, and the weights are P^-beta, divided by the largest of the batch (section 3.4).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from gymnasium import spaces

from agents.priorities import Priorities, draw_places, priorities, set_priorities
from envs.base import Key, PyTree, Spec, Transition
from envs.builder import Refusal

TRIES = 8


class Rows(NamedTuple):
    """[capacity, N, ...] each."""

    obs: PyTree  # to act on; of stacked frames the newest
    step: PyTree  # (Transition without observations, extras)
    live: jax.Array  # bool; the row has a step
    age: jax.Array | tuple  # i32; steps since the episode's first observation; () where no frames are stacked
    blank: jax.Array | tuple  # bool; zeros come before the episode's first frame; () likewise


class ReplayState(NamedTuple):
    rows: Rows
    cursor: jax.Array  # i32[N]; the row whose observation is to act on now
    filled: jax.Array  # i32[N]; rows in use
    priority: Priorities | tuple  # of row x N + lane; () for uniform draws
    largest: jax.Array  # f32[]; priority seen


class Drawn(NamedTuple):
    """A batch. ``steps`` [B, n]: windows, of which those where ``within`` holds are from the same episode, without a gap."""

    steps: Transition
    within: jax.Array  # bool[B, n]
    length: jax.Array  # i32[B]; steps within
    obs: PyTree  # [B]; where the window begins
    next_obs: PyTree  # [B]; where it ends
    extras: PyTree  # [B]; what ``act`` returned at the first step
    places: jax.Array  # i32[B]; for ``prioritise``
    weights: jax.Array  # f32[B]; 0 for samples to be left out


class Replay(NamedTuple):
    """``add`` takes one step of all lanes; ``following`` is what they act on next, after restarts."""

    init: Callable[[PyTree, PyTree], ReplayState]  # (obs [N] to act on, shapes of (transition [N], extras [N])) -> state
    add: Callable[[ReplayState, Transition, PyTree, PyTree], ReplayState]  # (state, transition [N], extras [N], following [N]) -> state
    draw: Callable[[ReplayState, Key, int, jax.Array | float], Drawn]  # (state, key, batch size, beta) -> Drawn
    prioritise: Callable[[ReplayState, jax.Array, jax.Array], ReplayState]  # (state, places [B], priorities [B]) -> state
    size: Callable[[ReplayState], jax.Array]  # rows in use, i32[]


def replay(spec: Spec, *, capacity: int, n_step: int = 1, frames: int = 1, prioritized: bool = False, alpha: float = 0.5) -> Replay:
    """A buffer of about ``capacity`` steps of ``spec.lanes`` lanes: each lane has capacity // lanes rows (ends of episodes take one too).

    Args:
      capacity: rows of all lanes together.
      n_step: longest window.
      frames: the last axis of the observations holds this many frames, the newest last.
      prioritized: draw in proportion to priorities, else uniformly.
      alpha: exponent of priorities.

    Raises Refusal for too few rows, and for frames that do not divide the last axis.
    """
    lanes, rows = spec.lanes, capacity // spec.lanes
    if rows < n_step + frames + 2:
        raise Refusal(f"runner.capacity={capacity} leaves {rows} rows for each of {lanes} lanes; it must be at least {lanes * (n_step + frames + 2)}")
    depth = frame_depth(spec.observation, frames)
    every = jnp.arange(lanes)

    def newest(obs):
        return obs if frames == 1 else obs[..., -depth:]

    def starts_blank(obs):
        """bool[N]; of observations that begin an episode."""
        return jnp.all(obs[..., :-depth].reshape(lanes, -1) == 0, axis=1)

    def init(obs, shapes):
        transition, extras = shapes
        step = jax.tree.map(lambda x: jnp.zeros((rows, *x.shape), x.dtype), (without_observations(transition), extras))
        stored = jax.tree.map(lambda x: jnp.zeros((rows, *x.shape), x.dtype).at[0].set(x), newest(obs))
        no = jnp.zeros((rows, lanes), bool)
        stacked = (jnp.zeros((rows, lanes), jnp.int32), no.at[0].set(starts_blank(obs))) if frames > 1 else ((), ())
        made = Rows(stored, step, no, *stacked)
        weights = priorities(rows * lanes) if prioritized else ()
        return ReplayState(made, jnp.zeros(lanes, jnp.int32), jnp.ones(lanes, jnp.int32), weights, jnp.float32(1.0))

    def add(state, transition, extras, following):
        now, done = state.cursor, transition.done
        after = (now + 1) % rows
        last = jnp.where(done, (now + 2) % rows, after)  # where the next observation to act on goes

        def write(stored, at, new):
            return jax.tree.map(lambda x, y: x.at[at, every].set(y), stored, new)

        obs = write(write(state.rows.obs, after, newest(transition.next_obs)), last, newest(following))
        stacked = ((), ())
        if frames > 1:
            age, blank = jnp.minimum(state.rows.age[now, every] + 1, frames - 1), state.rows.blank[now, every]
            ages = write(write(state.rows.age, after, age), last, jnp.where(done, 0, age))
            stacked = (ages, write(write(state.rows.blank, after, blank), last, jnp.where(done, starts_blank(following), blank)))
        live = write(write(write(state.rows.live, now, True), after, False), last, False)
        step = write(state.rows.step, now, (without_observations(transition), extras))
        weights = state.priority
        if prioritized:
            places = jnp.concatenate([now, after, last]) * lanes + jnp.tile(every, 3)
            weights = set_priorities(weights, places, jnp.repeat(jnp.stack([state.largest**alpha, 0.0, 0.0]), lanes))
        filled = jnp.minimum(state.filled + 1 + done.astype(jnp.int32), rows)
        return ReplayState(Rows(obs, step, live, *stacked), last, filled, weights, state.largest)

    def usable(state, row, lane):
        """Whether the row has a step, and all frames of its stack are still there."""
        behind = (state.cursor[lane] - row) % rows
        whole = behind + state.rows.age[row, lane] < rows if frames > 1 else True
        return state.rows.live[row, lane] & whole

    def uniform(state, key, number):
        lane_key, row_key = jax.random.split(key)
        lane = jax.random.randint(lane_key, (TRIES, number), 0, lanes)
        behind = jnp.floor(jax.random.uniform(row_key, (TRIES, number)) * state.filled[lane]).astype(jnp.int32)
        row = (state.cursor[lane] - jnp.minimum(behind, state.filled[lane] - 1)) % rows
        good = usable(state, row, lane)
        first = jnp.argmax(good, axis=0), jnp.arange(number)
        return row[first], lane[first], good[first].astype(jnp.float32)

    def in_proportion(state, key, number, beta):
        places, chance = draw_places(state.priority, key, number)
        row, lane = places // lanes, places % lanes
        weights = jnp.where(usable(state, row, lane), jnp.maximum(chance, 1e-12) ** -beta, 0.0)
        return row, lane, weights / jnp.maximum(jnp.max(weights), 1e-12)

    def observation(state, row, lane):
        """The observation of rows [...] of lanes [...]."""
        if frames == 1:
            return jax.tree.map(lambda x: x[row, lane], state.rows.obs)
        back, age = jnp.arange(frames - 1, -1, -1), state.rows.age[row, lane][..., None]
        stack = state.rows.obs[(row[..., None] - jnp.minimum(back, age)) % rows, lane[..., None]]  # [..., frames, *shape, depth]
        before = (back > age) & state.rows.blank[row, lane][..., None]
        stack = jnp.where(before.reshape(*before.shape, *[1] * (stack.ndim - before.ndim)), jnp.zeros((), stack.dtype), stack)
        return jnp.moveaxis(stack, row.ndim, -2).reshape(*stack.shape[: row.ndim], *stack.shape[row.ndim + 1 : -1], frames * depth)

    def draw(state, key, number, beta=1.0):
        row, lane, weights = in_proportion(state, key, number, beta) if prioritized else uniform(state, key, number)
        window = (row[:, None] + jnp.arange(n_step)) % rows
        where = lane[:, None]
        step, extras = jax.tree.map(lambda x: x[window, where], state.rows.step)
        live = state.rows.live[window, where]
        reached = jnp.concatenate([jnp.ones((number, 1), bool), (live & ~step.done)[:, :-1]], axis=1)
        within = jnp.cumprod(reached & live, axis=1).astype(bool)
        length = jnp.sum(within, axis=1, dtype=jnp.int32)
        steps = step._replace(obs=observation(state, window, where), next_obs=observation(state, (window + 1) % rows, where))
        first, last = observation(state, row, lane), observation(state, (row + length) % rows, lane)
        return Drawn(steps, within, length, first, last, jax.tree.map(lambda x: x[:, 0], extras), row * lanes + lane, weights)

    def prioritise(state, places, values):
        if not prioritized:
            return state
        still = state.rows.live[places // lanes, places % lanes]
        values = jnp.where(jnp.isfinite(values), jnp.maximum(values, 1e-8), state.largest)
        weights = set_priorities(state.priority, jnp.where(still, places, -1), values**alpha)
        return state._replace(priority=weights, largest=jnp.maximum(state.largest, jnp.max(values)))

    def size(state):
        return jnp.sum(state.filled)

    return Replay(init, add, draw, prioritise, size)


def without_observations(transition: Transition) -> Transition:
    """Observations have rows of their own."""
    return transition._replace(obs=None, next_obs=None)


def frame_depth(space: spaces.Space, frames: int) -> int:
    """Channels of one frame. Raises Refusal where ``frames`` do not make up the last axis."""
    if frames == 1:
        return 0
    if isinstance(space, spaces.Dict) or not space.shape or space.shape[-1] % frames:
        shape: Any = "a Dict" if isinstance(space, spaces.Dict) else space.shape
        raise Refusal(f"runner.frames={frames} needs observations whose last axis holds that many frames; here they are {shape}; use runner.frames=1")
    return int(np.int64(space.shape[-1]) // frames)


__all__ = ["Drawn", "Replay", "ReplayState", "replay"]
