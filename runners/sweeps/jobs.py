"""A job of a sweep: a program of its plan, as a process of its own. This is what a launcher runs, here or on another machine.

A job leaves two files beside the plan: ``NNN.json`` (exit code, seconds, why it failed) and ``NNN.log`` (what it said). A launcher that starts several
tasks for it makes one run of several processes (``runners/distributed.py``); those but process 0 leave ``NNN.K.log`` only. Whether a program is finished
is decided by its run directory alone, so nothing is run twice, and what was begun goes on.
"""

from __future__ import annotations

import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from runners.distributed import of_environment
from runners.rundir import write_atomically

WAIT_SECONDS = 120  # for another process to let go of a run
TAIL = 4000  # characters of a log that are looked at for a reason


def task(config: Any) -> int:
    """What a launcher calls, with ``configs/job.yaml`` filled in: the plan's file, and which job of it."""
    return run(Path(config.plan), int(config.job))


def run(plan: Path, number: int) -> int:
    """Run a job to its end, again as often as the plan says if it fails; its exit code."""
    place = of_environment(os.environ)
    process = place.process if place else 0
    made = json.loads(plan.read_text())
    program, folder = made["programs"][number], plan.parent
    directory = Path(made["cwd"]) / program["run"]
    if (directory / "summary.json").is_file():
        return 0
    log = folder / (f"{number:03d}.{process}.log" if process else f"{number:03d}.log")
    if made["aloud"]:
        print(f"program {number}: {' '.join(program['words'])}", file=sys.stderr, flush=True)
    for attempt in range(1 + made["retries"]):
        if not process:
            wait_for(directory)
        begin = time.monotonic()
        code = child(program["words"], log, made["cwd"], aloud=made["aloud"])
        outcome = {"code": code, "seconds": round(time.monotonic() - begin, 1), "attempts": attempt + 1}
        outcome["reason"] = None if code == 0 else reason(log, code)
        if not process:
            write_atomically(folder / f"{number:03d}.json", json.dumps(outcome))
        if code == 0 or stopped(code):
            break
    return code


def stopped(code: int) -> bool:
    """By a signal that asks for an end, so a retry would not be wanted."""
    return code - 128 in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)


def child(words: list[str], log: Path, cwd: str, aloud: bool) -> int:
    """``train`` with ``words``; what it says goes to ``log``, and to standard error if ``aloud``. Its exit code, 128 + signal for a signal."""
    command = [sys.executable, "-m", "runners.cli", "train", *words]
    with open(log, "a") as file:
        file.write(f"$ train {' '.join(words)}\n")
        file.flush()
        process = subprocess.Popen(command, cwd=cwd, stdout=file, stderr=subprocess.PIPE, text=True, errors="replace", env=os.environ | {"FARLANDS_JOB": "1"})
        try:
            for line in process.stderr:  # type: ignore[union-attr]
                file.write(line)
                file.flush()
                if aloud:
                    print(line, end="", file=sys.stderr, flush=True)
            code = process.wait()
        except BaseException:
            process.send_signal(signal.SIGTERM)  # it saves a checkpoint
            process.wait()
            raise
    return code if code >= 0 else 128 - code


def wait_for(directory: Path) -> None:
    """Until no other process writes to the run: one whose sweep was killed is saving its checkpoint."""
    lock = directory / ".lock"
    end = time.monotonic() + WAIT_SECONDS
    while lock.exists() and time.monotonic() < end:
        with open(lock) as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            except OSError:
                time.sleep(0.2)


def reason(log: Path, code: int) -> str:
    """The last line that a failed job said."""
    text = log.read_text(errors="replace")[-TAIL:]
    lines = [line.strip() for line in text.splitlines() if line.strip() and not line.startswith("$ ")]
    if code > 128 and not stopped(code):
        try:
            return f"killed by {signal.Signals(code - 128).name}" + (": out of memory?" if code == 128 + signal.SIGKILL else "")
        except ValueError:
            pass
    return lines[-1].removeprefix("farlands: ")[:300] if lines else f"exit code {code}"


def end_with_parent() -> None:
    """Ask Linux for SIGTERM when the process that started this one is gone: a job whose sweep was killed saves its checkpoint and ends."""
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None, use_errno=True).prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG
