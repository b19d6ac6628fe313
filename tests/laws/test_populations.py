"""What every search over policies keeps to, walked over the table of cases, in an arm of three joints where some policies give NaN."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from envs.base import Environment
from envs.builder import build
from envs.planar_arm import planar_arm
from exploration.base import Elites, Population
from runners.base import Clock, Runner
from runners.population import PopulationState, population
from tests.laws.cases import CONTROLLERS, POPULATIONS
from tests.laws.data import assert_close, assert_equal, member

CELLS, ITERATIONS = [5, 4], 4
GROWING = [name for name, entry in POPULATIONS.items() if entry.get("capacity", 256) < 256]


def broken(angle):
    return jnp.sin(40.0 * angle) > 0.8


def world() -> Environment:
    """The arm: it pays 1 more, so that there are rewards, and NaN for a fifth of its first joint's angles, here and there."""
    env = planar_arm(joints=3)

    def step(state, key, action):
        state, new = env.step(state, key, action)
        return state, new._replace(reward=jnp.where(broken(action[0]), jnp.nan, new.reward + 1.0))

    return env._replace(step=step)


class Lived(NamedTuple):
    runner: Runner
    search: Population
    states: list[PopulationState]
    metrics: list[dict[str, Any]]


def made(name: str, axis: str | None = None, **changed: Any) -> tuple[Runner, Population]:
    found = []

    def search(spec):
        found.append(build(POPULATIONS[name] | changed, spec))
        return found[0]

    runner = population(world(), lambda spec: build(CONTROLLERS["open_loop"], spec), search, cells=CELLS, axis=axis)
    return runner, found[0]


def lived(name: str, seed: int = 0, **changed: Any) -> Lived:
    """Iterations one by one, with room made where it is wanted, as the loop does."""
    runner, search = made(name, **changed)
    states, told = [jax.jit(runner.init)(jax.random.PRNGKey(seed))], []
    step = jax.jit(runner.step)
    for iteration in range(ITERATIONS):
        state = states[-1]
        while runner.full is not None and (wanting := [what for what, short in runner.full(state).items() if short]):
            state = runner.grow(state, wanting[0])
        state, metrics = step(state, Clock(jnp.int32(iteration), jnp.float32(iteration / ITERATIONS)))
        states.append(state)
        told.append(metrics)
    return Lived(runner, search, states, told)


@pytest.fixture(scope="module", params=list(POPULATIONS))
def life(request) -> Lived:
    return lived(request.param)


def elites_of(life: Lived) -> Elites:
    return jax.tree.map(np.asarray, life.search.elites(life.states[-1].search))


def test_what_is_kept_is_what_trying_it_again_gives(life):
    """Fitness and descriptor belong to the genome they stand beside, genomes lie in their box, and none that gave NaN is kept."""
    kept = elites_of(life)
    genomes = kept.genomes[kept.filled]
    assert len(genomes) and np.all((genomes >= 0) & (genomes <= 1)) and not np.any(broken(genomes[:, 0]))
    env = world()
    state, _ = env.reset(jax.random.PRNGKey(0))
    again = jax.vmap(lambda genome: env.step(state, jax.random.PRNGKey(0), genome)[1])(jnp.asarray(genomes))
    np.testing.assert_allclose(kept.fitness[kept.filled], again.reward, atol=1e-6)
    np.testing.assert_allclose(kept.descriptor[kept.filled], again.info["descriptor"], atol=1e-6)


def test_evaluations_are_counted(life):
    """After n iterations at least n chunks, at most a batch more than that; phases add up; a step each, in this world; those that gave NaN are told."""
    chunk, batch = life.search.chunk, max(life.search.phases.values())
    for number, state in enumerate(life.states[1:], start=1):
        record = state.record
        first = chunk * number - (batch if len(life.search.phases) == 1 else 0)  # a first batch may be smaller
        assert first <= record.evaluations < chunk * number + batch
        assert record.phases.sum() == record.evaluations == record.steps
    assert 0 < life.states[-1].record.invalid < life.states[-1].record.evaluations


def test_what_was_ever_reached_is_never_forgotten(life):
    """Coverage, QD score, and the best return never fall; the best policy is the one with the best return; the archive has no cell that was never reached."""
    seen = [np.max(state.record.seen, axis=0) for state in life.states]
    assert all(np.all(after >= before) for before, after in zip(seen, seen[1:], strict=False))
    last = life.states[-1]
    env = world()
    start, _ = env.reset(jax.random.PRNGKey(0))
    assert float(env.step(start, jax.random.PRNGKey(0), last.agent)[1].reward) == pytest.approx(float(last.record.best), abs=1e-6)
    assert float(last.record.best) == seen[-1].max() == pytest.approx(float(life.metrics[-1]["search/best"].value))
    assert float(life.metrics[-1]["archive/coverage"].value) <= float(life.metrics[-1]["search/coverage"].value)
    assert int(np.sum(last.record.visits)) == int(last.record.evaluations - last.record.invalid)


def test_an_iteration_is_a_function_of_state_and_clock(life):
    clock = Clock(jnp.int32(ITERATIONS - 1), jnp.float32((ITERATIONS - 1) / ITERATIONS))
    shapes = [jax.tree.map(jnp.shape, state) for state in life.states]
    if shapes[-2] != shapes[-1]:
        pytest.skip("room was made before the last iteration")
    again, metrics = jax.jit(life.runner.step)(life.states[-2], clock)
    assert_equal(again, life.states[-1])
    assert_equal(metrics, life.metrics[-1])


@pytest.mark.parametrize("name", ["serene", "cma_me/optimizing", "novelty_search"])
def test_members_side_by_side_equal_single_ones(name):
    """Within rounding: members wait for each other where their phases differ, which changes nothing."""
    runner, search = made(name, axis="members", **({"capacity": 512, "emitters": 64} if name == "serene" else {}))
    step = jax.jit(jax.vmap(runner.step, in_axes=(0, None), axis_name="members"))
    state = jax.vmap(runner.init)(jnp.stack([jax.random.PRNGKey(seed) for seed in range(2)]))
    for iteration in range(2):
        state, _ = step(state, Clock(jnp.int32(iteration), jnp.float32(iteration / ITERATIONS)))
    for seed in range(2):
        alone = lived(name, seed, **({"capacity": 512, "emitters": 64} if name == "serene" else {}))
        assert_close(member(state, seed).record, alone.states[2].record)


@pytest.mark.parametrize("name", GROWING)
def test_room_changes_nothing(name):
    """A search that began with little room has kept the same as one that never lacked it."""
    little, much = lived(name), lived(name, capacity=1024, **({"emitters": 64} if name.startswith("serene") else {}))
    assert_equal(little.states[-1].record, much.states[-1].record)
    a, b = elites_of(little), elites_of(much)
    for field in ("genomes", "fitness", "descriptor"):
        np.testing.assert_array_equal(getattr(a, field)[a.filled], getattr(b, field)[b.filled])
    assert a.filled.shape != b.filled.shape
