"""What a person sees while a run goes on. Everything goes to standard error; standard output is for results."""

from __future__ import annotations

import sys
import time

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

EVERY_SECONDS = 10.0  # between lines when the output is not a terminal


def clock(seconds: float) -> str:
    minutes, seconds = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"


def plural(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"


def readable(size: float) -> str:
    """Bytes, as '1.5 GiB'."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < 1024 or unit == "GiB":
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    raise AssertionError


class Reporter:
    """A progress bar on a terminal, a line now and then elsewhere. Rates leave out the first call, which may compile.

    Without ``progress`` only what is said is shown.
    """

    def __init__(self, total_steps: int, members: int, progress: bool = True):
        self.console = Console(stderr=True, highlight=False)
        self.total, self.members, self.first_done, self.begin = total_steps, members, 0, None
        self.last_line = 0.0
        self.progress, self.bar = progress, None
        if progress and self.console.is_terminal:
            self.bar = Progress(TextColumn("{task.description}"), BarColumn(), TextColumn("{task.percentage:>3.0f}%"), console=self.console)
            self.task = self.bar.add_task("starting", total=total_steps)
            self.bar.start()

    def say(self, line: str) -> None:
        (self.bar.console if self.bar else self.console).print(line, markup=False, soft_wrap=True)

    def advance(self, done: int, note: str) -> None:
        """``done`` environment steps per member; ``note`` is shown as it is."""
        now = time.monotonic()
        if self.begin is None:
            self.begin, self.first_done = now, done
        elapsed = now - self.begin
        rate = (done - self.first_done) / elapsed if elapsed > 0 else 0.0
        text = f"{done:,}/{self.total:,} steps"
        if rate > 0:
            text += f" | {rate * self.members:,.0f} steps/s | {clock((self.total - done) / rate)} left"
        text += f" | {note}" if note else ""
        if self.bar:
            self.bar.update(self.task, completed=done, description=text)
        elif self.progress and (now - self.last_line > EVERY_SECONDS or done >= self.total):
            self.last_line = now
            self.say(text)

    def close(self) -> None:
        """Take the bar away; may be called twice."""
        if self.bar:
            self.bar.stop()
        sys.stderr.flush()
