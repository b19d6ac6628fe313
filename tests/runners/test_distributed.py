"""One run in several processes: where they meet, what they compute, what becomes of the others when one dies. Two processes, on the CPU of this machine."""

from __future__ import annotations

import functools
import json
import multiprocessing
import os
import pickle
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import jax
import numpy as np
import pytest

from envs.builder import Refusal
from runners import api, checkpoint
from runners.distributed import Group, Place, asked, without
from runners.experiment import experiment
from runners.rundir import digest, read_metrics
from runners.spread import Spread, follow, shares
from runners.train import assemble
from tests.runners.tiny import TINY, batch_of

ROOT = Path(__file__).resolve().parent.parent.parent
RUN = [*(word for word in TINY if not word.startswith("total_steps")), "total_steps=300_000", "seeds=4", "segments=4", "batching=shard", "checkpoint.seconds=0"]


def given(**settings):
    return {"distributed": without() | settings}


def test_settings_come_before_what_launchers_tell():
    slurm = {"SLURM_STEP_NUM_TASKS": "4", "SLURM_PROCID": "3"}
    assert asked({}, {}) is None and asked(given(), {}) is None
    assert asked(given(), slurm) == Place(3, 4, None)
    assert asked(given(), slurm | {"SLURM_STEP_NUM_TASKS": "1"}) is None, "a job of one task"
    assert asked(given(processes=1), slurm) is None, "told to be alone"
    assert asked(given(coordinator="a:1"), slurm) == Place(3, 4, "a:1")
    assert asked(given(coordinator="b:2", processes=2, process=0), slurm) == Place(0, 2, "b:2")
    assert asked(given(), {"JAX_NUM_PROCESSES": "2", "JAX_PROCESS_ID": "1", "JAX_COORDINATOR_ADDRESS": "c:3"}) == Place(1, 2, "c:3")
    assert asked(given(), {"SUBMITIT_LOCAL_NTASKS": "2", "SUBMITIT_LOCAL_GLOBALID": "1", "SUBMITIT_LOCAL_JOB_ID": "12345"}) == Place(1, 2, "localhost:22345")


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"processes": 2}, "distributed.process has no value"),
        ({"coordinator": "a:1"}, "distributed.processes has no value"),
        ({"processes": 2, "process": 0}, "distributed.coordinator has no value"),
        ({"processes": 2, "process": 2, "coordinator": "a:1"}, "processes count from 0"),
        ({"processes": 2, "process": 1, "coordinator": "a"}, "names no port"),
        ({"processes": 0}, "distributed.processes=0 is not legal"),
    ],
)
def test_half_a_place_is_refused(settings, expected):
    with pytest.raises(Refusal, match=expected):
        asked(given(**settings), {})


def test_every_member_is_in_one_share_and_shares_differ_by_one_at_most():
    for members in range(1, 12):
        for processes in range(1, members + 1):
            cut = shares(members, processes)
            assert sum((list(range(members))[share] for share in cut), []) == list(range(members))
            sizes = [share.stop - share.start for share in cut]
            assert max(sizes) - min(sizes) <= 1 and min(sizes) > 0


def test_who_computes_a_run_is_not_what_it_is():
    alone = api.compose(*RUN)
    assert digest(alone) == digest(api.compose(*RUN, "distributed.processes=2", "distributed.process=1", "distributed.coordinator=a:1"))


def in_threads(words, batching="shard", processes=2):
    """A compiled ``Spread`` whose other processes are threads of this one, and an end for them."""
    made = experiment(api.compose(*words))
    pipes = [multiprocessing.Pipe() for _ in range(processes - 1)]
    own, *others = [assemble(made._replace(members=made.members[share]), batching)[0] for share in shares(len(made.members), processes)]
    own.plan()
    for batch, (_, link) in zip(others, pipes, strict=True):
        batch.plan()
        threading.Thread(target=follow, args=(batch, Group(1, processes, [link], ["here"]))).start()
    group = Group(0, processes, [link for link, _ in pipes], ["here"] * processes)
    spread = Spread(own, group, len(made.members))
    spread.compile()
    return spread, lambda: (group.tell([("end", (0, ""))] * (processes - 1)), [batch.close() for batch in (own, *others)])


HOST = ["env=gymnasium", "env.id=CartPole-v1", "agent=random", "exploration=counts", "runner.lanes=2", "runner.rollout=8", "total_steps=256"]


