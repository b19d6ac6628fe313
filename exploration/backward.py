"""The curriculum of the backward algorithm (Salimans and Chen, "Learning Montezuma's Revenge from a Single Demonstration", arXiv 1812.03381; Ecoffet et
al., "First return, then explore", arXiv 2004.12919): episodes start near the end of demonstrations, and earlier as they succeed.

Of each demonstration of ``n`` steps there is a last start ``m``, n - 1 at first. Lane i of N starts at m - floor(i W / N): a window of W starts that ends
at m. Every ``move_every`` x D steps of a lane, with s[j] the newest success rate of episodes that started at step j (0 where none has),

    m <- the first j with  sum_{k <= j} s[k] / min(W, N)  >=  move_threshold,     and where there is none  min(m + retreat, n - 1)

so all succeeding moves the window back by (1 - move_threshold) W, all failing moves it forward by ``retreat``. A part ``later`` of the episodes starts
uniformly between the lane's start and the end. Demonstration D is virtual: the world's own start. Which one an episode is of is drawn in proportion to
1 / the mean length of its episodes, those of the D others being taken together, so that each gets as many steps.

Departures: the windows move between rollouts, so ``move_every`` is rounded up to whole ones; with fewer lanes than starts in the window, the sum is divided
by the number of starts that there are.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from envs.base import Key
from exploration.laws.play import expect

KEPT = 0.95  # of the mean length of episodes, for every further episode


class CurriculumState(NamedTuple):
    last: jax.Array  # i32[D]; of the window of starts
    success: jax.Array  # f32[D, L]; the newest success rate from each start
    wins: jax.Array  # f32[D, L]; since the windows moved
    tries: jax.Array  # f32[D, L]
    length: jax.Array  # f32[D + 1]; mean steps of an episode
    waited: jax.Array  # i32[]; steps of a lane since the windows moved
    moves: jax.Array  # i32[]


class Chosen(NamedTuple):
    """Where N episodes start."""

    demonstration: jax.Array  # i32[N]; D: the virtual one
    start: jax.Array  # i32[N]; steps of the demonstration that are done


class Ended(NamedTuple):
    """Episodes that ended, with any leading shape."""

    where: jax.Array  # bool; there is one
    chosen: Chosen
    success: jax.Array  # bool
    length: jax.Array  # i32; steps since the start


class Curriculum(NamedTuple):
    init: Callable[[], CurriculumState]
    starts: Callable[[CurriculumState, Key, jax.Array], Chosen]  # (state, key, lanes i32[K]) -> of those lanes
    tell: Callable[[CurriculumState, Ended, int], CurriculumState]  # (state, ended [T, N], T) -> state
    shares: Callable[[CurriculumState], jax.Array]  # state -> f32[D + 1]; probabilities of the demonstrations


def curriculum(
    lengths: np.ndarray,
    *,
    lanes: int,
    window: int = 160,
    move_threshold: float | jax.Array = 0.1,
    move_every: int = 200,
    retreat: int = 100,
    later: float | jax.Array = 0.2,
    virtual: bool = True,
) -> Curriculum:
    """For demonstrations of ``lengths`` i32[D], in steps, all above 0. Without ``virtual`` no episode starts at the world's own start."""
    demos, longest = len(lengths), int(max(lengths))
    lengths = jnp.asarray(lengths, jnp.int32)
    points = min(window, lanes)

    def init():
        zero = jnp.zeros((demos, longest), jnp.float32)
        return CurriculumState(lengths - 1, zero, zero, zero, jnp.ones(demos + 1, jnp.float32), jnp.int32(0), jnp.int32(0))

    def shares(state):
        weight = 1.0 / jnp.concatenate([jnp.full(demos, jnp.mean(state.length[:demos])), state.length[demos:]])
        weight = weight if virtual else weight.at[demos].set(0.0)
        return weight / jnp.sum(weight)

    def starts(state, key, lane):
        demo_key, later_key, place_key = jax.random.split(key, 3)
        demo = jax.random.categorical(demo_key, jnp.log(shares(state)), shape=lane.shape).astype(jnp.int32)
        real = jnp.minimum(demo, demos - 1)
        own = jnp.maximum(state.last[real] - lane * window // lanes, 0)
        further = own + jnp.floor(jax.random.uniform(place_key, lane.shape) * (lengths[real] - own)).astype(jnp.int32)
        start = jnp.where(jax.random.uniform(later_key, lane.shape) < later, jnp.minimum(further, lengths[real] - 1), own)
        return Chosen(demo, jnp.where(demo == demos, 0, start))

    def tell(state, ended, steps):
        where, demo = ended.where.reshape(-1), ended.chosen.demonstration.reshape(-1)
        one = where.astype(jnp.float32)
        at = (jnp.where(where, demo, demos + 1), ended.chosen.start.reshape(-1))  # out of bounds: dropped, as is the virtual one
        tries = state.tries.at[at].add(one, mode="drop")
        wins = state.wins.at[at].add(one * ended.success.reshape(-1), mode="drop")
        number = jnp.zeros(demos + 1).at[at[0]].add(one, mode="drop")
        total = jnp.zeros(demos + 1).at[at[0]].add(one * ended.length.reshape(-1), mode="drop")
        old = KEPT**number
        length = old * state.length + (1.0 - old) * total / jnp.maximum(number, 1.0)
        waited = state.waited + steps
        due = waited >= move_every * demos

        success = jnp.where(tries > 0, wins / jnp.maximum(tries, 1.0), state.success)
        reached = jnp.cumsum(success, axis=1) >= move_threshold * points - 1e-4
        back = jnp.argmax(reached, axis=1).astype(jnp.int32)
        moved = jnp.where(jnp.any(reached, axis=1), back, jnp.minimum(state.last + retreat, lengths - 1))
        cleared = jnp.where(due, 0.0, 1.0)
        return CurriculumState(
            jnp.where(due, moved, state.last),
            jnp.where(due, success, state.success),
            wins * cleared,
            tries * cleared,
            length,
            jnp.where(due, 0, waited),
            state.moves + due,
        )

    return Curriculum(init, starts, tell, shares)


# --- known answers -----------------------------------------------------------------------------------------------------


def told(success: bool, last: int, lanes: int = 160, window: int = 160) -> int:
    """The last start of a demonstration of 1000 steps, after every lane's episode from its start in the window that ended at ``last``."""
    made = curriculum(np.array([1000]), lanes=lanes, window=window)
    state = made.init()._replace(last=jnp.array([last], jnp.int32))
    start = jnp.maximum(last - jnp.arange(lanes) * window // lanes, 0)
    ended = Ended(jnp.ones(lanes, bool), Chosen(jnp.zeros(lanes, jnp.int32), start), jnp.full(lanes, success), jnp.ones(lanes, jnp.int32))
    return int(made.tell(state, ended, 200).last[0])


def _windows_of_the_card() -> str:
    return expect([told(True, 800), told(False, 800), told(False, 950), told(True, 100)], [800 - 144, 900, 999, 15])


def _each_demonstration_gets_as_many_steps() -> str:
    made = curriculum(np.array([7, 7]), lanes=4)
    state = made.init()._replace(length=jnp.array([5.0, 15.0, 40.0]))
    share = np.asarray(made.shares(state))
    expect(share, [4 / 9, 4 / 9, 1 / 9])
    return expect(share * [10, 10, 40], [40 / 9] * 3)


KNOWN_ANSWERS = (
    ("a window of 160 starts that all succeed moves back by 144, and not below what a tenth of it needs; one that all fail, forward by 100, or to the end",
     _windows_of_the_card),
    ("episodes of 10 steps (two demonstrations of 5 and 15 together) are drawn 4 times as often as those of 40 from the world's start",
     _each_demonstration_gets_as_many_steps),
)  # fmt: skip
