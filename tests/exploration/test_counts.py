"""Visit counts: exactly 1/sqrt(n), whatever the key, the lanes, or the order."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from envs.builder import Refusal
from exploration.counts import counts
from exploration.laws.play import STATES, arrivals, line, play


def visit(bonus, ids):
    """The state and the bonuses [T, N] after arriving in the states ``ids`` [T, N]."""
    return play(bonus, arrivals(ids))


def halves(transition):
    """A user's key: pairs of neighbouring states count as one."""
    return transition.info["state_id"] // 2


halves.needs = ("info.state_id",)


def expected(ids):
    seen, paid = np.zeros(STATES), []
    for row in np.asarray(ids):
        np.add.at(seen, row, 1)
        paid.append(1 / np.sqrt(seen[row]))
    return np.asarray(paid)


@pytest.mark.parametrize("key", ["state", "observation"])
def test_the_nth_visit_pays_one_over_root_n(key):
    _, paid = visit(counts(line(), key=key), np.full((50, 1), 3))
    np.testing.assert_allclose(paid[:, 0], 1 / np.sqrt(np.arange(1, 51)), rtol=1e-6)


@pytest.mark.parametrize("settings", [{"key": "state"}, {"key": "observation"}, {"key": "state", "num_states": None}])
def test_all_lanes_count(settings):
    ids = np.random.default_rng(0).integers(0, STATES, (40, 5))
    num_states = settings.pop("num_states", STATES)
    state, paid = visit(counts(line(5, num_states), **settings), ids)
    np.testing.assert_allclose(paid, expected(ids), rtol=1e-6)
    metrics = counts(line(5, num_states), **settings).update(state, jax.random.key(0), (arrivals(ids), {}))[1]
    assert float(metrics["distinct_states"]) == len(np.unique(ids))
    assert float(metrics.get("dropped", 0.0)) == 0.0


@pytest.mark.parametrize("key", ["state", "observation"])
def test_permuting_lanes_permutes_bonuses(key):
    ids, order = np.random.default_rng(1).integers(0, STATES, (30, 4)), [2, 0, 3, 1]
    bonus = counts(line(4), key=key)
    np.testing.assert_array_equal(visit(bonus, ids)[1][:, order], visit(bonus, ids[:, order])[1])


def test_scored_at_the_batch_uses_the_counts_of_now():
    ids = [[0], [0], [1], [0]]
    for key in ("state", "observation"):
        bonus = counts(line(), key=key, scored="batch")
        state, paid = visit(bonus, ids)
        assert bonus.info.stores == () and bonus.info.scored == "batch"
        np.testing.assert_allclose(paid[:, 0], 1 / np.sqrt([3, 3, 1, 3]), rtol=1e-6)
        np.testing.assert_allclose(jax.jit(bonus.score)(state, arrivals([5])), [1.0])  # never visited


def test_a_users_function_is_the_key():
    bonus = counts(line(2), key=f"{__name__}.halves")
    assert bonus.info.learns_from == ("info.state_id",)
    _, paid = visit(bonus, [[0, 3], [1, 2], [4, 5]])
    np.testing.assert_allclose(paid, 1 / np.sqrt([[1, 1], [2, 2], [2, 2]]), rtol=1e-6)


def test_a_full_table_pays_nothing_for_states_that_it_cannot_count():
    state, paid = visit(counts(line(), key="observation", capacity=2), [[0], [1], [2], [0], [2]])
    np.testing.assert_allclose(paid[:, 0], [1, 1, 0, np.sqrt(0.5), 0], rtol=1e-6)
    bonus = counts(line(), key="observation", capacity=2, scored="batch")
    np.testing.assert_allclose(jax.jit(bonus.score)(visit(bonus, [[0], [1], [2]])[0], arrivals([2, 1])), [0, 1])
    metrics = bonus.update(state, jax.random.key(0), ())[1]
    assert float(metrics["dropped"]) == 2 and float(metrics["distinct_states"]) == 2


