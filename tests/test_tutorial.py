"""``docs/write-your-own-bonus.md`` followed word for word: its files are written, its commands typed, its outputs compared."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "write-your-own-bonus.md"
BLOCK = re.compile(r"^```(\S+)([^\n]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


class Command(NamedTuple):
    line: str
    shown: list[str]  # lines of the output, "..." for any number of lines, or for anything within a line


def commands(block: str) -> list[Command]:
    found = []
    for line in block.splitlines():
        if line.startswith("$ "):
            found.append(Command(line[2:], []))
        else:
            found[-1].shown.append(line)
    return found


def pattern(shown: list[str]) -> str:
    """A regular expression for the whole output."""
    lines = [r"(?:.*\n)*?" if line == "..." else re.escape(line.rstrip()).replace(r"\.\.\.", ".*") + r"[ ]*\n" for line in shown]
    return "".join(lines)


def test_pattern_tells_outputs_apart():
    assert re.fullmatch(pattern(["a", "...", "b ... c"]), "a\nx\ny\nb 1 2 c\n") and re.fullmatch(pattern(["...", "z"]), "z  \n")
    assert not re.fullmatch(pattern(["a", "b"]), "a\nx\nb\n") and not re.fullmatch(pattern(["a"]), "a\nb\n") and not re.fullmatch(pattern([]), "a\n")


def write(folder: Path, title: str, text: str) -> None:
    path = folder / re.search(r'title="([^"]+)"', title)[1]
    with path.open("a" if title.endswith(" append") else "x") as file:
        file.write(text)


@pytest.mark.medium
def test_the_page_is_true(tmp_path):
    environment = {k: v for k, v in os.environ.items() if k not in ("XLA_FLAGS", "PYTHONPATH", "COLUMNS") and not k.startswith("PYTEST")}
    environment |= {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}", "JAX_PLATFORMS": "cpu"}
    typed, exports = 0, ""
    for language, title, text in BLOCK.findall(PAGE.read_text()):
        if language == "python":
            write(tmp_path, title, text)
            continue
        assert language == "console", f"a block of {language} is not tried"
        for command in commands(text):
            script = f"{exports}\nset -o pipefail\n{command.line}"
            done = subprocess.run(["bash", "-c", script], cwd=tmp_path, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
            told = f"$ {command.line}\n{done.stdout}"
            assert done.returncode == (2 if command.shown[:1] and command.shown[0].startswith("farlands:") else 0), told
            assert re.fullmatch(pattern(command.shown), done.stdout), told + "\nis not what the page shows:\n" + "\n".join(command.shown)
            exports += f"\n{command.line}" if command.line.startswith("export ") else ""
            typed += 1
    assert typed >= 10
