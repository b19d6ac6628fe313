"""One iteration in the life of a bonus, as a runner lives it: the program whose results the laws compare.

``Subject`` is a bonus under examination. It makes its first iteration when a law first asks for it, and keeps it. Where that fails,
``probe`` calls the functions of the bonus one after the other and says in words which of them gives what a runner cannot use.
"""

from __future__ import annotations

import functools
import re
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from envs.base import PyTree, Spec, Transition
from exploration.base import Bonus
from exploration.laws.data import Traced, changed_kind, flat, member, plain, require, stacked, transitions

STEPS = 5
LANES = 3
MASK = np.asarray([True, False, True])  # lanes that a reset is asked for
HERE = Path(__file__).parent
FOREIGN = re.compile(r"python3\.\d+/(?!site-packages)|site-packages/(jax|jaxlib|flax|optax|numpy)/|<")  # Python's own files and these packages


class CannotRun(Exception):
    """The bonus has no first iteration to examine; the text says why."""


class Life(NamedTuple):
    """What one iteration made of a bonus, in this order."""

    observed: PyTree  # state after all steps
    annotations: dict[str, jax.Array]  # [T, N]
    raw: PyTree  # [T, N]
    raw_flat: PyTree  # [T * N]; the same steps as a replay batch
    raw_step: PyTree  # [N]; the third step alone
    raw_before: PyTree  # [T, N]; scored from the state before anything was observed
    calibrated: PyTree  # state
    reward: jax.Array  # [T, N]
    reward_flat: jax.Array  # [T * N]
    updated: PyTree  # state
    metrics: dict[str, jax.Array]
    later: PyTree  # [T, N]; raw, scored after the update
    cleared: PyTree  # ``observed`` after a reset of the lanes of MASK
    features: jax.Array | None  # [N, ...]; of ``observed``
    gradient: PyTree  # of the summed reward, with respect to (obs, next_obs); None where they are whole numbers


def life(bonus: Bonus, brief: bool = False) -> Callable[..., Life]:
    """(state, key, steps, done, mask) -> Life. ``brief`` leaves out what asks the same score again: quicker to compile."""
    score, value = jax.jit(bonus.score), jax.jit(bonus.value)  # traced once for all the calls below

    def one(state, inputs):
        key, step, done = inputs
        state, notes = bonus.observe(state, key, step)
        return bonus.reset(state, done), notes

    def run(state, key, steps: Transition, done, mask) -> Life:
        observed, notes = jax.lax.scan(one, state, (jax.random.split(key, STEPS), steps, done))
        noted = steps._replace(annotations=notes)
        raw = score(observed, noted)
        raw_flat = None if brief else score(observed, flat(noted))
        calibrated = bonus.calibrate(observed, raw)
        updated, metrics = bonus.update(calibrated, key, (noted, {}))

        def total(seen):
            return jnp.sum(value(calibrated, score(observed, noted._replace(obs=seen[0], next_obs=seen[1]))))

        return Life(
            observed=observed,
            annotations=notes,
            raw=raw,
            raw_flat=raw_flat,
            raw_step=None if brief else score(observed, member(noted, 2)),
            raw_before=None if brief else score(state, noted),
            calibrated=calibrated,
            reward=value(calibrated, raw),
            reward_flat=None if brief else value(calibrated, raw_flat),
            updated=updated,
            metrics=metrics,
            later=score(updated, noted),
            cleared=bonus.reset(observed, mask),
            features=bonus.features(observed, member(noted.obs, 2)) if bonus.features else None,
            gradient=jax.grad(total)((steps.obs, steps.next_obs)) if differentiable_inputs(steps) and not brief else None,
        )

    return run


def by_hand(bonus: Bonus, state: PyTree, key: jax.Array, steps: Transition, done: jax.Array, mask: jax.Array) -> dict[str, PyTree]:
    """Some of ``life`` without jit."""
    notes, rows = [], [jax.tree.map(jnp.asarray, member(plain(steps), n)) for n in range(STEPS)]
    for n, k in enumerate(jax.random.split(key, STEPS)):
        state, note = bonus.observe(state, k, rows[n])
        state = bonus.reset(state, done[n])
        notes.append(note)
    steps = steps._replace(annotations=stacked(*notes))
    raw = bonus.score(state, steps)
    calibrated = bonus.calibrate(state, raw)
    updated, metrics = bonus.update(calibrated, key, (steps, {}))
    found = {"observed": state, "annotations": steps.annotations, "raw": raw, "calibrated": calibrated, "updated": updated, "metrics": metrics}
    features = bonus.features(state, rows[2].obs) if bonus.features else None
    return found | {"reward": bonus.value(calibrated, raw), "cleared": bonus.reset(state, mask), "features": features}


def differentiable_inputs(steps: Transition) -> bool:
    return all(jnp.issubdtype(x.dtype, jnp.floating) for x in jax.tree.leaves(steps.next_obs))


