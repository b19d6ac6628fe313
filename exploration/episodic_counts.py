"""Visit counts within an episode, of hashed keys: N_ep(s'), how often this lane has arrived in s' since its episode began, this step included.

    kind="inverse_root"   b(s') = 1 / sqrt(N_ep(s'))
    kind="first_visit"    b(s') = 1[N_ep(s') = 1]

Every lane has a small table of its own with open addressing: one word of the key's fingerprint decides where to look, the other is stored and
compared, and a taken place sends the search to the next one. ``reset`` empties the tables of its lanes, in steps where some lane
ended and in no others. A state that finds no place is worth 0, as in ``exploration/counts.py``. RIDE and NovelD count with the same tables.

What counts as a state is the ``key`` of ``exploration/counts.py``; the world's own numbers are hashed too, so the table's size
depends on how many states an episode visits and not on how many there are. The observation that an episode starts from has not
been arrived in and is not counted; coming back to it is its first visit.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from envs.base import Spec, Transition, any_member
from envs.builder import Choice, Integer, Text, options
from exploration.base import Bonus, BonusInfo, bonus
from exploration.counts import inverse_root, key_function
from exploration.hash_table import PROBES, check_capacity, hash_observation
from exploration.laws.play import arrivals, expect, line, play

KEY = Text("auto, state, observation, or the import path of a function transition -> key")
KINDS = Choice(("inverse_root", "first_visit"))


class EpisodicCounts(NamedTuple):
    """A table per lane."""

    words: jax.Array  # uint32[N, capacity]; second words of the fingerprints
    visits: jax.Array  # uint32[N, capacity]; 0: an empty place
    dropped: jax.Array  # i32[]; arrivals that found no place, in all episodes of all lanes


def episodic_table(lanes: int, capacity: int) -> EpisodicCounts:
    """Empty tables of ``capacity`` places each, a power of two."""
    check_capacity(capacity)
    empty = jnp.zeros((lanes, capacity), jnp.uint32)
    return EpisodicCounts(empty, empty, jnp.zeros((), jnp.int32))


def visit(table: EpisodicCounts, keys: jax.Array) -> tuple[EpisodicCounts, jax.Array]:
    """Count one arrival of each lane, keys uint32[N, 2] -> (table, N_ep i32[N]); -1 where the table has no place."""
    lanes, capacity = table.visits.shape
    lane, limit = jnp.arange(lanes), min(capacity, PROBES)
    home, word = keys[:, 0], keys[:, 1]

    def place(tries):
        return ((home + tries.astype(jnp.uint32)) & jnp.uint32(capacity - 1)).astype(jnp.int32)

    def taken(tries):
        """Where another key sits, and there are places left to try."""
        at = place(tries)
        return (tries < limit) & (table.visits[lane, at] > 0) & (table.words[lane, at] != word)

    def further(carry):
        tries = carry[0] + carry[1].astype(jnp.int32)
        return tries, taken(tries)

    start = jnp.zeros((lanes,), jnp.int32)
    tries, _ = jax.lax.while_loop(lambda carry: jnp.any(carry[1]), further, (start, taken(start)))
    found = tries < limit
    at = jnp.where(found, place(tries), capacity)  # out of bounds: dropped
    visits = table.visits.at[lane, at].add(jnp.uint32(1), mode="drop")
    count = visits.at[lane, at].get(mode="fill", fill_value=0).astype(jnp.int32)
    dropped = table.dropped + jnp.sum(~found, dtype=jnp.int32)
    return EpisodicCounts(table.words.at[lane, at].set(word, mode="drop"), visits, dropped), jnp.where(found, count, -1)


def clear(table: EpisodicCounts, mask: jax.Array, axis: str | None) -> EpisodicCounts:
    """Empty the tables of the lanes in ``mask`` bool[N]; ``axis``: the name of the vmapped member axis (``spec.axis``)."""

    def emptied(parts):
        return jax.tree.map(lambda x: jnp.where(mask[:, None], jnp.uint32(0), x), parts)

    words, visits = jax.lax.cond(any_member(mask, axis), emptied, lambda parts: parts, (table.words, table.visits))
    return table._replace(words=words, visits=visits)


def table_metrics(table: EpisodicCounts) -> dict[str, jax.Array]:
    """``distinct_states``: visited so far in the episode, mean over lanes; ``dropped``: see EpisodicCounts."""
    seen = jnp.sum(table.visits > 0, axis=-1, dtype=jnp.int32)
    return {"distinct_states": jnp.mean(seen.astype(jnp.float32)), "dropped": table.dropped.astype(jnp.float32)}


def fingerprint_function(spec: Spec, key: str, name: str) -> tuple[Callable[[Transition], jax.Array], tuple[str, ...]]:
    """(transition of any leading shape -> uint32[..., 2], transition fields it reads) for a ``key`` of ``exploration/counts.py``."""
    if key == "auto":
        key = "state" if spec.num_states else "observation"
    identify, needs = key_function(spec, key, name)

    def fingerprint(transition):
        found = identify(transition)
        return hash_observation(found, found.ndim) if key == "state" and spec.num_states is not None else found

    return fingerprint, needs


def worth(kind: str, visits: jax.Array) -> jax.Array:
    """N_ep i32[...] -> f32[...]; -1 (no place in the table) is worth 0."""
    return inverse_root(visits) if kind == "inverse_root" else (visits == 1).astype(jnp.float32)


@options(kind=KINDS, key=KEY, capacity=Integer(1))
def episodic_counts(spec: Spec, *, kind: str = "inverse_root", key: str = "auto", capacity: int = 1024) -> Bonus:
    """A function of the number of visits within the episode.

    Args:
      kind: "inverse_root" pays 1/sqrt(N_ep), "first_visit" 1 for the first arrival and 0 for any other.
      key: what a state is, as for ``counts``.
      capacity: places of each lane's table, a power of two; an episode should visit fewer than 70 % as many states.
    """
    check_capacity(capacity)
    fingerprint, needs = fingerprint_function(spec, key, "episodic_counts")

    def observe(state, key, transition):
        state, visits = visit(state, fingerprint(transition))
        return state, {"episodic": worth(kind, visits)}

    return bonus(
        init=lambda key: episodic_table(spec.lanes, capacity),
        observe=observe,
        score=lambda state, transition: transition.annotations["episodic"],
        update=lambda state, key, inputs: (state, table_metrics(state)),
        reset=lambda state, mask: clear(state, mask, spec.axis),
        info=BonusInfo(needs=(), learns_from=needs, stores=("episodic",), episodic=True, scored="step"),
    )


# --- known answers -----------------------------------------------------------------------------------------------------

TWO_LANES = [[3, 3], [3, 1], [2, 3], [3, 3]]


def _visits_of_a_lane() -> str:
    paid = [play(episodic_counts(line(lanes=2), key=key, capacity=8), arrivals(TWO_LANES))[1] for key in ("state", "observation")]
    return [expect(found, 1 / np.sqrt([[1, 1], [2, 1], [1, 2], [3, 3]]), rtol=1e-6) for found in paid][0]


def _first_visits() -> str:
    _, paid = play(episodic_counts(line(lanes=2), kind="first_visit", capacity=8), arrivals(TWO_LANES))
    return expect(paid, [[1, 1], [0, 1], [1, 0], [0, 0]])


def _each_episode_counts_anew() -> str:
    made, steps = episodic_counts(line(lanes=2), capacity=8), arrivals([[1, 1], [1, 1]])
    state, first = play(made, steps)
    _, second = play(made, steps, made.reset(state, jnp.asarray([True, False])))
    return expect(np.concatenate([first, second]).T, 1 / np.sqrt([[1, 2, 1, 2], [1, 2, 3, 4]]), rtol=1e-6)


KNOWN_ANSWERS = (
    ("states 3, 3, 2, 3 of one lane and 3, 1, 3, 3 of the other: each lane counts its own, 1/sqrt(1, 2, 1, 3) and 1/sqrt(1, 1, 2, 3)", _visits_of_a_lane),
    ("the same steps with kind=first_visit: 1, 0, 1, 0 and 1, 1, 0, 0", _first_visits),
    ("two visits, a reset of the first lane, two more: it is paid 1, 1/sqrt(2) again, the other goes on with 1/sqrt(3), 1/2", _each_episode_counts_anew),
)
