"""The house rules that no single module can check: layers, lock file, clean tracked text, README, folders."""

from __future__ import annotations

import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("agents", "envs", "exploration", "runners")
FOLDERS = (*PACKAGES, "configs", "tests", "tests/laws", "scripts", "docs")
PIN = re.compile(r"(?P<name>[a-z0-9][a-z0-9-]*)==(?P<version>[0-9][A-Za-z0-9.]*)")
LEAK = re.compile(r"(?:^|[^A-Za-z0-9_.])/(?:work|root|home|Users)/|index[-]url|--extra[-]index|--find[-]links|pypi[.]org/simple")


def house_files() -> list[Path]:
    """Tracked files, and new ones that git does not ignore, so that a leak is seen before it is committed."""
    listed = subprocess.run(["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True)
    if listed.returncode != 0:
        pytest.skip("not a git checkout")
    return [path for name in listed.stdout.split("\0") if name and (path := ROOT / name).is_file()]


def locked() -> dict[str, str]:
    """Package name -> version; every line of the lock must be exactly that."""
    pins = {}
    for line in (ROOT / "requirements.lock").read_text().splitlines():
        match = PIN.fullmatch(line)
        assert match, f"requirements.lock: {line!r} is not name==version"
        assert match["name"] not in pins, f"requirements.lock: {match['name']} twice"
        pins[match["name"]] = match["version"]
    return pins


def leaks(text: str) -> list[str]:
    return [line for line in text.splitlines() if LEAK.search(line)]


def test_imports_point_down():
    command = [sys.executable, "-c", "from importlinter.cli import lint_imports_command as main; main()", "--no-cache"]
    linted = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert linted.returncode == 0, linted.stdout + linted.stderr


def test_every_line_of_the_list_of_long_tests_names_one():
    found = subprocess.run([sys.executable, "-m", "pytest", "--collect-only", "-q", "-m", ""], cwd=ROOT, capture_output=True, text=True).stdout.splitlines()
    lines = [line.partition("  #")[0] for line in (ROOT / "tests" / "slow.txt").read_text().splitlines() if not line.startswith("#")]
    assert len(found) > 1000 and not [line for line in lines if not any(name.startswith(line) for name in found)]


def test_ruff_finds_nothing():
    linted = subprocess.run([sys.executable, "-m", "ruff", "check", "--quiet", "."], cwd=ROOT, capture_output=True, text=True)
    assert linted.returncode == 0, linted.stdout + linted.stderr


def test_lock_is_sorted_names_and_versions():
    names = list(locked())
    assert names == sorted(names)


def test_lock_is_what_is_installed():
    installed = {canonicalize_name(dist.name): dist.version for dist in metadata.distributions()}
    assert {name: installed.get(name) for name in locked()} == locked()


def test_lock_holds_everything_the_project_needs():
    """Walks the requirements of the core, [minigrid] and [dev]; a missing one would be installed in whatever version is newest."""
    pins, seen, queue = locked(), set(), [("farlands", frozenset({"minigrid", "dev"}))]
    while queue:
        name, extras = queue.pop()
        if (name, extras) in seen:
            continue
        seen.add((name, extras))
        for requirement in map(Requirement, metadata.requires(name) or ()):
            if requirement.marker is None or any(requirement.marker.evaluate({"extra": extra}) for extra in extras | {""}):
                needed = canonicalize_name(requirement.name)
                assert needed in pins, f"{name} needs {requirement}, which requirements.lock lacks"
                assert requirement.specifier.contains(pins[needed], prereleases=True), f"{name} needs {requirement}, not {pins[needed]}"
                queue.append((needed, frozenset(requirement.extras)))
    assert len(seen) > 50


def test_leak_pattern_catches_what_it_should():
    caught = ["/" + "work/main", "see /" + "root/x", "--index" + "-url x", "'/" + "home/me'"]
    assert leaks("\n".join(caught)) == caught
    assert leaks("framework/work/x\nhttps://host/root/x\nagents/home/x") == []


def test_no_machine_paths_or_index_addresses():
    found = []
    for path in house_files():
        content = path.read_bytes()
        if b"\0" not in content:
            found += [f"{path.relative_to(ROOT)}: {line.strip()[:120]}" for line in leaks(content.decode(errors="replace"))]
    assert not found, "\n".join(found)


def test_readme_opens_with_the_two_commands():
    block = re.search(r"```\w*\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert block and block[1].splitlines() == ["scripts/farlands train", "scripts/test"]


@pytest.mark.parametrize("folder", FOLDERS)
def test_folder_exists(folder):
    assert (ROOT / folder).is_dir()


@pytest.mark.parametrize("package", PACKAGES)
def test_package_comes_from_this_checkout(package):
    assert Path(__import__(package).__file__).parent == ROOT / package


@pytest.mark.parametrize("script", ["scripts/farlands", "scripts/test", ".ci/run"])
def test_script_is_executable_and_parses(script):
    assert (ROOT / script).stat().st_mode & 0o111
    subprocess.run(["bash", "-n", script], cwd=ROOT, check=True)
