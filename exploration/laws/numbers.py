"""Laws of the numbers: what a bonus pays, what that may depend on, and what a reset does."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from envs.base import PyTree, Transition
from exploration.base import check_needs
from exploration.laws.base import NotApplicable
from exploration.laws.data import assert_close, assert_equal, assert_finite, flat, garbage, member, plain, require, transitions
from exploration.laws.life import LANES, MASK, STEPS, CannotRun, Subject


def floats(raw: PyTree) -> list[jax.Array]:
    return [x for x in jax.tree.leaves(raw) if jnp.issubdtype(x.dtype, jnp.floating)]


def needs_numbers(subject: Subject) -> None:
    """Raise CannotRun where there are numbers that are not finite, which a law of its own says: nothing can be compared with them."""
    try:
        assert_finite((subject.out, subject.second))
    except AssertionError as error:
        raise CannotRun(str(error)) from None


def lane_leaves(subject: Subject, *trees: PyTree):
    """(name, axis of the lanes, leaf of each tree) of the arrays of a state that have a part for every lane."""
    names = [jax.tree_util.keystr(path) or "the state" for path, _ in jax.tree_util.tree_leaves_with_path(trees[0])]
    for name, axis, *leaves in zip(names, subject.axes, *map(jax.tree.leaves, trees), strict=True):
        if axis is not None:
            yield name, axis, *leaves


# --- what it pays -----------------------------------------------------------------------------------------------------


def everything_is_finite(subject: Subject) -> str:
    """No NaN and no infinity in state, annotations, rewards, metrics or gradients."""
    assert_finite(subject.out)
    assert_finite(subject.second, "in the second iteration ")
    return "two iterations"


def finite_where_nothing_varies(subject: Subject) -> str:
    """No NaN and no infinity where all steps are the same, so that every variance is zero."""
    needs_numbers(subject)
    same = jax.tree.map(lambda x: np.broadcast_to(np.asarray(x)[:1, :1], x.shape), subject.steps)
    assert_finite(subject.again(subject.start, same, done=subject.steps.done), "where all steps are the same, ")
    return "all steps equal"


def raw_is_not_negative_if_declared_so(subject: Subject) -> str | NotApplicable:
    """A bonus that declares info.non_negative is never below zero."""
    if not subject.bonus.info.non_negative:
        return NotApplicable("info.non_negative is False")
    needs_numbers(subject)
    lowest = min(float(jnp.min(x)) for out in (subject.out, subject.second) for x in floats((out.raw, out.reward)))
    require(lowest >= 0, f"it is {lowest:.4g} somewhere; declare info.non_negative=False if that is meant")
    return f"least {lowest:.4g}"


def it_pays_something(subject: Subject) -> str:
    """The reward is not zero everywhere; with info.intrinsic=False it is."""
    needs_numbers(subject)
    paid = float(jnp.max(jnp.abs(subject.out.reward)))
    if not subject.bonus.info.intrinsic:
        require(paid == 0, f"info.intrinsic is False, so no learner sees this reward of up to {paid:.4g}")
        return "no reward stream"
    raw = max(float(jnp.max(jnp.abs(x))) for x in floats(subject.out.raw))
    require(paid > 0, f"every reward is 0, where the size of raw is up to {raw:.4g}: what was computed never reaches the learner")
    return f"up to {paid:.4g}"


def seen_again_it_pays_less(subject: Subject) -> str | NotApplicable:
    """After three passes over the same steps, updates included, the raw bonus is smaller than at first."""
    if not subject.bonus.info.fades:
        return NotApplicable("info.fades is False")
    needs_numbers(subject)
    first, last = (sum(float(jnp.mean(x)) for x in floats(out.raw)) for out in (subject.out, subject.third))
    hint = "a bonus for novelty wears off; declare info.fades=False if yours is not one"
    require(0 < last < first, f"mean raw is {first:.4g} at first and {last:.4g} the third time: {hint}")
    return f"{first:.4g} at first, {last:.4g} the third time"


# --- what the numbers depend on ---------------------------------------------------------------------------------------


def scores_do_not_depend_on_the_batch(subject: Subject) -> str:
    """A step's bonus is the same in a rollout, in a replay batch and alone: it looks at no neighbour in the batch."""
    hint = "score uses other steps of its batch (their mean, or obs of the row below, which after an end is the reset observation)"
    out = plain(subject.out)
    assert_close(out.raw_flat, flat(out.raw), because=f"{hint}: as a replay batch, raw")
    assert_close(out.reward_flat, flat(out.reward), because="value uses other steps of its batch: reward")
    assert_close(out.raw_step, member(out.raw, 2), because=f"{hint}: alone, raw")
    return "rollout = replay batch = single step"


