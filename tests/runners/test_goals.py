"""``stop_when``: a run ends at the first segment at which all members have reached its goal, also after being killed at any place."""

from __future__ import annotations

import numpy as np
import pytest

from envs.builder import Refusal
from runners import api, goals, loop
from runners.rundir import digest
from tests.runners.tiny import TINY

COUNTS = ["exploration=counts", "exploration.key=state"]
RUN = [*TINY[:-1], *COUNTS, "total_steps=640", "seeds=2", "segments=10", "logger.console=false", "evaluations=2", "batching=vmap"]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """(the run without a goal, a bound of bonus/distinct_states that its members reach between the first and the last segment, and where)."""
    found = api.metrics(api.train(api.compose(*RUN), tmp_path_factory.mktemp("runs"))["run_dir"])
    steps = sorted({row["step"] for row in found if "bonus/distinct_states" in row})
    slowest = {step: min(row["bonus/distinct_states"] for row in found if row["step"] == step and "bonus/distinct_states" in row) for step in steps}
    bound = slowest[steps[3]]
    return found, bound, next(step for step in steps if slowest[step] >= bound)


def without_times(rows):
    return [{k: v for k, v in row.items() if not k.startswith("time/")} for row in rows]


def train(bound, folder):
    return api.train(api.compose(*RUN, f"stop_when='bonus/distinct_states>={bound}'"), folder)


def test_the_run_ends_there_and_is_the_beginning_of_the_run_without_a_goal(whole, tmp_path):
    rows, bound, step = whole
    summary = train(bound, tmp_path)
    assert summary["steps"] == step < 640
    ended = without_times(api.metrics(summary["run_dir"]))
    before = [row for row in without_times(rows) if row["step"] <= step]
    assert [row for row in ended if not any(k.startswith("evaluation/") for k in row)] == [
        row for row in before if not any(k.startswith("evaluation/") for k in row)
    ]
    assert any(row["step"] == step and "evaluation/return" in row for row in ended)  # it is evaluated where it ends


class Killed(Exception):
    pass


@pytest.mark.medium
@pytest.mark.parametrize("after", [1, 2, 4])
def test_a_killed_run_ends_at_the_same_place(after, whole, tmp_path, monkeypatch):
    _, bound, step = whole
    saves = []

    def save(self):
        kept(self)
        saves.append(1)
        if len(saves) == after or self.remember.iteration == self.end:
            raise Killed

    kept = loop.Loop.save
    with monkeypatch.context() as patch:
        patch.setattr(loop.Loop, "save", save)
        with pytest.raises(Killed):
            api.train(api.compose(*RUN, f"stop_when='bonus/distinct_states>={bound}'", "checkpoint.seconds=0"), tmp_path)
    assert train(bound, tmp_path)["steps"] == step


def test_a_goal_that_is_never_reached_changes_nothing(whole, tmp_path):
    summary = train(10**6, tmp_path)
    assert without_times(api.metrics(summary["run_dir"])) == without_times(whole[0])


def test_all_members_must_reach_it_and_a_metric_without_a_value_has_not():
    reached = goals.reached("evaluation/return>=1.5")
    assert reached([{"evaluation/return": 1.5}, {"evaluation/return": 2.0}])
    assert not reached([{"evaluation/return": 1.5}, {"evaluation/return": 1.0}])
    assert not reached([{"evaluation/return": None}]) and not reached([{}]) and not reached([{"evaluation/return": np.nan}])
    assert goals.reached("loss/value<=-1e-3")([{"loss/value": -0.01}])
    assert not goals.reached(None)([{}])


@pytest.mark.parametrize("typed", ["world/solved", "world/solved>1", "solved>=1", "world/solved>=", "world/solved>=nan", ">=1", "a/b>=1 c/d>=1"])
def test_what_is_no_goal_is_refused(typed):
    assert not goals.Goal().accepts(typed)


def test_a_metric_that_the_run_has_not_is_refused_with_the_closest(tmp_path):
    with pytest.raises(Refusal, match=r"no metric bonus/distinct_state .*did you mean bonus/distinct_states"):
        api.train(api.compose(*RUN, "stop_when='bonus/distinct_state>=3'"), tmp_path)
    with pytest.raises(Refusal, match="no metric evaluation/return"):
        api.train(api.compose(*(o for o in RUN if o != "evaluations=2"), "evaluations=0", "stop_when='evaluation/return>=3'"), tmp_path)
    assert not list(tmp_path.iterdir())


def test_runs_keep_the_name_that_they_had_before_there_were_goals():
    config = api.compose(*RUN)
    older = {key: value for key, value in config.items() if key != "stop_when"}
    assert digest(config) == digest(older) != digest(config | {"stop_when": "world/solved>=1"})
