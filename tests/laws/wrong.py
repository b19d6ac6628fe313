"""Bonuses with one mistake each, as people make them, and the law that finds it. Every law is here: a law that nothing breaks proves nothing.

``visits`` and ``surprise`` are right; a wrong one is one of them with something replaced.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from gymnasium import spaces

from envs.base import Spec
from exploration.base import Bonus, BonusInfo, bonus


def visits(spec: Spec, start: float = 0.0) -> Bonus:
    """1/sqrt of the visits of a state in the lane's episode, computed when the step is made."""
    rows = jnp.arange(spec.lanes)

    def observe(state, key, transition):
        state = state.at[rows, transition.info["state_id"]].add(1.0)
        return state, {"paid": 1 / jnp.sqrt(state[rows, transition.info["state_id"]])}

    return bonus(
        init=lambda key: jnp.zeros((spec.lanes, spec.num_states), jnp.float32) + start,
        observe=observe,
        score=lambda state, transition: transition.annotations["paid"],
        reset=lambda state, mask: jnp.where(mask[:, None], 0.0, state),
        info=BonusInfo(needs=(), learns_from=("info.state_id",), stores=("paid",), episodic=True, scored="step"),
    )


class Guess(NamedTuple):
    mean: jax.Array  # f32[4]; what the next observation will be
    rate: jax.Array  # f32[]


def surprise(spec: Spec) -> Bonus:
    """The squared error of a guess at the next observation, which moves towards what is seen."""

    def score(state, transition):
        return jax.lax.stop_gradient(jnp.mean(jnp.square(transition.next_obs - state.mean), axis=-1))

    def update(state, key, inputs):
        seen = inputs[0].next_obs.reshape(-1, 4).mean(axis=0)
        return state._replace(mean=state.mean + state.rate * (seen - state.mean)), {"guess": jnp.mean(state.mean)}

    return bonus(init=lambda key: Guess(jnp.zeros(4), jnp.full((), 0.5, jnp.float32)), score=score, update=update, info=BonusInfo())


RIGHT = {"visits": visits, "surprise": surprise}


class Wrong(NamedTuple):
    law: str
    reason: str  # words of the reason that is given
    builder: object  # spec -> Bonus


def changed(builder, info: dict | None = None, **functions):
    """``builder`` with some functions replaced: each is given the right bonus and the spec, and gives the wrong function."""

    def make(spec: Spec) -> Bonus:
        right = builder(spec)
        wrong = {name: make_function(right, spec) for name, make_function in functions.items()}
        return right._replace(info=right.info._replace(**(info or {})), **wrong)

    return make


def weakly_typed(right, spec):
    return lambda key: Guess(jnp.zeros(4), jnp.asarray(0.5))


def drifting(right, spec):
    def observe(state, key, transition):
        state, notes = right.observe(state, key, transition)
        return state.astype(jnp.float16), notes

    return observe


def standardized(right, spec):
    """A bonus divided by the deviation of what all lanes saw, which may be 0."""

    def observe(state, key, transition):
        distance = jnp.abs(transition.next_obs - transition.next_obs.mean(axis=0)).sum(axis=-1)
        return state, {"paid": distance / jnp.std(distance)}

    return observe


def rewarded(right, spec):
    def observe(state, key, transition):
        state, notes = right.observe(state, key, transition)
        return state, {"paid": notes["paid"] * jnp.exp(transition.reward)}

    return observe


def noted(change):
    """``observe`` of the right bonus, with its annotation put through ``change(paid, state, spec)``."""

    def make(right, spec):
        def observe(state, key, transition):
            state, notes = right.observe(state, key, transition)
            return state, {"paid": change(notes["paid"], state, spec)}

        return observe

    return make


def shared_memory(right, spec):
    def observe(state, key, transition):
        state, notes = right.observe(state, key, transition)
        return state + 0.1 * state.mean(axis=0), notes

    return observe


def misspelt(right, spec):
    def score(state, transition):
        return transition.annotations["payed"]

    return score


def with_metrics(value):
    return lambda right, spec: lambda state, key, inputs: (state, {"visits": value(state, inputs[0])})


def far_features(right, spec):
    return lambda state, obs: 7.0 + state


UNIT = {"features": spaces.Box(0.0, 1.0, (6,), np.float32)}

