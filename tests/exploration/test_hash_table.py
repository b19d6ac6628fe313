"""The device hash table against a Python dict."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from envs.builder import Refusal
from exploration import hash_table as module
from exploration.hash_table import EMPTY, PROBES, HashTable, hash_table

insert, lookup, home = jax.jit(module.insert, static_argnums=2), jax.jit(module.lookup), jax.jit(module._home)
hash_observation = jax.jit(module.hash_observation, static_argnums=1)


def distinct_keys(rng: np.random.Generator, number: int) -> np.ndarray:
    """uint32[number, 2], all different; small numbers too, which a poor hash would crowd together."""
    crowded = np.stack([np.arange(number // 2), np.zeros(number // 2)], axis=-1)
    return np.concatenate([crowded, rng.integers(0, 2**32 - 1, (number - number // 2, 2))]).astype(np.uint32)


class Model:
    """What the table must do, as a dict."""

    def __init__(self):
        self.slots: dict[tuple, int] = {}

    def check(self, keys: np.ndarray, slots: np.ndarray, is_new: np.ndarray) -> int:
        """Returns how many keys found no place."""
        dropped = 0
        for key, slot, new in zip(map(tuple, keys), slots, is_new, strict=True):
            if slot < 0:
                assert key not in self.slots and not new
                dropped += 1
            else:
                assert new == (key not in self.slots), "the first of equal keys is new, and only it"
                assert self.slots.setdefault(key, slot) == slot, "a key keeps its slot"
        assert len(set(self.slots.values())) == len(self.slots), "no slot has two keys"
        return dropped


@pytest.mark.parametrize("capacity,distinct,batch", [(1, 3, 4), (8, 5, 16), (8, 30, 16), (64, 44, 32), (64, 200, 32), (1024, 716, 256)])
def test_behaves_like_a_dict(capacity, distinct, batch):
    rng = np.random.default_rng(capacity + distinct)
    pool, table, model, dropped = distinct_keys(rng, distinct), hash_table(capacity), Model(), 0
    for _ in range(40):
        keys = pool[rng.integers(0, distinct, batch)]  # many duplicates, within a batch and between batches
        table, slots, is_new = insert(table, keys)
        dropped += model.check(keys, np.asarray(slots), np.asarray(is_new))
        assert int(table.size) == len(model.slots) and int(table.dropped) == dropped
        assert np.all(np.asarray(table.owner) == np.iinfo(np.int32).max)
    assert len(model.slots) == min(capacity, len(model.slots)) and (dropped == 0) == (distinct <= capacity)
    if distinct > capacity:
        assert int(table.size) == capacity <= PROBES, "small tables fill to the last place"
    found = np.asarray(lookup(table, pool))
    assert {tuple(k): s for k, s in zip(pool, found, strict=True) if s >= 0} == model.slots


def test_a_full_table_keeps_what_it_has():
    keys = distinct_keys(np.random.default_rng(0), 12)
    table, before, _ = insert(hash_table(8), keys[:8])
    table, slots, is_new = insert(table, keys)
    np.testing.assert_array_equal(slots, [*before, *[-1] * 4])
    assert not is_new.any() and int(table.dropped) == 4
    np.testing.assert_array_equal(lookup(table, keys), slots)


def test_the_key_empty_is_skipped_and_not_counted():
    keys = jnp.asarray([[EMPTY, EMPTY], [EMPTY, 0], [0, EMPTY]], jnp.uint32)
    table, slots, is_new = insert(hash_table(4), keys)
    assert slots[0] == -1 and not is_new[0] and is_new[1:].all()
    assert int(table.size) == 2 and int(table.dropped) == 0 and lookup(table, keys)[0] == -1


def test_probing_is_short_at_seventy_percent():
    """Places looked at per key; an ideal table filled to 70 % has a mean of -ln(0.3)/0.7 = 1.72."""
    capacity = 4096
    keys = distinct_keys(np.random.default_rng(1), int(0.7 * capacity))
    table, slots, _ = insert(hash_table(capacity), keys)
    np.testing.assert_array_equal(np.asarray(table.keys)[slots], keys)
    tries = np.arange(PROBES)
    places = (np.asarray(home(keys)).astype(np.int64)[:, None] + tries * (tries + 1) // 2) % capacity
    looked = np.argmax(places == np.asarray(slots)[:, None], axis=1) + 1
    assert int(table.dropped) == 0
    assert 1.5 < looked.mean() < 2.0 and looked.max() < 40


def test_vmapped_tables_equal_single_ones():
    """With and without the name of the axis, which spares copies of the table."""
    keys = np.random.default_rng(2).integers(0, 20, (3, 16, 2)).astype(np.uint32)
    tables = jax.tree.map(lambda x: jnp.stack([x] * 3), hash_table(64))
    alone = [insert(hash_table(64), keys[member]) for member in range(3)]
    alone = jax.tree.map(lambda *x: jnp.stack(x), *alone)
    for axis in (None, "members"):
        many = jax.vmap(lambda t, k: insert(t, k, axis), axis_name="members")(tables, keys)  # noqa: B023
        jax.tree.map(np.testing.assert_array_equal, many, alone)


def test_states_keep_their_types():
    table = hash_table(8)
    after = jax.eval_shape(module.insert, table, jnp.zeros((3, 2), jnp.uint32))[0]
    assert isinstance(after, HashTable)
    assert jax.tree.map(lambda x: (x.shape, x.dtype, x.weak_type), after) == jax.tree.map(lambda x: (x.shape, x.dtype, x.weak_type), table)


@pytest.mark.parametrize("capacity,nearest", [(0, "1"), (100, "64 and 128"), (3, "2 and 4")])
def test_capacity_must_be_a_power_of_two(capacity, nearest):
    with pytest.raises(Refusal, match=nearest):
        hash_table(capacity)


@pytest.mark.parametrize("dtype", ["bool", "uint8", "int8", "uint16", "int32", "float16", "bfloat16", "float32"])
def test_hashes_are_equal_exactly_for_equal_observations(dtype):
    values = np.random.default_rng(3).integers(0, 2, (200, 11))
    hashes = np.asarray(hash_observation(jnp.asarray(values).astype(dtype), 1))
    assert hashes.dtype == np.uint32 and hashes.shape == (200, 2)
    for lane in range(2):  # each 32-bit lane alone tells 200 observations apart
        assert len(np.unique(hashes[:, lane])) == len(np.unique(values, axis=0)) > 150


def test_hash_depends_on_position_and_not_on_the_sign_of_zero():
    def h(*x):
        return np.asarray(hash_observation(jnp.asarray(x, jnp.float32), 0)).tolist()

    assert h(1, 2) != h(2, 1) and h(0, 1) != h(1, 0) and h(0) != h(0, 0)
    assert h(0.0, -0.0) == h(-0.0, 0.0)


def test_hash_of_trees_and_of_any_leading_shape():
    rng = np.random.default_rng(4)
    obs = {"a": jnp.asarray(rng.normal(size=(5, 4, 3)), jnp.float32), "b": jnp.asarray(rng.integers(0, 9, (5, 4)), jnp.uint8)}
    whole = hash_observation(obs, 2)
    assert whole.shape == (5, 4, 2)
    np.testing.assert_array_equal(whole[2, 1], hash_observation({name: x[2, 1] for name, x in obs.items()}, 0))
    np.testing.assert_array_equal(whole[3], hash_observation({name: x[3] for name, x in obs.items()}, 1))


def test_no_collisions_among_structured_observations():
    """One-hot grids and counters differ in few bits; 32-bit lanes of 20,000 keys should show about 0.05 collisions each."""
    numbers = hash_observation(jnp.arange(20_000, dtype=jnp.int32), 1)
    pairs = np.stack(np.meshgrid(np.arange(140), np.arange(140)), axis=-1).reshape(-1, 2).astype(np.float32)
    for hashes in (numbers, hash_observation(jnp.asarray(pairs), 1)):
        assert len(np.unique(np.asarray(hashes), axis=0)) == len(hashes)
        assert min(len(np.unique(np.asarray(hashes)[:, lane])) for lane in range(2)) >= len(hashes) - 2
