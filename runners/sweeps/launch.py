"""Jobs through Hydra's launchers: one after the other (basic), side by side (joblib), on a cluster (submitit, Ray)."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from runners.compose import CONFIGS
from runners.sweeps.jobs import task


def launch(plan: Path, numbers: Sequence[int], launcher: Sequence[str]) -> None:
    """Run the given jobs of a plan; returns when all have ended. ``launcher``: words as ``hydra/launcher=joblib`` and ``hydra.launcher.n_jobs=2``."""
    from hydra import main as hydra_main

    if not numbers:
        return
    folder = plan.parent / "hydra"
    quiet = ["hydra.output_subdir=null", f"hydra.sweep.dir='{folder}'", "hydra.sweep.subdir=.", "hydra/job_logging=disabled", "hydra/hydra_logging=disabled"]
    jobs = f"job={','.join(map(str, numbers))}"
    argv, sys.argv = sys.argv, [sys.argv[0], "--multirun", *quiet, f"plan='{plan.absolute()}'", jobs, *launcher]
    try:
        hydra_main(config_path=str(CONFIGS), config_name="job", version_base="1.3")(task)()
    finally:
        sys.argv = argv
