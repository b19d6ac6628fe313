"""The newest state of a run that is undamaged, for commands that look into it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import jax

from envs.base import PyTree
from envs.builder import Refusal
from runners import checkpoint
from runners.base import HostExplorer, HostRunner, Runner
from runners.experiment import Experiment, experiment
from runners.rundir import read_config
from runners.train import assemble


class Stored(NamedTuple):
    experiment: Experiment
    runner: Runner | HostRunner | HostExplorer
    state: PyTree  # of the member, numpy
    host: bytes | None  # the worlds of all members
    iteration: int


def newest(run: Path, member: int, accepts: Callable[[Runner | HostRunner | HostExplorer, PyTree], None]) -> Stored:
    """``accepts`` (runner, shapes of a state) raises Refusal for a run that the command is not for. Raises Refusal where there is no such member, or no
    undamaged checkpoint."""
    made = experiment(read_config(run))
    if not 0 <= member < len(made.members):
        raise Refusal(f"member={member}: {run} has the members 0 to {len(made.members) - 1}")
    batch, runner, _ = assemble(made, "vmap")
    batch.plan()
    accepts(runner, batch.template()[0])
    for iteration in reversed(checkpoint.list_iterations(run / "checkpoints")):
        place = run / "checkpoints" / str(iteration)
        try:
            batch.prepare_for(checkpoint.remembered(place)["grown"])
            (states, _), _, host = checkpoint.load(place, batch.template())
        except checkpoint.Damaged:
            continue
        return Stored(made, runner, jax.tree.map(lambda x: x[member], states), host, iteration)
    raise Refusal(f"{run} has no undamaged checkpoint")
