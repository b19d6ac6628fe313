"""``farlands evaluate RUN``: many fresh episodes of trained policies, with intervals; also in a world that is not quite the run's.

    scripts/farlands evaluate runs/NAME [member=all] [policy=best|last] [episodes=1000] [seed=0] [env.KEY=VALUE ...] [runner.evaluation_mode=...]

As Go-Explore's robust policies are judged ("First return, then explore", arXiv 2004.12919: 1000 episodes with sticky actions after 0 to 30 no-ops):
``env.sticky=0.25 env.noop_max=30``. Every lane plays one episode at a time and all of those count, so that short ones are not preferred; one that outlasts the
world's limit, or 1000 steps where there is none, counts with what it has by then, and is told as cut. Intervals are of 95 %: of a mean by the bootstrap over
episodes, of a share by Clopper and Pearson. They say how well the policy is known, not how another seed would do.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from rich.console import Console
from rich.table import Table
from scipy import stats

from envs.builder import Choice, Integer, Refusal, closest
from runners.base import HostRunner, Runner
from runners.batching import AXIS
from runners.compose import Setting, apply
from runners.experiment import experiment
from runners.host_source import HostSource
from runners.iteration import EVALUATION_LIMIT
from runners.play import member_first, vmapped
from runners.policies import WHICH, Played, read
from runners.progress import Reporter
from runners.rundir import read_config

SETTINGS = {"policy": ("best", Choice(WHICH)), "episodes": (1000, Integer(1)), "seed": (0, Integer(0, 2**31 - 1))}
CHUNK = 64  # steps of a compiled call
REPETITIONS = 2000  # of the bootstrap


def evaluate(arguments: Sequence[str]) -> dict[str, Any]:
    """What the policies of a run's members do. Raises Refusal."""
    run, chosen, settings, changes = parse(arguments)
    members = experiment(read_config(run)).members
    numbers = range(len(members)) if chosen is None else [chosen]

    def changed(config: dict[str, Any]) -> dict[str, Any]:
        for word in changes:
            apply(config, Setting(word), set())
        return config

    found, reporter = [], Reporter(len(numbers) * settings["episodes"], 1)
    try:
        for number in numbers:
            played = read(run, number, settings["policy"], changed)
            rounds, done = [], len(found) * settings["episodes"]
            for part in episodes(played, settings["episodes"], settings["seed"]):
                rounds.append(part)
                done += len(part[0])
                reporter.advance(done, f"return {np.mean(part[0]):.3f}")
            told = measured(*map(np.concatenate, zip(*rounds, strict=True)), played.runner.spec.success_return)
            found.append({"member": number, "seed": members[number].seed, "hyper": members[number].hyper, **told})
    finally:
        reporter.close()
    show(run, found)
    return {"run_dir": str(run), "policy": settings["policy"], "episodes": settings["episodes"], "changes": changes, "members": found}


def parse(arguments: Sequence[str]) -> tuple[Path, int | None, dict[str, Any], list[str]]:
    """(run, member or None for all, settings, changes of the run's configuration)."""
    runs, words = [a for a in arguments if "=" not in a], [a for a in arguments if "=" in a]
    if len(runs) != 1:
        raise Refusal("evaluate takes one run directory and settings, as: scripts/farlands evaluate runs/NAME episodes=1000 env.noop_max=30")
    changes = [word for word in words if word.startswith(("env.", "runner."))]
    found: dict[str, Any] = {"member": None} | {key: default for key, (default, _) in SETTINGS.items()}
    for key, value in (word.split("=", 1) for word in words if word not in changes):
        if key not in found:
            raise Refusal(f"evaluate {key}={value}: there is no setting {key!r}{closest(key, found)}; those of env. and runner. may be changed too")
        if key == "member" and value == "all":
            continue
        legal = Integer(0) if key == "member" else SETTINGS[key][1]
        read_as = int(value) if value.isdecimal() else value
        if not legal.accepts(read_as):
            raise Refusal(f"evaluate {key}={value}: {key} must be {legal.describe()}{', or all' if key == 'member' else ''}")
        found[key] = read_as
    return Path(runs[0]), found.pop("member"), found, changes


# --- what happens ------------------------------------------------------------------------------------------------------


