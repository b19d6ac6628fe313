"""What a run directory answers when it is not what it should be: one line, and nothing is changed there."""

from __future__ import annotations

import json
import os
import shutil

import numpy as np
import pytest
import yaml

from envs.builder import Refusal
from runners import checkpoint
from runners.compose import compose
from runners.rundir import RunDirectory, read_config, read_metrics, read_summary, refuse_unusable

CONFIG = compose(["seeds=1"])
OTHER = compose(["seeds=1", "agent.clip=0.3"])


def contents(folder):
    return {p.relative_to(folder): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


@pytest.fixture
def run(tmp_path):
    """A run of CONFIG with two rows."""
    directory = RunDirectory.open(tmp_path / "run", CONFIG, overwrite=False)
    directory.append([{"step": 1}, {"step": 2}])
    directory.close()
    return tmp_path / "run"


def test_only_a_run_is_ever_deleted(tmp_path, run):
    home = tmp_path / "home"
    home.mkdir()
    (home / "thesis.tex").write_text("years of work")
    for name in (None, "config.yaml"):
        if name:
            (home / name).write_text("theme: dark")  # another program's
        before = contents(home)
        with pytest.raises(Refusal, match="not a run|not the configuration of a run"):
            RunDirectory.open(home, CONFIG, overwrite=True)
        assert contents(home) == before
    RunDirectory.open(run, OTHER, overwrite=True).close()
    assert read_config(run) == OTHER and read_metrics(run) == []


def test_another_configuration_says_what_differs_and_keeps_everything(run):
    before = contents(run)
    with pytest.raises(Refusal, match="agent.clip is 0.2 there and 0.3 here; choose another run_dir, or overwrite=true"):
        RunDirectory.open(run, OTHER, overwrite=False)
    assert contents(run) == before


@pytest.mark.parametrize(
    ("place", "expected"),
    [("file", "is a file"), ("file/below", "is a file"), ("x" * 300, "File name too long"), ("full", "is not empty and is not a run")],
)
def test_places_that_cannot_become_a_run(tmp_path, place, expected):
    (tmp_path / "file").touch()
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "notes").touch()
    before = contents(tmp_path)
    with pytest.raises(Refusal, match=expected):
        RunDirectory.open(tmp_path / place, CONFIG, overwrite=False)
    assert contents(tmp_path) == before


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_cannot_be_written(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(Refusal, match="cannot be written"):
        refuse_unusable(tmp_path / "run", CONFIG, overwrite=False)


@pytest.mark.parametrize("text", [b"seeds: [", b"\xe5\xff", b"seeds: 3", b"", b"- 1"])
def test_a_damaged_configuration_is_one_line(run, text):
    (run / "config.yaml").write_bytes(text)
    with pytest.raises(Refusal, match="config.yaml") as refused:
        read_config(run)
    assert "\\n" not in str(refused.value)


def test_a_damaged_summary_says_how_to_get_it_back(run):
    (run / "summary.json").write_text('{"steps": 3')
    with pytest.raises(Refusal, match="summary.json is damaged.*delete it, and .*resume"):
        read_summary(run)


def test_a_damaged_manifest_is_put_aside(run):
    (run / "manifest.json").write_text("{")
    RunDirectory(run).write_manifest({})
    assert len(json.loads((run / "manifest.json").read_text())["starts"]) == 1 and (run / "manifest.damaged").read_text() == "{"


def test_damaged_lines_do_not_take_the_others_with_them(run):
    whole = (run / "metrics.jsonl").read_text()
    (run / "metrics.jsonl").write_bytes(b"\xff\x00\n[1]\n" + whole.encode() + b'{"step": 3}\n{"ste')
    assert [row["step"] for row in read_metrics(run)] == [1, 2, 3]


@pytest.mark.parametrize("failing", ["before", "meanwhile"])
def test_a_full_disk_leaves_the_checkpoint_before(tmp_path, monkeypatch, failing):
    tree = {"x": np.arange(3.0)}
    checkpoint.save(tmp_path, 1, tree, {}, keep=1)
    before = contents(tmp_path)
    if failing == "before":
        monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10, 10, 0))
    else:

        def full(path):
            raise ValueError("RESOURCE_EXHAUSTED: no space left\nand a hundred more lines")

        monkeypatch.setattr(checkpoint, "sync", full)
    with pytest.raises(OSError, match="(?i)no space left") as refused:
        checkpoint.save(tmp_path, 2, tree, {}, keep=1)
    assert contents(tmp_path) == before and "\n" not in str(refused.value)


def test_a_run_is_found_again_whatever_its_yaml_looks_like(run):
    (run / "config.yaml").write_text(yaml.safe_dump(CONFIG, sort_keys=True, default_flow_style=True))
    RunDirectory.open(run, CONFIG, overwrite=False).close()
