"""Many episodes of trained policies: as many as were asked for, with intervals, also in a world that is not quite the run's."""

from __future__ import annotations

import numpy as np
import pytest

from envs.builder import Refusal
from runners import api
from runners.compose import compose
from runners.evaluate import evaluate, interval, measured, parse

LAST = ["agent.hidden=[8]", "logger.console=false", "evaluations=1", "exploration=none"]


def test_intervals():
    found = measured(np.float32([1] * 95 + [0] * 5), np.full(100, 7), np.zeros(100, bool), 0.5)
    assert found["success"]["rate"] == 0.95 and found["length"] == 7 and found["cut"] == 0
    assert found["success"]["low"] == pytest.approx(0.8872, abs=1e-4) and found["success"]["high"] == pytest.approx(0.9836, abs=1e-4)  # Clopper and Pearson
    low, high = interval(np.float32([1] * 95 + [0] * 5))
    assert 0.89 < low < 0.93 and 0.97 < high <= 1.0
    assert "success" not in measured(np.zeros(3, np.float32), np.ones(3), np.ones(3, bool), None)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "takes one run directory"),
        (["runs/a", "episode=3"], "did you mean episodes"),
        (["runs/a", "episodes=0"], "episodes must be"),
        (["runs/a", "member=one"], "or all"),
        (["runs/a", "policy=worst"], "policy must be"),
        (["runs/a", "agent.hidden=[3]"], "those of env. and runner. may be changed too"),
    ],
)
def test_what_is_refused(words, said):
    with pytest.raises(Refusal, match=said):
        parse(words)


@pytest.mark.medium
def test_a_policy_on_the_device(tmp_path, capsys):
    """Every episode of DeepSea has as many steps as the sea is deep. Greedy ones are all alike, and drawn ones or those with sticky actions are not."""
    run = api.train(compose([*LAST, "env=deep_sea", "env.size=6", "seeds=2", "runner.lanes=8", "total_steps=1024"]), tmp_path)["run_dir"]
    found = evaluate([run, "episodes=30", "runner.evaluation_mode=explore"])
    assert [row["member"] for row in found["members"]] == [0, 1] and all(row["length"] == 6 and row["cut"] == 0 for row in found["members"])
    assert all(0 <= row["success"]["low"] <= row["success"]["rate"] <= row["success"]["high"] for row in found["members"])
    assert found == evaluate([run, "episodes=30", "runner.evaluation_mode=explore"])
    assert "intervals of 95 %" in capsys.readouterr().err
    alike = [evaluate([run, "episodes=30", "member=1", *more])["members"] for more in ([], ["env.sticky_actions=0.5"])]
    assert [row["return"]["low"] == row["return"]["high"] for (row,) in alike] == [True, False] and alike[0][0]["member"] == 1
    assert all(row["return"]["low"] < row["return"]["high"] for row in found["members"])
    with pytest.raises(Refusal, match=r"env\.size\b"):
        evaluate([run, "env.sizes=3"])


@pytest.mark.medium
def test_a_policy_on_the_host(tmp_path):
    lake = ["env=gymnasium", "env.id=FrozenLake-v1", "runner.lanes=4", "runner.rollout=16", "total_steps=256", "seeds=1"]
    run = api.train(compose([*LAST, *lake]), tmp_path)["run_dir"]
    row = evaluate([run, "episodes=10", "runner.evaluation_mode=explore"])["members"][0]
    assert 0 <= row["return"]["mean"] <= 1 and 1 <= row["length"] <= 100


@pytest.mark.medium
def test_a_policy_that_needs_to_be_guided_has_its_guide(tmp_path):
    returns = ["runner=policy_go_explore", "env=deep_sea", "env.size=5", "runner.lanes=4", "runner.rollout=16", "total_steps=512", "seeds=1"]
    run = api.train(compose([*LAST, *returns]), tmp_path)["run_dir"]
    assert evaluate([run, "episodes=4"])["members"][0]["length"] == 5
