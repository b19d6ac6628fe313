"""bsuite's score on DeepSea from runs of its sizes: ``.venv/bin/python scripts/deep_sea_score.py RUN...``.

A size counts where it was solved (fewer than 90 % of all episodes so far were bad, ``envs/tally.py``) before episode 2^N + 100, that is, sooner than by
dithering, and within bsuite's 10,000 episodes. The score is the share of the sizes that count; per seed, and for the official 21 sizes 10, 12, ..., 50.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from runners import api, rundir  # noqa: E402

EPISODES, OFFICIAL = 10_000, tuple(range(10, 51, 2))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path)
    found: dict[int, dict[int, int | None]] = {}  # size -> seed -> the episode
    played: dict[int, int] = {}
    for run in parser.parse_args().runs:
        size = rundir.read_config(run)["env"]["size"]
        last = {row["seed"]: row for row in api.metrics(run) if "world/episodes" in row}
        found[size] = {seed: solved(size, row) for seed, row in last.items()}
        played[size] = min(int(row["world/episodes"]) for row in last.values())
    print("| size | episodes played | seeds solved | episode, by seed |\n|---|---|---|---|")
    for size, seeds in sorted(found.items()):
        told = ["never" if seeds[s] is None else f"{seeds[s]:,}" for s in sorted(seeds)]
        print(f"| {size} | {played[size]:,} | {sum(e is not None for e in seeds.values())} of {len(seeds)} | {', '.join(told)} |")
    for seed in sorted(set.intersection(*(set(seeds) for seeds in found.values()))):
        done = sum(found[size][seed] is not None for size in found)
        print(f"seed {seed}: {done} of {len(found)} sizes" + (f", score {done / len(OFFICIAL):.3f}" if set(found) == set(OFFICIAL) else ""))


def solved(size: int, row: dict) -> int | None:
    """The episode at which bsuite calls it solved; None: never, or too late to count."""
    episode = int(row.get("world/solved_episode", -1))
    return episode if 0 <= episode < min(2.0**size + 100, EPISODES + 1) else None


if __name__ == "__main__":
    main()
