"""Farlands from Python: the same as the command line, in a few lines.

    from runners import api as farlands

    config = farlands.compose("env=gymnax", "env.id=CartPole-v1", "exploration=none", "seeds=2", "total_steps=50_000")
    summary = farlands.train(config)                  # prints what the command prints; finds a finished run again
    rows = farlands.metrics(summary["run_dir"])       # a dictionary per segment and member
    summary = farlands.resume(summary["run_dir"])
    policy = farlands.policy(summary["run_dir"], member=0, which="best")
    memory, action = policy.act(policy.start(4), key, obs, first)     # obs [4, ...], first bool[4]

Only ``train``, ``resume`` and ``policy`` import jax, which reads its flags (devices, caches) from the environment once: the first of them
sets these flags, unless jax was imported before; then the devices are those that jax has.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from runners import compose as composition
from runners import devices, distributed, rundir

if TYPE_CHECKING:
    from runners.policies import Policy

RUNS = Path("runs")


def compose(*overrides: str) -> dict[str, Any]:
    """The configuration that these words on the command line give. Raises Refusal, as does everything here."""
    return composition.compose(list(overrides))


def train(config: dict[str, Any], runs: Path | str = RUNS) -> dict[str, Any] | None:
    """Run, go on with, or find again the experiment of ``config``; returns its summary (``summary.json``), None in another process than 0."""
    from runners.train import train as run

    return run(config, prepared(config), Path(runs))


def resume(run: Path | str) -> dict[str, Any]:
    """Go on with a run that was stopped; returns its summary."""
    from runners.train import train as go_on

    config = rundir.read_config(Path(run)) | {"run_dir": str(run)}
    return go_on(config, prepared(config), Path(run).parent, resuming=True)


def metrics(run: Path | str) -> list[dict[str, Any]]:
    """The rows of ``metrics.jsonl``: a dictionary per segment and member, and per evaluation and member."""
    return rundir.read_metrics(Path(run))


def results(run: Path | str) -> dict[str, Any] | None:
    """The summary of a finished run; None while it is not finished."""
    return rundir.read_summary(Path(run))


def policy(run: Path | str, member: int = 0, which: str = "best") -> Policy:
    """A trained policy: the ``best`` or ``last`` evaluated one of a member."""
    prepared(rundir.read_config(Path(run)))
    from runners.policies import load

    return load(Path(run), member, which)


def prepared(config: dict[str, Any]) -> str:
    """The resolved batching; sets jax's flags if jax is not there yet."""
    place = distributed.asked(config)
    batching, cores = devices.resolve_batching(str(config.get("batching")), -(-members(config) // (place.processes if place else 1)))
    if "jax" not in sys.modules:
        world = str((config.get("env") or {}).get("_target_"))
        # one member in Gymnasium's worlds computes next to nothing between two steps, unless it learns from a replay: more threads only wait for each other
        on_policy = str((config.get("runner") or {}).get("_target_")).endswith(".on_policy")
        small = world.startswith("envs.gymnasium.") and members(config) == 1 and on_policy
        devices.prepare(cores, threads=1 if small else None, inline=world.startswith(("envs.gymnasium.", "envs.atari.")))
    elif batching == "shard" and config.get("batching") == "auto":
        batching = "auto"  # jax is there already, with the devices that it has
    return batching


def members(config: dict[str, Any]) -> int:
    """How many members ``config`` asks for, without checking it."""
    seeds = config.get("seeds")
    count = seeds if isinstance(seeds, int) else len(seeds) if isinstance(seeds, list) else 1
    for values in composition.flatten(config.get("vmap") or {}).values():
        count *= max(len(values), 1) if isinstance(values, list) else 1
    count *= max((len(v) for v in composition.flatten(config.get("zip") or {}).values() if isinstance(v, list)), default=1)
    return 2 if config.get("debug") is True else max(count, 1)