def scored_at_the_step_means_from_its_annotations(subject: Subject) -> str | NotApplicable:
    """With info.scored="step" the score comes from the step's annotations only: a replay buffer keeps nothing else."""
    scored = subject.bonus.info.scored
    require(scored in ("step", "batch"), f"info.scored is {scored!r}; it must be 'step' or 'batch'")
    if scored == "batch":
        return NotApplicable('info.scored is "batch"')
    require(subject.bonus.info.stores, 'info.scored is "step", and info.stores names no annotation to score from')
    for when, again in {"before the steps": subject.out.raw_before, "after the update": subject.out.later}.items():
        assert_equal(again, subject.out.raw, f"scored from the state of {when}, raw")
    return ", ".join(subject.bonus.info.stores)


def what_is_not_needed_is_not_read(subject: Subject) -> str:
    """Other values in all fields that info.needs and info.learns_from leave out change nothing at all."""
    needs, steps = {*subject.bonus.info.needs, *subject.bonus.info.learns_from}, subject.steps
    known = {*Transition._fields, *(f"info.{name}" for name in steps.info)} - {"info", "annotations"}
    require(needs <= known, f"it declares to need {sorted(needs - known)}, which no step of {subject.spec.name!r} has; steps have {sorted(known)}")
    check_needs(subject.bonus, subject.spec, "laws")

    def compare(fields: set[str]) -> None:
        spoilt = {name: garbage(getattr(steps, name)) for name in fields if not name.startswith("info.")}
        info = {name: garbage(value) if f"info.{name}" in fields else value for name, value in steps.info.items()}
        out = subject.again(subject.start, steps._replace(**spoilt, info=info))
        reason = f"it reads {', '.join(sorted(fields))}, which info.needs and info.learns_from leave out: with other values there, "
        assert_equal(out._replace(gradient=None), subject.out._replace(gradient=None), reason)

    try:
        compare(known - needs)
    except AssertionError:
        for field in sorted(known - needs):  # which of them is it?
            compare({field})
        raise
    return f"reads {', '.join(sorted(needs)) or 'nothing'} only"


def a_score_reads_what_it_needs_only(subject: Subject) -> str:
    """score reads what info.needs declares; what is merely learnt from appears nowhere in its program."""
    steps = subject.steps._replace(annotations=subject.out.annotations)
    program = jax.make_jaxpr(subject.bonus.score)(subject.out.updated, steps).jaxpr
    names = [f"info.{path[1].key}" if path[0].name == "info" else path[0].name for path, _ in jax.tree_util.tree_leaves_with_path(steps)]
    read = {id(var) for equation in program.eqns for var in equation.invars} | {id(var) for var in program.outvars}
    found = {name for name, var in zip(names, program.invars[-len(names) :], strict=True) if id(var) in read} - {"annotations"}
    needs = subject.bonus.info.needs
    require(found <= {*needs}, f"score reads {sorted(found - {*needs})}, which info.needs leaves out: declare it, or compute from annotations")
    nothing = "annotations" if subject.out.annotations else "nothing of the step"
    return f"reads {', '.join(sorted(found)) or nothing}"


def lanes_are_interchangeable(subject: Subject) -> str:
    """Lanes in another order give the same bonuses in that order."""
    order = np.array([2, 0, 1])
    permuted = jax.tree.map(lambda x: np.asarray(x)[:, order], subject.steps)
    out = subject.again(subject.start, permuted, done=permuted.done)
    for part in ("annotations", "raw", "reward"):
        there = jax.tree.map(lambda x: np.asarray(x)[:, order], getattr(subject.out, part))
        assert_close(getattr(out, part), there, because=f"what a lane is paid depends on its place among the lanes: {part}")
    return f"order {order.tolist()}"


