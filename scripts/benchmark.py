"""How fast Farlands is, and beside whom: ``.venv/bin/python scripts/benchmark.py NAME``.

  ppo      PPO on CartPole: 1 seed, 8 seeds in one program, 8 seeds over the cores; beside rejax and PureJaxRL where given
  rnd      PPO with RND on MiniGrid-DoorKey-8x8, on device and on the host; beside Stable-Baselines3 with RLeXplore where given
  startup  from the command to --help, list, and the first line of metrics
  worlds   random actions per world
  minigrid every MiniGrid task on device beside Farama's, random actions, 256 lanes, restarts included
  off_policy  SAC, MaxInfoSAC and DQN with one update per step, on device and on the host; beside Stable-Baselines3 where given
  go_explore  Go-Explore's first phase: on Montezuma's Revenge beside bare emulators, on DeepSea, and what an insertion costs
  population  MAP-Elites on an arm of 100 joints, beside QDax where given; novelty search in Kheperax's maze, beside pyribs where given, and beside
              archives of 1e3 to 1e5; novelty search and SERENE on Point2D
  host     PPO on Gymnasium and Atari worlds, beside the bare vector world and Stable-Baselines3 where given

Every configuration runs in a process of its own, in turn (A B C, A B C, ...), so what disturbs the machine disturbs all of them;
medians over the rounds are reported, and ratios are medians of the ratios within a round. docs/speed.md has the peers' set-up.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
PROGRAMS = ROOT / "scripts" / "benchmarks"
Run = dict[str, Any]  # what one program measured
PPO = {
    "env": "gymnax",
    "env.id": "CartPole-v1",
    "exploration": "none",
    "runner.lanes": 4,
    "runner.rollout": 128,
    "agent.epochs": 4,
    "agent.minibatches": 4,
    "agent.hidden": "[64,64]",
    "agent.activation": "tanh",
    "agent.learning_rate": 2.5e-4,
    "agent.value_clip": 0.2,  # as the peers do
}
RND = {
    "env": "minigrid",
    "env.id": "MiniGrid-DoorKey-8x8-v0",
    "exploration": "rnd",
    "exploration.hidden": "[128,128]",
    "runner.lanes": 64,
    "runner.rollout": 128,
    "agent.epochs": 4,
    "agent.minibatches": 4,
    "agent.hidden": "[64,64]",
}


HOST = {
    "exploration": "none",
    "agent.epochs": 4,
    "agent.minibatches": 4,
    "agent.hidden": "[64,64]",
    "agent.activation": "tanh",
    "agent.learning_rate": 2.5e-4,
}


def main() -> None:
    options = parse()
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))  # an exit ends the running program and removes the folder
    with tempfile.TemporaryDirectory(prefix="farlands-benchmark-") as folder:
        began = os.getloadavg()
        rows, ratios = BENCHMARKS[options.name](options, Path(folder))
    show(rows, ratios)
    found = {"benchmark": options.name, "rows": rows, "ratios": ratios, **circumstances(options), "load": [began[0], os.getloadavg()[0]]}
    line = json.dumps(rounded(found))
    print(line)
    if options.json:
        with open(options.json, "a") as file:
            file.write(line + "\n")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=BENCHMARKS)
    parser.add_argument("--rounds", type=int, default=5, help="how often each configuration is measured (default 5)")
    parser.add_argument("--steps", type=int, help="environment steps per seed (ppo: 500000, rnd: 409600, worlds: 1280000)")
    parser.add_argument("--only", default="", metavar="REGEX", help="only the configurations whose name it matches")
    parser.add_argument("--rejax-python", metavar="PYTHON", help="interpreter of an environment with rejax and gymnax<1")
    parser.add_argument("--purejaxrl", metavar="FILE", help="purejaxrl/ppo.py of a checkout")
    parser.add_argument("--purejaxrl-python", metavar="PYTHON", help="interpreter for it (default: that of rejax)")
    parser.add_argument("--json", metavar="FILE", help="append the results to FILE, as one line")
    parser.add_argument("--sb3-python", metavar="PYTHON", help="interpreter of an environment with stable-baselines3 and mujoco<3.11")
    parser.add_argument("--qdax-python", metavar="PYTHON", help="interpreter of an environment with qdax")
    parser.add_argument("--ribs-python", metavar="PYTHON", help="interpreter of an environment with ribs and kheperax")
    parser.add_argument("--rlexplore-python", metavar="PYTHON", help="interpreter of an environment with stable-baselines3, minigrid and rllte-core")
    options = parser.parse_args()
    if options.purejaxrl and not (options.purejaxrl_python or options.rejax_python):
        parser.error("--purejaxrl needs --purejaxrl-python or --rejax-python: an environment with gymnax<1, distrax, flax and optax")
    return options


# The benchmarks: (options, an empty folder) -> (rows, ratios)


def ppo(options, folder):
    steps = options.steps or 500_000
    ours = lambda seeds, batching: training(folder, PPO | {"seeds": seeds, "batching": batching, "total_steps": steps})  # noqa: E731
    wanted = {
        "farlands, 1 seed": ours(1, "vmap"),
        "farlands, 8 seeds, vmap": ours(8, "vmap"),
        "farlands, 8 seeds, shard": ours(8, "shard"),
    }
    if options.rejax_python:
        for seeds in (1, 8):
            wanted[f"rejax, {plural(seeds)}"] = peer(folder, options.rejax_python, "rejax_ppo.py", steps, seeds)
    if options.purejaxrl:
        python = options.purejaxrl_python or options.rejax_python
        for seeds in (1, 8):
            wanted[f"PureJaxRL, {plural(seeds)}"] = peer(folder, python, "purejaxrl_ppo.py", options.purejaxrl, steps, seeds)
    runs = in_turn(options, wanted)
    pairs = [(a, b) for a in runs for b in runs if a.startswith("farlands") and not b.startswith("farlands") and plural_of(a) == plural_of(b)]
    pairs += [(a, "farlands, 1 seed") for a in runs if a.startswith("farlands, 8") and "farlands, 1 seed" in runs]
    return [speed_row(name, found) for name, found in runs.items()], {f"{a} / {b}": ratio(runs[a], runs[b]) for a, b in pairs}


def rnd(options, folder):
    steps = options.steps or 50 * 64 * 128
    wanted = {}
    for encoder in ("mlp", "grid"):
        for seeds, batching in ((1, "vmap"), (2, "shard")):
            settings = RND | {"agent.encoder": encoder, "seeds": seeds, "batching": batching, "total_steps": steps}
            wanted[f"{encoder} encoder, {plural(seeds)}, {batching}"] = training(folder, settings)
    on_host = RND | {"env": "gymnasium", "agent.encoder": "mlp", "seeds": 1, "total_steps": 4 * 64 * 128}
    wanted["mlp encoder, 1 seed, Farama's on the host"] = training(folder, on_host)
    if options.rlexplore_python:
        wanted["SB3 + RLeXplore"] = peer(folder, options.rlexplore_python, "rlexplore_rnd.py", RND["env.id"], 64, 128, 2 * 64 * 128)
    runs = in_turn(options, wanted)
    pairs = [(a, b) for a in runs for b in runs if a.split(",")[0] == b.split(",")[0] and "2 seeds" in a and "1 seed, vmap" in b]
    pairs += [(a, "SB3 + RLeXplore") for a in runs if "1 seed" in a and "SB3 + RLeXplore" in runs]
    return [speed_row(name, found) for name, found in runs.items()], {f"{a} / {b}": ratio(runs[a], runs[b]) for a, b in pairs}


def startup(options, folder):
    command = [str(ROOT / "scripts" / "farlands")] if (ROOT / ".venv").exists() else [sys.executable, "-m", "runners.cli"]
    imports = "import jax, jax.numpy, flax.linen, optax; jax.numpy.zeros(3).block_until_ready()"
    wanted = {
        "python -c pass": lambda: until_end([sys.executable, "-c", "pass"]),
        "python, jax started": lambda: until_end([sys.executable, "-c", imports]),
        "farlands --help": lambda: until_end([*command, "--help"]),
        "farlands list": lambda: until_end([*command, "list"]),
        "farlands train, first metric": lambda: until_first_metric([*command, "train"], folder),
        "farlands train env=gymnax, first metric": lambda: until_first_metric([*command, "train", "env=gymnax"], folder),
    }
    wanted = {name: measure for name, measure in wanted.items() if re.search(options.only, name)}
    for measure in wanted.values():
        measure()  # fills the compilation cache and the disk's
    runs = in_turn(options, wanted)
    return [{"name": name, "seconds": median(found, "seconds"), "fastest": min(run["seconds"] for run in found)} for name, found in runs.items()], {}


def worlds(options, folder):
    lanes = 256
    steps = max(1, (options.steps or 1_280_000) // lanes)
    found = run_program([sys.executable, str(PROGRAMS / "worlds.py"), lanes, steps, options.rounds], ours())
    return [speed_row(name, runs) for name, runs in found.items() if re.search(options.only, name)], {}


def minigrid(options, folder):
    """Every MiniGrid task beside Farama's."""
    found = run_program([sys.executable, str(PROGRAMS / "minigrid_tasks.py"), 256, options.rounds, options.only], ours())
    pairs = [(id, f"Farama {id}") for id in found if not id.startswith("Farama")]
    return [speed_row(name, runs) for name, runs in found.items()], {f"{a} / {b}": ratio(found[a], found[b]) for a, b in pairs}


