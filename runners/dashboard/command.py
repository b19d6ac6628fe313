"""``farlands dashboard``: a page about the runs of a folder, on this machine alone."""

from __future__ import annotations

import importlib.util
import socket
import sys
from pathlib import Path

from envs.builder import Refusal, closest
from runners.compose import COMMAND

USAGE = f"""{COMMAND} dashboard [FOLDER] [port=8050]

A page about the runs in FOLDER (by default runs/): live curves, comparison by any setting, maps, pictures, commands.
It is served on this machine's own address only (127.0.0.1) and needs no network. From another machine: ssh -L 8050:127.0.0.1:8050 HOST"""


def dashboard(arguments: list[str]) -> int:
    if any(a in ("-h", "--help") for a in arguments):
        print(USAGE)
        return 0
    folder, port = parsed(arguments)
    for package in ("dash", "dash_ag_grid", "plotly", "rliable"):
        if importlib.util.find_spec(package) is None:
            add = "add it with: .venv/bin/python -m pip install -c requirements.lock -e '.[dashboard,report]'"
            raise Refusal(f"dashboard needs the package {package!r}; {add}")
    if not folder.is_dir():
        raise Refusal(f"{folder} is no folder; give one with runs in it, as: {COMMAND} dashboard runs")
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            raise Refusal(f"port={port} cannot be used ({error.strerror}); give another one, as port={port + 1 if port < 65535 else 8051}") from None
    from runners.dashboard.app import make  # a second or two

    print(f"http://127.0.0.1:{port}   (Ctrl-C ends it)", file=sys.stderr, flush=True)
    make(folder).run(host="127.0.0.1", port=port, debug=False)
    return 0


def parsed(arguments: list[str]) -> tuple[Path, int]:
    folder, port = Path("runs"), 8050
    for argument in arguments:
        key, equals, value = argument.partition("=")
        if key == "port" and equals:
            if not value.isdigit() or not 1 <= int(value) <= 65535:
                raise Refusal(f"{argument}: a port is a number from 1 to 65535")
            port = int(value)
        elif equals or argument.startswith("-"):
            raise Refusal(f"dashboard has no option {argument}{closest(key, ['port'])}; as: {COMMAND} dashboard runs port=8050")
        else:
            folder = Path(argument)
    return folder, port
