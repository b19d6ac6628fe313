"""Where an episode is in its demonstration, where the next one starts, and when one ends early: the rules of ``runner=backward`` as pure functions of arrays
over lanes, for worlds on the device (``runners/backward.py``) and on the host (``runners/host_steering.py``) alike."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from envs.base import Key
from exploration.backward import Chosen, Curriculum


class Course(NamedTuple):
    """Where a lane's episode is in its demonstration."""

    demonstration: jax.Array  # i32; D: the virtual one
    start: jax.Array  # i32; steps of the demonstration that the agent did not do
    time: jax.Array  # i32; steps of the demonstration that are done, if the agent is as fast
    until: jax.Array  # i32; until then the demonstration's actions are done
    left: jax.Array  # i32; steps until the episode is cut; -1 before it has succeeded

    @property
    def forced(self) -> Any:
        return self.time < self.until


class Rules(NamedTuple):
    context: int
    lag: int
    tolerance: Any
    linger: Any
    imitation_start: Any


class Judged(NamedTuple):
    """A step of N lanes, as the curriculum has it."""

    terminated: jax.Array
    truncated: jax.Array
    info: dict[str, jax.Array]  # of INFO


class Steering(NamedTuple):
    choose: Callable[[Any, Key], Course]  # (curriculum's state, key) -> where an episode of each lane would start [N]; ``time`` is the row of its demonstration
    judge: Callable  # (Course [N] before a step, key, score after it f32[N], terminated, truncated) -> (Course, Judged)


INFO = {"demonstration": np.int32, "start": np.int32, "elapsed": np.int32, "forced": np.bool_, "succeeded": np.bool_, "late": np.bool_}


def near_the_start(temperature: Any, steps: int) -> Callable[[Course], jax.Array] | None:
    """Course [N] -> f32[N]; the policy's temperature, which is another one in the first ``steps`` own steps of an episode. None: it is always 1."""
    if not isinstance(temperature, jax.Array) and temperature == 1:
        return None
    return lambda course: jnp.where(course.time - course.start < steps, jnp.asarray(temperature, jnp.float32), 1.0)


def at_the_worlds_start(demonstrations: int) -> Course:
    return Course(jnp.int32(demonstrations), jnp.int32(0), jnp.int32(0), jnp.int32(0), jnp.int32(-1))


def lowest(returns: np.ndarray, lag: int) -> np.ndarray:
    """f32[D, L + 1 + lag]: the least of ``returns`` [D, L + 1] within ``lag`` steps of a time; after the last time they stay as they are."""
    longest = returns.shape[1] - 1
    around = np.arange(longest + 1 + lag)[:, None] + np.arange(-lag, lag + 1)
    return np.min(returns[:, np.clip(around, 0, longest)], axis=-1)


def steering(lengths: np.ndarray, returns: np.ndarray, chooser: Curriculum, rules: Rules, imitates: jax.Array) -> Steering:
    """For demonstrations of ``lengths`` i32[D] and ``returns`` f32[D, L + 1] so far, and lanes of which some only imitate. Steps tell which
    demonstration and start they belong to, how much of it is done before the step (elapsed), and whether they were forced, have succeeded, or are late."""
    lanes, number = imitates.shape[0], len(lengths)
    least, highest, final = jnp.asarray(lowest(returns, rules.lag)), jnp.asarray(returns.max(axis=1)), jnp.asarray(returns[:, -1])
    lengths = jnp.asarray(lengths)
    goals = final - rules.tolerance * jnp.abs(final)
    goals, tops = jnp.append(goals, jnp.min(goals)), jnp.append(highest - rules.tolerance * jnp.abs(highest), jnp.min(goals))

    def choose(state, key):
        choice_key, imitation_key, _ = jax.random.split(key, 3)  # the third is for whoever makes a fresh start
        chosen, imitated = chooser.starts(state, choice_key, jnp.arange(lanes, dtype=jnp.int32)), to_imitate(state, imitation_key)
        demo = jnp.where(imitates, imitated.demonstration, chosen.demonstration)
        start = jnp.where(imitates, imitated.start, chosen.start)
        at = jnp.maximum(start - jnp.where(imitates, 0, rules.context), 0)
        until = jnp.where(imitates, lengths[jnp.minimum(demo, number - 1)], start)
        return Course(demo, start, at, until, jnp.full(lanes, -1, jnp.int32))

    def to_imitate(state, key) -> Chosen:
        """Any demonstration alike, from its own start so that ``imitation_start`` of the steps are in such episodes, or from the last start."""
        demo_key, start_key = jax.random.split(key)
        demo = jax.random.randint(demo_key, (lanes,), 0, number)
        whole, rest = lengths[demo], lengths[demo] - state.last[demo]
        from_start, later = rules.imitation_start / whole, (1.0 - rules.imitation_start) / rest
        begins = jax.random.uniform(start_key, (lanes,)) < from_start / (from_start + later)
        return Chosen(demo, jnp.where(begins, 0, state.last[demo]))

    def judge(course, key, score, terminated, truncated):
        forced, own, time = course.forced, course.demonstration == number, course.time + 1
        real = jnp.minimum(course.demonstration, number - 1)
        reached = (course.left < 0) & (score >= tops[course.demonstration])
        some = jnp.floor(jnp.exp(rules.linger * jax.random.uniform(jax.random.fold_in(key, 1), (lanes,)))).astype(jnp.int32)
        left = jnp.where(reached, some, jnp.maximum(course.left - 1, -1))
        over = (course.left > 0) & (left == 0)
        tolerated = rules.tolerance * jnp.abs(final[real])
        late = ~own & ~forced & (score < least[real, jnp.minimum(time, least.shape[1] - 1)] - tolerated)
        shown_all = imitates & (time >= course.until)
        cut, terminated = (over & ~forced) | shown_all, terminated | late
        succeeded = score >= goals[course.demonstration]
        told = dict(zip(INFO, (course.demonstration, course.start, course.time, forced, succeeded, late), strict=True))
        return course._replace(time=time, left=left), Judged(terminated, truncated | cut & ~terminated, told)

    return Steering(choose, judge)
