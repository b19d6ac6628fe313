"""The house rules that no single module can check: layers, lock file, clean tracked text, README, folders."""

from __future__ import annotations

import os
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


LOCKS = ("requirements.lock", "requirements-cuda.lock")


def locked(lock: str) -> dict[str, str]:
    """Package name -> version; every line of the lock must be exactly that."""
    pins = {}
    for line in (ROOT / lock).read_text().splitlines():
        match = PIN.fullmatch(line)
        assert match, f"{lock}: {line!r} is not name==version"
        assert match["name"] not in pins, f"{lock}: {match['name']} twice"
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


@pytest.mark.parametrize("lock", LOCKS)
def test_lock_is_sorted_names_and_versions(lock):
    names = list(locked(lock))
    assert names == sorted(names)


def test_lock_is_what_is_installed():
    installed = {canonicalize_name(dist.name): dist.version for dist in metadata.distributions()}
    used = next((lock for lock in LOCKS if locked(lock)["jax"] == installed["jax"]), LOCKS[0])
    assert {name: installed.get(name) for name in locked(used)} == locked(used)


def test_the_lock_with_cuda_differs_where_it_must():
    """jax and what comes with it, the tools that build; all else is the version that is tested here."""
    plain, cuda = map(locked, LOCKS)
    assert cuda["jax"] == cuda["jaxlib"] == cuda["jax-cuda12-plugin"] == cuda["jax-cuda12-pjrt"]
    assert {name for name in plain.keys() & cuda.keys() if plain[name] != cuda[name]} == {"jax", "jaxlib", "flax"}
    assert all(name.startswith(("nvidia-", "jax-cuda12-")) for name in cuda.keys() - plain.keys())
    assert {"setuptools", "wheel"} <= cuda.keys()


def test_lock_holds_everything_the_project_needs():
    """Walks the requirements of the core, [minigrid] and [dev]; a missing one would be installed in whatever version is newest."""
    pins, seen, queue = locked(LOCKS[0]), set(), [("farlands", frozenset({"minigrid", "dev"}))]
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


@pytest.mark.parametrize(
    ("driver", "given", "stamp", "lock"),
    [
        (False, "", "", "requirements.lock 11"),
        (True, "", "", "requirements-cuda.lock 12"),
        (True, "requirements.lock", "", "requirements.lock 11"),
        (False, "requirements-cuda.lock", "", "requirements-cuda.lock 12"),
        (True, "", "/here\n1 2 requirements.lock\n3 4 pyproject.toml\n", "requirements.lock 11"),
        (False, "", "/here\n1 2 requirements-cuda.lock\n3 4 pyproject.toml\n", "requirements-cuda.lock 12"),
    ],
)
def test_the_lock_with_cuda_is_for_machines_with_a_driver(driver, given, stamp, lock, tmp_path):
    """An environment that is there keeps its lock. A Python that is new enough is said to be there."""
    (tmp_path / ".venv").mkdir()
    (tmp_path / "driver").touch()
    if stamp:
        (tmp_path / ".venv" / "stamp").write_text(stamp)
    pretend = "newer_python() { true; }; uname() { echo Linux x86_64; }"
    script = f'root=$1; source scripts/bootstrap.sh; driver=$2; {pretend}; oldest=11; choose_lock; echo "$lock $oldest"'
    place = tmp_path / "driver" if driver else tmp_path / "none"
    done = subprocess.run(["bash", "-c", script, "test", tmp_path, place], cwd=ROOT, env=os.environ | {"FARLANDS_LOCK": given}, capture_output=True, text=True)
    assert done.stdout.strip() == lock, done.stderr


@pytest.mark.parametrize("script", ["scripts/farlands", "scripts/test", ".ci/run"])
def test_script_is_executable_and_parses(script):
    assert (ROOT / script).stat().st_mode & 0o111
    subprocess.run(["bash", "-n", script], cwd=ROOT, check=True)
