"""``stop_at`` and ``continues``: a run cut in two runs is the whole run, for those of its members that go on."""

from __future__ import annotations

import pytest

from envs.builder import Refusal
from runners import api
from tests.runners.tiny import TINY

RUN = [*TINY[:-1], "total_steps=640", "segments=10", "exploration=rnd", "exploration.hidden=[8]", "exploration.embedding=4", "exploration.minibatches=2"]
RUN += ["exploration.warmup=8", "logger.console=false", "evaluations=2", "batching=vmap"]


def train(folder, *words):
    return api.train(api.compose(*RUN, *words), folder)


def rows(run, *, last=640, **wanted):
    """Rows of the given member, without its number and times."""
    left = [row for row in api.metrics(run) if all(row[k] == v for k, v in wanted.items()) and row["step"] <= last]
    return [{k: v for k, v in row.items() if not k.startswith("time/") and k != "member"} for row in left]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return train(tmp_path_factory.mktemp("whole"), "seeds=3", "vmap.exploration.scale=[0.5,1.5]")


@pytest.fixture(scope="module")
def begun(tmp_path_factory):
    folder = tmp_path_factory.mktemp("begun")
    return folder, train(folder, "seeds=3", "vmap.exploration.scale=[0.5,1.5]", "stop_at=256")


def close(found, wanted):
    assert [sorted(row) for row in found] == [sorted(row) for row in wanted]
    for a, b in zip(found, wanted, strict=True):
        assert a == {k: v if not isinstance(v, float) else pytest.approx(v, rel=1e-4, abs=1e-5) for k, v in b.items()}


@pytest.mark.medium
def test_a_run_may_end_before_its_schedules_do(begun, whole):
    _, summary = begun
    assert summary["steps"] == 256
    metrics = [row for row in rows(summary["run_dir"]) if "evaluation/return" not in row]
    assert metrics == [row for row in rows(whole["run_dir"], last=256) if "evaluation/return" not in row]
    assert all("evaluation/return" in member["metrics"] for member in summary["members"])  # it is evaluated where it ends


@pytest.mark.medium
def test_some_members_go_on_and_make_what_the_whole_run_makes(begun, whole, tmp_path):
    """Other numbers of members are another program: equal within rounding. Their past comes with them."""
    folder, half = begun
    ended = train(tmp_path, "seeds=[2,0]", "zip.exploration.scale=[1.5]", f"continues={half['run_dir']}")
    assert ended["steps"] == 640 and len(ended["members"]) == 2
    for seed in (2, 0):
        found = [row for row in rows(ended["run_dir"], seed=seed) if "evaluation/return" not in row]
        wanted = [row for row in rows(whole["run_dir"], seed=seed) if row.get("exploration.scale") == 1.5 and "evaluation/return" not in row]
        assert len(found) == 10
        close(found, wanted)


@pytest.mark.medium
def test_members_of_two_runs_go_on_together(begun, whole, tmp_path):
    _, half = begun
    others = train(tmp_path, "seeds=[3]", "exploration.scale=0.5", "stop_at=256")
    ended = train(tmp_path, "seeds=[3,1]", "exploration.scale=0.5", f"continues=[{half['run_dir']},{others['run_dir']}]")
    assert [m["seed"] for m in ended["members"]] == [3, 1] and ended["steps"] == 640
    wanted = [row for row in rows(whole["run_dir"], seed=1) if row.get("exploration.scale") == 0.5 and "evaluation/return" not in row]
    found = [row for row in rows(ended["run_dir"], seed=1) if "evaluation/return" not in row]
    plain = [[{k: v for k, v in row.items() if k != "exploration.scale"} for row in several] for several in (found, wanted)]
    close(*plain)


def test_what_is_not_there_cannot_go_on(begun, tmp_path):
    _, half = begun
    for words, answer in (
        (["seeds=[7]", "exploration.scale=0.5"], "no member of .* has seed=7"),
        (["seeds=[1]", "exploration.scale=0.7"], "has seed=1 and the other settings"),
        (["seeds=[1]", "exploration.scale=0.5", "agent.clip=0.3"], "only seeds, vmap, zip"),
    ):
        with pytest.raises(Refusal, match=answer):
            train(tmp_path, *words, f"continues={half['run_dir']}")
    with pytest.raises(Refusal, match="is not a run"):
        train(tmp_path, "seeds=1", f"continues={tmp_path}/nothing")
    with pytest.raises(Refusal, match="beyond total_steps"):
        train(tmp_path, "seeds=1", "stop_at=641")
    with pytest.raises(Refusal, match="both given"):
        train(tmp_path, "seeds=1", f"continues={half['run_dir']}", f"init_from={half['run_dir']}")
    assert not list(tmp_path.iterdir())
