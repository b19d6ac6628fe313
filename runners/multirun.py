"""``train -m``: Hydra's multirun. Every job is a process of its own, so one that fails stops nothing, and each sets up its own
devices. What differs only in traced numbers is better run in one program: ``vmap.<key>=[...]``.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from rich.console import Console
from rich.table import Table

from envs.builder import Refusal
from runners.compose import CONFIGS, Setting, compose, normalise, unreadable


def multirun(overrides: list[str]) -> int:
    """Run all combinations; 0 when every job finished, 1 otherwise, 130 after Ctrl-C. Refuses mistakes before the first job."""
    from hydra import main as hydra_main
    from hydra.core.hydra_config import HydraConfig

    environment = dict(os.environ)
    os.environ["JAX_PLATFORMS"] = "cpu"  # of this process only: the devices are for the jobs
    from runners.experiment import experiment

    for combination in first_and_last(overrides):
        experiment(compose(combination))

    with tempfile.TemporaryDirectory() as folder:

        @hydra_main(config_path=str(CONFIGS), config_name="train", version_base="1.3")
        def job(_config):
            hydra = HydraConfig.get()
            task = [o for o in hydra.overrides.task if not o.startswith("hydra")]
            done = subprocess.run([sys.executable, "-m", "runners.cli", "train", *task], stdout=subprocess.PIPE, text=True, env=environment)
            last = done.stdout.strip().splitlines()[-1:] or ["{}"]
            outcome = {"overrides": task, "code": done.returncode, "result": last[0] if done.returncode == 0 else None}
            (Path(folder) / f"{hydra.job.num:06d}.json").write_text(json.dumps(outcome))

        quiet = ["hydra.output_subdir=null", f"hydra.sweep.dir={folder}/hydra", "hydra.sweep.subdir=."]
        quiet += ["hydra/job_logging=disabled", "hydra/hydra_logging=disabled"]
        argv, sys.argv = sys.argv, [sys.argv[0], "--multirun", *quiet, *normalise(overrides)]
        try:
            job()
        finally:
            sys.argv = argv
            jobs = [json.loads(file.read_text()) for file in sorted(Path(folder).glob("*.json"))]
            show(jobs)
    runs = [json.loads(job["result"])["run_dir"] for job in jobs if job["result"]]
    print(json.dumps({"jobs": len(jobs), "failed": sum(job["code"] != 0 for job in jobs), "runs": runs}))
    return 0 if all(j["code"] == 0 for j in jobs) else 1


def first_and_last(overrides: list[str]) -> list[list[str]]:
    """Two combinations of a sweep, to be checked: the first value of every axis, and the last. Raises Refusal for an axis without values."""
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    found: list[list[str]] = [[], []]
    for override in overrides:
        setting = Setting(override)
        setting.check_form()
        try:
            parsed = OverridesParser.create().parse_override(override)
            several = list(parsed.sweep_string_iterator()) if parsed.is_sweep_override() else None
        except (HydraException, ValueError, RecursionError) as error:
            raise Refusal(f"{setting.shown!r} cannot be read: {unreadable(setting.raw, error)}") from None
        if several == []:
            raise Refusal(f"{setting.shown} has no values; give some, as {setting.key}=1,2")
        key = override.partition("=")[0]
        values = [override] if several is None else [f"{key}={value}" for value in several]
        for combination, value in zip(found, (values[0], values[-1]), strict=True):
            combination.append(value)
    return found


def show(jobs: list[dict]) -> None:
    table = Table(title="jobs")
    for heading in ("job", "settings", "outcome"):
        table.add_column(heading)
    for number, job in enumerate(jobs):
        outcome = json.loads(job["result"])["run_dir"] if job["result"] else f"failed with exit code {job['code']}"
        table.add_row(str(number), " ".join(job["overrides"]), outcome)
    Console(highlight=False).print(table)
