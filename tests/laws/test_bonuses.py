"""What every bonus and every combinator keeps to, walked over the table of cases.

One compiled program, ``life``, does to a bonus what a runner does in an iteration; the laws compare its results.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from envs.base import PyTree, Transition
from envs.builder import Refusal, build
from exploration.base import Bonus, check_needs
from tests.laws.cases import BONUSES, COMBINATORS, COMBINED, INNER, REFUSED, BonusCase
from tests.laws.data import assert_close, assert_equal, assert_finite, draw, flat, garbage, kinds, member, quick, stacked, transitions

STEPS = 5
MASK = jnp.asarray([True, False, True])  # lanes that a reset is asked for
KEY = jax.random.PRNGKey(7)


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
    gradient: jax.Array | None  # of the summed reward, with respect to next_obs


def life(bonus: Bonus, brief: bool = False):
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

        def total(next_obs):
            return jnp.sum(value(calibrated, score(observed, noted._replace(next_obs=next_obs))))

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
            gradient=jax.grad(total)(steps.next_obs) if differentiable_inputs(steps) and not brief else None,
        )

    return run


def by_hand(bonus: Bonus, state, key, steps: Transition, done, mask) -> dict[str, PyTree]:
    """Some of ``life`` without jit."""
    notes = []
    for n, k in enumerate(jax.random.split(key, STEPS)):
        state, note = bonus.observe(state, k, member(steps, n))
        state = bonus.reset(state, done[n])
        notes.append(note)
    steps = steps._replace(annotations=stacked(*notes))
    raw = bonus.score(state, steps)
    calibrated = bonus.calibrate(state, raw)
    updated, metrics = bonus.update(calibrated, key, (steps, {}))
    found = {"observed": state, "annotations": steps.annotations, "raw": raw, "calibrated": calibrated, "updated": updated, "metrics": metrics}
    features = bonus.features(state, member(steps.obs, 2)) if bonus.features else None
    return found | {"reward": bonus.value(calibrated, raw), "cleared": bonus.reset(state, mask), "features": features}


def differentiable_inputs(steps: Transition) -> bool:
    return all(jnp.issubdtype(x.dtype, jnp.floating) for x in jax.tree.leaves(steps.next_obs))


class Lived(NamedTuple):
    """A case, its bonus, and the first iteration of it."""

    case: BonusCase
    bonus: Bonus
    run: Any  # the compiled ``life``
    traces: list[str]  # one entry per time that ``life`` was traced
    start: PyTree
    axes: list[int | None]  # of the lanes, in every leaf of the state
    steps: Transition
    out: Life

    def again(self, state: PyTree, steps: Transition | None = None, mask: jax.Array = MASK, done: jax.Array | None = None) -> Life:
        steps = self.steps if steps is None else steps
        return self.run(state, KEY, steps, self.steps.done if done is None else done, mask)


@pytest.fixture(scope="module", params=[pytest.param(n, marks=pytest.mark.medium) if "pixels" in n else n for n in BONUSES])
def lived(request) -> Lived:
    case = BONUSES[request.param]
    bonus = build(case.entry, case.spec())
    traces = []
    run = quick(lambda *inputs: traces.append("again") or life(bonus)(*inputs))
    start, steps = bonus.init(jax.random.PRNGKey(0)), transitions(case.spec(), STEPS, seed=1)
    return Lived(case, bonus, run, traces, start, lane_axes(case, start), steps, run(start, KEY, steps, steps.done, MASK))


def floats(raw: PyTree) -> list[jax.Array]:
    return [x for x in jax.tree.leaves(raw) if jnp.issubdtype(x.dtype, jnp.floating)]


def lane_axes(case: BonusCase, state: PyTree) -> list[int | None]:
    """For every leaf of the state, the axis that runs over lanes: the one that grows when there is one lane more."""
    wider = jax.eval_shape(build(case.entry, case.spec(lanes=4)).init, KEY)
    pairs = zip(jax.tree.leaves(state), jax.tree.leaves(wider), strict=True)
    found = [[n for n, (a, b) in enumerate(zip(x.shape, y.shape, strict=True)) if a != b] for x, y in pairs]
    assert all(len(axes) <= 1 for axes in found)
    return [axes[0] if axes else None for axes in found]


# --- types and shapes --------------------------------------------------------------------------------------------------


def test_the_state_keeps_its_structure_and_dtypes(lived):
    wanted = kinds(lived.start)
    for stage in ("observed", "calibrated", "updated", "cleared"):
        assert kinds(getattr(lived.out, stage)) == wanted, stage
    assert not any(weak for _, _, weak in wanted[1])


def test_a_state_of_any_age_runs_the_same_program(lived):
    lived.again(lived.again(lived.out.updated).updated)
    assert len(lived.traces) == 1


def test_annotations_are_those_declared(lived):
    assert set(lived.out.annotations) == set(lived.bonus.info.stores)
    for note in lived.out.annotations.values():
        assert note.shape[:2] == (STEPS, 3)


def test_rewards_have_a_number_per_step(lived):
    assert (lived.out.reward.shape, lived.out.reward.dtype) == ((STEPS, 3), jnp.float32)
    assert lived.out.reward_flat.shape == (STEPS * 3,)


def test_metrics_are_numbers(lived):
    for name, value in lived.out.metrics.items():
        assert isinstance(name, str) and value.shape == () and value.dtype == jnp.float32, name


def test_a_replay_batch_updates_as_well(lived):
    replay = flat(lived.steps._replace(annotations=lived.out.annotations))
    state, metrics = jax.eval_shape(lived.bonus.update, lived.out.calibrated, KEY, (replay, {}))
    assert kinds(state) == kinds(lived.start) and set(metrics) == set(lived.out.metrics)


def test_everything_is_finite(lived):
    assert_finite(lived.out)
    assert_finite(lived.again(lived.out.updated))


def test_raw_is_not_negative_if_declared_so(lived):
    if lived.bonus.info.non_negative:
        assert all(float(jnp.min(x)) >= 0 for out in (lived.out, lived.again(lived.out.updated)) for x in floats((out.raw, out.reward)))


def test_a_bonus_pays_something(lived):
    paid = float(jnp.max(jnp.abs(lived.out.reward)))
    assert paid > 0 if lived.bonus.info.intrinsic else paid == 0


# --- what the numbers depend on ----------------------------------------------------------------------------------------


def test_scores_do_not_depend_on_the_batch(lived):
    assert_close(lived.out.raw_flat, flat(lived.out.raw))
    assert_close(lived.out.reward_flat, flat(lived.out.reward))
    assert_close(lived.out.raw_step, member(lived.out.raw, 2))


def test_scored_at_the_step_means_from_its_annotations(lived):
    """... and from nothing else that changes later: a replay buffer keeps the annotations only."""
    if lived.bonus.info.scored == "step":
        assert lived.bonus.info.stores
        for scored in (lived.out.raw_before, lived.out.later):
            assert_equal(scored, lived.out.raw)
    else:
        assert lived.bonus.info.scored == "batch"


def test_what_is_not_needed_is_not_read(lived):
    """Garbage in every field that the bonus did not declare changes nothing at all."""
    needs, steps = {*lived.bonus.info.needs, *lived.bonus.info.learns_from}, lived.steps
    known = {*Transition._fields, *(f"info.{name}" for name in steps.info)} - {"info", "annotations"}
    assert needs <= known
    check_needs(lived.bonus, lived.case.spec(), "laws")
    spoilt = {name: garbage(getattr(steps, name)) for name in known if not name.startswith("info.") and name not in needs}
    info = {name: value if f"info.{name}" in needs else garbage(value) for name, value in steps.info.items()}
    out = lived.again(lived.start, steps._replace(**spoilt, info=info))
    assert_equal(out._replace(gradient=None), lived.out._replace(gradient=None))


def test_a_score_reads_what_it_needs_only(lived):
    """What the bonus merely learns from appears nowhere in the program of its score."""
    steps = lived.steps._replace(annotations=lived.out.annotations)
    program = jax.make_jaxpr(lived.bonus.score)(lived.out.updated, steps).jaxpr
    names = [f"info.{path[1].key}" if path[0].name == "info" else path[0].name for path, _ in jax.tree_util.tree_leaves_with_path(steps)]
    read = {id(var) for equation in program.eqns for var in equation.invars} | {id(var) for var in program.outvars}
    found = {name for name, var in zip(names, program.invars[-len(names) :], strict=True) if id(var) in read}
    assert found - {"annotations"} <= {*lived.bonus.info.needs}


def test_lanes_are_interchangeable(lived):
    order = np.array([2, 0, 1])
    permuted = jax.tree.map(lambda x: x[:, order], lived.steps)
    out = lived.again(lived.start, permuted, done=permuted.done)
    there = jax.tree.map(lambda x: x[:, order], (lived.out.annotations, lived.out.raw, lived.out.reward))
    assert_close((out.annotations, out.raw, out.reward), there)


def test_seen_again_it_pays_less(lived):
    """After three passes over the same steps, updates included, the raw bonus is smaller than it was at first."""
    if lived.case.fades:
        third = lived.again(lived.again(lived.out.updated).updated)
        first, last = (sum(float(jnp.mean(x)) for x in floats(out.raw)) for out in (lived.out, third))
        assert 0 < last < first


def test_gradients_exist_where_declared_and_nowhere_else(lived):
    if lived.out.gradient is not None:
        size = float(sum(jnp.sum(jnp.abs(x)) for x in jax.tree.leaves(lived.out.gradient)))
        assert size > 0 if lived.bonus.info.differentiable else size == 0


# --- resets ------------------------------------------------------------------------------------------------------------


def test_a_reset_touches_its_lanes_only(lived):
    leaves = zip(*(jax.tree.leaves(tree) for tree in (lived.out.observed, lived.out.cleared)), lived.axes, strict=True)
    for before, after, axis in leaves:
        if axis is None:
            np.testing.assert_array_equal(before, after)
        else:
            np.testing.assert_array_equal(np.compress(~MASK, before, axis), np.compress(~MASK, after, axis))
    assert_equal(lived.again(lived.start, mask=~MASK & MASK).cleared, lived.out.observed)


def test_a_reset_makes_lanes_new_if_episodic(lived):
    """What a lane has gathered by observing is as it was at the start; a bonus that is not episodic has nothing to clear."""
    if not lived.bonus.info.episodic:
        assert_equal(lived.out.cleared, lived.out.observed)
        return
    trees = (lived.start, lived.out.observed, lived.out.cleared)
    gathered = 0
    for fresh, before, after, axis in zip(*map(jax.tree.leaves, trees), lived.axes, strict=True):
        if axis is None or np.array_equal(fresh, before):
            continue
        gathered += 1
        np.testing.assert_array_equal(np.compress(MASK, after, axis), np.compress(MASK, fresh, axis))
    assert gathered


# --- features ----------------------------------------------------------------------------------------------------------


def test_features_fit_their_space(lived):
    space, shown = lived.bonus.info.features, lived.out.features
    assert (space is None) == (shown is None)
    assert shown is not None or not lived.bonus.info.augments
    if space is not None:
        assert shown.shape == (3, *space.shape) and shown.dtype == space.dtype
        start = lived.bonus.features(lived.start, draw(lived.case.observation, (3,), np.random.default_rng(0)))
        for lane in np.concatenate([shown, start]):
            assert space.contains(lane)


# --- programs ----------------------------------------------------------------------------------------------------------


def test_a_state_that_was_saved_goes_on_identically(lived):
    saved = jax.tree.map(np.asarray, lived.out.updated)
    assert_equal(lived.again(jax.tree.map(np.copy, saved)), lived.again(lived.out.updated))
    assert len(lived.traces) == 1


def test_jit_equals_no_jit(lived):
    plain = by_hand(lived.bonus, lived.start, KEY, lived.steps, lived.steps.done, MASK)
    assert_close(plain, {name: getattr(lived.out, name) for name in plain})


def test_members_side_by_side_equal_single_ones(lived):
    bonus = build(lived.case.entry, lived.case.spec(axis="members"))
    keys, masks = jax.random.split(jax.random.PRNGKey(0), 2), (MASK, ~MASK)
    starts = [lived.bonus.init(key) for key in keys]
    steps = [transitions(lived.case.spec(), STEPS, seed) for seed in (1, 2)]
    inputs = stacked(*starts), keys, stacked(*steps), stacked(*(s.done for s in steps)), jnp.stack(masks)
    together = quick(jax.vmap(life(bonus, brief=True), axis_name="members"))(*inputs)
    for n in range(2):
        alone = lived.run(starts[n], keys[n], steps[n], steps[n].done, masks[n])
        left_out = {name: None for name, value in together._asdict().items() if value is None}
        assert_close(member(together, n), alone._replace(**left_out))


# --- pairs that cannot be ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(REFUSED))
def test_refused_when_built(name):
    combinator, inner = name.split("/")
    with pytest.raises(Refusal):
        build(COMBINATORS[combinator](INNER[inner]), COMBINED[name].spec())
