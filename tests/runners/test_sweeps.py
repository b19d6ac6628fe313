"""Sweeps as people run them: real processes, launchers, kills. What a plan is, is in test_sweep_plan.py."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from runners import rundir
from tests.runners.tiny import TINY

ROOT = Path(__file__).resolve().parent.parent.parent
SWEEP = [*TINY, "exploration=counts,e3b", "exploration.scale=0.1,1", "seeds=2", "segments=4", "evaluations=0"]
SMALL = ["exploration.hidden=[8]"]
ENVIRONMENT = {k: v for k, v in os.environ.items() if k != "XLA_FLAGS"} | {"JAX_PLATFORMS": "cpu", "COLUMNS": "200"}


def command(*words):
    return [sys.executable, "-m", "runners.cli", "train", "-m", *words]


def sweep(*words, cwd, code=0, path=()):
    environment = ENVIRONMENT | {"PYTHONPATH": os.pathsep.join([str(ROOT), *map(str, path)])}
    done = subprocess.run(command(*words), cwd=cwd, env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == code, done.stderr[-3000:]
    assert "Traceback" not in done.stderr, done.stderr
    return done, json.loads(done.stdout.strip().splitlines()[-1]) if done.stdout.strip() else None


def metrics(folder):
    """Rows of every run, without times."""
    return {
        run.name: [{k: v for k, v in row.items() if not k.startswith("time/")} for row in rundir.read_metrics(run)]
        for run in sorted((folder / "runs").iterdir())
        if run.name != "sweeps"
    }


def starts(folder):
    """How often each run was started."""
    return {run.name: len(json.loads((run / "manifest.json").read_text())["starts"]) for run in (folder / "runs").iterdir() if run.name != "sweeps"}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    done, said = sweep(*SWEEP, cwd=folder)
    return folder, done, said


@pytest.mark.medium
def test_a_sweep_plans_runs_and_says_what_became_of_it(whole):
    folder, done, said = whole
    assert "4 settings, 8 members in 2 programs" in done.stderr and "MiB" in done.stderr or "KiB" in done.stderr
    assert said["programs"] == 2 and said["failed"] == 0 and sorted(Path(r).name for r in said["runs"]) == sorted(metrics(folder))
    assert all(len({(row["member"]) for row in rows}) == 4 for rows in metrics(folder).values())
    again, same = sweep(*SWEEP, cwd=folder)
    assert "2 of 2 programs are finished already" in again.stderr and same == said and set(starts(folder).values()) == {1}
    assert "about 0:0" in again.stderr  # the time that such runs took before


LAUNCHERS = {"joblib": "hydra.launcher.n_jobs=2", "submitit_local": "hydra.launcher.timeout_min=10", "ray": None}


@pytest.mark.medium
@pytest.mark.parametrize("launcher", list(LAUNCHERS))
def test_launchers_give_the_same_bits(launcher, whole, tmp_path):
    if launcher == "ray" and importlib.util.find_spec("ray") is None:
        pytest.skip("ray is not installed (requirements-ray.lock)")
    _, said = sweep(*SWEEP, f"hydra/launcher={launcher}", *filter(None, [LAUNCHERS[launcher]]), cwd=tmp_path)
    assert said["failed"] == 0 and metrics(tmp_path) == metrics(whole[0])


@pytest.mark.medium
def test_programs_of_another_size_agree_within_rounding(whole, tmp_path):
    one = [w if w != "exploration=counts,e3b" else "exploration=counts" for w in SWEEP]
    sweep(*one, "sweep.max_members=2", cwd=tmp_path)
    parts, together = metrics(tmp_path), next(rows for name, rows in metrics(whole[0]).items() if "-counts-" in name)
    assert len(parts) == 2
    found, wanted = (sorted((r["seed"], r["step"], r["episode/return"]) for r in rows) for rows in (sum(parts.values(), []), together))
    assert [row[:2] for row in found] == [row[:2] for row in wanted]
    assert [row[2] for row in found] == pytest.approx([row[2] for row in wanted], abs=1e-5)


LETHAL = '''
import multiprocessing, os, signal
from exploration.counts import counts

def lethal(spec, **arguments):
    """Kills the process that runs it, as a machine without memory does; not the one that plans."""
    if multiprocessing.parent_process() is None and os.path.exists("lethal"):
        os.kill(os.getpid(), signal.SIGKILL)
    return counts(spec, **arguments)
'''


@pytest.mark.medium
def test_a_bad_job_stops_nothing_and_is_tried_again(tmp_path):
    (tmp_path / "mine.py").write_text(LETHAL)
    (tmp_path / "lethal").touch()
    tiny = [w for w in TINY if not w.startswith("agent.epochs")]
    words = [*tiny, "exploration=counts", "exploration._target_=exploration.counts.counts,mine.lethal", "agent.epochs=1,2", "seeds=1", "evaluations=0"]
    done, said = sweep(*words, cwd=tmp_path, code=1, path=[tmp_path])
    assert said["programs"] == 4 and said["failed"] == 2 and len(said["runs"]) == 2
    assert "killed by SIGKILL" in done.stdout and "mine.lethal" in done.stdout
    before = starts(tmp_path)
    (tmp_path / "lethal").unlink()
    _, mended = sweep(*words, cwd=tmp_path, path=[tmp_path])
    assert mended["failed"] == 0 and len(mended["runs"]) == 4
    assert all(starts(tmp_path)[Path(run).name] == before[Path(run).name] for run in said["runs"])  # what had finished was not started again


TAUGHT = ["agent=dqn", "exploration=none", "env.size=4", "seeds=1", "agent.hidden=[8]"]


def after(*words):
    return "after=[" + ",".join(f"'{word}'" for word in words) + "]"


@pytest.mark.medium
def test_what_runs_come_after_is_run_once_for_all_of_them(tmp_path):
    """As a program of its own, then the policy's data set, then the plan of those that learn from it; where that fails they are refused by name."""
    teacher = after(*TAUGHT, "runner=off_policy", "total_steps=128", "runner.learning_starts=64")
    learner = [*TAUGHT, "runner=offline", "total_steps=4", "runner.batch_size=8", teacher, "export.episodes=2"]
    shown, _ = sweep(*learner, "runner.discount=0.9,0.99", "sweep.dry=true", cwd=tmp_path)
    assert "planned when they are finished" in shown.stderr and not (tmp_path / "runs").exists()
    words = [*(w for w in learner if not w.startswith("runner.batch_size")), "runner.discount=0.9,0.99", "runner.batch_size=4,8"]
    done, said = sweep(*words, cwd=tmp_path)
    assert said["programs"] == 2 and said["failed"] == 0 and done.stderr.count("first, what others come after") == 1
    assert len(starts(tmp_path)) == 3 and set(starts(tmp_path).values()) == {1}
    again, same = sweep(*words, cwd=tmp_path)
    assert same == said and "first, what others" not in again.stderr and set(starts(tmp_path).values()) == {1}


