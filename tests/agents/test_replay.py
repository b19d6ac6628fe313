"""Replay: windows are what happened, ends of episodes keep their true successor, stacks are put together again, draws have their probabilities."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnasium import spaces

from agents.priorities import draw_places, priorities, set_priorities
from agents.replay import replay
from envs.base import Spec, Transition
from envs.builder import Refusal

LANES, STEPS = 3, 40
SPEC = Spec(spaces.Box(-1e6, 1e6, (1,), np.float32), spaces.Discrete(2), lanes=LANES)


def history(seed=0, frames=1, blank=False):
    """STEPS steps of lanes whose observation is 100,000 lane + 100 episode + place + 1; (first obs, transitions, following), as numpy, by step."""
    rng = np.random.default_rng(seed)
    lengths, episode, place = rng.integers(1, 6, (LANES, STEPS)), np.zeros(LANES, int), np.zeros(LANES, int)

    def now():
        one = lambda p: np.float32(np.where(blank & (p < 0), 0, 100_000 * np.arange(LANES) + 100 * episode + np.maximum(p, 0) + 1))  # noqa: E731
        return np.stack([one(place - i) for i in range(frames - 1, -1, -1)], axis=-1)

    start, made = now(), []
    for t in range(STEPS):
        obs, first = now(), place == 0
        place = place + 1
        after, done = now(), place >= lengths[np.arange(LANES), episode]
        truncated = done & (episode % 2 == 1)
        flags = (done & ~truncated, truncated, first)
        made.append((Transition(obs, np.int32([t] * LANES), np.float32(t + np.arange(LANES) / 10), after, *flags, {}), done))
        episode, place = episode + done, np.where(done, 0, place)
        made[-1] = (made[-1][0], now())
    return start, made


def filled(spec=SPEC, frames=1, steps=STEPS, blank=False, **arguments):
    buffer = replay(spec, frames=frames, **arguments)
    start, made = history(frames=frames, blank=blank)
    state = buffer.init(jnp.asarray(start), jax.tree.map(jnp.asarray, (made[0][0], {"extra": jnp.zeros(LANES)})))
    add = jax.jit(buffer.add)
    for transition, following in made[:steps]:
        state = add(state, transition, {"extra": transition.reward}, following)
    return buffer, state, made[:steps]


@pytest.mark.parametrize("prioritized", [False, True])
@pytest.mark.parametrize(
    "capacity,n_step,frames,blank",
    [(3000, 1, 1, False), (3000, 3, 1, False), (45, 3, 1, False), (60, 2, 3, False), (3000, 3, 3, False), (60, 2, 3, True)],
)
def test_windows_are_what_happened(capacity, n_step, frames, blank, prioritized):
    """``blank``: before an episode's first frame come zeros, as in Atari, and not that frame again."""
    spec = SPEC._replace(observation=spaces.Box(-1e6, 1e6, (frames,), np.float32))
    buffer, state, made = filled(spec, frames=frames, blank=blank, capacity=capacity, n_step=n_step, prioritized=prioritized)
    drawn = jax.tree.map(np.asarray, jax.jit(buffer.draw, static_argnums=2)(state, jax.random.PRNGKey(1), 512, 0.4))
    assert (drawn.weights > 0).mean() > 0.95
    seen = set()
    for b in np.flatnonzero(drawn.weights):
        lane, t, total = int(drawn.obs[b][-1] // 100_000), int(drawn.steps.action[b, 0]), 0
        seen.add((lane, t))
        np.testing.assert_array_equal(drawn.obs[b], made[t][0].obs[lane])
        assert drawn.extras["extra"][b] == made[t][0].reward[lane]
        while total < n_step and t + total < len(made):
            step = jax.tree.map(lambda x: x[lane], made[t + total][0])  # noqa: B023
            for name in ("obs", "next_obs", "reward", "terminated", "truncated", "first"):
                np.testing.assert_array_equal(getattr(drawn.steps, name)[b, total], getattr(step, name), err_msg=name)
            total += 1
            if step.done:
                break
        assert drawn.length[b] == drawn.within[b].sum() == total and drawn.within[b, :total].all()
        np.testing.assert_array_equal(drawn.next_obs[b], made[t + total - 1][0].next_obs[lane])
    if capacity == 3000:
        assert len(seen) > 0.9 * STEPS * LANES
    else:
        assert min(t for _, t in seen) > 10  # the oldest are gone


def test_uniform_draws_are_uniform():
    buffer, state, made = filled(capacity=3000)
    drawn = jax.jit(buffer.draw, static_argnums=2)(state, jax.random.PRNGKey(0), 2**16, 1.0)
    counts = np.zeros((LANES, STEPS))
    np.add.at(counts, (np.asarray(drawn.obs)[:, -1].astype(int) // 100_000, np.asarray(drawn.steps.action)[:, 0]), np.asarray(drawn.weights))
    share = counts / counts.sum()
    each = 1.0 / (LANES * STEPS)
    assert np.abs(share - each).max() < 0.15 * each, "six standard deviations are 0.13"


def test_prioritised_draws_and_weights():
    """Priorities 1, 2, 4 to the power 0.5; weights (1 / P)^beta relative to the largest."""
    buffer, state, _ = filled(capacity=3000, prioritized=True, alpha=0.5, steps=1)
    places = jnp.asarray([0, 1, 2])
    state = buffer.prioritise(state, places, jnp.asarray([1.0, 4.0, 16.0]))
    drawn = jax.jit(buffer.draw, static_argnums=2)(state, jax.random.PRNGKey(0), 2**16, 0.5)
    lane = np.asarray(drawn.obs)[:, 0].astype(int) // 100_000
    np.testing.assert_allclose(np.bincount(lane) / 2**16, np.array([1, 2, 4]) / 7, atol=0.01)
    weight = [float(np.asarray(drawn.weights)[lane == i][0]) for i in range(3)]
    np.testing.assert_allclose(weight, [1.0, 0.5**0.5, 0.5], rtol=1e-5)
    assert float(state.largest) == 16.0
    later = jax.jit(buffer.add)(state, *[jax.tree.map(jnp.asarray, x) for x in (history()[1][1][0], {"extra": jnp.zeros(3)}, history()[1][1][1])])
    assert np.isclose(np.asarray(later.priority.value).max(), 4.0)


def test_priorities_never_draw_a_zero():
    state = set_priorities(priorities(1000), jnp.arange(0, 1000, 7), jnp.linspace(1e-6, 1.0, 143))
    places, chance = jax.jit(draw_places, static_argnums=2)(state, jax.random.PRNGKey(0), 10_000)
    assert (np.asarray(places) % 7 == 0).all()
    np.testing.assert_allclose(chance, (np.linspace(1e-6, 1.0, 143) / np.linspace(1e-6, 1.0, 143).sum())[np.asarray(places) // 7], rtol=1e-4)
    nothing, chance = draw_places(priorities(1000), jax.random.PRNGKey(0), 4)
    assert not np.asarray(chance).any() and (np.asarray(nothing) < 1024).all()


def test_sums_of_blocks_do_not_drift():
    state, rng = priorities(300), np.random.default_rng(0)
    change = jax.jit(set_priorities)
    for _ in range(300):
        state = change(state, jnp.asarray(rng.integers(-5, 400, 16)), jnp.asarray(10.0 ** rng.uniform(-6, 6, 16), jnp.float32))
    np.testing.assert_allclose(state.block, np.asarray(state.value).sum(1), rtol=1e-6)


def test_what_cannot_be_is_refused():
    with pytest.raises(Refusal, match="at least 15"):
        replay(SPEC, capacity=8, n_step=2)
    with pytest.raises(Refusal, match="runner.frames=4"):
        replay(SPEC, capacity=800, frames=4)