class Subject:
    """A bonus under examination, on made-up steps of a world like ``spec``, in three lanes."""

    def __init__(self, make: Callable[[Spec], Bonus], spec: Spec):
        """``make`` builds the bonus for a spec; it is called again with another number of lanes and another member axis."""
        self.make, self.spec = make, spec._replace(lanes=LANES)
        self.key, self.mask = jax.random.PRNGKey(7), jnp.asarray(MASK)
        self.run = Traced(lambda *inputs: life(self.bonus)(*inputs))

    @functools.cached_property
    def bonus(self) -> Bonus:
        """Raises what the builder raises, and CannotRun when that makes something else."""
        made = self.make(self.spec)
        if not isinstance(made, Bonus):
            raise CannotRun(f"the builder must return exploration.base.bonus(...); it returns {type(made).__name__}")
        return made

    @functools.cached_property
    def steps(self) -> Transition:
        return transitions(self.spec, STEPS, seed=1)

    @functools.cached_property
    def start(self) -> PyTree:
        return self.bonus.init(jax.random.PRNGKey(0))

    @functools.cached_property
    def axes(self) -> list[int | None]:
        """For every leaf of the state, the axis that runs over lanes: the one that grows when there is one lane more."""
        wider = jax.eval_shape(self.make(self.spec._replace(lanes=LANES + 1)).init, self.key)
        pairs = zip(jax.tree.leaves(self.start), jax.tree.leaves(wider), strict=True)
        found = [[n for n, (a, b) in enumerate(zip(x.shape, y.shape, strict=True)) if a != b] for x, y in pairs]
        require(all(len(axes) <= 1 for axes in found), "an array of the state has two axes that grow with the number of lanes")
        return [axes[0] if axes else None for axes in found]

    @functools.cached_property
    def _first(self) -> Life | str:
        """The first iteration, or why there is none: a failure is found once, not once per law."""
        try:
            self.bonus  # noqa: B018
        except CannotRun as error:
            return str(error)
        except Exception as error:  # whatever the user's code may raise
            return f"the builder raises {blame(error)}"
        try:
            jax.tree.map(np.asarray, self.start)  # as a checkpoint will
            return self.again(self.start)
        except Exception as error:  # the same
            return probe(self) or blame(error)

    @property
    def out(self) -> Life:
        """The first iteration. Raises CannotRun."""
        if isinstance(self._first, str):
            raise CannotRun(self._first)
        return self._first

    @functools.cached_property
    def second(self) -> Life:
        """The next iteration, over the same steps."""
        return self.again(self.out.updated)

    @functools.cached_property
    def third(self) -> Life:
        return self.again(self.second.updated)

    def again(self, state: PyTree, steps: Transition | None = None, mask: jax.Array | None = None, done: jax.Array | None = None) -> Life:
        """The same program from another state, on other steps, or with other lanes reset."""
        return self.run(
            state,
            self.key,
            self.steps if steps is None else steps,
            self.steps.done if done is None else done,
            self.mask if mask is None else mask,
        )


def blame(error: BaseException) -> str:
    """An exception in one line, with the place in the bonus that it comes from: the innermost frame that is not JAX's, nor the laws'."""
    frames = [f for f in traceback.extract_tb(error.__traceback__) if not FOREIGN.search(f.filename) and Path(f.filename).parent != HERE]
    text = next((line.strip() for line in str(error).splitlines() if line.strip()), "")
    place = f" ({'/'.join(Path(frames[-1].filename).parts[-2:])}, line {frames[-1].lineno}, in {frames[-1].name})" if frames else ""
    return f"{type(error).__name__}: {text[:300]}{place}"


def probe(subject: Subject) -> str | None:
    """The first function of the bonus that fails, or gives what the next one cannot use, in words; None when each alone is fine."""
    bonus, key, steps = subject.bonus, subject.key, subject.steps
    given: dict[str, Any] = {}

    def call(name: str, *inputs: Any) -> Any:
        try:
            return jax.eval_shape(getattr(bonus, name), *inputs)
        except Exception as error:
            raise CannotRun(f"{name} raises {blame(error)}") from None

    def pair(name: str, found: Any, second: str) -> Any:
        if not (isinstance(found, tuple) and len(found) == 2 and isinstance(found[1], dict)):
            raise CannotRun(f"{name} must return (state, {second}), with a dict of {second}; it returns {found!r:.200}")
        return found

    def same(name: str, state: PyTree) -> None:
        changed = changed_kind(given["state"], state)
        if changed:
            raise CannotRun(f"{name} must give back a state of the same shapes and dtypes as init made; {changed}")

    def shaped(name: str, tree: PyTree, lead: tuple[int, ...]) -> None:
        odd = [x.shape for x in jax.tree.leaves(tree) if x.shape[: len(lead)] != lead]
        if odd:
            raise CannotRun(f"{name} is given {lead} steps and must return a number for each; it returns an array of shape {odd[0]}")

    try:
        given["state"] = call("init", key)
        if any(jnp.issubdtype(x.dtype, jax.dtypes.prng_key) for x in jax.tree.leaves(given["state"])):
            raise CannotRun("init puts a typed random key into the state, which cannot be saved; keep jax.random.key_data(key) there")
        state = given["state"]
        new, notes = pair("observe", call("observe", state, key, member(steps, 0)), "annotations")
        same("observe", new)
        shaped("observe", notes, (LANES,))
        same("reset", call("reset", state, subject.mask))
        noted = steps._replace(annotations={name: jnp.zeros((STEPS, *note.shape), note.dtype) for name, note in notes.items()})
        raw = call("score", state, noted)
        shaped("score", raw, (STEPS, LANES))
        same("calibrate", call("calibrate", state, raw))
        shaped("value", call("value", state, raw), (STEPS, LANES))
        new, _ = pair("update", call("update", state, key, (noted, {})), "metrics")
        same("update", new)
        shaped("score, on a replay batch,", call("score", state, flat(noted)), (STEPS * LANES,))
        if bonus.features:
            shaped("features", call("features", state, member(steps.obs, 0)), (LANES,))
    except CannotRun as found:
        return str(found)
    return None