@pytest.mark.medium
def test_where_the_first_run_fails_its_successors_are_refused_and_others_are_not(tmp_path):
    (tmp_path / "mine.py").write_text(LETHAL)
    (tmp_path / "lethal").touch()
    first = ["exploration=counts", *(w for w in TAUGHT if w != "exploration=none"), "runner=off_policy", "total_steps=128", "runner.learning_starts=64"]
    teachers = [after(*first), after(*first, "exploration._target_=mine.lethal")]
    choice = "after=" + ",".join(t.removeprefix("after=") for t in teachers)
    done, said = sweep(*TAUGHT, "runner=offline", "total_steps=4", "runner.batch_size=8", choice, "export.episodes=2", cwd=tmp_path, code=1, path=[tmp_path])
    assert said["programs"] == 2 and said["failed"] == 1 and "what comes first failed: killed by SIGKILL" in " ".join(done.stdout.split())


def wait_for(condition, seconds=120):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return
        time.sleep(0.1)
    raise AssertionError("it did not come to that")


LONG = [*(w for w in SWEEP if not w.startswith(("total_steps", "segments"))), "total_steps=24000", "segments=20", "checkpoint.seconds=0"]


@pytest.fixture(scope="module")
def untouched(tmp_path_factory):
    folder = tmp_path_factory.mktemp("untouched")
    sweep(*LONG, cwd=folder)
    return metrics(folder)


