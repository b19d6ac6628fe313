"""What every runner on JAX worlds keeps to, walked over the table of cases; a bonus that remembers what it was shown looks inside."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from envs.base import PyTree, Transition
from envs.builder import build, locate
from exploration.base import Bonus
from exploration.intrinsic import intrinsic
from runners.base import Clock, Runner
from tests.laws.cases import RUNNERS, RunnerCase
from tests.laws.data import Traced, assert_equal, assert_finite, kinds, quick

KEY = jax.random.PRNGKey(0)


class Seen(NamedTuple):
    """A bonus's state, and what the runner did to it."""

    inner: PyTree
    calls: jax.Array  # i32[4]; of observe, calibrate, update and reset
    resets: jax.Array  # bool[rollout, N]; masks of the resets, newest last
    batch: Transition | None  # what ``update`` was given


def watched(bonus: Bonus, example: PyTree, rollout: int, lanes: int, keeps: bool) -> Bonus:
    """``bonus`` with a memory; ``example`` is a batch [rollout, lanes] of zeros, where it ``keeps`` batches."""

    def count(state, index):
        return state._replace(calls=state.calls.at[index].add(1))

    def observe(state, key, transition):
        inner, notes = bonus.observe(state.inner, key, transition)
        return count(state._replace(inner=inner), 0), notes

    def update(state, key, inputs):
        inner, metrics = bonus.update(state.inner, key, inputs)
        return count(state._replace(inner=inner, batch=inputs[0] if keeps else None), 2), metrics

    def reset(state, mask):
        resets = jnp.concatenate([state.resets[1:], mask[None]])
        return count(state._replace(inner=bonus.reset(state.inner, mask), resets=resets), 3)

    return bonus._replace(
        init=lambda key: Seen(bonus.init(key), jnp.zeros(4, jnp.int32), jnp.zeros((rollout, lanes), bool), example),
        observe=observe,
        score=lambda state, t: bonus.score(state.inner, t),
        update=update,
        reset=reset,
        calibrate=lambda state, raw: count(state._replace(inner=bonus.calibrate(state.inner, raw)), 1),
        value=lambda state, raw: bonus.value(state.inner, raw),
        features=bonus.features and (lambda state, obs: bonus.features(state.inner, obs)),
    )


def made(case: RunnerCase, example: PyTree = None) -> Runner:
    arguments = dict(case.entry)
    builder, rollout, lanes = locate(arguments.pop("_target_")), case.entry["rollout"], case.entry["lanes"]

    def make_intrinsic(spec):
        plain = build(case.exploration, spec)._replace(info=build(case.exploration, spec).info._replace(warmup=0))
        return intrinsic(spec, watched(plain, example, rollout, lanes, not case.replays), normalize="none")

    return builder(build(case.env), lambda spec: build(case.agent, spec), make_intrinsic, **arguments)


def zero_batch(case: RunnerCase) -> PyTree:
    """Zeros of the shapes of the batch that ``update`` is given: found by tracing once without knowing them."""
    runner = made(case)
    _, (state, _) = jax.eval_shape(lambda: (state := runner.init(KEY), runner.step(state, Clock(jnp.int32(0), jnp.float32(0.0)))))
    return jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), inside(state.bonus).batch)


def inside(bonus_state: PyTree) -> Seen:
    while not isinstance(bonus_state, Seen):
        bonus_state = bonus_state.inner
    return bonus_state


class Lived(NamedTuple):
    case: RunnerCase
    runner: Runner
    step: Any
    states: list[PyTree]  # at first, and after each of three iterations
    metrics: list[PyTree]


@pytest.fixture(scope="module", params=list(RUNNERS))
def lived(request) -> Lived:
    case = RUNNERS[request.param]
    runner = made(case, None if case.replays else zero_batch(case))
    step = Traced(runner.step)
    states, metrics = [quick(runner.init)(KEY)], []
    for n in range(3):
        state, found = step(states[-1], Clock(jnp.int32(n), jnp.float32(n / 3)))
        states.append(state)
        metrics.append(found)
    return Lived(case, runner, step, states, metrics)


def test_the_state_keeps_its_structure_and_dtypes(lived):
    assert all(kinds(state) == kinds(lived.states[0]) for state in lived.states)
    assert not any(weak for _, _, weak in kinds(lived.states[0])[1])
    assert len(lived.step.programs) == 1


def test_everything_is_finite(lived):
    assert_finite((lived.states[-1].agent, lived.states[-1].bonus))
    assert kinds(lived.metrics[0]) == kinds(lived.metrics[-1])


def test_an_iteration_is_a_function_of_state_and_clock(lived):
    again = lived.step(lived.states[1], Clock(jnp.int32(1), jnp.float32(1 / 3)))
    assert_equal(again, (lived.states[2], lived.metrics[1]))


def test_every_part_of_the_bonus_is_called_in_its_time(lived):
    """Per step ``observe`` and ``reset``, per iteration ``calibrate`` and ``update`` (of every batch); resets happen where episodes ended."""
    rollout, updates = lived.case.entry["rollout"], lived.case.entry.get("updates", 1)
    for n, state in enumerate(lived.states):
        assert inside(state.bonus).calls.tolist() == [n * rollout, n, n * updates, n * rollout]
    for state in lived.states[1:]:
        if lived.case.replays:  # batches are drawn: tests/runners/test_off_policy.py
            continue
        seen = inside(state.bonus)
        np.testing.assert_array_equal(seen.resets, seen.batch.done)


def test_transitions_follow_each_other(lived):
    """Within an episode the successor is acted on next; where it ended, the true successor is kept, not the reset observation."""
    if lived.case.replays:
        pytest.skip("windows of a replay: tests/agents/test_replay.py")
    ends = 0
    for before, state in zip(lived.states[1:-1], lived.states[2:], strict=True):
        last, batch = inside(before.bonus).batch, inside(state.bonus).batch
        steps = jax.tree.map(lambda a, b: np.concatenate([a, b]), last, batch)  # over the seam of two iterations too
        done = np.asarray(steps.done)
        np.testing.assert_array_equal(steps.first[1:], done[:-1])
        leaves = zip(jax.tree.leaves(steps.next_obs), jax.tree.leaves(steps.obs), strict=True)
        same = np.all([(after[:-1] == now[1:]).reshape(*done[1:].shape, -1).all(-1) for after, now in leaves], axis=0)
        np.testing.assert_array_equal(same, ~done[:-1])
        assert set(inside(state.bonus).batch.annotations)
        ends += done.sum()
    assert ends > 0


def test_evaluation_is_a_function_of_its_key(lived):
    evaluate = quick(lived.runner.evaluate)
    once, again = evaluate(lived.states[-1], KEY), evaluate(lived.states[-1], KEY)
    assert_equal(once, again)
    assert {"evaluation/return", "evaluation/length"} <= set(once)
    length = once["evaluation/length"]
    assert 0 < float(length.total / length.weight) <= lived.runner.spec.max_steps


def test_steps_are_counted(lived):
    assert lived.runner.steps_per_iteration == lived.case.entry["rollout"] * lived.case.entry["lanes"]
