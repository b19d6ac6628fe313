"""What a run leaves for those who want to watch or use its policy: policies, videos, the Python API, the profile."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import imageio_ffmpeg
import jax
import numpy as np
import pytest

from envs.builder import Refusal
from runners import api, checkpoint
from runners.play import enlarged, of_observation, parse, play
from runners.policies import load
from tests.runners.tiny import TINY, batch_of

pytestmark = pytest.mark.medium  # a few programs to compile


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A finished run of two members, evaluated twice, made through the API."""
    folder = tmp_path_factory.mktemp("runs")
    config = api.compose(*TINY, "seeds=2", "evaluations=[64,256]", "segments=2", "profile=true", "logger.console=false")
    return api.train(config, folder)


def test_the_api_finds_the_run_again_and_reads_it(run):
    assert api.results(run["run_dir"]) == run == api.resume(run["run_dir"])
    rows = api.metrics(run["run_dir"])
    evaluated = [(row["step"], row["member"]) for row in rows if "evaluation/return" in row]
    assert evaluated == [(64, 0), (64, 1), (256, 0), (256, 1)]
    assert [row["evaluation/return"] for row in rows if "evaluation/return" in row][-2:] == [m["metrics"]["evaluation/return"] for m in run["members"]]


def test_best_and_last_policies_are_kept(run):
    folder = Path(run["run_dir"]) / "policies"
    assert sorted(p.name for p in folder.iterdir()) == ["0-best.msgpack", "0-last.msgpack", "1-best.msgpack", "1-last.msgpack"]
    policy = api.policy(run["run_dir"], member=1, which="last")
    obs = np.eye(16, dtype=np.float32).reshape(16, 4, 4)
    memory, actions = policy.act(policy.start(16), jax.random.PRNGKey(0), obs, np.ones(16, bool))
    assert actions.shape == (16,) and set(np.asarray(actions).tolist()) <= {0, 1}
    # the last policy is the one whose parameters the last checkpoint holds
    batch, _ = batch_of([*TINY, "seeds=2"], "vmap")
    batch.plan()
    newest = checkpoint.list_iterations(Path(run["run_dir"]) / "checkpoints")[-1]
    states = checkpoint.load(Path(run["run_dir"]) / "checkpoints" / str(newest), batch.template())[0][0]
    jax.tree.map(lambda kept, all_members: np.testing.assert_array_equal(kept, all_members[1]), policy.state.params, states.agent.params)


def test_the_profile_adds_up(run):
    found = json.loads((Path(run["run_dir"]) / "profile.json").read_text())
    assert set(found["share"]) == {"rollout", "bonus score", "agent learn", "bonus update and the rest"}
    assert abs(sum(found["share"].values()) - 1.0) < 0.01 and found["seconds"]["rollout"] > 0


def test_play_films_an_episode(run, tmp_path):
    for out in (tmp_path / "v.mp4", tmp_path / "v.gif"):
        found = play([run["run_dir"], f"out={out}", "member=1", "episodes=2"])
        assert len(found["returns"]) == 2 and found["steps"] == 8  # two episodes of DeepSea of size 4
        read = [imageio_ffmpeg.get_ffmpeg_exe(), "-loglevel", "error", "-i", str(out), "-f", "rawvideo", "-pix_fmt", "rgb24", "-"]
        frames = np.frombuffer(subprocess.run(read, capture_output=True, check=True).stdout, np.uint8).reshape(-1, 256, 256, 3)
        assert len(frames) == 8
        assert np.abs(frames[0].astype(int) - frames[3]).max() > 100, "the diver moved"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "one run directory"),
        (["nowhere"], "not a run"),
        (["RUN", "member=7"], "members 0 to 1"),
        (["RUN", "policy=worst"], "best or last"),
        (["RUN", "episode=1"], "did you mean episodes"),
        (["RUN", "fps=fast"], "fps must be a whole number"),
        (["RUN", "out=film.avi"], "ends in .mp4 or .gif"),
    ],
)
def test_play_answers_mistakes_in_a_line(run, arguments, message):
    with pytest.raises(Refusal, match=message) as refused:
        play([run["run_dir"] if a == "RUN" else a for a in arguments])
    assert "\n" not in str(refused.value)


def test_a_damaged_policy_is_refused(run, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(run["run_dir"], copy)
    file = copy / "policies" / "0-best.msgpack"
    file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(Refusal, match="damaged"):
        load(Path(copy), 0, "best")


def test_observations_become_pictures():
    assert of_observation(np.arange(4.0)).shape == (1, 5, 3)
    assert of_observation({"a": np.zeros((3, 4)), "b": np.ones((2, 2, 3))}).shape == (3, 8, 3)
    picture = enlarged(np.zeros((5, 3, 3), np.uint8))
    assert picture.shape[0] >= 256 and picture.shape[0] % 2 == picture.shape[1] % 2 == 0
    assert parse(["runs/x", "window=true"])[1]["window"] is True
