"""A table from finished runs, for docs/bonuses.md: ``.venv/bin/python scripts/results.py RUN...``.

Per run (one setting, many seeds): how many seeds solved the task; environment steps until half of the episodes succeed, as the median over seeds
with the smallest and the largest; success at the end, as a mean with a 95 % bootstrap interval over seeds; wall-clock of the whole run.

"Half succeed": the first segment of metrics.jsonl from which on the next ``EPISODES`` episodes have a success rate of at least 0.5. Fewer
would not do: at first only successful episodes are short enough to have ended.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from runners import api, rundir  # noqa: E402

EPISODES, LAST = 200, 5  # segments at the end


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path)
    print("| world | bonus | weight | N | seeds | solved | steps to half | success at the end | minutes | steps/s |\n|---|---|---|---|---|---|---|---|---|---|")
    finished = [run for run in parser.parse_args().runs if rundir.read_summary(run)]
    for _, line in sorted(map(row, finished)):
        print(line)


def row(run: Path) -> tuple[tuple, str]:
    """(what the table is sorted by: world, then the most seeds in the fewest steps; the line)."""
    config, rows = rundir.read_config(run), api.metrics(run)
    members = sorted({r["member"] for r in rows})
    halves, ends = zip(*(learnt([r for r in rows if r["member"] == member]) for member in members), strict=True)
    solved = [half for half in halves if half is not None]
    steps = f"{np.median(solved):,.0f} ({min(solved):,} to {max(solved):,})" if solved else "-"
    last = [r for r in rows if "time/seconds" in r][-1]
    cells = [
        config["env"].get("id") or config["env"]["_target_"].rpartition(".")[2],
        config["exploration"]["_target_"].rpartition(".")[2],
        config["exploration"].get("scale", "-"),
        f"{max(r['step'] for r in rows):,}",
        len(members),
        len(solved),
        steps,
        interval(np.array(ends)),
        f"{last['time/seconds'] / 60:.1f}",
        f"{last['time/steps_per_second']:,.0f}",
    ]
    best = float(np.median(solved)) if solved else np.inf
    return (cells[0], -len(solved), best, -float(np.mean(ends))), f"| {' | '.join(map(str, cells))} |"


def learnt(rows: list[dict]) -> tuple[int | None, float]:
    """(steps until half of the episodes succeed or None, success over the last segments) of one member."""
    told = [r for r in rows if r.get("episode/success") is not None]
    rates, ended = np.array([r["episode/success"] for r in told]), np.diff([r["episode/count"] for r in told], prepend=0)
    successes, episodes = np.cumsum(rates * ended), np.cumsum(ended)
    for n in range(len(told)):
        later = np.searchsorted(episodes, episodes[n] - ended[n] + EPISODES)  # where that many more have ended
        if later < len(told):
            before = successes[n] - rates[n] * ended[n], episodes[n] - ended[n]
            if (successes[later] - before[0]) / (episodes[later] - before[1]) >= 0.5:
                return told[n]["step"], float(rates[-LAST:].mean())
    return None, float(rates[-LAST:].mean()) if len(rates) else 0.0


def interval(values: np.ndarray) -> str:
    """Mean and 95 % percentile bootstrap over seeds."""
    draws = np.random.default_rng(0).choice(values, (10_000, len(values))).mean(axis=1)
    return f"{values.mean():.2f} ({np.quantile(draws, 0.025):.2f} to {np.quantile(draws, 0.975):.2f})"


if __name__ == "__main__":
    main()