def lanes_are_kept_apart(subject: Subject) -> str | NotApplicable:
    """What the state holds for each lane after observing comes from that lane's steps alone."""
    if not list(lane_leaves(subject, subject.start)):
        return NotApplicable("the state has no part per lane")
    leaves = zip(*map(jax.tree.leaves, (subject.start, subject.out.observed)), subject.axes, strict=True)
    if any(axis is None and not np.array_equal(before, after) for before, after, axis in leaves):
        return NotApplicable("observe also changes what all lanes share, through which they may meet")
    others = transitions(subject.spec, STEPS, seed=3)
    steps = jax.tree.map(lambda mine, other: np.concatenate([other[:, :1], mine[:, 1:]], axis=1), subject.steps, others)
    steps = steps._replace(**{name: getattr(subject.steps, name) for name in ("first", "terminated", "truncated")})
    out, found = subject.again(subject.start, steps), 0
    for name, axis, before, after in lane_leaves(subject, subject.out.observed, out.observed):
        rest = [np.delete(np.asarray(x), 0, axis) for x in (before, after)]
        assert_equal(*rest, f"with other steps in lane 0, lanes 1 and 2 of {name} change too: ")
        found += 1
    return f"parts per lane in the state: {found}"


def gradients_exist_where_declared_and_nowhere_else(subject: Subject) -> str | NotApplicable:
    """The reward has a gradient with respect to obs or next_obs exactly when info.differentiable says so."""
    if subject.out.gradient is None:
        return NotApplicable("observations are whole numbers")
    needs_numbers(subject)
    size = float(sum(jnp.sum(jnp.abs(x)) for x in jax.tree.leaves(subject.out.gradient)))
    if subject.bonus.info.differentiable:
        require(size > 0, "info.differentiable is True, and the gradient is 0 everywhere")
        return f"size {size:.4g}"
    require(size == 0, f"info.differentiable is False, and the gradient has size {size:.4g}: declare it, or end score with jax.lax.stop_gradient")
    return "none, as declared"


# --- resets -----------------------------------------------------------------------------------------------------------


def a_reset_touches_its_lanes_only(subject: Subject) -> str:
    """reset changes the lanes of its mask and nothing else; an empty mask changes nothing."""
    leaves = zip(*(jax.tree_util.tree_leaves_with_path(tree) for tree in (subject.out.observed, subject.out.cleared)), subject.axes, strict=True)
    for (path, before), (_, after), axis in leaves:
        name = jax.tree_util.keystr(path)
        if axis is None:
            assert_equal(before, after, f"a reset of lanes 0 and 2 changes {name}, which all lanes share: ")
        else:
            kept = [np.compress(~MASK, x, axis) for x in (before, after)]
            assert_equal(*kept, f"a reset of lanes 0 and 2 changes lane 1 of {name}: ")
    untouched = subject.again(subject.start, mask=jnp.zeros(LANES, bool)).cleared
    assert_equal(untouched, subject.out.observed, "a reset of no lane changes the state: ")
    return f"lanes {np.flatnonzero(MASK).tolist()} of {LANES}"


def a_reset_makes_lanes_new_if_episodic(subject: Subject) -> str:
    """With info.episodic a reset makes what its lanes have gathered as it was at the start; without, it clears nothing."""
    if not subject.bonus.info.episodic:
        assert_equal(subject.out.cleared, subject.out.observed, "reset changes the state, but info.episodic is False: ")
        return "nothing is cleared, as declared"
    gathered = 0
    for name, axis, fresh, before, after in lane_leaves(subject, subject.start, subject.out.observed, subject.out.cleared):
        if np.array_equal(fresh, before):
            continue
        gathered += 1
        cleared = [np.compress(MASK, x, axis) for x in (after, fresh)]
        assert_equal(*cleared, f"info.episodic is True, and a reset leaves what lanes have gathered in {name}: ")
    require(gathered, "info.episodic is True, and the state keeps nothing per lane from the steps observed")
    return f"parts of the state that are as new: {gathered}"
