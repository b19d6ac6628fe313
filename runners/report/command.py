"""``farlands report RUN... [--out FILE]``: reads the command line, and says where the page is."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import sys
from pathlib import Path

from envs.builder import Refusal
from runners.compose import COMMAND
from runners.report.curves import relative
from runners.report.read import Run, read_run

USAGE = f"as: {COMMAND} report runs/NAME [runs/ANOTHER ...] [--out FILE.html]"
HELP = f"""{COMMAND} report RUN... [--out PATH]

One self-contained HTML page about one or more runs, and its figures as PNG and PDF. Unfinished runs are fine.
A folder of runs stands for all runs in it.

  one run          RUN/report/report.html
  several runs     report-<hash of the runs>/report.html beside the first of them
  --out x.html     that page, its figures in the folder x/ beside it
  --out FOLDER     FOLDER/report.html"""


def report(arguments: list[str]) -> int:
    if any(a in ("-h", "--help") for a in arguments):
        print(HELP)
        return 0
    named, out = parsed(arguments)
    for package in ("rliable", "matplotlib"):
        if importlib.util.find_spec(package) is None:
            raise Refusal(f"report needs the package {package!r}, which is not installed; add it with: pip install -e '.[report]'")
    runs = read_all(named)
    file, folder = target([run.path for run in runs], out)
    from runners.report.build import build  # matplotlib, scipy: a second that only this command should cost

    try:
        pictures = build(runs, folder, file)
    except OSError as error:
        raise Refusal(f"{file} cannot be written: {error.strerror or error}; choose another place with --out") from None
    for line in (line for run in runs for line in run.problems):
        print(line, file=sys.stderr)
    print(f"{relative(file)}: {len(runs)} run{'' if len(runs) == 1 else 's'}, {len(pictures)} figures (PNG and PDF in {relative(folder)}/)")
    print(json.dumps({"report": relative(file), "runs": len(runs), "figures": [relative(picture) for picture in pictures]}))
    return 0


def parsed(arguments: list[str]) -> tuple[list[Path], Path | None]:
    """(what was named, the value of --out)."""
    named: list[Path] = []
    out = None
    rest = iter(arguments)
    for argument in rest:
        option, equals, value = argument.partition("=")
        if option == "--out":
            value = value if equals else next(rest, "")
            if not value:
                raise Refusal(f"--out needs a place; {USAGE}")
            out = Path(value)
        elif argument.startswith("-"):
            raise Refusal(f"report has no option {argument}; {USAGE}")
        else:
            named.append(Path(argument))
    if not named:
        raise Refusal(f"report needs at least one run directory, {USAGE}; '{COMMAND} list runs' shows them")
    return named, out


def read_all(named: list[Path]) -> list[Run]:
    """The runs of what was named, each once. What is no run is told and left out; with nothing left it is refused."""
    paths: list[Path] = []
    for path in named:
        inside = sorted(config.parent for config in path.glob("*/config.yaml")) if not (path / "config.yaml").exists() else []
        paths += inside or [path]
    runs, refusals = [], []
    for path in dict.fromkeys(path.resolve() for path in paths):
        try:
            runs.append(read_run(Path(relative(path))))
        except Refusal as refusal:
            refusals.append(refusal)
    if not runs:
        raise refusals[0]
    for refusal in refusals:
        print(f"left out: {refusal}", file=sys.stderr)
    return runs


def target(paths: list[Path], out: Path | None) -> tuple[Path, Path]:
    """(the page, the folder of its figures)."""
    if out is not None and out.suffix.lower() in (".html", ".htm"):
        return out, out.with_suffix("")
    if out is not None:
        folder = out
    elif len(paths) == 1:
        folder = paths[0] / "report"
    else:
        digest = hashlib.sha256("\n".join(sorted(str(path.resolve()) for path in paths)).encode()).hexdigest()[:8]
        folder = paths[0].parent / f"report-{digest}"
    return folder / "report.html", folder
