"""Episodic counts: tables per lane against dictionaries, full tables, collisions, resets."""

from __future__ import annotations

from collections import Counter

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnasium import spaces

from envs.builder import Refusal
from exploration.episodic_counts import clear, episodic_counts, episodic_table, fingerprint_function, table_metrics, visit
from exploration.laws.play import arrivals, line, play

LANES, CAPACITY = 3, 64




@jax.jit
def walk(table, states, ends):
    """states i32[T, N], ends bool[T, N] -> (table, counts i32[T, N])."""

    def step(table, inputs):
        state, end = inputs
        table, n = visit(table, jnp.stack([state // 8, state + 7], axis=-1).astype(jnp.uint32))
        return clear(table, end, None), n

    return jax.lax.scan(step, table, (states, ends))


def test_counts_are_those_of_a_dictionary_per_episode():
    rng = np.random.default_rng(0)
    states, ends = rng.integers(0, 40, (300, LANES)), rng.random((300, LANES)) < 0.02
    table, found = walk(episodic_table(LANES, CAPACITY), jnp.asarray(states), jnp.asarray(ends))
    seen, wanted = [Counter() for _ in range(LANES)], np.zeros_like(states)
    for t, lane in np.ndindex(states.shape):
        seen[lane][states[t, lane]] += 1
        wanted[t, lane] = seen[lane][states[t, lane]]
        if ends[t, lane]:
            seen[lane].clear()
    np.testing.assert_array_equal(found, wanted)
    assert float(table_metrics(table)["distinct_states"]) == pytest.approx(np.mean([len(s) for s in seen]))
    assert int(table.dropped) == 0


def test_a_full_table_keeps_what_it_has_and_says_so():
    table, states = episodic_table(1, 4), [[s] for s in (1, 2, 3, 4, 5, 1, 6, 4)]
    table, found = walk(table, jnp.asarray(states), jnp.zeros((8, 1), bool))
    np.testing.assert_array_equal(found[:, 0], [1, 1, 1, 1, -1, 2, -1, 2])
    assert int(table.dropped) == 2
    _, paid = play(episodic_counts(line(), capacity=2), arrivals([[0], [1], [2], [3], [4], [5]]))
    assert sorted(paid[:, 0]) == [0, 0, 0, 0, 1, 1]  # worth nothing rather than new for ever


def test_a_reset_empties_its_lanes_only():
    table, _ = walk(episodic_table(LANES, CAPACITY), jnp.ones((2, LANES), jnp.int32), jnp.zeros((2, LANES), bool))
    one, two = jnp.asarray([False, True, False]), jnp.asarray([[False, True, False], [False, False, False]])
    members = jax.tree.map(lambda x: jnp.stack([x, x]), table)
    together = jax.vmap(lambda t, m: clear(t, m, "members"), axis_name="members")(members, two)
    for emptied in (clear(table, one, None), jax.tree.map(lambda x: x[0], together)):
        assert int(emptied.visits[1].sum()) == 0 and int(emptied.words[1].sum()) == 0
        for lane in (0, 2):
            np.testing.assert_array_equal(emptied.visits[lane], table.visits[lane])
    np.testing.assert_array_equal(together.visits[1], table.visits)


def room(transition):
    return transition.info["state_id"] // 2


room.needs = ("info.state_id",)


def test_any_key():
    """The world's numbers, fingerprints of its own, observations, a function: each tells states apart, on any leading shape."""
    steps, numbered = arrivals([[0, 1], [2, 0]]), line(lanes=2)
    wide = numbered._replace(num_states=None, info={"state_id": spaces.Box(0, 9, (3,), np.int32)})
    long = steps._replace(info={"state_id": jnp.stack([steps.info["state_id"]] * 3, axis=-1)})
    cases = {"state": (numbered, steps), "observation": (numbered, steps), "auto": (numbered, steps), "state of its own": (wide, long)}
    for name, (spec, given) in cases.items():
        fingerprint, _ = fingerprint_function(spec, name.split()[0], "x")
        keys = np.asarray(fingerprint(given))
        assert keys.shape == (2, 2, 2) and keys.dtype == np.uint32, name
        assert len({tuple(k) for k in keys.reshape(-1, 2)}) == 3, name
        np.testing.assert_array_equal(keys[0, 0], keys[1, 1], err_msg=name)
    fingerprint, needs = fingerprint_function(numbered, f"{__name__}.room", "x")
    assert needs == ("info.state_id",) and np.array_equal(fingerprint(steps)[0, 0], fingerprint(steps)[0, 1])


@pytest.mark.parametrize(("settings", "says"), [({"capacity": 100}, "power of two"), ({"key": "sate"}, "episodic_counts.key")])
def test_refusals(settings, says):
    with pytest.raises(Refusal, match=says):
        episodic_counts(line(), **settings)
