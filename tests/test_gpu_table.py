"""The table of speeds: without a GPU it says so in a line; on the CPU it can be made."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parent.parent / "scripts" / "gpu_table.py"


def table(*arguments):
    return subprocess.run([sys.executable, SCRIPT, *arguments], capture_output=True, text=True, timeout=300)


@pytest.mark.skipif(shutil.which("nvidia-smi") is not None, reason="there is a GPU")
def test_without_a_gpu_it_says_so_and_what_works():
    done = table()
    assert done.returncode == 1 and done.stderr.count("\n") == 1 and "--device cpu" in done.stderr


@pytest.mark.medium
def test_a_table_of_tiny_sizes_on_the_cpu():
    done = table("--device", "cpu", "--only", "on_policy", "--members", "2", "--rounds", "1")
    assert done.returncode == 0, done.stderr
    said, _, heads, _, row = done.stdout.strip().splitlines()
    assert " on one " in said and heads == "| loop | 2 |"
    assert int(re.fullmatch(r"\| on_policy \| ([\d,]+) \|", row)[1].replace(",", "")) > 0
