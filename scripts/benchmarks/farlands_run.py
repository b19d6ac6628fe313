"""One ``farlands train`` with the given overrides, timed: ``farlands_run.py key=value ...``.

``seconds`` is the whole run loop, as a user waits for it: compiled calls, what happens between them (metrics, progress), and the
checkpoint at the end. ``stepping_seconds`` is the part inside the compiled calls, which the run itself reports.
``compile_seconds`` is everything before: checking, tracing, compiling, initial states.
"""

from __future__ import annotations

import sys
from pathlib import Path

from timing import Stopwatch, tell

from runners import api
from runners.compose import compose


def main(overrides: list[str]) -> None:
    config = compose(overrides)
    batching = api.prepared(config)
    from runners.loop import Loop  # after prepared: jax reads its flags once
    from runners.train import train

    inner, found, preparing = Loop.run, {}, Stopwatch()

    def run(loop):
        found["compile_seconds"] = preparing.read()["seconds"]
        looping = Stopwatch()
        inner(loop)
        found.update(looping.read())

    Loop.run = run
    summary = train(config, batching, Path("runs"))
    steps = summary["steps"] * len(summary["members"])
    made = {row["member"]: row.get("steps/agent", row.get("search/steps", 0)) for row in api.metrics(summary["run_dir"]) if "time/seconds" in row}
    steps = sum(made.values()) or steps  # lanes of Go-Explore and of populations wait for each other: what counts are the steps that were made
    tell({"steps": steps, **found, "stepping_seconds": summary["seconds"], "returned": summary["results"].get("episode/return/median")})


if __name__ == "__main__":
    main(sys.argv[1:])
