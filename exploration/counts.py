"""Exact visit counts: b(s') = 1 / sqrt(N(s')), the tabular bonus of MBIE-EB (Strehl and Littman 2008) without its (s, a) form.

N(s') counts all visits so far, of every lane, this step's included: with n lanes arriving in the same state at once each is paid
for all n, so the order of lanes does not matter. The n-th visit of one lane is paid exactly 1/sqrt(n). ``payment="first_visit"`` pays 1
where no step before this one arrived in s', else 0 (the "salesman" of SOFE, arXiv 2310.18144).

What counts as a state is the ``key``:

===============  ==========================================================================================================
``state``        ``info["state_id"]``, the world's own number of the state: a plain array when the world declares how many, else hashed
``observation``  the observation, hashed into a table of ``capacity`` places (``exploration/hash_table.py``)
a dotted path    a function (transition of one lane) -> number or array, hashed; its attribute ``needs`` lists the transition
                 fields it reads, ("next_obs",) when it has none
``auto``         ``state`` where the world declares how many states there are, else ``observation``
===============  ==========================================================================================================

A state that finds no place in a full table is worth 0, not 1: an uncounted state would stay new for ever. ``dropped`` in the
metrics says that it happened. ``features`` (SOFE) are of every state, before this step is counted: 1/sqrt(N+1), the bonus that each
would pay; log(1+N); or the mask [N > 0], enough for ``first_visit`` and not for 1/sqrt(N). None of them grows as fast as raw counts.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from gymnasium import spaces

from envs.base import Spec, Transition
from envs.builder import FLAG, Choice, Integer, Refusal, Text, closest, locate, options
from exploration.base import Bonus, BonusInfo, bonus
from exploration.hash_table import HashTable, check_capacity, hash_observation, hash_table, insert, lookup
from exploration.laws.play import arrivals, expect, line, play
from exploration.normalizers import lead_ndim

MAX_FEATURES = 4096  # more states than this are not handed to the agent


ENCODINGS: dict[str, Callable[[jax.Array], jax.Array]] = {  # of N f32[...], for SOFE
    "inverse_root": lambda visits: 1.0 / jnp.sqrt(visits + 1.0),
    "log_counts": jnp.log1p,
    "mask": lambda visits: (visits > 0).astype(jnp.float32),
}


class DenseCounts(NamedTuple):
    visits: jax.Array  # uint32[num_states], or uint32[N, num_states] when per_episode


class HashedCounts(NamedTuple):
    table: HashTable
    visits: jax.Array  # uint32[capacity]


@options(
    key=Text("auto, state, observation, or the import path of a function transition -> key"),
    capacity=Integer(1),
    scored=Choice(("step", "batch")),
    per_episode=FLAG,
    payment=Choice(("inverse_root", "first_visit")),
    encoding=Choice(tuple(ENCODINGS)),
)
def counts(
    spec: Spec,
    *,
    key: str = "auto",
    capacity: int = 2**16,
    scored: str = "step",
    per_episode: bool = False,
    payment: str = "inverse_root",
    encoding: str = "inverse_root",
) -> Bonus:
    """1/sqrt of the number of visits, or first visits only.

    Args:
      key: what a state is; see the module docstring.
      capacity: places of the hash table, a power of two; keep it below 70 % full. Not used with a plain array.
      scored: "step" pays what the state was worth when it was visited; "batch" what it is worth when the batch is scored.
      per_episode: count within each lane's episode. Needs a world that declares how many states it has, and scored="step".
      payment: "inverse_root" pays 1/sqrt(N); "first_visit" 1 where no earlier step arrived; needs scored="step".
      encoding: what SOFE shows the agent of every state: "inverse_root" 1/sqrt(N+1), "log_counts" log(1+N), "mask" [N > 0].
    """
    if key == "auto":
        key = "state" if spec.num_states else "observation"
    dense = key == "state" and spec.num_states is not None
    if per_episode and not dense:
        raise Refusal(f"counts with per_episode=true needs a world that declares num_states and key=state; {spec.name!r} with key={key} does not")
    if per_episode and scored == "batch":
        raise Refusal("counts with per_episode=true is scored when the step is made; use scored=step")
    if payment == "first_visit" and scored == "batch":
        raise Refusal("counts with payment=first_visit is scored when the step is made; use scored=step")
    identify, needs = key_function(spec, key)
    make = _dense(spec.num_states, spec.lanes, identify, per_episode, encoding) if dense else _hashed(capacity, identify, spec.axis)

    def observe(state, key, transition):
        del key
        state, visits, before = make["visit"](state, transition)
        paid = (before == 0).astype(jnp.float32) if payment == "first_visit" else inverse_root(visits)
        return state, {"count_bonus": paid} if scored == "step" else {}

    def score(state, transition):
        if scored == "step":
            return transition.annotations["count_bonus"]
        return inverse_root(make["look"](state, transition))

    shown = dense and spec.num_states <= MAX_FEATURES
    return bonus(
        init=lambda key: make["init"](),
        observe=observe,
        score=score,
        update=lambda state, key, inputs: (state, make["metrics"](state)),
        reset=make.get("reset"),
        features=make["features"] if shown else None,
        info=BonusInfo(
            needs=needs if scored == "batch" else (),
            learns_from=needs,
            stores=("count_bonus",) if scored == "step" else (),
            episodic=per_episode,
            scored=scored,
            features=spaces.Box(0.0, np.inf if encoding == "log_counts" else 1.0, (spec.num_states,), np.float32) if shown else None,
        ),
    )


def inverse_root(visits: jax.Array) -> jax.Array:
    """1/sqrt(visits) f32; a state without visits counts as having its first; visits -1 (no place in the table) are worth 0."""
    known = jnp.maximum(visits, 1).astype(jnp.float32)
    return jnp.where(visits < 0, 0.0, 1.0 / jnp.sqrt(known))


def key_function(spec: Spec, key: str, name: str = "counts") -> tuple[Callable[[Transition], jax.Array], tuple[str, ...]]:
    """(transition of any leading shape -> state ids i32[...] or fingerprints uint32[..., 2], transition fields it reads).

    ``name``: what error lines call the bonus.
    """
    if key == "state":
        if spec.num_states is not None:
            return lambda t: t.info["state_id"], ("info.state_id",)
        own = len(spec.info["state_id"].shape or ()) if "state_id" in spec.info else 0  # dimensions of one id
        return lambda t: hash_observation(t.info["state_id"], jnp.ndim(t.info["state_id"]) - own), ("info.state_id",)
    if key == "observation":
        return lambda t: hash_observation(t.next_obs, lead_ndim(spec.observation, t.next_obs)), ("next_obs",)
    if "." not in key:
        legal = ("auto", "state", "observation")
        raise Refusal(f"{name}.key={key!r} is not legal{closest(key, legal)}; or give the import path of a function transition -> key")
    function = locate(key, at=f"{name}.key")

    def identify(transition: Transition) -> jax.Array:
        lead = lead_ndim(spec.observation, transition.next_obs)
        batched = function
        for _ in range(lead):
            batched = jax.vmap(batched)
        return hash_observation(batched(transition._replace(annotations={})), lead)

    return identify, tuple(getattr(function, "needs", ("next_obs",)))


def _dense(num_states: int, lanes: int, identify: Callable, per_episode: bool, encoding: str) -> dict[str, Callable]:
    """Counts in a plain array, indexed by the world's own state ids."""
    shape = (lanes, num_states) if per_episode else (num_states,)

    def where(transition):
        ids = identify(transition)
        return (jnp.arange(lanes), ids) if per_episode else (ids,)

    def visit(state, transition):
        visits = state.visits.at[where(transition)].add(jnp.uint32(1))
        return DenseCounts(visits), _signed(visits[where(transition)]), _signed(state.visits[where(transition)])

    def metrics(state):
        seen = jnp.sum(state.visits > 0, axis=-1, dtype=jnp.int32)
        return {"distinct_states": jnp.mean(seen.astype(jnp.float32))}  # per_episode: so far in the episode, mean over lanes

    def features(state, obs):
        return jnp.broadcast_to(ENCODINGS[encoding](state.visits.astype(jnp.float32)), (lanes, num_states))

    made = {
        "init": lambda: DenseCounts(jnp.zeros(shape, jnp.uint32)),
        "visit": visit,
        "look": lambda state, transition: _signed(state.visits[where(transition)]),
        "metrics": metrics,
        "features": features,
    }
    if per_episode:
        made["reset"] = lambda state, mask: DenseCounts(jnp.where(mask[:, None], jnp.uint32(0), state.visits))
    return made


