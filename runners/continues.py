"""Runs that go on with members of other runs: ``continues=RUN``, or a list of runs.

Every member of the new run is looked for in the others, by its seed and all of its settings, and begins with everything that it had at their end: agent,
bonus, worlds, replay, clock, past metrics. A sweep that halves its settings goes on with the better ones so; whoever wants three of fifty members trained
further gives their seeds. Worlds on the host begin new episodes.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from envs.builder import Refusal
from runners import checkpoint
from runners.experiment import Experiment, experiment, replaced
from runners.remember import Remember
from runners.rundir import digest, read_config, read_metrics

APART = ("seeds", "vmap", "zip", "stop_at", "stop_when", "continues", "init_from", "batching", "segments", "evaluations", "debug")  # settings that may differ


class Source(NamedTuple):
    """Where a member of the new run is: which run, which of its members."""

    run: str
    member: int


def listed(runs: str | list[str]) -> list[str]:
    return [runs] if isinstance(runs, str) else list(runs)


def identity(config: dict[str, Any], member: Any) -> tuple[int, str]:
    """What a member is, in whatever run: its seed, and its settings."""
    return member.seed, digest({key: value for key, value in replaced(config, member.hyper).items() if key not in APART})


def sources(made: Experiment) -> list[Source]:
    """Where each member comes from. Raises Refusal where one is nowhere."""
    found = {}
    for run in listed(made.config["continues"]):
        parent = experiment(read_config(Path(run)))
        if not checkpoint.list_iterations(Path(run) / "checkpoints"):
            raise Refusal(f"continues={run}: it has no checkpoint to go on from")
        found |= {identity(parent.config, member): Source(run, i) for i, member in enumerate(parent.members)}
    missing = [member.label() for member in made.members if identity(made.config, member) not in found]
    if missing:
        among = " or ".join(listed(made.config["continues"]))
        raise Refusal(f"continues: no member of {among} has {missing[0]} and the other settings of this run; only seeds, vmap, zip and its end may differ")
    return [found[identity(made.config, member)] for member in made.members]


def taken(made: Experiment, template: Any) -> tuple[Any, Remember, list[dict[str, Any]], list[tuple[bytes | None, int]]]:
    """(snapshot of the new run's members, what it remembers, rows of its metrics so far, what worlds on the host left of its run and its place there, for
    each member)."""
    places = sources(made)
    runs = {run: newest(Path(run), template) for run in dict.fromkeys(place.run for place in places)}
    parts = [jax.tree.map(lambda x, i=place.member: x[i : i + 1], runs[place.run][0]) for place in places]
    snapshot = jax.tree.map(lambda *leaves: np.concatenate(leaves), *parts)
    pasts = {run: remember for run, (_, remember, _) in runs.items()}
    iterations = {past.iteration for past in pasts.values()}
    if len(iterations) > 1:
        numbers = ", ".join(map(str, sorted(iterations)))
        raise Refusal(f"continues: these runs have ended after different numbers of iterations ({numbers}); go on with one of them at a time")
    remember = Remember(iteration=iterations.pop(), seconds=max(past.seconds for past in pasts.values()))
    number = min(len(past.evaluations) for past in pasts.values())
    remember.evaluations = [[pasts[place.run].evaluations[n][place.member] for place in places] for n in range(number)]
    rows = []
    for i, (run, member) in enumerate(places):
        past = pasts[run]
        remember.last_rows += [row | {"member": i} for row in past.last_rows if row["member"] == member]
        if str(member) in past.frozen:
            remember.frozen[str(i)] = past.frozen[str(member)]
        rows += [row | {"member": i} for row in read_metrics(Path(run)) if row["member"] == member]
    return snapshot, remember, sorted(rows, key=lambda row: row["step"]), [(runs[place.run][2], place.member) for place in places]


def grown(made: Experiment) -> dict[str, int]:
    """How often these runs have doubled the room for what (``Runner.grow``), by their last checkpoints."""
    found = {}
    for run in {place.run for place in sources(made)}:
        iterations = checkpoint.list_iterations(Path(run) / "checkpoints")
        if iterations:
            found |= checkpoint.remembered(Path(run) / "checkpoints" / str(iterations[-1])).get("grown", {})
    return found


def newest(run: Path, template: Any) -> tuple[Any, Remember, bytes | None]:
    """The last undamaged checkpoint of a run, whose members are as many as they are, and what worlds on the host left in it."""
    members = len(experiment(read_config(run)).members)
    shapes = jax.tree.map(lambda s: jax.ShapeDtypeStruct((members, *s.shape[1:]), s.dtype), template)
    for iteration in reversed(checkpoint.list_iterations(run / "checkpoints")):
        try:
            snapshot, remembered, host = checkpoint.load(run / "checkpoints" / str(iteration), shapes)
            return snapshot, Remember(**remembered), host
        except checkpoint.Damaged:
            continue
    raise Refusal(f"continues={run}: none of its checkpoints is undamaged")
