"""What a sweep runs: reading axes, cutting a grid into programs, drawing points. Everything here is planned, nothing is run."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from envs.builder import Refusal
from runners.compose import compose
from runners.continues import identity
from runners.experiment import experiment
from runners.sweeps import grid, planner, search, settings
from runners.sweeps.program import Program

TINY = ["env.size=4", "seeds=3", "total_steps=64"]
RUNS = Path("runs")


def members(words):
    made = experiment(compose(list(words)))
    return [identity(made.config, member) for member in made.members]


def planned(words, most=None):
    single, axes = grid.read([*TINY, *words])
    combinations = grid.combinations(axes)
    return planner.plan(single, combinations, most, RUNS), [[*single, *planner.texts(c)] for c in combinations]


def test_axes_are_read_as_hydra_reads_them():
    single, axes = grid.read(["seeds=2", "agent.clip=0.1,0.2", "agent.epochs=range(1,4)", "exploration=glob(r*)", "agent.hidden=[8],[16,16]"])
    assert single == ["seeds=2"]
    assert [a.key for a in axes] == ["agent.clip", "agent.epochs", "exploration", "agent.hidden"]
    assert axes[1].values == ("1", "2", "3") and "rnd" in axes[2].values and axes[3].values == ("[8]", "[16,16]")
    assert grid.combinations(axes[:2])[:4] == [{"agent.clip": "0.1", "agent.epochs": e} for e in "123"] + [{"agent.clip": "0.2", "agent.epochs": "1"}]
    assert grid.combinations([]) == [{}]


@pytest.mark.parametrize(
    ("words", "answer"),
    [
        (["run_dir=runs/a"], "leave it out"),
        (["run_dir=a,b"], "leave it out"),
        (["agent.clip=0.1,0.1"], "names a value twice"),
        (["agent.clip=0.1,0.2", "agent.clip=0.3,0.4"], "twice"),
        (["agent.clip=choice()"], "no values|cannot be read"),
        (["agent.clip=interval(0.2,0.1)"], "lower end"),
        (["agent.clip=tag(log,interval(0,1))"], "above 0"),
        (["agent.clip=interval(0,1)"], "sweep.search=random"),
        (["agent.clip=glob(a*)"], "only options"),
        (["agent.clip=range(1,400)", "seeds=range(1,400)"], "at most 100,000"),
        (["agent.clip"], "key=value"),
        (["agent.clip=[0.1,"], "brackets"),
    ],
)
def test_what_is_no_grid_is_refused(words, answer):
    with pytest.raises(Refusal, match=answer):
        grid.combinations(grid.read(words)[1])


@pytest.mark.parametrize(
    ("words", "answer"),
    [
        (["sweep.max_member=3"], "did you mean sweep.max_members"),
        (["sweep.max_members=0"], "at least 1|must be"),
        (["sweep.search=gird"], "grid"),
        (["sweep.trials=2", "sweep.trials=3"], "twice"),
        (["hydra/launcher=jolib"], "did you mean joblib"),
    ],
)
def test_settings_of_a_sweep_are_checked(words, answer):
    with pytest.raises(Refusal, match=answer):
        settings.split(words)


def test_settings_launchers_and_runs_are_told_apart():
    runs, chosen, launcher = settings.split(["agent.clip=0.1,0.2", "sweep.max_members=8", "hydra/launcher=basic", "seeds=2"])
    assert runs == ["agent.clip=0.1,0.2", "seeds=2"] and launcher == ["hydra/launcher=basic"]
    assert chosen["max_members"] == 8 and set(chosen) == set(settings.RANGES)


def test_numbers_become_members_and_all_else_compiles_apart():
    programs, _ = planned(["exploration=counts,rnd,noveld", "exploration.scale=0.1,1"])
    assert [p.members for p in programs] == [6, 6, 6] and all(p.steps == 6 * 64 for p in programs)
    assert [p.words[len(TINY) :] for p in programs] == [[f"exploration={b}", "vmap.exploration.scale=[0.1,1]"] for b in ("counts", "rnd", "noveld")]
    apart, _ = planned(["agent.epochs=1,2", "agent.clip=0.1,0.2", "agent.hidden=[8],[16]"])
    assert len(apart) == 4 and all("vmap.agent.clip=[0.1,0.2]" in p.words for p in apart)


def test_a_number_that_is_not_traced_everywhere_is_folded_where_it_is():
    """A clip of null decides the program, so each of the two values has a program; the scale is a number in both."""
    programs, _ = planned(["exploration.clip=null,1.0", "exploration.scale=0.1,1"])
    assert sorted(p.members for p in programs) == [6, 6] and {w for p in programs for w in p.words if "clip" in w} == {
        "exploration.clip=null",
        "exploration.clip=1.0",
    }


@pytest.mark.parametrize("most", [None, 1, 2, 3, 4, 6, 7, 100])
@pytest.mark.parametrize("words", [["exploration=counts,rnd", "exploration.scale=0.1,1"], ["agent.clip=0.1,0.2,0.3", "agent.learning_rate=1e-3,1e-4"]])
def test_a_plan_makes_every_member_once_whatever_its_size(words, most):
    programs, apart = planned(words, most)
    wanted = [member for job in apart for member in members(job)]
    found = [member for program in programs for member in members(program.words)]
    assert len(set(wanted)) == len(wanted) and sorted(found) == sorted(wanted)
    assert all(program.members <= (most or 100) and program.members == len(members(program.words)) for program in programs)
    assert len({program.run for program in programs}) == len(programs)


def test_members_are_in_the_order_of_the_combinations():
    """What reads results relies on it: points, and within a point the seeds."""
    for most in (None, 4):
        for program in planned(["agent.clip=0.1,0.2", "agent.learning_rate=1e-3,1e-4"], most)[0]:
            seeds = [w for w in [*TINY, *program.words] if w.startswith("seeds=")][-1]
            wanted = [m for c in program.combinations for m in members([TINY[0], TINY[2], seeds, *planner.texts(c)])]
            assert members(program.words) == wanted


def test_a_single_setting_is_the_run_that_one_would_type():
    (program,), _ = planned(["exploration=rnd", "exploration.scale=0.3"])
    made = experiment(compose([*TINY, "exploration=rnd", "exploration.scale=0.3"]))
    assert program.run.startswith(f"runs/{made.name}-") and program.words == [*TINY, "exploration=rnd", "exploration.scale=0.3"]


def test_points_that_are_no_grid_go_together():
    points = [{"a.x": "1", "a.y": "5"}, {"a.x": "2", "a.y": "6"}]
    assert planner.folded(points) == ["zip.a.x=[1,2]", "zip.a.y=[5,6]"]
    assert planner.folded(points[:1]) == ["a.x=1", "a.y=5"]
    assert planner.folded([{"a.x": x, "a.y": "5"} for x in "12"]) == ["a.y=5", "vmap.a.x=[1,2]"]


def test_a_program_that_cannot_be_is_said_in_the_plan():
    made = Program(["agent=sac", "runner=off_policy", *TINY], [{}], "runs/x", 3, 192)
    assert planner.estimate(made, 2**40) is None and "Box actions" in made.refused and made.peak is None


def test_too_little_memory_gives_smaller_programs():
    (made,), _ = planned(["exploration.scale=0.1,1,2,3"])
    assert planner.estimate(made, 2**50) is None and made.peak > 0
    assert 1 <= planner.estimate(made, made.peak // 2) < made.members


def test_points_are_drawn_once_each_and_the_same_again():
    axes = grid.read(["a=tag(log,interval(1e-4,1))", "b=interval(-1,1)", "c=x,y"])[1]
    points = grid.drawn(axes, 400, seed=0)
    assert points == grid.drawn(axes, 400, seed=0) != grid.drawn(axes, 400, seed=1)
    assert len({tuple(p.values()) for p in points}) == 400
    logs, flat = np.log10([float(p["a"]) for p in points]), np.array([float(p["b"]) for p in points])
    assert -4 <= logs.min() < -3.8 and -0.2 < logs.max() <= 0 and abs(logs.mean() + 2) < 0.2  # uniform on the log scale
    assert abs(flat.mean()) < 0.1 and flat.std() == pytest.approx(2 / 12**0.5, rel=0.1)
    assert abs(sum(p["c"] == "x" for p in points) - 200) < 50
    small = grid.read(["a=1,2", "c=x,y"])[1]
    assert grid.drawn(small, 400, seed=0) == grid.combinations(small)


def test_the_objective_is_an_interquartile_mean():
    assert search.interquartile_mean([0.0, 1.0, 2.0, 100.0]) == 1.5
    assert search.interquartile_mean([3.0]) == 3.0
    assert search.interquartile_mean([1.0, float("nan"), 1.0, 1.0]) is None
