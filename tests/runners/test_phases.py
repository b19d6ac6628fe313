"""Phases one after the other: explore, demonstrate, learn from that; each is found again, and what cannot be chained is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from envs.builder import Refusal
from runners import api
from runners.compose import compose

QUIET = ["logger.console=false", "segments=4", "evaluations=1"]
FIRST = ["exploration=go_explore", "env.size=5", "exploration.best=end", "runner.lanes=20", "runner.explore_steps=5", "seeds=1", "total_steps=4000"]
SECOND = ["runner=backward", "exploration=none", "env.size=5", "seeds=1", "total_steps=1500", "runner.lanes=8", "runner.rollout=16"]
SECOND += ["agent.hidden=[8]", "agent.epochs=1", "agent.minibatches=2"]
TEACHER = ["agent=dqn", "runner=off_policy", "exploration=none", "env.size=5", "seeds=1", "total_steps=256", "agent.hidden=[8]", "runner.learning_starts=64"]
LEARNER = ["agent=dqn", "runner=offline", "exploration=none", "env.size=5", "seeds=1", "total_steps=8", "agent.hidden=[8]", "runner.batch_size=8"]


def after(words: list[str]) -> str:
    return "after=[" + ",".join(f"'{word}'" for word in words) + "]"


@pytest.mark.medium
def test_one_command_runs_all_phases_and_finds_them_again(tmp_path):
    chained = compose([*SECOND, *QUIET, after([*FIRST, "evaluations=0"])])
    summary = api.train(chained, tmp_path)
    explored = next(path for path in tmp_path.iterdir() if "go_explore" in path.name)
    files = sorted(file.name for file in (explored / "demonstrations").iterdir())
    assert files == ["member-0-end.npz"] and len(list(tmp_path.iterdir())) == 2
    assert api.train(chained, tmp_path) == summary and api.resume(summary["run_dir"]) == summary
    parts = {phase: api.train(chained | {"phase": phase}, tmp_path) for phase in ("explore", "demonstrate", "robustify", "evaluate")}
    assert parts["explore"]["run_dir"] == str(explored) and "demonstrations" not in parts["explore"] and parts["robustify"] == summary
    assert parts["demonstrate"]["demonstrations"] == [str(explored / "demonstrations" / files[0])]
    evaluated = parts["evaluate"]["evaluation"]["members"][0]["return"]["mean"]
    assert evaluated == pytest.approx(summary["members"][0]["metrics"]["evaluation/return"])
    assert len(list(tmp_path.iterdir())) == 2
    by_hand = compose([*SECOND, *QUIET, f"runner.demonstrations={explored}"])
    assert api.train(by_hand, tmp_path)["run_dir"] == summary["run_dir"]  # the same demonstrations, the same run


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ([after(FIRST)], "learn from demonstrations or a data set; use runner=backward or runner=offline"),
        ([*SECOND, after(["exploration=counts"])], "makes no demonstrations"),
        ([*SECOND, after(["experiment=go_explore/deep_sea"])], "has an after of its own"),
        ([*SECOND, after(["exploration=go_explor"])], "did you mean go_explore"),
        ([*SECOND, "after=go_explore"], "must be a list of words"),
        ([*SECOND, after(FIRST), "phase=explor"], "must be null or one of explore, demonstrate, robustify, evaluate"),
        (["exploration=counts", "phase=demonstrate"], "is for runs that explore first"),
        ([*SECOND, after(FIRST), "phase=evaluate", "evaluations=0"], "evaluations=0 leaves none"),
        ([*SECOND, after(FIRST), "export.noise=0.3"], "makes an archive, which is demonstrated"),
        ([*LEARNER, after([*TEACHER, "evaluations=0"])], "that run has evaluations=0"),
        ([*LEARNER, after(TEACHER), "export.noice=0.3"], "there is no setting 'noice' \\(did you mean noise"),
        ([*LEARNER, after(TEACHER), "export.episodes=0"], "episodes must be"),
        ([*LEARNER, "export.episodes=3"], "there is no after"),
    ],
)
def test_what_cannot_be_chained_is_refused_before_anything_runs(tmp_path, settings, said):
    with pytest.raises(Refusal, match=said):
        api.train(compose(settings), tmp_path / "runs")
    assert not Path(tmp_path / "runs").exists()


@pytest.mark.medium
def test_a_policy_makes_the_data_that_the_next_run_learns_from(tmp_path):
    """Once for each way of making them; how they came about is in no name."""
    chained = compose([*LEARNER, *QUIET, after(TEACHER), "export.episodes=3", "export.random_share=0.5"])
    summary = api.train(chained, tmp_path)
    taught = next(path for path in tmp_path.iterdir() if str(path) != summary["run_dir"])
    data = taught / "data" / "episodes-3-random_share-0.5-v0"
    assert [folder.name for folder in (taught / "data").iterdir()] == [data.name] and len(list(tmp_path.iterdir())) == 2
    assert api.train(chained, tmp_path) == summary and api.train(chained | {"phase": "demonstrate"}, tmp_path)["data"] == str(data)
    assert api.train(compose([*LEARNER, *QUIET, f"runner.data={data}"]), tmp_path)["run_dir"] == summary["run_dir"]
    other = api.train(chained | {"export": {"episodes": 4}}, tmp_path)
    assert other["run_dir"] != summary["run_dir"] and len(list((taught / "data").iterdir())) == 2


@pytest.mark.medium
def test_debug_shrinks_all_phases_and_learns_from_whatever_they_found(tmp_path):
    """The preset explores up to two million steps for a treasure that two thousand do not find."""
    chained = compose(["experiment=go_explore/deep_sea", "debug=true", "agent.hidden=[8]", "agent.epochs=1", "logger.console=false"])
    summary = api.train(chained, tmp_path)
    explored = next(path for path in tmp_path.iterdir() if "go_explore" in path.name)
    assert sorted(file.name for file in (explored / "demonstrations").iterdir()) == ["member-0-longest.npz", "member-1-longest.npz"]
    assert api.metrics(explored)[-1]["step"] == 10_000 and summary["members"][0]["metrics"]["backward/start"] >= 0


@pytest.mark.medium
def test_where_nobody_has_succeeded_there_is_nothing_to_learn_from(tmp_path):
    small = [*(word for word in FIRST if not word.startswith(("total", "env"))), "env.size=30", "total_steps=100", "segments=1"]
    with pytest.raises(Refusal, match="no member has succeeded"):
        api.train(compose([*SECOND, *QUIET, after(small)]), tmp_path)
