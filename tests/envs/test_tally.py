"""bsuite's rule for DeepSea against logs whose answer is known, and against bsuite's rule applied episode by episode."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from envs.base import Transition
from envs.tally import LOGGED_EPISODES, bsuite_deep_sea_score, bsuite_deep_sea_tally


def bsuite_logs(episode):
    """bsuite's logging rule, in its own arithmetic: at these ratios of a power of ten."""
    power = 10 ** np.floor(np.log10(np.maximum(1, episode)))
    return any(episode == power * r for r in [1.0, 1.2, 1.4, 1.7, 2.0, 2.5, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0, 10.0])


def bsuite_solved(bad, stochastic):
    """Episode at which a list of episodes (True: bad) counts as solved; -1: never."""
    threshold, first_episode = (0.8, 100) if stochastic else (0.9, 1)
    total = np.cumsum(bad)
    for episode in range(first_episode, len(bad) + 1):
        if bsuite_logs(episode) and total[episode - 1] / episode < threshold:
            return episode
    return -1


def log(done, bad):
    done = jnp.asarray(done, bool)
    zeros = jnp.zeros(done.shape)
    return Transition(zeros, zeros, zeros, zeros, done, jnp.zeros_like(done), jnp.zeros_like(done), {"bad_episode": jnp.asarray(bad, bool)})


@functools.cache
def compiled(stochastic):
    tally = bsuite_deep_sea_tally(stochastic)
    return tally, jax.jit(tally.update)


def run(chunks, stochastic=False):
    tally, update = compiled(stochastic)
    state = tally.init()
    for chunk in chunks:
        state = update(state, log(*chunk))
    return {name: float(value) for name, value in tally.report(state).items()}


def test_logged_episodes_are_bsuites():
    assert [e for e in range(1, 20_001) if bsuite_logs(e)] == [int(e) for e in LOGGED_EPISODES if e <= 20_000]
    assert (np.diff(LOGGED_EPISODES) > 0).all() and LOGGED_EPISODES[-1] == 10**8


def test_lanes_that_end_together_count_in_lane_order():
    every, bad, good = [True] * 4, [True] * 4, [False] * 4
    nothing = [False] * 4
    # 8 bad episodes; then 4 lanes end in one step, and one of them is good. Solved at episode 9 needs the good one first.
    start = ([every, nothing, every], [bad, bad, bad])
    found = run([start, ([every], [[False, True, True, True]])])
    assert found == {"solved": 1, "solved_episode": 9, "bad_fraction": pytest.approx(11 / 12), "episodes": 12}
    # Good one second: at 9 all were bad, at 10 exactly 9/10 (not fewer than 90 %), at 12 11/12.
    assert run([start, ([every], [[True, False, True, True]])])["solved_episode"] == -1
    # A lane that is bad but has not ended does not count, nor does it when it ends later as a good one's neighbour.
    assert run([start, ([[False, True, False, False]], [[True, False, True, True]])])["solved_episode"] == 9
    # Solved stays solved.
    assert run([start, ([every], [[False, True, True, True]]), start])["solved_episode"] == 9
    assert run([start, ([every], [good]), ([every], [bad])])["bad_fraction"] == pytest.approx(12 / 16)


def test_nothing_ended_yet():
    assert run([([[False] * 4], [[True] * 4])]) == {"solved": 0, "solved_episode": -1, "bad_fraction": 0, "episodes": 0}


@pytest.mark.parametrize("stochastic", [False, True])
def test_like_bsuite_episode_by_episode(stochastic):
    rng = np.random.default_rng(0)
    tally = bsuite_deep_sea_tally(stochastic)
    update = jax.jit(jax.vmap(tally.update))
    runs, lanes, length = 12, 16, 32
    state = jax.vmap(lambda _: tally.init())(jnp.arange(runs))
    seen = [[] for _ in range(runs)]
    for chunk in range(20):
        done = rng.random((runs, length, lanes)) < 0.2
        chance = np.linspace(0.7, 1.0, runs) - 0.01 * chunk  # members that are solved early, late and never
        bad = rng.random((runs, length, lanes)) < chance[:, None, None]
        state = update(state, jax.vmap(log)(jnp.asarray(done), jnp.asarray(bad)))
        for member in range(runs):
            seen[member] += list(bad[member].reshape(-1)[done[member].reshape(-1)])
    found = jax.vmap(tally.report)(state)
    expected = [bsuite_solved(episodes, stochastic) for episodes in seen]
    np.testing.assert_array_equal(found["solved_episode"], expected)
    np.testing.assert_array_equal(found["episodes"], [len(episodes) for episodes in seen])
    np.testing.assert_allclose(found["bad_fraction"], [np.mean(episodes) for episodes in seen], rtol=1e-6)
    assert -1 in expected and len(set(expected)) > 3
    if stochastic:
        assert min(e for e in expected if e > 0) >= 100


def test_stochastic_waits_for_episode_100():
    every, good = [[True] * 10] * 12, [[False] * 10] * 12
    assert run([(every, good)])["solved_episode"] == 1
    assert run([(every, good)], stochastic=True)["solved_episode"] == 100


def test_score():
    # 2^10 + 100 = 1124: 1000 counts and 1200 does not; None and -1 are unsolved; bsuite runs 10,000 episodes.
    assert bsuite_deep_sea_score({10: 1000, 12: None, 20: 9000, 30: -1}) == 0.5
    assert bsuite_deep_sea_score({10: 1200}) == 0 and bsuite_deep_sea_score({10: 1124}) == 0 and bsuite_deep_sea_score({10: 1123}) == 1
    assert bsuite_deep_sea_score({50: 10_000}) == 1 and bsuite_deep_sea_score({50: 12_000}) == 0
    assert bsuite_deep_sea_score({n: 40 for n in range(10, 51, 2)}) == 1
    with pytest.raises(ValueError, match="at least one size"):
        bsuite_deep_sea_score({})
