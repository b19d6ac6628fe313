"""The laws of bonuses: what is true of every bonus and every combinator, whatever its method.

The first is that there is an iteration to examine; where it fails, most others cannot be tried. Adding a law is writing a function in
``form.py`` or ``numbers.py`` and adding a line here.
"""

from __future__ import annotations

from exploration.laws import form, numbers
from exploration.laws.base import law

BONUS_LAWS = tuple(
    law(function)
    for function in (
        form.runs,
        form.the_state_keeps_its_structure_and_dtypes,
        form.a_state_of_any_age_runs_the_same_program,
        form.annotations_are_those_declared,
        form.rewards_are_a_number_per_step,
        form.metrics_are_numbers,
        form.a_replay_batch_updates_as_well,
        numbers.everything_is_finite,
        numbers.finite_where_nothing_varies,
        numbers.raw_is_not_negative_if_declared_so,
        numbers.it_pays_something,
        numbers.seen_again_it_pays_less,
        numbers.scores_do_not_depend_on_the_batch,
        numbers.scored_at_the_step_means_from_its_annotations,
        numbers.what_is_not_needed_is_not_read,
        numbers.a_score_reads_what_it_needs_only,
        numbers.lanes_are_interchangeable,
        numbers.lanes_are_kept_apart,
        numbers.gradients_exist_where_declared_and_nowhere_else,
        numbers.a_reset_touches_its_lanes_only,
        numbers.a_reset_makes_lanes_new_if_episodic,
        form.features_fit_their_space,
        form.a_state_that_was_saved_goes_on_identically,
        form.jit_equals_no_jit,
        form.members_side_by_side_equal_single_ones,
    )
)
