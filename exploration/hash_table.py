"""A hash table of fixed capacity that lives on the device: 64-bit fingerprints of observations, open addressing.

Keys are pairs of uint32. The table only maps keys to slots; what belongs to a key (a visit count, an archive cell) is an array
of the caller's, indexed by slot. Nothing is ever deleted or moved, so a slot is good for the table's lifetime.

Probing is triangular, home + p(p+1)/2, which visits every slot of a power-of-two table once. It stops after ``PROBES`` places:
up to 70 % load a search of more than that has probability 0.7^128, below 1e-19; close to full, a new key may find no place
although a few are left. Such a key gets slot -1 and is counted in ``dropped``; what is stored is never overwritten.

All keys of a call probe side by side, first reading only: where nothing is new, as in most steps, the table is not written. Where
several keys want the same empty place the lowest index takes it, so results do not depend on the order in which a device writes.

Hashing follows MurmurHash3's finaliser (Appleby, public domain); every word is mixed with a salt of its position and the results are
summed, so hashing is one parallel pass. Two observations that differ in one word never collide; others do with probability 2^-64.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from envs.base import PyTree, any_member
from envs.builder import Refusal

PROBES = 128
EMPTY = 0xFFFFFFFF  # both words: an empty place; as a key it means "no key"
_NOBODY = np.iinfo(np.int32).max


class HashTable(NamedTuple):
    """Which key sits in which slot."""

    keys: jax.Array  # uint32[capacity, 2]
    owner: jax.Array  # i32[capacity]; scratch for ``insert``, _NOBODY between calls
    size: jax.Array  # i32[]; slots in use
    dropped: jax.Array  # i32[]; keys that found no place, repeats included


def check_capacity(capacity: int) -> None:
    """Raises Refusal unless ``capacity`` is a power of two."""
    if capacity < 1 or capacity & (capacity - 1):
        below = 1 << max(int(capacity).bit_length() - 1, 0)
        raise Refusal(f"capacity={capacity} is not a power of two; the nearest are {below} and {2 * below}")


def hash_table(capacity: int) -> HashTable:
    """An empty table of ``capacity`` places, a power of two."""
    check_capacity(capacity)
    return HashTable(
        keys=jnp.full((capacity, 2), EMPTY, jnp.uint32),
        owner=jnp.full((capacity,), _NOBODY, jnp.int32),
        size=jnp.zeros((), jnp.int32),
        dropped=jnp.zeros((), jnp.int32),
    )


def insert(table: HashTable, keys: jax.Array, axis: str | None = None) -> tuple[HashTable, jax.Array, jax.Array]:
    """Find or add ``keys`` uint32[N, 2] -> (table, slots i32[N], is_new bool[N]).

    Slot -1: no place was left, or the key was (EMPTY, EMPTY), which is skipped. Of equal new keys in one call the first is new.
    ``axis`` is the name of the vmapped member axis (``spec.axis``), which keeps the loop free of copies of the table.
    """
    capacity, lanes = table.keys.shape[0], jnp.arange(keys.shape[0], dtype=jnp.int32)
    keys = keys.astype(jnp.uint32)
    home, limit = _home(keys), min(capacity, PROBES)
    wanted = _wanted(keys)
    slots, tries = _search(table.keys, keys)  # reads only; most calls bring nothing new and end here
    active = wanted & (slots < 0) & (tries < limit)

    def claim(carry):
        stored, owner, tries, slots, is_new, active, _ = carry
        place = _place(home, tries, capacity)
        equal, empty = _compare(stored, place, keys)
        claimed = jnp.where(active & empty, place, capacity)  # capacity is out of bounds: dropped
        owner = owner.at[claimed].min(lanes, mode="drop")
        won = active & empty & (owner.at[place].get(mode="promise_in_bounds") == lanes)
        stored = stored.at[jnp.where(won, place, capacity)].set(keys, mode="drop")
        owner = owner.at[jnp.where(won, place, capacity)].set(_NOBODY, mode="drop")  # every claimed place was won by one; XLA copies nothing for this order
        settled = active & (equal | won)
        # who lost a claim looks at the same place again: the winner's key may be its own
        tries = jnp.where(active & ~equal & ~empty, tries + 1, tries)
        slots, active = jnp.where(settled, place, slots), active & ~settled & (tries < limit)
        return stored, owner, tries, slots, is_new | won, active, any_member(active, axis)

    carry = (table.keys, table.owner, tries, slots, jnp.zeros_like(wanted), active, any_member(active, axis))
    stored, owner, _, slots, is_new, _, _ = jax.lax.while_loop(lambda carry: carry[-1], claim, carry)
    lost = jnp.sum(wanted & (slots < 0), dtype=jnp.int32)
    dropped = jnp.minimum(table.dropped, _NOBODY - lost) + lost  # stays at its largest value rather than wrap
    return HashTable(stored, owner, table.size + jnp.sum(is_new, dtype=jnp.int32), dropped), slots, is_new


def lookup(table: HashTable, keys: jax.Array) -> jax.Array:
    """Slots of ``keys`` uint32[..., 2] -> i32[...]; -1 where absent."""
    return _search(table.keys, keys.astype(jnp.uint32).reshape(-1, 2))[0].reshape(keys.shape[:-1])


def _search(stored: jax.Array, keys: jax.Array) -> tuple[jax.Array, jax.Array]:
    """(slots i32[N], -1 where absent; tries i32[N] until the key or an empty place was met, or the limit)."""
    capacity, home = stored.shape[0], _home(keys)

    def probe(carry):
        tries, slots, active = carry
        place = _place(home, tries, capacity)
        equal, empty = _compare(stored, place, keys)
        slots = jnp.where(active & equal, place, slots)
        active = active & ~equal & ~empty
        tries = jnp.where(active, tries + 1, tries)
        return tries, slots, active & (tries < min(capacity, PROBES))

    start = jnp.zeros(keys.shape[:1], jnp.int32)
    tries, slots, _ = jax.lax.while_loop(lambda carry: jnp.any(carry[-1]), probe, (start, start - 1, _wanted(keys)))
    return slots, tries


def _compare(stored: jax.Array, place: jax.Array, keys: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Whether the places [N] hold the keys [N, 2], and whether they are empty."""
    there = stored.at[place].get(mode="promise_in_bounds")
    return jnp.all(there == keys, axis=-1), ~_wanted(there)


