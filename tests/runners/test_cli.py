"""The command line as people use it: what it answers, what it leaves, what it survives. Each test starts real processes."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from runners import checkpoint
from runners.rundir import read_metrics
from tests.runners.tiny import TINY

ROOT = Path(__file__).resolve().parent.parent.parent
QUICK = [*TINY, "seeds=2", "segments=4"]


def farlands(*arguments, cwd, check=None):
    environment = os.environ | {"PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu", "COLUMNS": "200"}
    environment.pop("XLA_FLAGS", None)
    done = subprocess.run([sys.executable, "-m", "runners.cli", *arguments], cwd=cwd, env=environment, capture_output=True, text=True, timeout=300)
    assert "Traceback" not in done.stderr, done.stderr
    if check is not None:
        assert done.returncode == check, done.stderr
    return done


def answer(done):
    """The one line of a refusal."""
    lines = [line for line in done.stderr.splitlines() if line.startswith("farlands:")]
    assert done.returncode == 2 and len(lines) == 1, done.stderr
    return lines[0]


def test_help_and_list_import_neither_hydra_nor_jax(tmp_path):
    script = (
        "import sys; from runners.cli import run\n"
        "assert run(['--help']) == 0 and run(['list']) == 0 and run(['list', 'runs']) == 0 and run(['train', '--help']) == 0\n"
        "heavy = {'jax', 'hydra', 'omegaconf', 'flax', 'numpy'} & set(sys.modules); assert not heavy, heavy"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "deep_sea" in done.stdout and "counts" in done.stdout and "total_steps" in done.stdout


@pytest.mark.parametrize(
    ("typed", "expected"),
    [
        (["trian"], "did you mean train"),
        (["train", "agent.learning_rat=1"], "did you mean agent.learning_rate"),
        (["train", "agent.discount=0.9"], "or runner.discount?"),
        (["train", "agent=pppo"], "did you mean ppo"),
        (["train", "exploration=cont"], "did you mean counts"),
        (["train", "seeds"], "write key=value"),
        (["train", "--seeds", "3"], "key=value"),
        (["train", "seeds=[0,0]"], "twice"),
        (["train", "total_steps=-5"], "whole number"),
        (["train", "agent.clip=-1"], "agent.clip=-1 is not legal"),
        (["train", "agent.hidden=[3"], "cannot be read"),
        (["train", "vmap.agent.epochs=[1,2]"], "-m agent.epochs=1,2"),
        (["train", "vmap.exploration.scal=[1]"], "did you mean scale"),
        (["train", "+exploration.k=3"], "takes no 'k'"),
        (["train", "agent.minibatches=3"], "nearest that do"),
        (["train", "exploration._target_=exploration.rnd.rn"], "did you mean rnd"),
        (["train", "exploration._target_=nowhere.bonus"], "no module 'nowhere'"),
        (["train", "env=xminigrid", "env.id=MiniGrid-DorKey-8x8"], "did you mean MiniGrid-DoorKey-8x8"),
        (["resume", "nowhere"], "is not a run"),
        (["resume"], "takes one run directory"),
        (["list", "bonuses"], "no such list"),
        (["train", "seeds=4", "seeds=5"], "both given"),
        (["train", "runner.rollout=1000000", "runner.lanes=1000000"], "a size is too large"),
        (["train", "env.size=4096"], "this run needs about"),
        (["train", "-m", "agent.epochs=range(1,0)"], "has no values"),
    ],
)
def test_mistakes_get_one_helpful_line_and_leave_nothing(typed, expected, tmp_path):
    assert expected in answer(farlands(*typed, cwd=tmp_path))
    assert not list(tmp_path.iterdir())


@pytest.mark.medium
def test_a_run_leaves_what_it_promises_and_is_found_again(tmp_path):
    first = farlands("train", *QUICK, cwd=tmp_path, check=0)
    result = json.loads(first.stdout.strip().splitlines()[-1])
    run = tmp_path / result["run_dir"]
    assert result["members"] == 2 and "memory about" in first.stderr
    assert {p.name for p in run.iterdir()} == {
        ".lock", "config.yaml", "manifest.json", "metrics.jsonl", "summary.json", "checkpoints", "policies", "visits.npz"
    }  # fmt: skip
    rows = read_metrics(run)
    trained = [(row["step"], row["seed"]) for row in rows if "evaluation/return" not in row]
    assert trained == [(s, m) for s in (64, 128, 192, 256) for m in (0, 1)]
    manifest = json.loads((run / "manifest.json").read_text())["starts"]
    assert len(manifest) == 1 and manifest[0]["plan"]["batching"] == "shard" and manifest[0]["versions"]["jax"]
    assert "seed 1" in first.stdout

    again = farlands("train", *QUICK, cwd=tmp_path, check=0)
    assert "finished already" in again.stdout and json.loads(again.stdout.strip().splitlines()[-1]) == result
    other = farlands("train", *QUICK, "agent.clip=0.1", f"run_dir={run}", cwd=tmp_path)
    assert "agent.clip is 0.2 there and 0.1 here" in answer(other)
    assert read_metrics(run) == rows
    resumed = farlands("resume", str(run), cwd=tmp_path, check=0)
    assert "finished already" in resumed.stdout


def without_time(rows):
    return [{k: v for k, v in row.items() if not k.startswith("time/")} for row in rows]


def final_arrays(run):
    newest = checkpoint.list_iterations(run / "checkpoints")[-1]
    return newest, json.loads((run / "checkpoints" / str(newest) / "meta.json").read_text())["arrays"]


LONG = [*TINY[:-1], "total_steps=64000", "seeds=2", "segments=50", "evaluations=2", "checkpoint.seconds=0"]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """An uninterrupted run: what every interrupted one must end like."""
    folder = tmp_path_factory.mktemp("whole")
    farlands("train", *LONG, "run_dir=run", cwd=folder, check=0)
    return folder / "run"


def start(folder):
    environment = os.environ | {"PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"}
    environment.pop("XLA_FLAGS", None)
    command = [sys.executable, "-m", "runners.cli", "train", *LONG, "run_dir=run"]
    return subprocess.Popen(command, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def wait_for_checkpoint(folder, process, seconds=120):
    """Until there is a checkpoint that was not there before."""
    before = set(checkpoint.list_iterations(folder / "run" / "checkpoints"))
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and process.poll() is None:
        if set(checkpoint.list_iterations(folder / "run" / "checkpoints")) - before:
            return
        time.sleep(0.02)


@pytest.mark.medium
def test_killed_at_random_moments_it_resumes_every_time(whole, tmp_path):
    chance = random.Random(0)
    kills = 0
    while kills < 4:
        process = start(tmp_path)
        wait_for_checkpoint(tmp_path, process)
        time.sleep(chance.random() * 0.3)
        process.send_signal(signal.SIGKILL)
        _, errors = process.communicate()
        assert "Traceback" not in errors
        kills += 1
        if (tmp_path / "run" / "summary.json").exists():
            break
    farlands("resume", "run", cwd=tmp_path, check=0)
    assert final_arrays(tmp_path / "run") == final_arrays(whole)
    assert without_time(read_metrics(tmp_path / "run")) == without_time(read_metrics(whole))


@pytest.mark.medium
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_saves_first(number, whole, tmp_path):
    process = start(tmp_path)
    wait_for_checkpoint(tmp_path, process)
    process.send_signal(number)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 128 + number, errors
    assert "saving a checkpoint" in errors and "resume run" in errors
    farlands("resume", "run", cwd=tmp_path, check=0)
    assert final_arrays(tmp_path / "run") == final_arrays(whole)
    assert without_time(read_metrics(tmp_path / "run")) == without_time(read_metrics(whole))


@pytest.mark.medium
def test_a_damaged_newest_checkpoint_costs_one_interval(whole, tmp_path):
    process = start(tmp_path)
    for _ in range(2):
        wait_for_checkpoint(tmp_path, process)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=120)
    folder = tmp_path / "run" / "checkpoints"
    kept = checkpoint.list_iterations(folder)
    (folder / str(kept[-1]) / "meta.json").write_text("not json")
    done = farlands("resume", "run", cwd=tmp_path, check=0)
    assert "damaged checkpoint skipped" in done.stderr
    assert final_arrays(tmp_path / "run") == final_arrays(whole)


@pytest.mark.medium
def test_two_processes_do_not_write_one_run(tmp_path):
    process = start(tmp_path)
    wait_for_checkpoint(tmp_path, process)
    try:
        refused = farlands("train", *LONG, "run_dir=run", cwd=tmp_path)
        if process.poll() is None:
            assert "another process" in answer(refused)
    finally:
        process.kill()
        process.communicate()


@pytest.mark.medium
def test_a_sweep_goes_on_after_a_failed_job(tmp_path):
    assert "did you mean agent.minibatches" in answer(farlands("train", "-m", "agent.minibatche=2,3", cwd=tmp_path))
    assert "learning_rate='x' is not legal" in answer(farlands("train", "-m", "agent.learning_rate=1e-3,x", cwd=tmp_path))
    quick = [o for o in QUICK if not o.startswith("agent.minibatches")]
    done = farlands("train", "-m", *quick, "agent.minibatches=2,3,4", cwd=tmp_path)
    assert done.returncode == 1
    last = json.loads(done.stdout.strip().splitlines()[-1])
    assert last["programs"] == 3 and last["failed"] == 1 and len(last["runs"]) == 2
    assert "failed: " in done.stdout and "agent.minibatches=3" in done.stdout
