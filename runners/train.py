"""``train`` and ``resume``: from a resolved configuration to a finished run directory.

Imported after ``devices.prepare``: jax reads its flags once.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from envs.builder import Refusal
from runners import checkpoint, memory
from runners.batching import Batch
from runners.compose import COMMAND
from runners.experiment import Experiment, experiment, iterations_of
from runners.loop import Loop, Remember
from runners.progress import Reporter
from runners.rundir import RunDirectory, digest
from runners.table import headline, results, show


def train(config: Mapping[str, Any], batching: str, runs: Path, resuming: bool = False) -> dict[str, Any]:
    """Run, or go on with, the experiment of ``config``; returns its summary. ``batching`` is resolved (not "auto").

    Raises Refusal for what cannot be done, ``runners.loop.Stopped`` after a signal.
    """
    made = experiment(config)
    path = Path(made.config["run_dir"] or runs / f"{made.name}-{digest(made.config)}")
    directory = RunDirectory.open(path, made.config, made.config["overwrite"] and not resuming)
    try:
        finished = directory.summary()
        if finished is None:
            finished = run(made, batching, directory)
        else:
            show(f"{path} is finished already; overwrite=true runs it again", finished)
        return finished
    finally:
        directory.close()


def run(made: Experiment, batching: str, directory: RunDirectory) -> dict[str, Any]:
    config, members = made.config, made.members
    keys = jnp.stack([jax.random.PRNGKey(member.seed) for member in members])
    hyper = {path: jnp.asarray([member.hyper[path] for member in members], jnp.float32) for path in members[0].hyper}
    runner = made.make_runner(members[0].hyper)
    total = iterations_of(config["total_steps"], runner.steps_per_iteration)
    reporter = Reporter(total * runner.steps_per_iteration, 0, len(members))
    try:
        rounded = total * runner.steps_per_iteration
        if rounded != config["total_steps"]:
            reporter.say(f"total_steps={config['total_steps']:,} is rounded up to {rounded:,}: whole iterations of {runner.steps_per_iteration:,} steps")
        batch = Batch(made.make_runner, keys, hyper, batching)
        plan = batch.plan()
        place = f"{len(members)} member{'s' * (len(members) > 1)} by {batching} on {len(jax.local_devices())} {jax.default_backend()} device{'s' * (len(jax.local_devices()) > 1)}"
        reporter.say(f"{directory.path}: {place}; memory about {memory.readable(plan['peak'])} (state {memory.readable(plan['state'])})")
        memory.refuse_if_too_large(plan["peak"], len(members))
        begin = time.monotonic()
        batch.compile()
        seconds = time.monotonic() - begin
        reporter.say(f"compiled in {seconds:.1f} s")
        directory.write_manifest({"batching": batching, "devices": len(jax.local_devices()), "members": [m.label() for m in members], "compile_seconds": round(seconds, 2), **plan})
        remember = resume_or_start(batch, directory, reporter, runner.steps_per_iteration)
        loop = Loop(
            batch=batch,
            members=members,
            directory=directory,
            total=total,
            per_iteration=runner.steps_per_iteration,
            segments=config["segments"],
            evaluations=config["evaluations"],
            checkpoint_seconds=config["checkpoint"]["seconds"],
            keep=config["checkpoint"]["keep"],
            remember=remember,
            reporter=reporter,
            headline=headline,
        )
        loop.run()
    finally:
        reporter.close()
    summary = results(directory.path, made.name, members, remember, loop.steps)
    directory.write_summary(summary)
    show("", summary)
    return summary


def resume_or_start(batch: Batch, directory: RunDirectory, reporter: Reporter, per_iteration: int) -> Remember:
    """Put the newest undamaged checkpoint into ``batch``, or fresh states when there is none."""
    for iteration in reversed(checkpoint.list_iterations(directory.checkpoints)):
        try:
            snapshot, remembered = checkpoint.load(directory.checkpoints / str(iteration), batch.template())
        except checkpoint.Damaged as error:
            reporter.say(f"damaged checkpoint skipped: {error}")
            continue
        batch.restore(snapshot)
        done = iteration * per_iteration
        directory.truncate_metrics(lambda row: row["step"] <= done)
        reporter.say(f"resumed at step {done:,}")
        return Remember(**remembered)
    batch.start()
    directory.truncate_metrics(lambda row: False)
    return Remember()


def last_line(summary: Mapping[str, Any]) -> str:
    """The JSON object that closes standard output."""
    return json.dumps({"run_dir": summary["run_dir"], "members": len(summary["members"]), "results": summary["results"]})


def advice(directory: str) -> str:
    return f"continue with: {COMMAND} resume {directory}"


__all__ = ["Refusal", "advice", "last_line", "train"]
