"""Experiments in phases: what ``after`` says is run first, and the run learns from what that has made.

    "after=['experiment=go_explore/doorkey_explore']"        words of a command line; in a file, after: [experiment=go_explore/doorkey_explore]
    runner=offline "after=['agent=td3', ...]" export.noise=0.3        a policy, and how it makes a data set

The run of the first phase has a directory of its own and is found there when it is finished, as any run. Of an archive the best trajectory, as
``exploration.best`` has it, is written for each of its members that have succeeded (``farlands demonstrate RUN which=end``, or ``best``); of other runs a
data set, by their policy (``farlands export RUN RUN/data/NAME`` with the settings of ``export``); both where they are not written yet. The second phase is a
run with ``runner.demonstrations`` or ``runner.data`` there. So every phase is resumed by the one command, and each can be run by itself: ``phase=explore``
and ``phase=demonstrate`` end there, ``phase=robustify`` is the whole chain, as without, and ``phase=evaluate`` also evaluates what was learnt (``farlands
evaluate``), in any run that has policies. With ``debug=true`` both phases are tiny, the longest trajectories are demonstrated, whether or not they
succeeded, and a data set has four episodes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from envs.builder import Refusal
from runners.checks import SETTINGS
from runners.compose import compose
from runners.ranges import Words

Run = Callable[[Mapping[str, Any]], dict[str, Any]]  # config -> summary
LEARNS_FROM = ("demonstrations", "data")  # options of runners that a phase before can fill in


def through(config: Mapping[str, Any], train: Run, learn: Run) -> dict[str, Any]:
    """All phases that ``config`` asks for: ``train`` runs what comes before it, ``learn`` itself. Returns the summary of the last run, with what
    phases without a run made: ``demonstrations`` or ``data``, ``evaluation``. Raises Refusal for a phase before that makes none, or whose nobody uses."""
    words, phase = to_run_first(config), config.get("phase")
    if not SETTINGS["phase"].accepts(phase):
        raise Refusal(f"phase={phase!r} is not legal: it must be {SETTINGS['phase'].describe()}")
    if phase == "evaluate" and not config.get("evaluations"):
        raise Refusal("phase=evaluate plays the policies that evaluations leave, and evaluations=0 leaves none; give at least 1")
    if config.get("export") and not config.get("after"):
        raise Refusal("export says how the run of after=[...] makes a data set, and there is no after; scripts/farlands export RUN DIRECTORY makes one by hand")
    config = {**config, "phase": None}  # which part was asked for is not what a run is
    if words:
        first = before(config, words)
        summary = train(first)
        if phase == "explore":
            return summary
        option, path, files = made(config, first, summary)
        if phase == "demonstrate":
            return summary | {option: files}
        config = {**config, "runner": {**config["runner"], option: path}}
    elif phase in ("explore", "demonstrate"):
        raise Refusal(f"phase={phase} is for runs that explore first; give after=[...] with it, or an experiment that has it, as go_explore/doorkey")
    summary = learn(config)
    if phase != "evaluate":
        return summary
    from runners.evaluate import evaluate  # which reads runs, as ``train`` writes them

    return summary | {"evaluation": evaluate([summary["run_dir"]])}


def learns_from(config: Mapping[str, Any]) -> str | None:
    """The option of its runner that a phase before can fill in."""
    return next((name for name in LEARNS_FROM if name in (config.get("runner") or {})), None)


def to_run_first(config: Mapping[str, Any]) -> Any:
    """The words of the phase before; None where there is none, or what it would make is given."""
    option = learns_from(config)
    return config.get("after") if option is None or config["runner"][option] is None else None


def command_before(config: Mapping[str, Any]) -> list[str] | None:
    """The command line of the phase before, for a sweep to run by itself; None as above. Raises Refusal as ``through``."""
    words = to_run_first(config)
    if not words:
        return None
    before(config, words)
    return words_of(config, words)


def handed_on(config: Mapping[str, Any], summary: Mapping[str, Any]) -> list[str]:
    """Words for the run of ``config`` that say what the phase before, whose ``summary`` this is, has made for it; it is written where it is not yet."""
    option, path, _ = made(config, before(config, config["after"]), summary)
    return [f"runner.{option}={path}"]


def words_of(config: Mapping[str, Any], words: Any) -> list[str]:
    return [*words, *(["debug=true"] if config.get("debug") is True else [])]


def before(config: Mapping[str, Any], words: Any) -> dict[str, Any]:
    """The configuration of the phase before."""
    if not Words().accepts(words):
        raise Refusal(f"after={words!r} is not legal: it must be {Words().describe()}")
    option = learns_from(config)
    if option is None:
        raise Refusal("after=... is for runs that learn from demonstrations or a data set; use runner=backward or runner=offline with it, or leave it out")
    first = compose(words_of(config, words)) | {"logger": config["logger"]}
    if first.get("after"):
        raise Refusal(f"after={words}: that run has an after of its own; give the words of a run that makes demonstrations by itself")
    if archived(first):
        if config.get("export"):
            raise Refusal("export is for policies, and the run of after=[...] makes an archive, which is demonstrated; leave export out")
    elif option == "demonstrations":
        raise Refusal(f"after={words}: that run makes no demonstrations; give one with exploration=go_explore")
    elif not first.get("evaluations"):
        raise Refusal(f"after={words}: a data set is made by a policy, which evaluations leave, and that run has evaluations=0; give at least 1")
    else:
        exported_to(config, Path("runs/NAME"))
    return first


def archived(first: Mapping[str, Any]) -> bool:
    return str(first["runner"].get("_target_")) == "runners.go_explore.go_explore"


def made(config: Mapping[str, Any], first: Mapping[str, Any], summary: Mapping[str, Any]) -> tuple[str, str, Any]:
    """What the finished phase before has for ``config``: (the option of its runner, its value, the files). Raises Refusal where there is nothing."""
    option = learns_from(config) or ""
    if archived(first):
        return option, summary["run_dir"], demonstrated(first, summary)
    from runners.export import export  # which reads runs, as ``train`` writes them

    folder, words = exported_to(config, Path(summary["run_dir"]))
    if not folder.exists():
        folder.parent.mkdir(exist_ok=True)
        export(words)
    return option, str(folder), str(folder)


def exported_to(config: Mapping[str, Any], run: Path) -> tuple[Path, list[str]]:
    """Where the data set of a run is, and the words of ``farlands export`` that write it. Raises Refusal for settings that are none."""
    from runners.export import parse

    given = config.get("export") or {}
    if not isinstance(given, Mapping):
        raise Refusal(f"export={given!r} is not legal: it holds settings of scripts/farlands export, as export.episodes=100 export.noise=0.3")
    given = {**given, **({"episodes": 4} if config.get("debug") is True else {})}
    settings = [f"{name}={given[name]}" for name in sorted(given)]
    folder = run / "data" / f"{'-'.join(settings).replace('=', '-') or 'data'}-v0"
    words = [str(run), str(folder), *settings]
    parse(words)
    return folder, words


def demonstrated(first: Mapping[str, Any], summary: Mapping[str, Any]) -> list[str]:
    """The files with the ways of the members of a run. Raises Refusal where there is none."""
    run, members = Path(summary["run_dir"]), summary["members"]
    which = "longest" if first.get("debug") is True else "end" if first["exploration"].get("best") == "end" else "best"
    files = [str(file) for member in range(len(members)) if (file := way_of(run, member, which, members[member]))]
    if not files:
        raise Refusal(f"{run}: no member has succeeded, so there is nothing to learn from; give the phase before more total_steps")
    return files


def way_of(run: Path, member: int, which: str, told: Mapping[str, Any]) -> Path | None:
    """The file with a way of a member; None for one that has not succeeded, where the world says what that is, or whose best is the start, unless the
    longest is asked for."""
    out = run / "demonstrations" / f"member-{member}-{which}.npz"
    if out.exists():
        return out
    unsuccessful = told["metrics"].get("episode/first_success_step", 1) is None or told["metrics"].get("archive/best_length") == 0
    if which != "longest" and unsuccessful:
        return None
    from runners.demonstrate import demonstrate  # as ``evaluate``

    return Path(demonstrate([str(run), f"which={which}", f"member={member}"])["file"])