def host(options, folder):
    """PPO on host worlds beside the bare vector world under random actions, and beside Stable-Baselines3."""
    wanted = {}
    for id, lanes, rollout, steps in (("HalfCheetah-v5", 8, 256, 100_000), ("CartPole-v1", 8, 128, 100_000)):
        steps = options.steps or steps
        settings = HOST | {"env": "gymnasium", "env.id": id, "runner.lanes": lanes, "runner.rollout": rollout}
        wanted[f"bare {id}, 8 lanes"] = bare(id, lanes, steps // lanes)
        wanted[f"bare {id}, 64 lanes"] = bare(id, 8 * lanes, steps // lanes // 4)
        for seeds in (1, 8):
            for overlap in ("false", "true"):
                name = f"farlands {id}, {plural(seeds)}{', overlap' if overlap == 'true' else ''}"
                wanted[name] = training(folder, settings | {"seeds": seeds, "total_steps": steps, "runner.overlap": overlap})
        if options.sb3_python:
            wanted[f"SB3 {id}"] = peer(folder, options.sb3_python, "sb3_ppo.py", id, lanes, rollout, steps)
    atari = HOST | {"env": "atari", "env.game": "breakout", "runner.lanes": 16, "runner.rollout": 64, "seeds": 1, "runner.overlap": "true"}
    wanted["bare breakout, 16 lanes"] = bare("atari:breakout", 16, 400)
    wanted["farlands breakout, 1 seed, overlap"] = training(folder, atari | {"total_steps": 4 * 16 * 64})
    wanted["farlands breakout, random agent"] = training(
        folder, {k: v for k, v in atari.items() if not k.startswith("agent")} | {"agent": "random", "runner.overlap": "false", "total_steps": 8 * 16 * 64}
    )
    runs = in_turn(options, wanted)
    pairs = []
    for a in runs:
        world, lanes = a.split(",")[0].removeprefix("farlands "), "64 lanes" if "8 seeds" in a else "16 lanes" if "breakout" in a else "8 lanes"
        pairs += [(a, b) for b in (f"bare {world}, {lanes}", f"SB3 {world}") if a.startswith("farlands") and b in runs]
    return [speed_row(name, found) for name, found in runs.items()], {f"{a} / {b}": ratio(runs[a], runs[b]) for a, b in pairs}


def off_policy(options, folder):
    """One lane and one update per step from the first step on, so steps are updates; what the peers do before their first update is not timed."""
    steps = options.steps or 10_000
    shared = {"runner.lanes": 1, "runner.learning_starts": 0, "runner.random_steps": 0, "runner.capacity": 100_000, "total_steps": steps}
    sac = shared | {"agent": "sac", "exploration": "none", "runner.batch_size": 256}
    dqn = shared | {"agent": "dqn", "exploration": "none", "runner.batch_size": 128, "agent.hidden": "[64,64]", "total_steps": 5 * steps}
    max_info = {"agent": "max_info_sac", "exploration": "information_gain"}
    wanted = {
        "SAC Pendulum-v1, 1 seed": training(folder, sac | {"env": "gymnax", "env.id": "Pendulum-v1", "seeds": 1}),
        "SAC Pendulum-v1, 2 seeds, shard": training(folder, sac | {"env": "gymnax", "env.id": "Pendulum-v1", "seeds": 2, "batching": "shard"}),
        "MaxInfoSAC Pendulum-v1, 1 seed": training(folder, sac | max_info | {"env": "gymnax", "env.id": "Pendulum-v1", "seeds": 1}),
        "DQN CartPole-v1, 1 seed": training(folder, dqn | {"env": "gymnax", "env.id": "CartPole-v1", "seeds": 1}),
    }
    for overlap in ("false", "true"):
        name = f"SAC HalfCheetah-v5, 1 seed{', overlap' if overlap == 'true' else ''}"
        wanted[name] = training(folder, sac | {"env": "gymnasium", "env.id": "HalfCheetah-v5", "seeds": 1, "runner.overlap": overlap})
    if options.sb3_python:
        for agent, id in (("SAC", "Pendulum-v1"), ("SAC", "HalfCheetah-v5"), ("DQN", "CartPole-v1")):
            wanted[f"SB3 {agent} {id}"] = peer(folder, options.sb3_python, "sb3_off_policy.py", agent, id, steps // 5)
    runs = in_turn(options, wanted)
    pairs = [(a, b) for a in runs for b in runs if b == f"SB3 {a.split(',')[0]}"]
    pairs += [(a, b) for a, b in [("SAC Pendulum-v1, 1 seed", "MaxInfoSAC Pendulum-v1, 1 seed")] if a in runs and b in runs]
    return [speed_row(name, found) for name, found in runs.items()], {f"{a} / {b}": ratio(runs[a], runs[b]) for a, b in pairs}


def go_explore(options, folder):
    """Phase 1 in as many processes as bare emulators; on device DeepSea; insertions into archives of 1e3 to 1e6 cells."""
    processes, steps = os.cpu_count() or 1, options.steps or 100_000
    emulators = [sys.executable, PROGRAMS / "bare_emulators.py", "montezuma_revenge", processes, steps // processes]
    atari = {"paper": "go_explore_montezuma", "env.episodic_life": "false", "runner.workers": processes, "total_steps": steps, "segments": 10}
    sea = {"exploration": "go_explore", "env": "deep_sea", "env.observation": "index", "agent.mean_run": 1, "runner.explore_steps": 20}
    wanted = {
        "bare emulators, montezuma_revenge": lambda: run_program(emulators, ours()),
        "farlands montezuma_revenge, downscaled cells": training(folder, atari),
        "farlands montezuma_revenge, knowledge": training(folder, atari | {"exploration.cell": "knowledge"}),
        "farlands DeepSea-20, 2 seeds, 1000 lanes": training(folder, sea | {"seeds": 2, "runner.lanes": 1000, "total_steps": 100 * steps}),
        "farlands DeepSea-20, 8 seeds, 100 lanes": training(folder, sea | {"seeds": 8, "runner.lanes": 100, "total_steps": 50 * steps}),
    }
    for cells in (10**3, 10**4, 10**5, 10**6):
        wanted[f"insertions, {cells:,} cells"] = lambda cells=cells: run_program([sys.executable, PROGRAMS / "archive_insertions.py", cells], ours())
    runs = in_turn(options, wanted)
    pairs = [(a, b) for a in runs for b in runs if "farlands montezuma" in a and b.startswith("bare")]
    least = "insertions, 1,000 cells"
    pairs += [(a, least) for a in runs if a.startswith("insertions") and a != least and least in runs]
    return [speed_row(name, found) for name, found in runs.items()], {f"{a} / {b}": ratio(runs[a], runs[b]) for a, b in pairs}


MAZE_EVALUATIONS = 30_000


def population(options, folder):
    """Evaluations per second: the arm has episodes of one step, those of Point2D have 50."""
    joints, side, batch, iterations = 100, 100, 1024, (options.steps or 512_000) // 1024
    arm = {"exploration": "map_elites", "env": "planar_arm", "env.joints": joints, "agent": "open_loop", "exploration.initial": "uniform"}
    arm |= {"exploration.cells": f"[{side},{side}]", "runner.cells": f"[{side},{side}]", "exploration.batch": batch, "exploration.variation": "iso_line"}
    arm |= {"exploration.sigma": 0.01, "exploration.line_sigma": 0.2, "runner.lowest": -1, "total_steps": batch * iterations, "segments": 2}
    maze = {"exploration": "novelty_search", "exploration.population": 75, "exploration.add": "threshold", "exploration.threshold": 0.01, "segments": 2}
    maze |= {"env": "hard_maze", "env.layout": "kheperax", "agent.hidden": "[8,8]", "agent.bias": "unit", "agent.activation": "tanh", "seeds": 1}
    maze |= {"runner.cells": "[100,100]", "exploration.capacity": 32768, "total_steps": MAZE_EVALUATIONS * 250}
    plane = {"env": "point2d", "env.reward": "graded", "segments": 2, "total_steps": 20_000 * 50}
    wanted = {
        "farlands MAP-Elites, arm, 1 seed": training(folder, arm | {"seeds": 1}),
        "farlands MAP-Elites, arm, 2 seeds": training(folder, arm | {"seeds": 2}),
        "farlands novelty search, maze": training(folder, maze),
        "farlands novelty search, Point2D, 1 seed": training(folder, plane | {"exploration": "novelty_search", "seeds": 1}),
        "farlands novelty search, Point2D, 8 seeds": training(folder, plane | {"exploration": "novelty_search", "seeds": 8}),
        "farlands SERENE, Point2D, 8 seeds": training(folder, plane | {"exploration": "serene", "seeds": 8}),
    }
    for filled in (10**3, 10**4, 10**5):
        wanted[f"generations, archive of {filled:,}"] = lambda filled=filled: run_program([sys.executable, PROGRAMS / "novelty_archive.py", filled], ours())
    if options.ribs_python:
        wanted["pyribs novelty search, maze"] = peer(folder, options.ribs_python, "ribs_maze.py", MAZE_EVALUATIONS)
    if options.qdax_python:
        wanted["QDax MAP-Elites, arm"] = peer(folder, options.qdax_python, "qdax_arm.py", joints, side, batch, iterations)
    runs = in_turn(options, wanted)
    pairs = [(a, b) for a in runs for b in runs if "arm" in a and a.startswith("farlands") and b.startswith("QDax")]
    pairs += [(a, b) for a in runs for b in runs if a == "farlands novelty search, maze" and b.startswith("pyribs")]
    return [speed_row(name, found) for name, found in runs.items()], {f"{a} / {b}": ratio(runs[a], runs[b]) for a, b in pairs}


def bare(id: str, lanes: int, steps: int) -> Callable[[], Run]:
    return lambda: run_program([sys.executable, PROGRAMS / "bare_vector.py", id, lanes, steps], ours())


BENCHMARKS = {
    "ppo": ppo,
    "rnd": rnd,
    "startup": startup,
    "worlds": worlds,
    "minigrid": minigrid,
    "host": host,
    "off_policy": off_policy,
    "go_explore": go_explore,
    "population": population,
}


# Measuring


def in_turn(options, wanted: dict[str, Callable[[], Run]]) -> dict[str, list[Run]]:
    """Each configuration once per round, the rounds one after the other."""
    wanted = {name: measure for name, measure in wanted.items() if re.search(options.only, name)}
    if not wanted:
        sys.exit(f"benchmark: --only {options.only!r} matches no configuration")
    runs = {name: [] for name in wanted}
    for i in range(options.rounds):
        for name, measure in wanted.items():
            runs[name].append(measure())
            print(f"round {i + 1}/{options.rounds}: {name}: {brief(runs[name][-1])}", file=sys.stderr, flush=True)
    return runs


def training(folder: Path, settings: Run) -> Callable[[], Run]:
    """One ``farlands train``, without evaluations and with no checkpoint but the last."""
    fixed = {"evaluations": 0, "checkpoint.seconds": 10**6}

    def measure():
        overrides = [f"{key}={value}" for key, value in (settings | fixed).items()]
        place = tempfile.mkdtemp(dir=folder)
        return run_program([sys.executable, PROGRAMS / "farlands_run.py", *overrides, f"run_dir={place}/run"], ours(folder))

    return measure


def peer(folder: Path, python: str, program: str, *arguments) -> Callable[[], Run]:
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"} | jax_settings(folder / "peers")
    return lambda: run_program([python, PROGRAMS / program, *arguments], environment)


def ours(folder: Path | None = None) -> dict[str, str]:
    """The environment of our own programs; with ``folder``, their compilation cache begins empty."""
    return os.environ | {"PYTHONPATH": str(ROOT)} | (jax_settings(folder / "farlands") if folder else {})


def jax_settings(cache: Path) -> dict[str, str]:
    """What ours and the peers' programs share. PureJaxRL's timed call draws its orthogonal weights; on few cores OpenBLAS's
    threads can make that seconds."""
    found = {"JAX_COMPILATION_CACHE_DIR": str(cache), "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.1"}
    return found | {"OPENBLAS_NUM_THREADS": "1", "TF_CPP_MIN_LOG_LEVEL": "3"}


def run_program(command: list[Any], environment: dict[str, str]) -> Any:
    """The JSON on the last line of the program's standard output."""
    done = subprocess.run([str(part) for part in command], env=environment, cwd=ROOT, capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"benchmark: {' '.join(map(str, command))} failed:\n{done.stderr[-4000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def until_end(command: list[str]) -> Run:
    begin = time.monotonic()
    subprocess.run(command, env=ours(), cwd=ROOT, stdout=subprocess.DEVNULL, check=True)
    return {"seconds": time.monotonic() - begin}


def until_first_metric(command: list[str], folder: Path) -> Run:
    """Seconds from the start of the process to the first line in metrics.jsonl; the process is ended then."""
    run = Path(tempfile.mkdtemp(dir=folder)) / "run"
    log = run.with_suffix(".log")
    with open(log, "w") as output:
        begin = time.monotonic()
        process = subprocess.Popen([*command, f"run_dir={run}"], env=ours(), cwd=ROOT, stdout=output, stderr=output)
        try:
            while not ((run / "metrics.jsonl").exists() and (run / "metrics.jsonl").stat().st_size):
                if process.poll() is not None:
                    sys.exit(f"benchmark: {' '.join(command)} ended without metrics:\n{log.read_text()[-4000:]}")
                time.sleep(0.002)
            return {"seconds": time.monotonic() - begin}
        finally:
            process.kill()
            process.wait()


# Telling


def plural(seeds: int) -> str:
    return "1 seed" if seeds == 1 else f"{seeds} seeds"


def plural_of(name: str) -> str:
    return name.split(", ")[1]


def speed(run: Run) -> float:
    return run["steps"] / run["seconds"]


def median(runs: list[Run], key: str) -> float | None:
    known = [run[key] for run in runs if run.get(key) is not None]
    return statistics.median(known) if known else None


def ratio(ours: list[Run], theirs: list[Run]) -> dict[str, float]:
    """Median, smallest and largest quotient of speeds measured in the same round."""
    quotients = [speed(a) / speed(b) for a, b in zip(ours, theirs, strict=True)]
    return {"median": statistics.median(quotients), "low": min(quotients), "high": max(quotients)}


def speed_row(name: str, runs: list[Run]) -> Run:
    """``stepping``: without what happens between the compiled calls. ``per CPU second``: a noisy machine changes it less."""
    row = {"name": name, "steps/s": statistics.median(map(speed, runs)), "low": min(map(speed, runs)), "high": max(map(speed, runs))}
    if "stepping_seconds" in runs[0]:
        row["stepping"] = statistics.median(run["steps"] / run["stepping_seconds"] for run in runs)
    row["per CPU second"] = statistics.median(run["steps"] / run["cpu_seconds"] for run in runs)
    row["compile s"] = runs[0]["compile_seconds"]  # later rounds find it in the cache
    if median(runs, "returned") is not None:
        row["return"] = median(runs, "returned")
    return row | {"runs": runs}


def brief(run: Run) -> str:
    return f"{speed(run):,.0f} steps/s" if "steps" in run else f"{run['seconds']:.3f} s"


def show(rows: list[Run], ratios: dict[str, Run]) -> None:
    columns = list(dict.fromkeys(key for row in rows for key in row if key not in ("name", "runs")))
    lines = [["", *columns]] + [[row["name"], *(number(row.get(column)) for column in columns)] for row in rows]
    widths = [max(len(line[i]) for line in lines) for i in range(len(columns) + 1)]
    for line in lines:
        print("  ".join([line[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(line[1:], widths[1:], strict=True))]))
    for name, found in ratios.items():
        print(f"{name}: {found['median']:.2f} ({found['low']:.2f} to {found['high']:.2f})")


def number(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def rounded(found: Any) -> Any:
    """``found`` with six digits per number."""
    if isinstance(found, dict):
        return {key: rounded(value) for key, value in found.items()}
    if isinstance(found, list):
        return [rounded(value) for value in found]
    return float(f"{found:.6g}") if isinstance(found, float) else found


def circumstances(options) -> Run:
    head = subprocess.run(["git", "-C", str(ROOT), "rev-parse", "--short", "HEAD"], capture_output=True, text=True).stdout.strip()
    return {
        "when": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "commit": head,
        "processor": processor(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "platforms": os.environ.get("JAX_PLATFORMS", ""),
        "rounds": options.rounds,
        "steps": options.steps,
    }


def processor() -> str:
    try:
        found = re.search(r"^model name\s*:\s*(.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    except OSError:
        found = None
    return found[1] if found else platform.processor()


if __name__ == "__main__":
    main()