def _wanted(keys: jax.Array) -> jax.Array:
    return jnp.any(keys != jnp.uint32(EMPTY), axis=-1)


def hash_observation(obs: PyTree, lead_ndim: int) -> jax.Array:
    """Fingerprints of observations whose first ``lead_ndim`` axes are lanes, time, ...: uint32[lead..., 2].

    Any dtype; equal values of one dtype give equal fingerprints, and -0.0 counts as 0.0. Never (EMPTY, EMPTY).
    """
    words = jnp.concatenate([_words(leaf, lead_ndim) for leaf in jax.tree.leaves(obs)], axis=-1)
    position = np.arange(words.shape[-1], dtype=np.uint32)
    lanes = []
    for seed in (0x9E3779B9, 0x7F4A7C15):
        salt = _mix(_mix(position * np.uint32(0x85EBCA77) + np.uint32(seed)) ^ np.uint32(seed))
        mixed = _mix(words ^ jnp.asarray(salt).reshape((1,) * lead_ndim + (-1,)))
        total = jnp.sum(mixed, axis=-1, dtype=jnp.uint32)
        lanes.append(_mix(total ^ jnp.uint32(words.shape[-1])))
    first, second = lanes
    second = jnp.where((first == jnp.uint32(EMPTY)) & (second == jnp.uint32(EMPTY)), jnp.uint32(0), second)
    return jnp.stack([first, second], axis=-1)


def _mix(word):
    """MurmurHash3's 32-bit finaliser: a bijection in which every input bit reaches every output bit."""
    word = (word ^ (word >> 16)) * np.uint32(0x85EBCA6B)
    word = (word ^ (word >> 13)) * np.uint32(0xC2B2AE35)
    return word ^ (word >> 16)


def _home(keys: jax.Array) -> jax.Array:
    return _mix(keys[..., 0] ^ _mix(keys[..., 1] + jnp.uint32(0x9E3779B9)))


def _place(home: jax.Array, tries: jax.Array, capacity: int) -> jax.Array:
    step = (tries * (tries + 1) // 2).astype(jnp.uint32)
    return ((home + step) & jnp.uint32(capacity - 1)).astype(jnp.int32)


def _words(leaf: jax.Array, lead_ndim: int) -> jax.Array:
    """The bits of ``leaf`` as uint32[lead..., words]."""
    leaf = jnp.asarray(leaf)
    leaf = leaf.astype(jnp.uint8) if leaf.dtype == jnp.bool_ else leaf
    if jnp.issubdtype(leaf.dtype, jnp.floating):
        leaf = jnp.where(leaf == 0, jnp.zeros_like(leaf), leaf)
    lead = leaf.shape[:lead_ndim]
    flat = leaf.reshape(*lead, -1)
    per_word = max(4 // leaf.dtype.itemsize, 1)
    if per_word > 1:
        padding = -flat.shape[-1] % per_word
        flat = jnp.pad(flat, [(0, 0)] * lead_ndim + [(0, padding)]).reshape(*lead, -1, per_word)
    return jax.lax.bitcast_convert_type(flat, jnp.uint32).reshape(*lead, -1)
