"""``farlands check``: what it says of right and of wrong bonuses, and what it refuses."""

from __future__ import annotations

import json

import pytest

from envs.builder import Refusal
from exploration.laws.base import FAILED, NOT_APPLICABLE, NOT_RUN, OK, Verdict
from exploration.laws.worlds import made_up
from runners.check import combined, find_subjects, known_answers
from tests.runners.test_cli import answer, farlands

MODULE = """
import jax.numpy as jnp
from envs.builder import Refusal
from exploration.base import BonusInfo, bonus

def sour(spec):
    return bonus(score=lambda state, t: jnp.log(t.reward), info=BonusInfo(needs=("reward",)))

def broken(spec):
    return bonus(score=lambda state, t: t.next_observation, info=BonusInfo())

def answered(spec):
    return bonus(score=lambda state, t: jnp.square(t.reward), info=BonusInfo(needs=("reward",), fades=False))

def wrong_answer():
    raise AssertionError("it gives 1, and should give 2")

KNOWN_ANSWERS = [("one is two", wrong_answer)]
"""


def last(done):
    return json.loads(done.stdout.strip().splitlines()[-1])


@pytest.mark.medium
def test_a_right_bonus(tmp_path):
    done = farlands("check", "exploration=counts", "env.size=4", cwd=tmp_path, check=0)
    result = last(done)
    assert result["failed"] == [] and result["worlds"] == ["deep_sea-4", "vector", "codes", "pixels"] and result["known_answers"] == 5
    assert "1, 0.7071, 0.5774, 0.5, 0.4472" in done.stdout and "1, 1.99, 2.97" in done.stdout and "FAILED" not in done.stdout
    assert not list(tmp_path.iterdir())


@pytest.mark.medium
@pytest.mark.parametrize(
    ("builder", "failed", "reason"),
    [
        ("sour", {"everything is finite", "one is two"}, "raw[0, 0] is nan"),
        ("broken", {"runs", "one is two"}, "score raises AttributeError"),
        ("answered", {"one is two"}, "it gives 1, and should give 2"),
    ],
)
def test_wrong_bonuses(builder, failed, reason, tmp_path):
    (tmp_path / "mylab.py").write_text(MODULE)
    done = farlands("check", "exploration=custom", f"exploration._target_=mylab.{builder}", "env.size=4", "exploration.normalize=none", cwd=tmp_path)
    assert done.returncode == 1 and set(last(done)["failed"]) == failed and reason in " ".join(done.stdout.split()), done.stdout


@pytest.mark.parametrize(
    ("typed", "expected"),
    [
        (["exploration=cuonts"], "did you mean counts"),
        (["exploration=counts", "exploration.capacty=8"], "did you mean exploration.capacity"),
        (["exploration=counts", "exploration.per_episode=true", "env=gymnax", "env.id=CartPole-v1"], "needs a world that declares num_states"),
        (["exploration=custom"], "exploration._target_"),
        (["exploration=custom", "exploration._target_=mylab.mine"], "type PYTHONPATH=. before the command"),
    ],
)
def test_what_train_refuses_is_refused(typed, expected, tmp_path):
    assert expected in answer(farlands("check", *typed, cwd=tmp_path))
    assert not list(tmp_path.iterdir())


def refuses_pixels(spec):
    from exploration.base import none

    if spec.observation.shape == (36, 36, 1):
        raise Refusal("no pictures")
    return none(spec)


def test_worlds_that_a_bonus_refuses_are_left_out():
    subjects, left_out = find_subjects({"_target_": f"{__name__}.refuses_pixels"}, made_up(name="chosen"))
    assert list(subjects) == ["chosen", "vector", "codes"] and left_out == {"pixels": "no pictures"}


def test_known_answers_of_every_builder_in_the_entry_once():
    counts, rnd = {"_target_": "exploration.counts.counts"}, {"_target_": "exploration.rnd.rnd"}
    entry = {"_target_": "exploration.combinators.chain", "bonuses": [counts, {"_target_": "exploration.combinators.scale", "bonus": rnd}, counts]}
    both = [told for part in (counts, rnd) for told, _ in known_answers(part, {})]
    assert [told for told, _ in known_answers(entry, {})] == both and len(both) > 3
    assert len(known_answers(entry, {"normalize": "reward_forward"})) == len(both) + 1


def test_the_worst_of_all_worlds_counts():
    ok, failed, silent, skipped = Verdict(OK, "1"), Verdict(FAILED, "nan"), Verdict(NOT_APPLICABLE, "x"), Verdict(NOT_RUN, "y")
    assert combined({"a": silent, "b": ok}) == ok and combined({"a": silent}) == silent
    assert combined({"a": ok, "b": failed, "c": failed}) == Verdict(FAILED, "in b, c: nan")
    assert combined({"a": failed, "b": failed}) == failed
    assert combined({"a": ok, "b": skipped}).outcome == NOT_RUN