def test_per_episode_counts_are_cleared_in_their_lane_only():
    bonus = counts(line(2), per_episode=True)
    state, paid = visit(bonus, [[1, 1], [1, 2], [1, 1]])
    np.testing.assert_allclose(paid, 1 / np.sqrt([[1, 1], [2, 1], [3, 2]]), rtol=1e-6)
    after = bonus.reset(state, jnp.asarray([True, False]))
    assert np.asarray(after.visits)[0].sum() == 0
    np.testing.assert_array_equal(after.visits[1], state.visits[1])
    np.testing.assert_array_equal(bonus.features(after, None)[0], np.ones(STATES))
    assert bonus.info.episodic


def test_features_determine_the_bonus():
    """SOFE's sufficiency: given (successor, features before the step) the bonus has no variance left; given the successor alone it has."""
    ids = np.random.default_rng(2).integers(0, STATES, 400)
    bonus = counts(line())
    assert bonus.info.features.shape == (STATES,)
    state, by_state, by_both = bonus.init(jax.random.key(0)), {}, {}
    observe, features = jax.jit(bonus.observe), jax.jit(bonus.features)
    for start in range(0, 400, 20):  # many short histories, so that groups have members
        state = bonus.init(jax.random.key(0))
        for s in ids[start : start + 20]:
            phi = np.asarray(features(state, None))[0]
            state, notes = observe(state, jax.random.key(0), arrivals([s]))
            paid = float(notes["count_bonus"][0])
            assert abs(paid - phi[s]) < 1e-6
            by_state.setdefault(s, []).append(paid)
            by_both.setdefault((s, tuple(phi)), []).append(paid)
    assert max(np.var(v) for v in by_both.values()) < 1e-12
    assert min(np.var(v) for v in by_state.values()) > 1e-3


def test_encodings():
    for encoding, wanted in {"inverse_root": [1, 2**-0.5, 0.5], "log_counts": np.log([1, 2, 4]), "mask": [0, 1, 1]}.items():
        bonus = counts(line(2), encoding=encoding)
        state, _ = visit(bonus, [[1, 2], [2, 2]])
        shown = np.asarray(bonus.features(state, None))
        np.testing.assert_allclose(shown[:, :3], [wanted] * 2, rtol=1e-6)
        assert all(bonus.info.features.contains(lane) for lane in shown)


def test_first_visits_of_states_that_find_no_place_pay_nothing():
    _, paid = visit(counts(line(), key="observation", capacity=2, payment="first_visit"), [[0], [1], [2], [0]])
    np.testing.assert_array_equal(paid[:, 0], [1, 1, 0, 0])


def test_features_only_for_few_numbered_states():
    assert counts(line(), key="observation").features is None
    assert counts(line(num_states=4097)).features is None
    assert counts(line(num_states=4096)).features is not None


@pytest.mark.parametrize("key", ["state", "observation"])
def test_vmapped_members_equal_single_ones(key):
    ids = np.random.default_rng(3).integers(0, STATES, (3, 2))
    bonus = counts(line(2)._replace(axis="members"), key=key, capacity=16)
    states = jax.vmap(bonus.init)(jax.random.split(jax.random.key(0), 3))
    step = jax.jit(jax.vmap(bonus.observe, axis_name="members"))
    for _ in range(2):
        states, notes = step(states, jax.random.split(jax.random.key(0), 3), arrivals(ids))
    alone = counts(line(2), key=key, capacity=16)
    observe, paid = jax.jit(alone.observe), []
    for member in range(3):
        state = alone.init(jax.random.key(0))
        for _ in range(2):
            state, one = observe(state, jax.random.key(0), arrivals(ids[member]))
        paid.append(one["count_bonus"])
    np.testing.assert_array_equal(notes["count_bonus"], paid)


def test_refusals():
    with pytest.raises(Refusal, match="did you mean observation"):
        counts(line(), key="observations")
    with pytest.raises(Refusal, match="64 and 128"):
        counts(line(), key="observation", capacity=100)
    with pytest.raises(Refusal, match="num_states"):
        counts(line(num_states=None), per_episode=True)
    with pytest.raises(Refusal, match="scored=step"):
        counts(line(), per_episode=True, scored="batch")
    with pytest.raises(Refusal, match="first_visit is scored when the step is made"):
        counts(line(), payment="first_visit", scored="batch")
    with pytest.raises(Refusal, match="no module"):
        counts(line(), key="nowhere.at_all")
