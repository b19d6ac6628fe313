"""The command line. ``--help`` and ``list`` are answered from files, before Hydra or jax are imported."""

from __future__ import annotations

import importlib
import importlib.util
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CONFIGS = ROOT / "configs"
HELP = """Farlands: research on exploration in reinforcement learning.

  scripts/farlands train [key=value ...]     run an experiment, all seeds at once; the same command resumes it
  scripts/farlands train -m key=a,b [...]    sweep, search, or send to a cluster (docs/sweeps.md)
  scripts/farlands play RUN                  a video of the trained policy
  scripts/farlands evaluate RUN              many episodes of the trained policies, with intervals
  scripts/farlands export RUN DIRECTORY      a data set of what the policy does, in minari's format
  scripts/farlands demonstrate RUN           trajectories of an archive, replayed and written
  scripts/farlands elites RUN                what a search over policies keeps: as a map, as a file, one of them as a video
  scripts/farlands resume RUN                go on with a run that was stopped
  scripts/farlands check [key=value ...]     is a bonus right? its laws and known answers, as a table
  scripts/farlands list [KIND]               agents, envs, exploration, runners, loggers, experiments, papers, runs
  scripts/farlands reproduce NAME            an experiment of a paper: ours, theirs, and whether it holds
  scripts/farlands dashboard                 a live page over runs/, on this machine alone
  scripts/farlands report RUN...             one HTML page and figures of one or more runs

  scripts/farlands train exploration=rnd env=xminigrid seeds=4 total_steps=1_000_000
  scripts/farlands train vmap.exploration.scale=[0.1,1]     several values in one compiled program

Choices and their defaults are the files under configs/; 'train --help' lists them."""
KINDS = {
    "agents": "agent",
    "envs": "env",
    "exploration": "exploration",
    "runners": "runner",
    "loggers": "logger",
    "experiments": "experiment",
    "papers": "paper",
}


def main() -> None:
    """Entry point; exits with 0, 1 (a run failed), 2 (refused), or 128 + signal."""
    sys.exit(run(sys.argv[1:]))


