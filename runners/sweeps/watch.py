"""How far a sweep is, while its jobs run somewhere else."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Sequence

from runners.progress import clock
from runners.sweeps.program import Program

EVERY_SECONDS = 15.0


class Watch:
    """Says now and then how many programs have finished and how many steps are made; says nothing where the jobs speak for themselves (``aloud``)."""

    def __init__(self, programs: Sequence[Program], aloud: bool):
        self.programs, self.ended = [p for p in programs if not p.refused], threading.Event()
        self.thread = None if aloud else threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Watch:
        if self.thread:
            self.thread.start()
        return self

    def __exit__(self, *_) -> None:
        self.ended.set()
        if self.thread:
            self.thread.join()

    def _watch(self) -> None:
        begin, first, said = time.monotonic(), self._steps(), ""
        while not self.ended.wait(EVERY_SECONDS):
            steps, seconds = self._steps(), time.monotonic() - begin
            total, rate = sum(p.steps for p in self.programs), (steps - first) / seconds
            line = f"{sum(p.finished() for p in self.programs)} of {len(self.programs)} programs finished, {steps / total:.0%} of all steps"
            line += f" | {rate:,.0f} steps/s | {clock((total - steps) / rate)} left" if rate > 0 else ""
            if line != said:
                print(line, file=sys.stderr, flush=True)
            said = line

    def _steps(self) -> int:
        return sum(p.steps if p.finished() else p.begun() for p in self.programs)
