"""Experiments in phases: what ``after`` says is run first, what it found is demonstrated, and the run learns from that.

    "after=['experiment=go_explore/doorkey_explore']"        words of a command line; in a file, after: [experiment=go_explore/doorkey_explore]

The run of the first phase has a directory of its own and is found there when it is finished, as any run; then its best trajectory, as ``exploration.best``
has it, is written for each of its members that have succeeded (``farlands demonstrate RUN which=end``, or ``best``), where it is not written yet; and
the second phase is a run with ``runner.demonstrations`` at that directory. So every phase is resumed by the one command, and each can be run by itself.
With ``debug=true`` both phases are tiny, and the longest trajectories are demonstrated, whether or not they succeeded.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from envs.builder import Refusal
from runners.compose import compose
from runners.ranges import Words


def begun(config: Mapping[str, Any], train: Callable[[dict[str, Any]], dict[str, Any]]) -> Mapping[str, Any]:
    """``config`` with the demonstrations of the phase before it, which ``train`` runs. Raises Refusal for a phase that makes none, or whose nobody uses."""
    words, runner = config.get("after"), config.get("runner") or {}
    if not words or runner.get("demonstrations") is not None:
        return config
    if not Words().accepts(words):
        raise Refusal(f"after={words!r} is not legal: it must be {Words().describe()}")
    if "demonstrations" not in runner:
        raise Refusal("after=... is for runs that learn from demonstrations; use runner=backward with it, or leave it out")
    debug = config.get("debug") is True
    first = compose([*words, "debug=true"] if debug else list(words)) | {"logger": config["logger"]}
    if first.get("after"):
        raise Refusal(f"after={words}: that run has an after of its own; give the words of a run that makes demonstrations by itself")
    if str(first["runner"].get("_target_")) != "runners.go_explore.go_explore":
        raise Refusal(f"after={words}: that run makes no demonstrations; give one with exploration=go_explore")
    summary = train(first)
    run = Path(summary["run_dir"])
    which = "longest" if debug else "end" if first["exploration"].get("best") == "end" else "best"
    files = [file for member in range(len(summary["members"])) if (file := demonstrated(run, member, which, summary["members"][member]))]
    if not files:
        raise Refusal(f"{run}: no member has succeeded, so there is nothing to learn from; give the phase before more total_steps")
    return {**config, "runner": {**runner, "demonstrations": str(run)}}


def demonstrated(run: Path, member: int, which: str, told: Mapping[str, Any]) -> Path | None:
    """The file with a way of a member; None for one that has not succeeded, where the world says what that is, or whose best is the start, unless the
    longest is asked for."""
    out = run / "demonstrations" / f"member-{member}-{which}.npz"
    if out.exists():
        return out
    unsuccessful = told["metrics"].get("episode/first_success_step", 1) is None or told["metrics"].get("archive/best_length") == 0
    if which != "longest" and unsuccessful:
        return None
    from runners.demonstrate import demonstrate  # which reads runs, as ``train`` writes them

    return Path(demonstrate([str(run), f"which={which}", f"member={member}"])["file"])