@pytest.mark.medium
def test_worlds_on_the_host_are_saved_together_and_go_on_apart():
    """Three members in two processes; half-way a snapshot, with worlds, is taken on by one process, and back."""
    one, total = batch_of([*HOST, "seeds=3"], "vmap")
    one.start()
    one.run(0, total, total)
    whole, metrics, half = one.snapshot(), one.take_metrics(), total // 2
    keys = np.stack([jax.random.PRNGKey(i) for i in range(3)])
    evaluated = one.evaluate(keys)
    spread, end = in_threads([*HOST, "seeds=3"], "vmap")
    try:
        spread.start()
        spread.run(0, half, total)
        kept, worlds = spread.snapshot(), spread.host_snapshot()
        assert jax.tree.map(np.shape, kept) == jax.tree.map(np.shape, spread.template())
        one.restore(kept, worlds, half)
        assert len(pickle.loads(worlds)) == 6
        one.run(half, half, total)
        alike = functools.partial(np.testing.assert_allclose, rtol=1e-5)  # a program for one member rounds other than one for three
        jax.tree.map(alike, one.snapshot(), whole)
        spread.run(half, half, total)  # elsewhere than at half
        spread.restore(kept, worlds, half)
        spread.run(half, half, total)
        jax.tree.map(alike, spread.snapshot(), whole)
        for mine, theirs in zip(spread.take_metrics(), metrics, strict=True):
            assert mine.keys() == theirs.keys() and any(mine.values())
            np.testing.assert_allclose([x or 0 for x in mine.values()], [x or 0 for x in theirs.values()], rtol=1e-5)
        assert spread.evaluate(keys) == evaluated
        assert spread.sound().tolist() == [True] * 3 and len(spread.policies()) == 3
    finally:
        end()
        one.close()


def start(folder, *words, other=()):
    """Two processes with a device each; process 1 gets ``other`` words beside."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    flags = [flag for flag in os.environ["XLA_FLAGS"].split() if "device_count" not in flag]  # the compiler's are those of this process
    flags = " ".join([*flags, "--xla_force_host_platform_device_count=1"])
    environment = os.environ | {"PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu", "XLA_FLAGS": flags, "COLUMNS": "300"}
    command = [sys.executable, "-m", "runners.cli", "train", *words, f"distributed.coordinator=localhost:{port}", "distributed.processes=2"]
    started = []
    for process, more in enumerate(((), other)):
        with open(folder / f"process-{process}", "w") as said:
            words = [*command, f"distributed.process={process}", *more]
            started.append(subprocess.Popen(words, cwd=folder, env=environment, stdout=said, stderr=subprocess.STDOUT))
    return started


def last_line(folder, process):
    text = (folder / f"process-{process}").read_text()
    assert "Traceback" not in text, text
    return text.splitlines()[-1]


def what_it_computed(run):
    newest = checkpoint.list_iterations(run / "checkpoints")[-1]
    arrays = json.loads((run / "checkpoints" / str(newest) / "meta.json").read_text())["arrays"]
    rows = [{name: value for name, value in row.items() if not name.startswith("time/")} for row in read_metrics(run)]
    return rows, arrays, {file.name: file.read_bytes() for file in (run / "policies").iterdir()}


@pytest.mark.medium
def test_two_processes_compute_what_one_does_and_one_that_dies_ends_the_other(tmp_path):
    """Two members on one device in each of two processes; process 1 is killed; one process with two devices goes on: bit for bit a run of one process."""
    run, whole = tmp_path / "spread", tmp_path / "alone"
    leader, other = start(tmp_path, *RUN, f"run_dir={run}")
    try:
        end = time.monotonic() + 120
        while not checkpoint.list_iterations(run / "checkpoints") and leader.poll() is None and time.monotonic() < end:
            time.sleep(0.02)
        other.kill()
        assert leader.wait(60) == 1 and other.wait(60) == -signal.SIGKILL, last_line(tmp_path, 0)
    finally:
        leader.kill()
        other.kill()
    assert "farlands: process 1 of 2 on" in last_line(tmp_path, 0) and "is gone" in last_line(tmp_path, 0)
    done = checkpoint.list_iterations(run / "checkpoints")[-1]
    assert 0 < done < 300_000 // 32 and api.results(run) is None
    plan = json.loads((run / "manifest.json").read_text())["starts"][0]["plan"]
    assert plan["processes"] == 2 and len(plan["members"]) == 4
    api.resume(run)
    api.train(api.compose(*RUN, f"run_dir={whole}"))
    assert what_it_computed(run) == what_it_computed(whole)


@pytest.mark.medium
def test_processes_with_different_settings_are_refused_and_leave_nothing(tmp_path):
    leader, other = start(tmp_path, *RUN, other=["agent.clip=0.1"])
    assert leader.wait(60) == 2 and other.wait(60) == 2
    assert "process 0 has agent.clip=0.2, process 1 on" in last_line(tmp_path, 0)
    assert last_line(tmp_path, 1).startswith("farlands: process 0 ended the run: process 0 has agent.clip=0.2")
    assert not (tmp_path / "runs").exists()