def _hashed(capacity: int, identify: Callable, axis: str | None) -> dict[str, Callable]:
    """Counts in a hash table, for keys that are not small numbers."""
    check_capacity(capacity)

    def visit(state, transition):
        table, slots, _ = insert(state.table, identify(transition), axis)
        visits = state.visits.at[jnp.where(slots < 0, capacity, slots)].add(jnp.uint32(1), mode="drop")
        placed = slots >= 0
        counted = (jnp.where(placed, _signed(number[slots]), -1) for number in (visits, state.visits))
        return HashedCounts(table, visits), *counted

    def look(state, transition):
        slots = lookup(state.table, identify(transition))
        absent = jnp.where(state.table.dropped > 0, -1, 0)  # never visited, unless states were dropped: then nobody knows
        return jnp.where(slots < 0, absent, _signed(state.visits[slots]))

    def metrics(state):
        return {"distinct_states": state.table.size.astype(jnp.float32), "dropped": state.table.dropped.astype(jnp.float32)}

    return {
        "init": lambda: HashedCounts(hash_table(capacity), jnp.zeros((capacity,), jnp.uint32)),
        "visit": visit,
        "look": look,
        "metrics": metrics,
    }


def _signed(visits: jax.Array) -> jax.Array:
    return jnp.minimum(visits, jnp.uint32(2**31 - 1)).astype(jnp.int32)