def run(arguments: list[str]) -> int:
    from envs.builder import Failure, Refusal  # light: no jax

    try:
        refuse_shadowed()
        command, rest = (arguments[0], arguments[1:]) if arguments else ("--help", [])
        if command in ("-h", "--help", "help"):
            print(HELP)
            return 0
        if command not in COMMANDS:
            from envs.builder import closest

            raise Refusal(f"unknown command {command!r}{closest(command, COMMANDS)}; as: scripts/farlands train seeds=4")
        return COMMANDS[command](rest)
    except Refusal as error:
        print(f"farlands: {error}", file=sys.stderr)
        return 2
    except Failure as error:
        print(f"farlands: {error}; what was saved before is kept, and the same command goes on from there", file=sys.stderr)
        return 1
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        print(f"farlands: {error}; what was saved before is kept, and the same command goes on from there", file=sys.stderr)
        return 1
    except Exception as error:
        line = of_the_machine(error)
        if line is None:
            raise
        print(f"farlands: {line}; what was saved before is kept", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("farlands: interrupted", file=sys.stderr)
        return 130


def of_the_machine(error: Exception) -> str | None:
    """What to say when Python, numpy or XLA ran out of memory, or jax has no such device; None for any other error.

    jax's errors are recognised by their words: it may not be imported here."""
    said = str(error)
    reason = (said.splitlines() or [type(error).__name__])[0]
    xla = type(error).__name__ == "JaxRuntimeError" and ("out of memory" in said.lower() or "RESOURCE_EXHAUSTED" in said)
    if isinstance(error, MemoryError) or xla:
        return f"not enough memory ({reason}); lower seeds, or runner.lanes, or runner.rollout"
    words = ("Unable to initialize backend", "Unknown backend", "failed to initialize")
    if isinstance(error, RuntimeError) and any(w in said for w in words):
        asked = os.environ.get("JAX_PLATFORMS")
        return f"jax finds no such device ({reason}); {f'JAX_PLATFORMS={asked} asks for it' if asked else 'JAX_PLATFORMS=cpu does without'}"
    return None


def refuse_shadowed() -> None:
    """Refuse to start when another distribution's package hides one of ours (OpenAI's agents SDK installs ``agents``)."""
    from envs.builder import Refusal

    for name in ("agents", "envs", "exploration", "runners"):
        found = importlib.util.find_spec(name)
        place = Path(found.origin).resolve().parent if found and found.origin else None
        if place != ROOT / name:
            hint = "another distribution hides it; use scripts/farlands, or uninstall that one"
            raise Refusal(f"the package {name!r} is taken from {place}, not from {ROOT / name}: {hint}")


def list_command(arguments: list[str]) -> int:
    from envs.builder import Refusal, closest

    wanted = arguments or list(KINDS)
    for kind in wanted:
        if kind == "runs":
            list_runs()
            continue
        if kind not in KINDS:
            raise Refusal(f"list {kind}: there is no such list{closest(kind, [*KINDS, 'runs'])}")
        group = KINDS[kind]
        print(f"{kind} ({group}=...)")
        for file in sorted((CONFIGS / group).rglob("*.yaml")):
            said = next((line for line in file.read_text().splitlines() if not line.startswith("# @package")), "")
            print(f"  {str(file.relative_to(CONFIGS / group).with_suffix('')):<24} {said.lstrip('# ') if said.startswith('#') else ''}")
    return 0


def list_runs() -> None:
    print("runs")
    for config in sorted(Path("runs").glob("*/config.yaml")):
        run = config.parent
        summary = run / "summary.json"
        newest = max((int(p.name) for p in (run / "checkpoints").glob("*") if p.name.isdigit()), default=0)
        if summary.exists():
            try:
                state = f"finished, {json.loads(summary.read_text())['steps']:,} steps"
            except (OSError, ValueError, KeyError, TypeError):
                state = "its summary.json is damaged"
        else:
            state = f"stopped, checkpoint at iteration {newest}" if newest else "no checkpoint yet"
        print(f"  {run}  {state}")


def train_command(arguments: list[str]) -> int:
    if any(a in ("-h", "--help") for a in arguments):
        print("scripts/farlands train [key=value ...]\n")
        list_command([])
        print("\n" + (CONFIGS / "train.yaml").read_text())
        print("With -m, beside these:\n" + (CONFIGS / "sweep.yaml").read_text())
        return 0
    if any(a in ("-m", "--multirun") for a in arguments):
        from runners.sweeps.command import sweep

        return sweep([a for a in arguments if a not in ("-m", "--multirun")])
    from runners.compose import compose

    if os.environ.pop("FARLANDS_JOB", None):
        from runners.sweeps.jobs import end_with_parent

        end_with_parent()
    return execute(compose(arguments))


def check_command(arguments: list[str]) -> int:
    if any(a in ("-h", "--help") for a in arguments):
        print("scripts/farlands check [key=value ...]     settings as for train; those of exploration= and env= matter\n")
        list_command(["exploration", "envs"])
        return 0
    from runners import devices
    from runners.compose import compose

    config = compose(arguments)
    os.environ.setdefault("JAX_PLATFORMS", "cpu")  # small programs, the same numbers everywhere
    devices.prepare(1)
    from runners.check import check

    return check(config)


def resume_command(arguments: list[str]) -> int:
    from envs.builder import Refusal
    from runners.compose import Setting, apply
    from runners.distributed import without
    from runners.rundir import read_config

    if not arguments or not all(word.startswith("distributed.") for word in arguments[1:]):
        raise Refusal("resume takes one run directory, as: scripts/farlands resume runs/NAME; 'scripts/farlands list runs' shows them")
    path = Path(arguments[0])
    config = read_config(path) | {"run_dir": str(path), "distributed": without()}
    for word in arguments[1:]:
        apply(config, Setting(word), set())
    return execute(config, resuming=True)


def execute(config: dict, resuming: bool = False) -> int:
    """Train ``config`` in this process. jax is imported here, after its flags are set."""
    from runners import api

    batching = api.prepared(config)
    from runners.distributed import Ended
    from runners.loop import Stopped
    from runners.train import advice, last_line, train

    try:
        summary = train(config, batching, Path("runs"), resuming)
    except Stopped as stopped:
        print(f"farlands: stopped by {stopped}; {advice(stopped.run_dir)}", file=sys.stderr)
        return 128 + stopped.number
    except Ended as ended:
        print(f"farlands: process 0 ended the run: {ended}", file=sys.stderr)
        return ended.code
    if summary is not None:
        print(last_line(summary))
    return 0


def report_command(arguments: list[str]) -> int:
    from runners.report.command import report

    return report(arguments)


def of_runs(command: str) -> Callable[[list[str]], int]:
    """A command on runs that are there: the function of ``runners/COMMAND.py`` of the same name, whose docstring is the help."""

    def answer(arguments: list[str]) -> int:
        from runners import devices

        os.environ.setdefault("JAX_PLATFORMS", "cpu")
        devices.prepare(1)
        module = importlib.import_module(f"runners.{command}")
        asked = any(a in ("-h", "--help") for a in arguments)
        print(module.__doc__ if asked else json.dumps(getattr(module, command)(arguments)))
        return 0

    return answer


def dashboard_command(arguments: list[str]) -> int:
    from runners.dashboard.command import dashboard

    return dashboard(arguments)


def reproduce_command(arguments: list[str]) -> int:
    from runners.reproduce.command import reproduce

    return reproduce(arguments)


COMMANDS = {
    "train": train_command,
    "check": check_command,
    "resume": resume_command,
    "list": list_command,
    "report": report_command,
    "play": of_runs("play"),
    "evaluate": of_runs("evaluate"),
    "export": of_runs("export"),
    "demonstrate": of_runs("demonstrate"),
    "elites": of_runs("elites"),
    "reproduce": reproduce_command,
    "dashboard": dashboard_command,
}

if __name__ == "__main__":
    main()
