"""``farlands reproduce``: run the experiments of papers at a scale, and say ours, theirs, the difference, and whether it holds."""

from __future__ import annotations

import datetime
import json
import platform
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.text import Text

from envs.builder import Refusal, closest
from runners import rundir
from runners.compose import COMMAND
from runners.reproduce import claims, measure, page
from runners.reproduce.claims import SCALES, Claims
from runners.rundir import ROOT
from runners.sweeps import tables
from runners.sweeps.program import Program

STORED = ROOT / "docs" / "results"
USAGE = f"""{COMMAND} reproduce NAME|METHOD... [--scale smoke|small|paper] [--store] [--collect]     an experiment of a paper, or all of a method
{COMMAND} reproduce --all [--scale ...]                                                    everything
{COMMAND} reproduce --page                                                                 write docs/results.md from what is stored

  --scale    small by default (minutes to hours on two cores); smoke says only that it runs; paper is the published horizon
  --collect  run nothing: measure what is there, also of runs that are not finished
  --store    keep the numbers in docs/results/, and write docs/results.md

Words as hydra/launcher=joblib and hydra.launcher.n_jobs=2 choose where the runs are made, as in sweeps. The same command goes on where it was stopped."""


def reproduce(arguments: Sequence[str]) -> int:
    """0 when everything ran, 1 otherwise. Verdicts do not decide the exit code: a result is a result."""
    from runners.sweeps.command import First, Planner, Waits
    from runners.sweeps.settings import split

    if not arguments or any(a in ("-h", "--help") for a in arguments):
        print(USAGE + "\n")
        for name in claims.names():
            made = claims.read(name)
            print(f"  {name:<28} {made.title} ({made.method}; {', '.join(made.scales)})")
        return 0
    names, scale, options, launcher = parsed(arguments)
    if "--page" in options:
        write_page()
        return 0
    wanted = [claims.read(name) for name in claims.names()] if "--all" in options else claims.chosen(names)
    skipped = [made.name for made in wanted if scale not in made.scales]
    if skipped and "--all" not in options:
        raise Refusal(f"{skipped[0]} has no scale {scale}, only {', '.join(claims.read(skipped[0]).scales)}")
    code = 0
    _, chosen, by = split(launcher)
    with Planner() as plan:
        for made in [made for made in wanted if scale in made.scales]:
            plan.first = First(place_of(made, scale), {**chosen, "dry": "--collect" in options}, by)
            try:
                programs = [plan(made.words(arm, scale), [{}], None)[0] for arm in made.arms]
            except Waits:
                print(f"{made.name}, {scale}: nothing to collect yet; what its runs come after is not finished", file=sys.stderr)
                continue
            code = max(code, run(made, scale, programs, launcher, "--collect" in options, "--store" in options))
    if "--store" in options:
        write_page()
    return code


def parsed(arguments: Sequence[str]) -> tuple[list[str], str, set[str], list[str]]:
    """(names, scale, options, words for the launcher). Raises Refusal."""
    words, names, options, launcher, scale = list(arguments), [], set(), [], "small"
    legal = ("--all", "--scale", "--store", "--collect", "--page")
    while words:
        word = words.pop(0)
        if word.startswith("--scale"):
            scale = word.partition("=")[2] or (words.pop(0) if words else "")
            if scale not in SCALES:
                raise Refusal(f"--scale {scale}: there is no such scale{closest(scale, SCALES)}")
        elif word.startswith("--"):
            if word not in legal:
                raise Refusal(f"unknown option {word}{closest(word, legal)}")
            options.add(word)
        elif word.startswith("hydra"):
            launcher.append(word)
        else:
            names.append(word)
    if not names and not options & {"--all", "--page"}:
        raise Refusal(f"reproduce what? '{COMMAND} reproduce --help' lists what there is")
    return names, scale, options, launcher


def run(made: Claims, scale: str, programs: Sequence[Program], launcher: Sequence[str], collect: bool, store: bool) -> int:
    """One experiment: its runs, its table, and its file."""
    from runners.sweeps import command, settings

    place = place_of(made, scale)
    print(f"{made.name}, {scale}: {made.title} ({made.paper})", file=sys.stderr)
    failed = []
    if not collect:
        _, chosen, launcher = settings.split(launcher)
        tables.show_plan(programs, command.RUNS, launcher)
        command.run(programs, place, chosen, launcher)
        failed = [(p, why) for p, why in zip(programs, command.outcomes(programs, place), strict=True) if why]
    result = collected(made, scale, programs)
    place.mkdir(parents=True, exist_ok=True)
    rundir.write_atomically(place / "result.json", json.dumps(result, indent=1))
    show(made, result)
    for program, why in failed:
        print(f"farlands: failed: {' '.join(program.words)}: {why}", file=sys.stderr)
    if store and not failed:
        STORED.mkdir(parents=True, exist_ok=True)
        rundir.write_atomically(claims.path_of(made.name, scale, STORED), json.dumps(result, indent=1) + "\n")
    verdicts = {claim: verdict for claim, _, _, verdict in page.orders(made, result)}
    print(json.dumps({"reproduced": made.name, "scale": scale, "failed": len(failed), "verdicts": verdicts, "result": str(place / "result.json")}))
    return 1 if failed else 0


def place_of(made: Claims, scale: str) -> Path:
    """Where the plan is, and what the jobs say."""
    from runners.sweeps import command

    return command.RUNS / "reproduce" / f"{made.name}-{scale}"


def collected(made: Claims, scale: str, programs: Sequence[Program]) -> dict[str, Any]:
    """What was measured: the values of every seed, and where they come from."""
    arms, values = {}, {name: {} for name in made.measures}
    for arm, program in zip(made.arms, programs, strict=True):
        path = Path(program.run)
        rows = rundir.read_metrics(path)
        summary = rundir.read_summary(path)
        arms[arm] = {
            "words": program.words,
            "finished": summary is not None,
            "steps": max((row["step"] for row in rows), default=0),
            "seconds": max((row["time/seconds"] for row in rows if "time/seconds" in row), default=0.0),
        }
        for name, how in made.measures.items():
            found = measure.values(path, how)
            if found:
                values[name][arm] = {str(seed): value for seed, value in found.items()}
    starts = [start for program in programs for start in starts_of(Path(program.run))]
    return {
        "name": made.name,
        "scale": scale,
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "commits": sorted({start["commit"] or "unknown" for start in starts}),
        "versions": starts[-1]["versions"] if starts else {},
        "machine": f"{platform.system()} on {platform.machine()}, {cores()} cores",
        "arms": arms,
        "values": values,
    }


def starts_of(run: Path) -> list[dict[str, Any]]:
    """Every start of a run, as its manifest has them: with what, and from which commit, it was made."""
    try:
        return json.loads((run / "manifest.json").read_text())["starts"]
    except (OSError, ValueError, KeyError):
        return []


def cores() -> int:
    from runners import devices

    return devices.cores()


def show(made: Claims, result: dict[str, Any]) -> None:
    for title, heads, body in (
        (f"{made.name}, {result['scale']}", ("arm", "measure", "ours", "paper", "difference", "verdict"), page.rows(made, result)),
        ("claimed orders", ("claim", "measure", "difference", "verdict"), page.orders(made, result)),
    ):
        if body:
            table = tables.made(title, *heads)
            for cells in body:
                table.add_row(*map(Text, cells))
            tables.console().print(table)
    tables.console().print(Text(f"what this scale cannot show: {made.limits[result['scale']]}"))


def write_page() -> None:
    rundir.write_atomically(ROOT / "docs" / "results.md", page.page(STORED))