WRONG: dict[str, Wrong] = {
    "the state's dtype drifts": Wrong("runs", "float32[3,6] to float16[3,6]", changed(visits, observe=drifting)),
    "an annotation is misspelt": Wrong("runs", "score raises KeyError: 'payed' (laws/wrong.py, line", changed(visits, score=misspelt)),
    "the builder returns nothing": Wrong("runs", "must return exploration.base.bonus(...); it returns NoneType", lambda spec: None),
    "the builder raises": Wrong("runs", "the builder raises KeyError: 'goal' (laws/wrong.py, line", lambda spec: spec.info["goal"]),
    "a key that cannot be saved": Wrong("runs", "typed random key", changed(surprise, init=lambda *_: lambda key: Guess(jnp.zeros(4), jax.random.key(0)))),
    "observe forgets the annotations": Wrong("runs", "observe must return (state, annotations)", changed(visits, observe=lambda *_: lambda s, k, t: s)),
    "a score for the batch": Wrong(
        "rewards are a number per step", "5 steps of 3 lanes give rewards of shape ()", changed(surprise, score=lambda *_: lambda s, t: t.next_obs.mean())
    ),
    "update changes the dtype": Wrong(
        "the state keeps its structure and dtypes",
        "update: it changes from float32[3,6] to float16[3,6]",
        changed(visits, update=lambda *_: lambda s, key, inputs: (s.astype(jnp.float16), {})),
    ),
    "a weakly typed start": Wrong("the state keeps its structure and dtypes", "weakly typed", changed(surprise, init=weakly_typed)),
    "types that change with age": Wrong(
        "a state of any age runs the same program",
        "need 2 programs",
        changed(surprise, init=weakly_typed, reset=lambda *_: lambda s, mask: Guess(s.mean, s.rate + jnp.float32(0))),
    ),
    "types lost when saved": Wrong("a state that was saved goes on identically", "saved and loaded", changed(surprise, init=weakly_typed)),
    "an undeclared annotation": Wrong("annotations are those declared", "info.stores declares []", changed(visits, {"stores": ()})),
    "a wrong shape": Wrong("rewards are a number per step", "shape (5, 3, 1)", changed(visits, value=lambda *_: lambda s, raw: raw[..., None])),
    "a metric of many numbers": Wrong("metrics are numbers", "float32[3]", changed(visits, update=with_metrics(lambda s, batch: s.sum(axis=1)))),
    "rollouts only": Wrong(
        "a replay batch updates as well",
        "update raises on a batch [15]: IndexError",
        changed(visits, update=with_metrics(lambda s, batch: batch.reward.mean(axis=1).mean())),
    ),
    "a division by zero": Wrong(
        "everything is finite", "numbers are not finite", changed(visits, observe=noted(lambda paid, s, spec: jnp.log(s.sum(axis=1) - s.sum(axis=1))))
    ),
    "no floor under a deviation": Wrong(
        "finite where nothing varies", "where all steps are the same, ", changed(visits, {"learns_from": ("next_obs",)}, observe=standardized)
    ),
    "negative": Wrong(
        "raw is not negative if declared so", "declare info.non_negative=False", changed(visits, observe=noted(lambda paid, s, spec: paid - 1.0))
    ),
    "never reaches the reward": Wrong(
        "it pays something", "never reaches the learner", changed(visits, value=lambda *_: lambda s, raw: jnp.zeros_like(raw))
    ),
    "not a reward stream by mistake": Wrong("it pays something", "no learner sees this reward", changed(visits, {"intrinsic": False})),
    "never wears off": Wrong(
        "seen again it pays less", "wears off", changed(surprise, update=lambda *_: lambda s, key, inputs: (s, {"guess": jnp.float32(0)}))
    ),
    "reads the reset observation": Wrong(
        "scores do not depend on the batch",
        "the reset observation",
        changed(surprise, {"needs": ("obs",)}, score=lambda *_: lambda s, t: jnp.mean(jnp.square(jnp.roll(t.obs, -1, axis=0) - s.mean), axis=-1)),
    ),
    "compared with the batch": Wrong(
        "scores do not depend on the batch",
        "score uses other steps of its batch",
        changed(surprise, {"non_negative": False}, score=lambda right, _: lambda s, t: right.score(s, t) - right.score(s, t).mean()),
    ),
    "scored from a state that changes": Wrong(
        "scored at the step means from its annotations",
        "scored from the state of before the steps",
        changed(visits, score=lambda *_: lambda s, t: t.annotations["paid"] + s.mean()),
    ),
    "an undeclared need": Wrong("what is not needed is not read", "it reads reward, which info.needs", changed(visits, observe=rewarded)),
    "learnt from, but scored": Wrong(
        "a score reads what it needs only", "score reads ['next_obs']", changed(surprise, {"needs": (), "learns_from": ("next_obs",)})
    ),
    "lanes have ranks": Wrong(
        "lanes are interchangeable", "its place among the lanes", changed(visits, observe=noted(lambda paid, s, spec: paid * (1 + jnp.arange(spec.lanes))))
    ),
    "leaks lanes": Wrong("lanes are kept apart", "with other steps in lane 0, lanes 1 and 2", changed(visits, observe=shared_memory)),
    "an undeclared gradient": Wrong(
        "gradients exist where declared and nowhere else",
        "stop_gradient",
        changed(surprise, score=lambda *_: lambda s, t: jnp.mean(jnp.square(t.next_obs - s.mean), axis=-1)),
    ),
    "resets everybody": Wrong(
        "a reset touches its lanes only", "changes lane 1", changed(visits, reset=lambda *_: lambda s, mask: jnp.where(mask.any(), 0.0, s))
    ),
    "is not reset": Wrong(
        "a reset makes lanes new if episodic", "leaves what lanes have gathered", changed(visits, reset=lambda *_: lambda s, mask: s)
    ),
    "an undeclared reset": Wrong("a reset makes lanes new if episodic", "info.episodic is False", changed(visits, {"episodic": False})),
    "features out of bounds": Wrong("features fit their space", "leave Box(0.0, 1.0, (6,), float32)", changed(visits, UNIT, features=far_features)),
    "random numbers of its own": Wrong(
        "jit equals no jit", "run line by line", changed(visits, observe=noted(lambda paid, s, spec: paid * np.float32(np.random.default_rng().uniform())))
    ),
    "members meet": Wrong(
        "members side by side equal single ones",
        "another member",
        changed(visits, observe=noted(lambda paid, s, spec: jax.lax.pmean(paid, spec.axis) if spec.axis else paid)),
    ),
}