def episodes(played: Played, number: int, seed: int) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """(returns, lengths, whether it was cut) of ``number`` episodes, some lanes at a time."""
    runner = played.runner
    if not isinstance(runner, (Runner, HostRunner)) or runner.watch is None:
        raise Refusal("evaluate is for policies that act step by step; what this run keeps is shown by demonstrate, elites or play")
    lanes, limit = runner.spec.lanes, runner.spec.max_steps or EVALUATION_LIMIT
    steps_of = host_steps(played, runner) if isinstance(runner, HostRunner) else jax_steps(played, runner)
    for n, first in enumerate(range(0, number, lanes)):
        returns, lengths, over = np.zeros(lanes, np.float32), np.zeros(lanes, np.int64), np.zeros(lanes, bool)
        t = 0
        for total, done in steps_of(jax.random.fold_in(jax.random.PRNGKey(seed), n)):
            returns, lengths, t = np.where(over, returns, total), np.where(over, lengths, t + 1), t + 1
            over |= done
            if over.all() or t >= limit:
                break
        some = slice(0, number - first)
        yield returns[some], lengths[some], ~over[some]


def jax_steps(played: Played, runner: Runner) -> Any:
    """key -> iterator of (return so far [N], whether it ended [N]), of fresh episodes."""

    def some(acting, carry, key, t):
        def one(carry, n):
            carry, made = runner.watch(acting, carry, jax.random.fold_in(key, t + n))
            return carry, (made.info["episode_return"], made.done)

        return jax.lax.scan(one, carry, jnp.arange(CHUNK))

    acting, start = member_first(played.acting), vmapped(runner.start)
    watch = jax.jit(jax.vmap(some, in_axes=(0, 0, None, None), axis_name=AXIS))

    def steps(key):
        carry, t = start(acting, key[None]), 0
        while True:
            carry, told = watch(acting, carry, key, t)
            yield from zip(*(np.asarray(x)[0] for x in told), strict=True)
            t += CHUNK

    return steps


def host_steps(played: Played, runner: HostRunner) -> Any:
    acting, start, watch = member_first(played.acting), vmapped(runner.start), vmapped(runner.watch)

    def steps(key):
        source = HostSource(runner.env, 1, runner.spec.lanes)
        try:
            seeds = np.random.SeedSequence(np.asarray(key).tolist()).generate_state(runner.spec.lanes) % 2**31
            (carry, actions), t = start(acting, key[None], source.reset(seeds.tolist()).obs), 0
            while True:
                before, actions, arrived = source.step(actions)
                yield (before.episode_return + arrived.reward)[0], (arrived.terminated | arrived.truncated)[0]
                carry, actions = watch(acting, carry, jax.random.fold_in(key, t)[None], before, actions, arrived)
                t += 1
        finally:
            source.close()

    return steps


# --- what it says ------------------------------------------------------------------------------------------------------


def measured(returns: np.ndarray, lengths: np.ndarray, cut: np.ndarray, success_return: float | None) -> dict[str, Any]:
    low, high = interval(returns)
    found = {"return": {"mean": float(returns.mean()), "low": low, "high": high}, "length": float(lengths.mean()), "cut": int(cut.sum())}
    if success_return is not None:
        succeeded = int((returns >= success_return).sum())
        exact = stats.binomtest(succeeded, len(returns)).proportion_ci(0.95, "exact")
        found["success"] = {"rate": succeeded / len(returns), "low": float(exact.low), "high": float(exact.high)}
    return found


def interval(values: np.ndarray) -> tuple[float, float]:
    """Of the mean of ``values`` [E]: percentiles 2.5 and 97.5 of the bootstrap."""
    draws, number = np.random.default_rng(0), len(values)
    low, high = np.quantile([values[draws.integers(0, number, number)].mean() for _ in range(REPETITIONS)], (0.025, 0.975))
    return float(low), float(high)


def show(run: Path, found: Sequence[dict[str, Any]]) -> None:
    table = Table(title=f"{run.name}: intervals of 95 % over episodes")
    for heading in ("seed", "return", "success", "length", "cut"):
        table.add_column(heading, justify="right")
    for row in found:
        spread, share = row["return"], row.get("success")
        success = f"{share['rate']:.1%} ({share['low']:.1%} to {share['high']:.1%})" if share else "-"
        table.add_row(str(row["seed"]), f"{spread['mean']:.3f} ({spread['low']:.3f} to {spread['high']:.3f})", success, f"{row['length']:.1f}", str(row["cut"]))
    Console(stderr=True, width=110).print(table)
