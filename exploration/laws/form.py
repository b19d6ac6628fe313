"""Laws of form: types, shapes, features, and what makes a bonus one compiled program that can be resumed and run side by side."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from exploration.laws.base import NotApplicable
from exploration.laws.data import assert_close, assert_equal, changed_kind, draw, flat, kinds, member, plain, quick, require, stacked, transitions
from exploration.laws.life import LANES, STEPS, CannotRun, Subject, blame, by_hand, life

# --- types and shapes -------------------------------------------------------------------------------------------------


def runs(subject: Subject) -> str:
    """Every function takes what a runner gives it, and gives back what the next one needs."""
    try:
        subject.out  # noqa: B018
    except CannotRun as error:
        raise AssertionError(str(error)) from None
    return f"{STEPS} steps in {LANES} lanes, then score, calibrate, value, update"


def the_state_keeps_its_structure_and_dtypes(subject: Subject) -> str:
    """The state has the same structure, shapes and dtypes after every function as after init."""
    for function, stage in {"observe": "observed", "calibrate": "calibrated", "update": "updated", "reset": "cleared"}.items():
        changed = changed_kind(subject.start, getattr(subject.out, stage))
        require(not changed, f"{function}: {changed}; a run could not be compiled once, nor resumed")
    weak = any(weak for _, _, weak in kinds(subject.start)[1])
    require(not weak, "init makes weakly typed numbers, whose dtype changes with use: write jnp.float32(0.0) or jnp.zeros(...), not 0.0")
    return f"arrays in the state: {len(jax.tree.leaves(subject.start))}"


def a_state_of_any_age_runs_the_same_program(subject: Subject) -> str:
    """Three iterations are one compiled program: nothing in Python changes from call to call."""
    subject.third  # noqa: B018
    programs = len(subject.run.programs)
    require(programs == 1, f"three iterations need {programs} programs: the state's types or structure depend on its age")
    return "one program"


def annotations_are_those_declared(subject: Subject) -> str:
    """What observe returns beside the state is what info.stores declares, with a value for every lane."""
    found, declared = set(subject.out.annotations), set(subject.bonus.info.stores)
    require(found == declared, f"observe returns annotations {sorted(found)}, info.stores declares {sorted(declared)}")
    for name, note in subject.out.annotations.items():
        require(note.shape[:2] == (STEPS, LANES), f"annotation {name!r} has shape {note.shape[1:]} for {LANES} lanes")
    return ", ".join(sorted(found)) or "none"


def rewards_are_a_number_per_step(subject: Subject) -> str:
    """value gives one float32 for every step, of a rollout [T, N] and of a replay batch [B] alike."""
    reward, replay = subject.out.reward, subject.out.reward_flat
    require(reward.shape == (STEPS, LANES), f"{STEPS} steps of {LANES} lanes give rewards of shape {reward.shape}, not {(STEPS, LANES)}")
    require(reward.dtype == jnp.float32, f"rewards are {reward.dtype}, not float32")
    require(replay.shape == (STEPS * LANES,), f"a replay batch of {STEPS * LANES} steps gives rewards of shape {replay.shape}")
    return f"float32{list(reward.shape)}"


def metrics_are_numbers(subject: Subject) -> str:
    """update's metrics are scalars in float32 under names."""
    for name, value in subject.out.metrics.items():
        fine = isinstance(name, str) and value.shape == () and value.dtype == jnp.float32
        require(fine, f"metric {name!r} is {value.dtype}{list(value.shape)}, not a float32 number; take its mean, or astype(jnp.float32)")
    return ", ".join(subject.out.metrics) or "none"


def a_replay_batch_updates_as_well(subject: Subject) -> str:
    """update learns from a batch of any leading shape: [T, N] from a rollout, [B] from a replay."""
    replay = flat(plain(subject.steps._replace(annotations=subject.out.annotations)))
    try:
        state, metrics = jax.eval_shape(subject.bonus.update, subject.out.calibrated, subject.key, (replay, {}))
    except Exception as error:  # whatever the user's code may raise
        raise AssertionError(f"update raises on a batch [{STEPS * LANES}]: {blame(error)}") from None
    changed = changed_kind(subject.start, state)
    require(not changed, f"updated from a batch [{STEPS * LANES}], {changed}")
    require(set(metrics) == set(subject.out.metrics), f"a replay batch gives metrics {sorted(metrics)}, a rollout {sorted(subject.out.metrics)}")
    return f"[{STEPS * LANES}] as [{STEPS}, {LANES}]"


# --- features ---------------------------------------------------------------------------------------------------------


def features_fit_their_space(subject: Subject) -> str | NotApplicable:
    """What features shows the agent lies in the space that info.features declares."""
    space, shown = subject.bonus.info.features, subject.out.features
    require((space is None) == (shown is None), "features and info.features go together: give both or neither")
    require(shown is not None or not subject.bonus.info.augments, "info.augments is True, and there are no features to show")
    if space is None:
        return NotApplicable("it has no features")
    wanted = (LANES, *space.shape)
    require(shown.shape == wanted and shown.dtype == space.dtype, f"features are {shown.dtype}{list(shown.shape)}, not {space.dtype}{list(wanted)}")
    start = subject.bonus.features(subject.start, draw(subject.spec.observation, (LANES,), np.random.default_rng(0)))
    for lane in np.concatenate([shown, start]):
        require(space.contains(lane), f"features from {np.min(lane):.4g} to {np.max(lane):.4g} leave {space}")
    return str(space)


# --- programs ---------------------------------------------------------------------------------------------------------


def a_state_that_was_saved_goes_on_identically(subject: Subject) -> str:
    """A state copied out as plain arrays and back, as a checkpoint does, goes on bit for bit."""
    saved = plain(subject.out.updated)
    assert_equal(subject.again(jax.tree.map(np.copy, saved)), subject.second, "after saving and loading, ")
    require(len(subject.run.programs) == 1, "a state that was saved and loaded is another program: an array changed its dtype on the way")
    return "bit for bit"


def jit_equals_no_jit(subject: Subject) -> str:
    """Compiled and run line by line it gives the same numbers: no random numbers and no memory outside the state."""
    plain = by_hand(subject.bonus, subject.start, subject.key, subject.steps, subject.steps.done, subject.mask)
    assert_close(plain, {name: getattr(subject.out, name) for name in plain}, because="run line by line, ")
    return "within rounding"


def members_side_by_side_equal_single_ones(subject: Subject) -> str:
    """Two members in one vmapped program get what each gets alone."""
    bonus = subject.make(subject.spec._replace(axis="members"))
    keys, masks = jax.random.split(jax.random.PRNGKey(0), 2), (subject.mask, ~subject.mask)
    starts = [subject.bonus.init(key) for key in keys]
    steps = [transitions(subject.spec, STEPS, seed) for seed in (1, 2)]
    inputs = stacked(*starts), keys, stacked(*steps), stacked(*(s.done for s in steps)), jnp.stack(masks)
    together = plain(quick(jax.vmap(life(bonus, brief=True), axis_name="members"))(*inputs))
    for n in range(2):
        alone = subject.run(starts[n], keys[n], steps[n], steps[n].done, masks[n])
        left_out = {name: None for name, value in together._asdict().items() if value is None}
        assert_close(member(together, n), alone._replace(**left_out), because=f"in one program with another member, member {n} differs: ")
    return "2 members"
