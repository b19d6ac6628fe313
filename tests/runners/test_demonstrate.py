"""``farlands demonstrate``: trajectories of archives, replayed and written; and a game's map."""

from __future__ import annotations

import json
from pathlib import Path

import jax
import numpy as np
import pytest
from PIL import Image

from envs.builder import Refusal
from envs.deep_sea import deep_sea, optimal_return
from runners import api, archive_map, maze_map, play
from runners.compose import compose
from runners.demonstrate import demonstrate, read
from runners.report.build import archive_section
from runners.report.read import read_run
from tests.runners.test_go_explore import SEA
from tests.runners.test_host_go_explore import KNOWN
from tests.runners.tiny import TINY

pytestmark = pytest.mark.medium


@pytest.fixture(scope="module")
def sea(tmp_path_factory):
    return api.train(compose([*SEA, "seeds=2", "total_steps=20000", "logger.console=false"]), tmp_path_factory.mktemp("runs"))["run_dir"]


@pytest.fixture(scope="module")
def game(tmp_path_factory):
    settings = [*KNOWN, "seeds=1", "total_steps=5400", "logger.console=false", "runner.workers=1"]
    return api.train(compose(settings), tmp_path_factory.mktemp("runs"))["run_dir"]


def test_the_way_to_the_treasure_is_written_with_snapshots_that_go_on(sea):
    told = demonstrate([sea, "member=1", "every=3"])
    assert told["replay_exactly"] == 1 and told["steps"] == 8 and told["score"] == pytest.approx(optimal_return(8))
    found = np.load(told["file"])
    assert found["snapshot_steps"].tolist() == [0, 3, 6] and json.loads(str(found["meta"]))["world"] == "deep_sea-8"
    world, rewards = deep_sea(size=8), []
    state = jax.tree.unflatten(jax.tree.structure(world.reset(jax.random.PRNGKey(0))[0]), [found[f"snapshot_{n}"][1] for n in range(3)])
    for action in found["actions"][3:]:
        state, seen = world.step(state, jax.random.PRNGKey(0), action)
        rewards.append(float(seen.reward))
    np.testing.assert_allclose(rewards, found["rewards"][3:], atol=1e-6)


def test_every_trajectory_of_a_world_and_of_a_game_replays(sea, game):
    told = demonstrate([sea, "which=all"])
    assert told["trajectories"] == told["replay_exactly"] == 36  # 35 cells and the ends
    told = demonstrate([game, "which=all"])
    assert told["trajectories"] == told["replay_exactly"] > 5
    assert demonstrate([game, "which=end"])["replay_exactly"] == 1
    longest = demonstrate([game, "which=longest"])
    assert longest["replay_exactly"] == 1 and longest["steps"] >= demonstrate([game, "which=best"])["steps"]


def test_a_changed_archive_is_found_out_and_nothing_is_written(sea, tmp_path, monkeypatch):
    from runners import demonstrate as module

    way_to = module.way_to
    monkeypatch.setattr(module, "way_to", lambda cells, cell: 1 - way_to(cells, cell))
    with pytest.raises(Refusal, match="does not replay"):
        demonstrate([sea, f"out={tmp_path}/demonstration.npz"])
    assert not list(tmp_path.iterdir())


def test_a_games_map_is_drawn(game):
    told = demonstrate([game, "which=map"])
    with Image.open(told["picture"]) as picture:
        assert told["rooms"] >= 1 and told["cells"] > 5 and min(picture.size) > 400
    assert [archive_map.corner("montezuma_revenge", room) for room in (0, 2, 3, 8, 15, 23)] == [(3, 0), (5, 0), (2, 1), (1, 2), (0, 3), (8, 3)]


def test_a_worlds_map_is_drawn_and_is_in_the_report(sea):
    """Of DeepSea's 35 cells besides the start each is a square of its own; where a trajectory leads is where its actions lead."""
    told = demonstrate([sea, "which=map", "member=1"])
    runner, cells, _ = read(Path(sea), 1)
    places = maze_map.positions(runner, cells, maze_map.shown(runner, cells))
    assert told["cells"] == len(set(places.values())) == 35 and all(row == cells.length[i] for i, (row, _) in places.items())
    assert {column for row, column in places.values() if row == 7} == set(range(8))
    with Image.open(told["picture"]) as picture:
        assert min(picture.size) > 400
    page = archive_section(read_run(Path(sea)))
    assert page.count("data:image/png") == 1 and "member 1" in page


def test_curves_are_drawn_of_games_and_of_other_worlds(game, sea):
    for run in (game, sea):
        told = demonstrate([run, "which=curves"])
        with Image.open(told["picture"]) as picture:
            assert told["points"] >= 3 and min(picture.size) > 200


def test_the_best_trajectory_is_filmed(game, tmp_path):
    if demonstrate([game])["steps"]:
        told = play.play([game, f"out={tmp_path}/best.gif", "policy=last"])
        assert told["steps"] > 0 and (tmp_path / "best.gif").stat().st_size > 1000


@pytest.mark.parametrize(
    ("typed", "reason"),
    [
        (["which=worst"], "best, end, longest, all, map or curves"),
        (["member=7"], "the members 0 to 1"),
        (["mebmer=1"], "did you mean member"),
    ],
)
def test_mistakes_get_one_line(sea, typed, reason):
    with pytest.raises(Refusal, match=reason):
        demonstrate([sea, *typed])


def test_runs_without_an_archive_have_none(tmp_path):
    run = api.train(compose([*TINY, "seeds=1", "logger.console=false"]), tmp_path)["run_dir"]
    with pytest.raises(Refusal, match="has no archive"):
        demonstrate([run])