@pytest.mark.medium
@pytest.mark.parametrize("how", [signal.SIGKILL, *(pytest.param(s, marks=pytest.mark.slow) for s in (signal.SIGTERM, signal.SIGINT))])
def test_killed_in_the_middle_and_issued_again(how, untouched, tmp_path):
    """Nothing runs twice, nothing is lost: the metrics are those of a sweep that was left alone."""
    environment = ENVIRONMENT | {"PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(command(*LONG), cwd=tmp_path, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    wait_for(lambda: list(tmp_path.glob("runs/*/checkpoints/[0-9]*/meta.json")) or process.poll() is not None)
    process.send_signal(how)
    _, err = process.communicate(timeout=120)
    assert process.returncode == (130 if how == signal.SIGINT else -how), err[-2000:]
    assert ("the same command goes on" in err) == (how == signal.SIGINT)
    assert len(list(tmp_path.glob("runs/*/summary.json"))) < 2
    _, said = sweep(*LONG, cwd=tmp_path)
    assert said["failed"] == 0 and len(said["runs"]) == 2
    assert metrics(tmp_path) == untouched
    rows = [(row["member"], row["step"]) for run in said["runs"] for row in rundir.read_metrics(tmp_path / run)]
    assert len(rows) == 2 * 4 * 20 and all(rows.count(row) == 2 for row in set(rows))


@pytest.mark.medium
def test_a_preempted_job_is_queued_again(tmp_path):
    """Slurm's signal, as submitit_local knows it: the job saves, is queued again, and goes on from there."""
    words = [*LONG[:-1], "checkpoint.seconds=1000", "hydra/launcher=submitit_local", "hydra.launcher.timeout_min=10"]
    words = [w if not w.startswith("total_steps") else "total_steps=400_000" for w in words]
    words = [w if w != "exploration=counts,e3b" else "exploration=counts" for w in words]
    environment = ENVIRONMENT | {"PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(command(*words), cwd=tmp_path, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    wait_for(lambda: [f for f in tmp_path.glob("runs/*/metrics.jsonl") if f.read_text()] or process.poll() is not None)
    workers = [p for p in psutil.Process(process.pid).children(recursive=True) if "submitit" in " ".join(p.cmdline()) and p.children()]
    signalled = [p for p in workers if any("runners.cli" in " ".join(c.cmdline()) for c in p.children())]
    assert signalled
    signalled[0].send_signal(signal.SIGUSR2)
    out, err = process.communicate(timeout=400)
    assert process.returncode == 0, err[-2000:]
    (run,) = json.loads(out.strip().splitlines()[-1])["runs"]
    assert starts(tmp_path) == {Path(run).name: 2}
    log = next(tmp_path.glob("runs/sweeps/*/000.log")).read_text()
    assert "resumed at step" in log and log.count("$ train") == 2


@pytest.mark.medium
@pytest.mark.parametrize("kind", [pytest.param("random", marks=pytest.mark.slow), "halving", "optuna"])
def test_searches_find_what_pays_and_go_on_where_they_were(kind, tmp_path):
    """A learning rate of next to nothing against one that learns: the best is one that learns, chosen on tuning seeds, with a command for others."""
    words = ["env.size=4", "runner.lanes=8", "runner.rollout=16", "agent.hidden=[16]", "exploration=counts", "total_steps=12_288", "seeds=5"]
    words += ["agent.learning_rate=1e-7,1e-6,1e-2,3e-2", "sweep.trials=4", f"sweep.search={kind}", "sweep.tuning_seeds=[50,51]"]
    words += ["sweep.rungs=2", "sweep.reduction=2", "sweep.batch=2", "sweep.objective=episode/return"]
    done, said = sweep(*words, cwd=tmp_path)
    best = said["best"]
    assert float(best["settings"]["agent.learning_rate"]) >= 1e-2 and best["seeds"] == 2 and "seeds=5" in said["command"]
    results = json.loads((tmp_path / said["sweep"] / "results.json").read_text())["results"]
    assert results[0] == best and (kind == "optuna" or len(results) == 4)
    seeds = {row["seed"] for rows in metrics(tmp_path).values() for row in rows}
    assert seeds == {50, 51}
    begun = starts(tmp_path)
    again, same = sweep(*words, cwd=tmp_path)
    assert same == said and starts(tmp_path) == begun  # nothing is run twice


def test_mistakes_are_refused_before_anything_starts(tmp_path):
    for words, answer in (
        (["exploration=counts,rdn"], "did you mean rnd"),
        (["exploration.scale=0.1,-5"], "exploration.scale"),
        (["agent.clip=0.1,0.2", "sweep.search=random", "vmap.exploration.scale=[1,2]"], "write exploration.scale=a,b"),
        (["seeds=2", "sweep.search=optuna"], "something to search"),
        (["agent.clip=0.1,0.2", "sweep.search=optuna", "sweep.objective=episode/retur"], "did you mean episode/return"),
        (["hydra.job.name=x", "agent.clip=0.1,0.2"], "Hydra's own settings"),
    ):
        done, _ = sweep(*TINY, *words, cwd=tmp_path, code=2)
        assert answer in done.stderr, done.stderr
    assert not (tmp_path / "runs").exists() or not list((tmp_path / "runs").glob("*/config.yaml"))


def test_what_cannot_be_is_said_in_the_plan(tmp_path):
    done, _ = sweep(*TINY[:3], "agent=ppo,sac", "agent.hidden=[8]", "sweep.dry=true", cwd=tmp_path, code=1)
    assert "program 1 cannot be run: agent=sac moves along axes" in done.stderr and "2 programs" in done.stderr


def test_a_dry_run_only_plans(tmp_path):
    done, _ = sweep(*SWEEP, "sweep.dry=true", cwd=tmp_path)
    assert "2 programs" in done.stderr and not done.stdout and not list(tmp_path.glob("runs/*/config.yaml"))
