"""``train`` and ``resume``: from a resolved configuration to a finished run directory.

Imported after ``devices.prepare``: jax reads its flags once.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from envs.builder import Refusal
from runners import checkpoint, continues, distributed, goals, init_from, memory, phases, profile
from runners.base import HostExplorer, HostRunner, HostSearch, Runner
from runners.batching import Batch
from runners.compose import COMMAND
from runners.distributed import Group
from runners.experiment import Experiment, experiment, iterations_of, replaced
from runners.host_batch import HostBatch, refuse_batching
from runners.host_go_explore import ExplorerBatch
from runners.host_offline import WatchedBatch
from runners.host_population import SearchBatch
from runners.loop import Loop
from runners.progress import Reporter, plural
from runners.remember import Remember
from runners.rewards import shift_warning
from runners.rundir import RunDirectory, digest, read_summary, refuse_another_configuration, refuse_unusable, versions
from runners.spread import Spread, follow, refuse_unspreadable, shares
from runners.table import headline, results, show
from runners.views import Views, refuse_missing


def train(config: Mapping[str, Any], batching: str, runs: Path, resuming: bool = False) -> dict[str, Any] | None:
    """Run, or go on with, the experiment of ``config``; returns its summary. ``batching`` "auto" shards over the devices where there are several.

    Raises Refusal for what cannot be done, ``runners.loop.Stopped`` after a signal. In a run of several processes (``runners/distributed.py``), those but
    process 0 return None, or raise ``distributed.Ended`` where process 0 did not finish the run.
    """
    place = distributed.asked(config)
    if place is None:
        return phases.through(config, lambda first: train(first, batching, runs), lambda last: lead(last, batching, runs, resuming))
    if phases.to_run_first(config) or config.get("phase"):
        raise Refusal("after and phase run one phase after the other in one process; run the first by itself, and give runner.demonstrations=RUN to the second")
    with distributed.join(place, config) as group:
        distributed.refuse_unequal(group, config)
        config = {**config, "distributed": distributed.without()}  # who computed a run is not what it is
        if group.process == 0:
            return lead(config, batching, runs, resuming, group)
        help_out(config, batching, group)
    return None


def help_out(config: Mapping[str, Any], batching: str, group: Group) -> None:
    """Another process than 0: compute its members, and write nothing."""
    made = experiment(config)
    if group.listen()[0] == "end":
        return
    prepared = prepare(made, batching, Path(f"process {group.process} of {group.processes}"), group)
    distributed.leave_signals_to_process_0(prepared.reporter.say)
    group.answer("ready")
    try:
        follow(prepared.batch, group)
    finally:
        prepared.batch.close()
        prepared.reporter.close()


def lead(config: Mapping[str, Any], batching: str, runs: Path, resuming: bool, group: Group | None = None) -> dict[str, Any]:
    """The process that writes the run directory."""
    made = experiment(config)
    refuse_missing(made.config["logger"])
    path = Path(made.config["run_dir"] or runs / f"{made.name}-{digest(made.config)}")
    overwrite = made.config["overwrite"] and not resuming
    finished = None if overwrite else read_summary(path)
    if finished is not None:
        refuse_another_configuration(path, made.config)
        if made.config["logger"]["console"]:
            show(f"{path} is finished already; overwrite=true runs it again", finished)
        views_of(made, path, say=lambda line: print(line, file=sys.stderr)).close(finished=True)  # one may have been asked for since
        return finished
    refuse_unusable(path, made.config, overwrite)
    if made.config["init_from"]:
        init_from.files(made.config["init_from"])
    if made.config["continues"]:
        continues.sources(made)
    if group:
        group.tell([("prepare", ())] * (group.processes - 1))
    prepared = prepare(made, batching, path, group)  # everything that can be refused is refused before the directory exists
    if group:
        group.hear()
    directory = RunDirectory.open(path, made.config, overwrite)
    try:
        return run(made, prepared, directory)
    except OSError as error:
        if error.filename is None and error.errno is not None:
            raise OSError(error.errno, error.strerror, str(path)) from None  # a write does not say where
        raise
    finally:
        prepared.batch.close()
        directory.close()
        prepared.reporter.close()


def assemble(made: Experiment, batching: str) -> tuple[Batch | HostBatch | ExplorerBatch, Runner | HostRunner | HostExplorer, str]:
    """(all members as one batch, one member's runner, the batching that it has)."""
    keys = jnp.stack([jax.random.PRNGKey(member.seed) for member in made.members])
    hyper = {path: [member.hyper[path] for member in made.members] for path in made.members[0].hyper}
    runner = made.make_runner(made.members[0].hyper)
    if batching == "auto":
        batching = "shard" if len(jax.local_devices()) > 1 and len(made.members) > 1 else "vmap"
    if isinstance(runner, HostRunner) and not runner.steps:
        return WatchedBatch(made.make_runner, keys, hyper, batching, runner), runner, batching
    if isinstance(runner, HostExplorer):
        refuse_batching(made.config["batching"])
        return ExplorerBatch(made.make_runner, keys, hyper, runner), runner, "map"
    if isinstance(runner, HostSearch):
        refuse_batching(made.config["batching"])
        return SearchBatch(made.make_runner, keys, hyper, runner), runner, "map"
    if isinstance(runner, HostRunner):
        refuse_batching(made.config["batching"])
        return HostBatch(made.make_runner, keys, hyper, runner), runner, "vmap"
    return Batch(made.make_runner, keys, hyper, batching), runner, batching


class Prepared(NamedTuple):
    """A traced run that fits into memory."""

    batch: Batch | HostBatch | Spread
    runner: Runner | HostRunner
    total: int  # iterations that schedules are made for
    end: int  # iterations that are made
    plan: dict[str, Any]
    reporter: Reporter


def prepare(made: Experiment, batching: str, path: Path, group: Group | None = None) -> Prepared:
    """``path``: of the run, or what another process than 0 is called. A process of a group has its share of the members."""
    config, members, processes = made.config, made.members, group.processes if group else 1
    try:
        if group:
            refuse_unspreadable(made.make_runner(members[0].hyper), len(members), processes)
            members = members[shares(len(members), processes)[group.process]]
        batch, runner, batching = assemble(made._replace(members=members), batching)
        refuse_without_parts(config, runner)
        total = iterations_of(config["total_steps"], runner.steps_per_iteration)
        end = iterations_of(config["stop_at"] or config["total_steps"], runner.steps_per_iteration)
        rounded = end * runner.steps_per_iteration
        plan = batch.plan()
    except (MemoryError, OverflowError) as error:
        reason = (str(error).splitlines() or ["no memory"])[0]
        raise Refusal(f"a size is too large ({reason}); lower runner.lanes, runner.rollout, or the sizes of the world or of the networks") from None
    memory.refuse_if_too_large(plan["peak"], len(members))
    leads = group is None or group.process == 0
    if group and leads:
        batch = Spread(batch, group, len(made.members))

    reporter = Reporter(rounded, len(made.members), config["logger"]["console"] and leads)
    asked = "stop_at" if config["stop_at"] else "total_steps"
    if rounded != config[asked] and leads:
        reporter.say(f"{asked}={config[asked]:,} is rounded up to {rounded:,}: whole iterations of {runner.steps_per_iteration:,} steps")
    if config["stop_when"]:
        goals.refuse_unknown(config["stop_when"], {*batch.template()[1], *(goals.EVALUATED if config["evaluations"] else ())})
    devices = len(jax.local_devices())
    place = f"{plural(len(members), 'member')} by {batching} on {plural(devices, jax.default_backend() + ' device')}"
    if group and leads:
        place = f"{plural(len(made.members), 'member')} in {processes} processes, {place} in this one"
    reporter.say(f"{path}: {place}; memory about {memory.readable(plan['peak'])} (state {memory.readable(plan['state'])}); compiling")
    labels = [member.label() for member in made.members]
    for warning in sorted({shift_warning(runner.env, replaced(config, member.hyper)["runner"]) for member in members} - {None}):
        reporter.say(warning)
    if isinstance(runner, (HostExplorer, HostSearch)):
        plan = {**plan, "worlds": "host", "worlds_saved": True}
    if isinstance(runner, HostRunner):
        plan = {**plan, "worlds": "host", "worlds_saved": runner.env.unsaved is None}
        if runner.env.unsaved:
            reporter.say(f"these worlds cannot be saved ({runner.env.unsaved}): a resumed run starts new episodes, so it is not bit for bit the same")
    where = {"batching": batching, "devices": devices, **({"processes": processes} if group else {})}
    return Prepared(batch, runner, total, end, {**where, "members": labels, **plan}, reporter)


def refuse_without_parts(config: Mapping[str, Any], runner: Runner | HostRunner | HostExplorer) -> None:
    """Refuse a profile of what has no parts to tell of, before anything is run."""
    if config["profile"] and not isinstance(runner, HostRunner) and getattr(runner, "parts", None) is None:
        raise Refusal("profile=true: this runner does not tell its parts; leave it out")


def views_of(made: Experiment, path: Path, say: Callable[[str], None]) -> Views:
    members = [replaced(made.config, member.hyper) | {"seed": member.seed} for member in made.members]
    return Views.open(path, made.config, members, [member.label() for member in made.members], say)


def run(made: Experiment, prepared: Prepared, directory: RunDirectory) -> dict[str, Any]:
    config, members, (batch, runner, total, end, plan, reporter) = made.config, made.members, prepared
    begin = time.monotonic()
    batch.compile()
    batch.say = reporter.say
    seconds = round(time.monotonic() - begin, 2)
    directory.write_manifest({**plan, "compile_seconds": seconds})
    program = {name: plan[name] for name in ("batching", "devices", "processes") if name in plan} | {"jaxlib": versions()["jaxlib"]}
    remember = resume_or_start(made, batch, directory, reporter, runner.steps_per_iteration)
    if remember.program and remember.program != program:
        reporter.say(
            f"this part is computed by {program}, the part before by {remember.program}: equal to an uninterrupted run within rounding, not bit for bit"
        )
    remember.program = program
    loop = Loop(
        batch=batch,
        members=members,
        directory=directory,
        total=total,
        end=end,
        per_iteration=runner.steps_per_iteration,
        segments=config["segments"],
        evaluations=config["evaluations"],
        checkpoint_seconds=config["checkpoint"]["seconds"],
        keep=config["checkpoint"]["keep"],
        remember=remember,
        reporter=reporter,
        headline=headline,
        goal=goals.reached(config["stop_when"]),
    )
    reporter.say(f"compiled in {seconds} s; stepping")
    views = views_of(made, directory.path, reporter.say)
    directory.watchers.append(views.append)
    finished = False
    try:
        loop.run()
        finished = True
    finally:
        views.close(finished)
    if config["profile"]:
        seconds, what = batch.profile(remember.iteration - 1, total)
        profile.report(directory.path, seconds, what)
    summary = results(directory.path, made.name, members, remember, loop.steps)
    directory.write_summary(summary)
    reporter.close()
    if config["logger"]["console"]:
        show("", summary)
    return summary


def resume_or_start(made: Experiment, batch: Batch | HostBatch, directory: RunDirectory, reporter: Reporter, per_iteration: int) -> Remember:
    """Put the newest undamaged checkpoint into ``batch``, or what other runs have left for this one (``continues``, ``init_from``), or fresh states."""
    for iteration in reversed(checkpoint.list_iterations(directory.checkpoints)):
        try:
            batch.prepare_for(checkpoint.remembered(directory.checkpoints / str(iteration)).get("grown", {}))
            snapshot, remembered, host = checkpoint.load(directory.checkpoints / str(iteration), batch.template())
        except checkpoint.Damaged as error:
            reporter.say(f"damaged checkpoint skipped: {error}")
            continue
        try:
            remember = Remember(**remembered)
        except TypeError as error:
            place = directory.checkpoints / str(iteration)
            raise Refusal(f"{place} was written by another version ({error}); use that one, or start over with overwrite=true") from None
        batch.restore(snapshot, host, iteration)
        done = iteration * per_iteration
        directory.truncate_metrics(lambda row, done=done: row["step"] <= done)
        reporter.say(f"resumed at step {done:,}")
        return remember
    if checkpoint.list_iterations(directory.checkpoints):
        reporter.say("no checkpoint is undamaged: starting over")
    if made.config["continues"]:
        batch.prepare_for(continues.grown(made))
        snapshot, remember, rows, hosts = continues.taken(made, batch.template())
        batch.restore(snapshot, batch.carried(hosts), remember.iteration)
        directory.truncate_metrics(lambda row: False)
        directory.append(rows)
        reporter.say(f"goes on with {', '.join(continues.listed(made.config['continues']))} from step {remember.iteration * per_iteration:,}")
        return remember
    batch.start()
    source = made.config["init_from"]
    if source:
        states, metrics = batch.snapshot()
        batch.restore((states._replace(agent=init_from.taken(states.agent, source, reporter.say)), metrics), batch.host_snapshot())
    directory.truncate_metrics(lambda row: False)
    return Remember()


def last_line(summary: Mapping[str, Any]) -> str:
    """The JSON object that closes standard output."""
    made = {name: summary[name] for name in ("demonstrations", "evaluation") if name in summary}
    return json.dumps({"run_dir": summary["run_dir"], "members": len(summary["members"]), "results": summary["results"], **made})


def advice(directory: str) -> str:
    return f"continue with: {COMMAND} resume {directory}"
