"""Bonuses that are wrong on purpose are found out, each by the law meant for it and in words that say what is wrong."""

from __future__ import annotations

import jax.numpy as jnp
import pytest

from exploration.laws.base import FAILED, judge
from exploration.laws.bonuses import BONUS_LAWS
from exploration.laws.data import Traced
from exploration.laws.life import Subject
from exploration.laws.worlds import made_up
from tests.laws.wrong import RIGHT, WRONG

LAWS = {law.name: law for law in BONUS_LAWS}


@pytest.mark.parametrize("name", RIGHT)
def test_right_ones_pass(name):
    subject = Subject(RIGHT[name], made_up())
    failed = {law.name: verdict.detail for law in BONUS_LAWS if (verdict := judge(law.check, subject)).outcome == FAILED}
    assert not failed


@pytest.mark.parametrize("name", WRONG)
def test_wrong_ones_are_found_out(name):
    wrong = WRONG[name]
    verdict = judge(LAWS[wrong.law].check, Subject(wrong.builder, made_up()))
    assert verdict.outcome == FAILED and wrong.reason in verdict.detail, verdict


def test_every_law_finds_something():
    assert {wrong.law for wrong in WRONG.values()} == set(LAWS)


def test_a_program_that_is_traced_again_is_the_same_program():
    """The suite clears jax's caches when a process has mapped too much, in the middle of whatever it holds."""
    traced = []
    double = Traced(lambda x: traced.append(1) or 2 * x)
    double(jnp.ones(3))
    double._call.clear_cache()
    double(jnp.zeros(3))
    assert len(traced) == 2 and len(double.programs) == 1
    double(jnp.ones(3, jnp.int32))
    assert len(double.programs) == 2