# --- known answers -----------------------------------------------------------------------------------------------------


def _visits_pay_one_over_root_n() -> str:
    paid = [play(counts(line(), key=key), arrivals([[3]] * 5))[1][:, 0] for key in ("state", "observation")]
    return [expect(found, 1 / np.sqrt(np.arange(1, 6)), rtol=1e-6) for found in paid][0]


def _lanes_are_counted_together() -> str:
    _, paid = play(counts(line(lanes=2)), arrivals([[4, 4], [4, 0]]))
    return expect(paid, 1 / np.sqrt([[2, 2], [3, 1]]), rtol=1e-6)


def _each_episode_counts_anew() -> str:
    bonus, visit = counts(line(), per_episode=True), arrivals([[1], [1]])
    state, first = play(bonus, visit)
    _, second = play(bonus, visit, bonus.reset(state, jnp.asarray([True])))
    return expect(np.concatenate([first, second])[:, 0], 1 / np.sqrt([1, 2, 1, 2]), rtol=1e-6)


def _first_visits() -> str:
    both_new, alone_new, none_new = [4, 4], [4, 0], [0, 4]
    for key in ("state", "observation"):
        shown = expect(play(counts(line(lanes=2), key=key, payment="first_visit"), arrivals([both_new, alone_new, none_new]))[1], [[1, 1], [0, 1], [0, 0]])
    return shown


KNOWN_ANSWERS = (
    ("the first five visits of a state pay 1/sqrt(n)", _visits_pay_one_over_root_n),
    ("two lanes arrive in one state at once: each is paid 1/sqrt(2); then one returns: 1/sqrt(3)", _lanes_are_counted_together),
    ("with per_episode two visits pay 1, 1/sqrt(2), and after a reset the same again", _each_episode_counts_anew),
    ("with first_visit two lanes that find a state at once are paid 1 each, and whoever returns 0", _first_visits),
)
