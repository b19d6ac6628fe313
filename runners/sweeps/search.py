"""Searches beyond grids: points drawn at random, the same halved on the way (successive halving: Jamieson and Talwalkar, arXiv 1502.07943), or points asked
from Optuna (tree-structured Parzen estimators) in batches; each batch is planned into programs like a grid.

The objective of a setting is the interquartile mean over the tuning seeds of the metric's last value (Agarwal et al., arXiv 2108.13264): the mean of the
middle half. Tuning seeds are other ones than those that results are reported with, so nothing is reported on the data that it was chosen by.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.text import Text

from envs.builder import Refusal, closest
from runners import rundir
from runners.compose import COMMAND, compose
from runners.report.statistics import iqm
from runners.sweeps import grid, tables
from runners.sweeps.grid import Axis
from runners.sweeps.program import Combination, Program

Score = tuple[float | None, int]  # (objective, or None where it failed; number of seeds)
Evaluate = Callable[..., list[Score]]  # (points, batch, further words, programs to go on with) -> their scores


def search(words: Sequence[str], axes: Sequence[Axis], chosen: dict[str, Any], launcher: Sequence[str], place: Path) -> int:
    """Run a search; 0 when every job finished, 1 otherwise. Raises Refusal."""
    from runners.sweeps.command import First, Planner, outcomes, run

    refuse(words, axes, chosen)
    seeds = [w for w in words if w.startswith("seeds=")]
    words = [w for w in words if w not in seeds]
    tuning = chosen["tuning_seeds"]
    tuned = [*words, f"seeds={json.dumps(tuning, separators=(',', ':'))}"]
    failed, made, scores = [], [], {}
    with Planner(First(place, chosen, launcher)) as plan:

        def evaluate(points: Sequence[Combination], batch: int, words: Sequence[str] = (), before: Sequence[Program] = ()) -> list[Score]:
            programs = plan([*tuned, *words], points, chosen["max_members"], before)
            refuse_objective(programs, chosen["objective"])
            tables.show_plan(programs, place.parent.parent, launcher)
            if chosen["dry"]:
                return []
            run(programs, place, chosen, launcher, batch)
            told = outcomes(programs, place if not batch else place / f"batch-{batch}")
            failed.extend((program, why) for program, why in zip(programs, told, strict=True) if why)
            made.extend(programs)
            found = scores_of(programs, chosen["objective"])
            got = [found.get(tuple(p.items()), (None, 0)) for p in points]
            scores.update({tuple(p.items()): (batch, *score) for p, score in zip(points, got, strict=True)})
            return got

        if chosen["search"] == "random":
            evaluate(grid.drawn(axes, chosen["trials"], chosen["seed"]), 0)
        elif chosen["search"] == "halving":
            halve(tuned, grid.drawn(axes, chosen["trials"], chosen["seed"]), chosen, made, evaluate)
        else:
            ask_and_tell(axes, chosen, place, evaluate)
    if chosen["dry"]:
        return 0
    return concluded(scores, failed, [*words, *seeds], chosen, place)


def refuse(words: Sequence[str], axes: Sequence[Axis], chosen: dict[str, Any]) -> None:
    if not axes:
        raise Refusal(f"sweep.search={chosen['search']} needs something to search, as agent.learning_rate=tag(log,interval(1e-5,1e-2))")
    among = next((w for w in [*words, *(a.key for a in axes)] if w.startswith(("vmap.", "zip."))), None)
    if among:
        raise Refusal(f"{among}: a search puts numbers into programs by itself; write {among.partition('.')[2].partition('=')[0]}=a,b")
    if any(axis.key == "seeds" for axis in axes):
        raise Refusal("seeds cannot be searched; those of a search are sweep.tuning_seeds")
    if chosen["search"] == "optuna":
        import importlib.util

        if importlib.util.find_spec("optuna") is None:
            raise Refusal("sweep.search=optuna needs a package; add it with: .venv/bin/python -m pip install -c requirements.lock -e '.[search]'")


def refuse_objective(programs: Sequence[Program], metric: str) -> None:
    """Refuse, before anything runs, an objective that the programs will not have."""
    known = next((program.metrics for program in programs if program.metrics is not None), None)
    if known is not None and metric not in known:
        raise Refusal(f"sweep.objective={metric}: these runs have no such metric{closest(metric, known)}")


def scores_of(programs: Sequence[Program], metric: str) -> dict[tuple, Score]:
    """Objective of every combination that finished."""
    values: dict[tuple, list[float]] = {}
    for program in programs:
        summary = rundir.read_summary(Path(program.run)) if program.finished() else None
        if summary is None:
            continue
        members = summary["members"]
        each = len(members) // len(program.combinations)  # members are points times seeds, in this order
        for i, combination in enumerate(program.combinations):
            for member in members[i * each : (i + 1) * each]:
                value = member["metrics"].get(metric)
                lost = value is None or member["frozen_at_step"] is not None
                values.setdefault(tuple(combination.items()), []).append(float("nan") if lost else float(value))
    return {key: (interquartile_mean(found), len(found)) for key, found in values.items()}


def interquartile_mean(values: Sequence[float]) -> float | None:
    """Mean of the middle half; None where one is missing (a member that never ended an episode, or became NaN)."""
    return None if np.isnan(values).any() else float(iqm(np.asarray(values, float)[:, None, None])[0])


def halve(words: Sequence[str], points: list[Combination], chosen: dict[str, Any], made: list[Program], evaluate: Evaluate) -> None:
    """All points for a part of the steps, the best 1/reduction of them for reduction times as many, and so on; the last ones to the end."""
    total = int(compose([*words, *(f"{k}={v}" for k, v in points[0].items())])["total_steps"])
    sign = 1.0 if chosen["direction"] == "maximize" else -1.0
    begun = 0
    for rung in range(chosen["rungs"]):
        before, begun = [p for p in made[begun:] if p.finished()], len(made)
        share = chosen["reduction"] ** (chosen["rungs"] - 1 - rung)
        stop = [] if share == 1 else [f"stop_at={max(1, total // share)}"]
        scores = evaluate(points, rung, stop, before)
        kept = [(score, i) for i, (score, _) in enumerate(scores) if score is not None]
        best = sorted(kept, key=lambda item: (-sign * item[0], item[1]))[: -(-len(points) // chosen["reduction"])]
        points = [points[i] for i in sorted(i for _, i in best)]
        if not points:
            return


def ask_and_tell(axes: Sequence[Axis], chosen: dict[str, Any], place: Path, evaluate: Evaluate) -> None:
    """Optuna's trials, a batch at a time. What was asked and told is in ``optuna.log``: a search that is issued again goes on with it."""
    import optuna
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend
    from optuna.trial import TrialState

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    storage = None  # in memory
    if not chosen["dry"]:
        place.mkdir(parents=True, exist_ok=True)
        storage = JournalStorage(JournalFileBackend(str(place / "optuna.log")))
    study = optuna.create_study(storage=storage, study_name="sweep", direction=chosen["direction"], load_if_exists=True)
    size, batch = chosen["batch"] or max(1, -(-chosen["trials"] // 4)), 0
    while True:
        batch += 1
        trials = study.get_trials(deepcopy=False)
        told = [t for t in trials if t.state.is_finished()]
        asked = [t for t in trials if t.user_attrs.get("batch") == batch]
        if not asked:
            number = min(size, chosen["trials"] - len(trials))
            if number <= 0:
                return
            # the draws depend on what is known alone, so an interrupted search asks what an uninterrupted one would
            study.sampler = optuna.samplers.TPESampler(seed=chosen["seed"] + len(told), constant_liar=True)
            for _ in range(number):
                trial = study.ask()
                point = {axis.key: suggested(trial, axis) for axis in axes}
                trial.set_user_attr("point", point)
                trial.set_user_attr("batch", batch)
            asked = [t for t in study.get_trials(deepcopy=False) if t.user_attrs.get("batch") == batch]
        points = [dict(t.user_attrs["point"]) for t in asked]
        different = list({tuple(p.items()): p for p in points}.values())
        scores = dict(zip((tuple(p.items()) for p in different), evaluate(different, batch), strict=False))
        if not scores:
            return
        for trial, point in zip(asked, points, strict=True):
            if trial.state == TrialState.RUNNING:
                value, _ = scores[tuple(point.items())]
                study.tell(trial.number, value, state=TrialState.FAIL if value is None else TrialState.COMPLETE)


def suggested(trial: Any, axis: Axis) -> str:
    if axis.interval:
        return grid.rounded(trial.suggest_float(axis.key, axis.low, axis.high, log=axis.log))
    return trial.suggest_categorical(axis.key, axis.values)


def concluded(scores: dict[tuple, tuple], failed: Sequence[tuple[Program, str]], words: Sequence[str], chosen: dict[str, Any], place: Path) -> int:
    """The ranking, the command that reports the best setting on other seeds, and the JSON object that closes standard output."""
    sign = -1.0 if chosen["direction"] == "maximize" else 1.0
    halving = chosen["search"] == "halving"  # who went further ranks higher
    ranked = sorted(scores.items(), key=lambda item: (item[1][1] is None, -halving * item[1][0], sign * (item[1][1] or 0.0)))
    results = [{"settings": dict(key), "objective": value, "seeds": seeds, "rung" if halving else "batch": rung} for key, (rung, value, seeds) in ranked]
    rundir.write_atomically(place / "results.json", json.dumps({"objective": chosen["objective"], "results": results}, indent=1))
    title = f"{chosen['objective']}, interquartile mean over tuning seeds, {chosen['direction']}"
    table = tables.made(title, "rank", "objective", "seeds", *(["rung"] * halving), "settings")
    for rank, result in enumerate(results, 1):
        value = "-" if result["objective"] is None else f"{result['objective']:.4g}"
        rung = [str(result["rung"])] if halving else []
        table.add_row(str(rank), value, str(result["seeds"]), *rung, Text(" ".join(f"{k}={v}" for k, v in result["settings"].items())))
    tables.console().print(table)
    for program, why in failed:
        print(f"farlands: failed: {' '.join(program.words)}: {why}", file=sys.stderr)
    best = next((r for r in results if r["objective"] is not None), None)
    command = f"{COMMAND} train {' '.join([*words, *(f'{k}={v}' for k, v in best['settings'].items())])}" if best else None
    if command:
        print(f"report the best with seeds that it was not chosen by: {command}", file=sys.stderr)
    print(json.dumps({"sweep": str(place), "trials": len(results), "failed": len(failed), "best": best, "command": command}))
    return 1 if failed or best is None else 0
