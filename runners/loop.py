"""The one loop: members x segments, whatever the experiment.

A segment is a fixed number of iterations and gives one line per member in ``metrics.jsonl``. Inside it the compiled program
is called for about a second's worth of iterations at a time, so progress, Ctrl-C and checkpoints never wait long; how the
iterations are cut changes no result. Between calls, and only there: progress, metrics, evaluation, checkpoints.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass

import jax
import numpy as np

from runners import checkpoint, policies
from runners.batching import Batch
from runners.experiment import Member
from runners.progress import Reporter
from runners.remember import Remember
from runners.rundir import RunDirectory

CALL_SECONDS = 1.0  # aimed length of one call of the compiled program
EVALUATION_STREAM = 2**31 - 1  # keys of evaluations are derived from this and the iteration


def evaluation_iterations(evaluations: int | list[int], total: int, per_iteration: int) -> set[int]:
    """After which iterations to evaluate: ``evaluations`` of them evenly spaced, or the first ones that reach the given steps."""
    if isinstance(evaluations, int):
        return {-(-total * (i + 1) // evaluations) for i in range(evaluations)}
    return {min(total, -(-steps // per_iteration)) for steps in evaluations}


class Stopped(Exception):
    """A signal asked the run to stop; everything is saved."""

    def __init__(self, number: int, run_dir: str):
        super().__init__(signal.Signals(number).name)
        self.number, self.run_dir = number, run_dir


@dataclass
class Loop:
    """Drives a compiled ``Batch`` from where ``remember`` stands to the end."""

    batch: Batch
    members: list[Member]
    directory: RunDirectory
    total: int  # iterations that schedules are made for
    end: int  # iterations that are made
    per_iteration: int  # environment steps per member
    segments: int
    evaluations: int | list[int]  # how many, evenly spaced, or at which environment steps
    checkpoint_seconds: float
    keep: int
    remember: Remember
    reporter: Reporter
    headline: Callable[[list[dict]], str]  # metrics rows -> what the progress bar says
    goal: Callable[[list[dict]], bool] = lambda rows: False  # newest rows of the members that are not frozen -> whether the run may end here
    asked: int | None = None  # the signal that asked to stop

    def run(self) -> None:
        """Returns when all iterations are done. Raises Stopped after a signal, with a checkpoint written."""
        handlers = {s: signal.signal(s, self._ask) for s in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)}
        try:
            self._run()
        finally:
            for number, handler in handlers.items():
                signal.signal(number, handler)

    def _ask(self, number, frame) -> None:
        if self.asked is not None:  # the second Ctrl-C does not wait
            raise KeyboardInterrupt
        self.asked = number
        self.reporter.say(f"{signal.Signals(number).name}: saving a checkpoint (again to stop at once)")

    def _run(self) -> None:
        length = -(-self.total // self.segments)
        evaluate_at = evaluation_iterations(self.evaluations, self.total, self.per_iteration)
        stops = sorted({*range(length, self.end, length), self.end, *(i for i in evaluate_at if i < self.end)})
        saved, call = time.monotonic(), 1
        self._end_at_goal()
        note = self.headline(self.remember.last_rows)
        while self.remember.iteration < self.end:
            now = self.remember.iteration
            until = next(s for s in stops if s > now)
            count = min(call, until - now)
            begin = time.monotonic()
            self.batch.run(now, count, self.total)
            elapsed = time.monotonic() - begin
            call = max(1, int(count * min(4.0, CALL_SECONDS / max(elapsed, 1e-6))))
            self.remember.iteration += count
            self.remember.seconds += elapsed
            self._freeze()
            if self.remember.iteration == until:
                if until % length == 0 or until == self.end:
                    note = self._write_metrics()
                if until in evaluate_at:
                    self._evaluate()
                self._end_at_goal()
                if until == self.end and evaluate_at and until not in evaluate_at:
                    self._evaluate()
            self.reporter.advance(self.steps, note)
            due = time.monotonic() - saved >= self.checkpoint_seconds
            if self.asked is not None or due or self.remember.iteration == self.end:
                self.save()
                saved = time.monotonic()
            if self.asked is not None and self.remember.iteration < self.end:
                raise Stopped(self.asked, str(self.directory.path))

    @property
    def steps(self) -> int:
        """Environment steps per member so far."""
        return self.remember.iteration * self.per_iteration

    def _end_at_goal(self) -> None:
        """Let the run end here if it has reached its goal. Only what is remembered decides, so a resumed run ends at the same place."""
        evaluation = self.remember.evaluations[-1] if self.remember.evaluations else [{}] * len(self.members)
        newest = {row["member"]: row for row in self.remember.last_rows}
        rows = [newest.get(i, {}) | evaluation[i] for i in range(len(self.members)) if str(i) not in self.remember.frozen]
        if rows and self.goal(rows):
            if self.remember.iteration < self.end:
                self.reporter.say(f"the goal is reached: the run ends at step {self.steps:,}")
            self.end = self.remember.iteration

    def _freeze(self) -> None:
        for i in np.flatnonzero(~self.batch.sound()):
            if str(i) not in self.remember.frozen:
                self.remember.frozen[str(i)] = self.steps
                self.reporter.say(f"{self.members[i].label()}: a number became NaN by step {self.steps:,}; this member is frozen, the others go on")

    def _write_metrics(self) -> str:
        rows = []
        for i, metrics in enumerate(self.batch.take_metrics()):
            if str(i) not in self.remember.frozen:
                rate = self.steps * len(self.members) / max(self.remember.seconds, 1e-9)
                head = {"step": self.steps, "member": i, "seed": self.members[i].seed, **self.members[i].hyper}
                rows.append(head | {"time/seconds": round(self.remember.seconds, 3), "time/steps_per_second": round(rate, 1)} | metrics)
        self.directory.append(rows)
        newest = {row["member"]: row for row in self.remember.last_rows} | {row["member"]: row for row in rows}
        self.remember.last_rows = list(newest.values())
        return self.headline(self.remember.last_rows)

    def _evaluate(self) -> None:
        def key(member):
            return jax.random.fold_in(jax.random.fold_in(jax.random.PRNGKey(member.seed), EVALUATION_STREAM), self.remember.iteration)

        found = self.batch.evaluate(np.stack([np.asarray(key(member)) for member in self.members]))
        best_before = [max((past[i]["evaluation/return"] for past in self.remember.evaluations), default=-np.inf) for i in range(len(self.members))]
        self.remember.evaluations.append([{"step": self.steps, **metrics} for metrics in found])
        better = [now["evaluation/return"] > best for now, best in zip(found, best_before, strict=True)]
        policies.save(self.directory.path / "policies", self.batch.policies(), better)
        heads = [{"step": self.steps, "member": i, "seed": member.seed, **member.hyper} for i, member in enumerate(self.members)]
        self.directory.append([head | metrics for head, metrics in zip(heads, found, strict=True)])

    def save(self) -> None:
        host = self.batch.host_snapshot()
        self.remember.grown = dict(self.batch.grown)
        checkpoint.save(self.directory.checkpoints, self.remember.iteration, self.batch.snapshot(), asdict(self.remember), self.keep, host)
        self._write_visits()

    def _write_visits(self) -> None:
        """Maps of where the members were, for pictures: ``visits.npz``, u32[M, rows, columns]."""
        visits = self.batch.visits()
        if visits is not None:
            draft = self.directory.path / ".visits.draft.npz"
            np.savez_compressed(draft, visits=visits)
            draft.replace(self.directory.path / "visits.npz")
