"""TensorBoard and wandb show the numbers of metrics.jsonl, before and after a resume; a view that fails does not end a run."""

from __future__ import annotations

import json
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from omegaconf import OmegaConf

from envs.builder import Refusal
from runners import views
from runners.compose import CONFIGS, compose
from runners.experiment import experiment
from runners.loggers.rows import numbers
from runners.loggers.wandb_runs import identity, member_of
from runners.rundir import digest, read_metrics
from runners.train import train
from tests.runners.tiny import TINY

ROOT = Path(__file__).resolve().parent.parent.parent
QUICK = [*TINY, "seeds=[3,5]", "segments=4", "checkpoint.seconds=0", "vmap.exploration.scale=[0.5,2]", "logger.console=false"]
BOTH = ["logger.tensorboard=true", "logger.wandb.mode=offline"]
MEMBERS = 4


class PowerCut(BaseException):
    """Ends a run the way nothing handles."""


@pytest.fixture(scope="module")
def resumed(tmp_path_factory):
    """(run directory, wandb ids before the cut): a run cut after its third segment was logged and before it was saved, and resumed."""
    runs = tmp_path_factory.mktemp("runs")
    append, calls = views.Views.append, []

    def cut(self, rows):
        append(self, rows)
        calls.append(rows)
        if len(calls) == 3:
            raise PowerCut

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(views.Views, "append", cut)
        with pytest.raises(PowerCut):
            train(compose([*QUICK, *BOTH]), "vmap", runs)
    [run] = runs.iterdir()
    before = {path.name.rpartition("-")[2] for path in recordings(run)}
    assert max(row["step"] for row in read_metrics(run)) == calls[2][0]["step"]
    train(compose([*QUICK, *BOTH]), "vmap", runs)
    assert list(runs.iterdir()) == [run]
    return run, before


def recordings(run: Path) -> list[Path]:
    return sorted((run / "wandb").glob("offline-run-*"))


