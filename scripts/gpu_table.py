"""Steps per second of the device loops over numbers of members, as a Markdown table: ``.venv/bin/python scripts/gpu_table.py``.

On-policy (PPO with RND on MiniGrid-DoorKey-8x8), off-policy (DQN with counts on DeepSea, an update per iteration), and Go-Explore (DeepSea): seeds of one
program on one NVIDIA GPU. A cell is environment steps of all members per second, medians over the rounds, of the whole run loop as
``scripts/benchmark.py`` measures it: compiling is not in it, metrics and the last checkpoint are. ``--device cpu`` only shows that it runs, at tiny sizes.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parent), str(Path(__file__).resolve().parent.parent)]

from benchmark import RND, circumstances, processor, speed, training  # noqa: E402

from runners.devices import installed  # noqa: E402

SEA = {"env": "deep_sea", "env.size": 20}
LOOPS = {
    "on_policy": RND | {"runner.lanes": 64},
    "off_policy": SEA | {"agent": "dqn", "exploration": "counts", "runner.lanes": 16, "runner.capacity": 16_384, "runner.learning_starts": 512},
    "go_explore": SEA | {"exploration": "go_explore", "env.observation": "index", "runner.lanes": 100, "runner.explore_steps": 20},
}
SMALL = {
    "on_policy": {"runner.lanes": 4, "runner.rollout": 16, "exploration.hidden": "[8]", "exploration.warmup": 16, "agent.hidden": "[8]"},
    "off_policy": {"env.size": 4, "runner.lanes": 4, "runner.capacity": 512, "runner.learning_starts": 64, "agent.hidden": "[8]"},
    "go_explore": {"env.size": 4, "runner.lanes": 4, "runner.explore_steps": 8},
}
MEMBERS = {"gpu": [1, 4, 16, 64, 256, 1024], "cpu": [1, 2]}
STEPS = {"gpu": 8_000_000, "cpu": 2_000}  # of all members together


def main() -> None:
    options = parse()
    platform, name = ("cpu", processor()) if options.device == "cpu" else ("cuda", card())
    os.environ["JAX_PLATFORMS"] = platform  # of the programs that are started
    members, steps = options.members or MEMBERS[options.device], options.steps or STEPS[options.device]
    rows = []
    with tempfile.TemporaryDirectory(prefix="farlands-table-") as folder:
        for loop, settings in LOOPS.items():
            if re.search(options.only, loop):
                made = settings | (SMALL[loop] if options.device == "cpu" else {}) | {"batching": "vmap"}
                cells = [cell(options, made | {"seeds": n, "total_steps": max(1, steps // n)}, Path(folder), loop) for n in members]
                rows.append([loop, *cells])
    if not rows:
        sys.exit(f"gpu_table: --only {options.only!r} matches none of {', '.join(LOOPS)}")
    where = circumstances(options)
    print(f"Steps per second of all members together, on one {name}; rounds: {where['rounds']}; commit {where['commit']}, {where['when'][:10]}.")
    print(f"\n| loop | {' | '.join(f'{n:,}' for n in members)} |\n|{'---|' * (len(members) + 1)}")
    for row in rows:
        print(f"| {' | '.join(row)} |")


def cell(options: argparse.Namespace, settings: dict, folder: Path, loop: str) -> str:
    """A median speed, or why there is none."""
    measure, speeds = training(folder, settings), []
    for _ in range(options.rounds):
        try:
            speeds.append(speed(measure()))
        except SystemExit as ended:
            if "not enough memory" in str(ended) or "RESOURCE_EXHAUSTED" in str(ended) or "this run needs about" in str(ended):
                return "no memory"
            raise
        print(f"{loop}, {settings['seeds']} members: {speeds[-1]:,.0f} steps/s", file=sys.stderr, flush=True)
    return f"{statistics.median(speeds):,.0f}"


def card() -> str:
    """The name of the GPU. Ends with one line where there is none that jax can use."""
    found = shutil.which("nvidia-smi") and subprocess.run(["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"], capture_output=True, text=True)
    if not found or found.returncode or not found.stdout.strip():
        sys.exit("gpu_table: no NVIDIA GPU here (nvidia-smi finds none); --device cpu shows that the table can be made, at tiny sizes")
    if not installed("jax-cuda"):
        sys.exit("gpu_table: jax's CUDA plug-in is not installed; add it with: FARLANDS_LOCK=requirements-cuda.lock scripts/farlands list")
    return found.stdout.splitlines()[0].strip()


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=MEMBERS, default="gpu")
    parser.add_argument("--members", type=int, nargs="+", metavar="N", help="numbers of members (gpu: 1 to 1024, cpu: 1 and 2)")
    parser.add_argument("--rounds", type=int, default=3, help="how often each cell is measured (default 3)")
    parser.add_argument("--steps", type=int, help="environment steps of all members together (gpu: 8000000, cpu: 2000)")
    parser.add_argument("--only", default="", metavar="REGEX", help=f"only the loops whose name it matches: {', '.join(LOOPS)}")
    options = parser.parse_args()
    if options.rounds < 1 or min(options.members or [1]) < 1 or (options.steps or 1) < 1:
        parser.error("--rounds, --members and --steps are at least 1")
    return options


if __name__ == "__main__":
    main()