def records(path: Path):
    """The records of a wandb file: a LevelDB log, blocks of 32 KiB with (checksum, length, kind) before each piece, after a header of 7 bytes."""
    from wandb.proto.wandb_internal_pb2 import Record

    data, at, whole = path.read_bytes(), 7, b""
    while at + 7 <= len(data):
        if 32768 - at % 32768 < 7:
            at += 32768 - at % 32768
            continue
        _, length, kind = struct.unpack("<IHB", data[at : at + 7])
        whole += data[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # whole, or the last piece
            yield Record.FromString(whole)
            whole = b""


def wandb_of(run: Path, member: int) -> tuple[dict, list[dict]]:
    """(the wandb run's description, its rows) of the one recording of a member."""
    [file] = (run / "wandb").glob(f"offline-run-*/run-{identity(run, member)}.wandb")
    about, rows = {}, []
    for record in records(file):
        if record.WhichOneof("record_type") == "run":
            about = {key: getattr(record.run, key) for key in ("run_id", "run_group", "project", "display_name")}
            about["config"] = {item.key: json.loads(item.value_json) for item in record.run.config.update}
        if record.WhichOneof("record_type") == "history":
            rows.append({item.key or ".".join(item.nested_key): json.loads(item.value_json) for item in record.history.item})
    return about, rows


def expected(run: Path, member: int) -> dict[int, dict[str, float]]:
    """step -> numbers, the rows of one step put together."""
    found: dict[int, dict[str, float]] = {}
    for row in read_metrics(run):
        if row["member"] == member:
            found.setdefault(row["step"], {}).update(numbers(row))
    return found


@pytest.mark.medium
@pytest.mark.parametrize("member", range(MEMBERS))
def test_tensorboard_has_the_numbers_once(resumed, member):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run, _ = resumed
    [folder] = (run / "tensorboard").glob(f"member={member}_*")
    assert folder.name == f"member={member}_seed={(3, 5)[member % 2]}_exploration.scale={(0.5, 2)[member // 2]:g}"
    events = EventAccumulator(str(folder), size_guidance={"scalars": 0}).Reload()
    read = [(event.step, tag, event.value) for tag in events.Tags()["scalars"] for event in events.Scalars(tag)]
    wanted = [(step, tag, float(np.float32(value))) for step, row in expected(run, member).items() for tag, value in row.items()]
    assert sorted(read) == sorted(wanted) and len(wanted) > 40


@pytest.mark.medium
@pytest.mark.parametrize("member", range(MEMBERS))
def test_wandb_has_the_numbers_once(resumed, member):
    run, _ = resumed
    about, rows = wandb_of(run, member)
    read = {row["_step"]: {key: value for key, value in row.items() if not key.startswith("_")} for row in rows}
    assert len(read) == len(rows), "a step stands there twice"
    assert read == expected(run, member)
    assert about["run_group"] == run.name and about["project"] == "farlands" and f"member={member}" in about["display_name"]
    config = about["config"]
    assert (config["seed"], config["exploration"]["scale"], config["env"]["size"]) == ((3, 5)[member % 2], (0.5, 2)[member // 2], 4)


@pytest.mark.medium
def test_wandb_goes_on_with_the_same_id(resumed):
    run, before = resumed
    after = [path.name.rpartition("-")[2] for path in recordings(run)]
    assert sorted(after) == sorted(before) == sorted(identity(run, member) for member in range(MEMBERS))
    assert len(set(after)) == MEMBERS


@pytest.mark.medium
def test_a_view_asked_for_later_shows_the_whole_run(tmp_path):
    train(compose(QUICK), "vmap", tmp_path)
    [run] = tmp_path.iterdir()
    assert not (run / "tensorboard").exists() and not (run / "wandb").exists()
    from PIL import Image

    for folder, name in (("pictures", "member1.png"), ("videos", "member-2-last.gif")):
        (run / folder).mkdir()
        Image.new("RGB", (4, 4)).save(run / folder / name)
    (run / "pictures" / "notes.txt").write_text("no picture")
    before = (run / "metrics.jsonl").read_bytes()
    train(compose([*QUICK, *BOTH]), "vmap", tmp_path)
    assert (run / "metrics.jsonl").read_bytes() == before
    assert len(list((run / "tensorboard").glob("*/events*"))) == MEMBERS
    media = [{key: row[key] for row in wandb_of(run, member)[1] for key in row if key.endswith("._type")} for member in range(3)]
    assert media == [{}, {"pictures/member1._type": "image-file"}, {"videos/member-2-last._type": "video-file"}]


def test_a_view_that_fails_is_left_out_and_told_once(tmp_path, monkeypatch, capsys):
    def full(self, rows):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("runners.loggers.tensorboard.TensorBoard.append", full)
    summary = train(compose([*QUICK, "logger.tensorboard=true"]), "vmap", tmp_path)
    told = [line for line in capsys.readouterr().err.splitlines() if "logger.tensorboard" in line]
    assert len(told) == 1 and "No space left on device. The run goes on" in told[0]
    assert len(read_metrics(Path(summary["run_dir"]))) >= 4 * MEMBERS


def test_nothing_is_imported_for_a_view_that_is_off():
    script = "import sys, runners.train; assert not {'wandb', 'tensorboard'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", script], cwd=ROOT, check=True)


def test_a_missing_package_is_refused_before_anything_runs(tmp_path, monkeypatch):
    monkeypatch.setattr(views.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(Refusal, match=r"'tensorboard'.*pip install -e '.\[tensorboard\]'"):
        train(compose([*QUICK, "logger.tensorboard=true"]), "vmap", tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("typed", "answer"),
    [
        ("logger.wandb.mode=onlin", "one of offline, online, disabled"),
        ("logger.tensorboard=yes", "one of true, false"),
        ("logger.wandb=offline", "holds logger.wandb.mode"),
        ("+logger.tensorbord=true", "did you mean logger.tensorboard"),
        ("~logger.wandb.mode", "is missing"),
    ],
)
def test_mistyped_settings_are_refused(typed, answer):
    with pytest.raises(Refusal, match=answer):
        experiment(compose([typed]))


def test_views_do_not_decide_the_run_directory():
    plain, shown = (experiment(compose([*QUICK, *extra])).config for extra in ((), BOTH))
    assert digest(plain) == digest(shown)


def test_a_run_made_before_there_were_views_resumes():
    config = compose(QUICK)
    del config["logger"]
    assert experiment(config).config["logger"] == views.without()


@pytest.mark.parametrize("option", ["console", "tensorboard", "wandb"])
def test_files_say_what_the_code_does(option):
    written = OmegaConf.to_container(OmegaConf.load(CONFIGS / "logger" / f"{option}.yaml"))
    made = compose([f"logger={option}"])["logger"]
    changes = {"console": {}, "tensorboard": {"tensorboard": True}, "wandb": {"wandb": views.without()["wandb"] | {"mode": "online"}}}
    assert made == views.without() | changes[option]
    assert {key for key in written if key != "defaults"} <= set(made)


def test_whose_picture():
    assert [member_of(Path(name)) for name in ("member3.png", "best-member-12.mp4", "map.png")] == [3, 12, 0]


def test_a_console_that_is_off_says_messages_only(capsys):
    from runners.progress import Reporter

    reporter = Reporter(10, 1, progress=False)
    reporter.advance(10, "")
    assert capsys.readouterr().err == "" and reporter.bar is None
    reporter.say("a message")
    assert capsys.readouterr().err == "a message\n"
