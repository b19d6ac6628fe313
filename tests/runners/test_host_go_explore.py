"""``runner=go_explore`` on worlds of the host: emulators that are put back, workers that may be any number and may die, runs that are resumed."""

from __future__ import annotations

import importlib.util
import os
import signal
from pathlib import Path

import jax
import numpy as np
import pytest

from envs.atari import emulator
from envs.builder import Failure, Refusal
from exploration.cells import downscale
from exploration.go_explore import NEVER, START
from exploration.host_cells import shrink
from exploration.trajectories import walked
from runners import api, checkpoint
from runners.compose import compose
from runners.demonstrate import demonstrate, read
from runners.experiment import experiment
from runners.explorers import Crew, Explorers, Job, Lost, Recipe
from tests.runners.test_go_explore import cells_of, equal
from tests.runners.tiny import batch_of

GAME = ["exploration=go_explore", "env=atari", "env.sticky=0", "runner.lanes=6", "runner.explore_steps=30", "exploration.capacity=2"]
KNOWN = [*GAME, "exploration.cell=knowledge", "env.episodic_life=true"]
SEARCH = ["exploration.first_search=300", "exploration.search_every=300", "exploration.search_iterations=40", "exploration.frame_rate=0.2"]
DYNAMIC = [*GAME, "env.episodic_life=true", "exploration.cell=dynamic", *SEARCH]
GRID = ["exploration=go_explore", "env=gymnasium", "env.id=MiniGrid-DoorKey-6x6-v0", "runner.lanes=6", "runner.explore_steps=30"]


@pytest.fixture(scope="module")
def montezuma():
    return emulator("montezuma_revenge", 4, 108_000, False, False)


def test_an_emulator_goes_on_as_it_did(montezuma):
    """Put back, it shows the same pictures and memory after each of 60 random actions (the card's restore invariant)."""
    rng = np.random.default_rng(0)
    montezuma.reset()
    for action in rng.integers(0, 18, 40):
        montezuma.step(action)
    saved, actions = montezuma.save(), rng.integers(0, 18, 60)

    def go_on():
        montezuma.load(saved)
        return [(montezuma.step(action), montezuma.look("ram").tolist(), montezuma.look("grey").tobytes()) for action in actions]

    assert go_on() == go_on()


def test_a_picture_is_shrunk_alike_on_the_host_and_on_the_device(montezuma):
    montezuma.reset()
    for action in range(18):
        montezuma.step(action)
        grey = montezuma.look("grey").copy()
        for sizes in ((11, 8, 8), (3, 5, 200)):
            np.testing.assert_array_equal(shrink(grey, *sizes), downscale(grey[..., None], *sizes))


def run_of(overrides, iterations):
    seeds = [] if any(o.startswith("seeds") for o in overrides) else ["seeds=1"]
    batch, _ = batch_of([*overrides, *seeds], "auto")
    batch.start()
    batch.run(0, iterations, 100)
    return batch


@pytest.fixture(scope="module")
def alone():
    """The archive that this process makes by itself."""
    batch = run_of([*KNOWN, "runner.workers=0"], 12)
    yield batch
    batch.close()


@pytest.mark.medium
def test_the_number_of_workers_changes_nothing_and_one_that_dies_is_replaced(alone):
    batch, _ = batch_of([*KNOWN, "runner.workers=3", "seeds=1"], "auto")
    batch.start()
    batch.run(0, 6, 100)
    os.kill(batch.workers()._workers[1][1].pid, signal.SIGKILL)
    batch.run(6, 6, 100)
    assert batch.workers().replaced == 1
    equal(cells_of(batch.snapshot()), cells_of(alone.snapshot()))
    assert batch.host_snapshot() == alone.host_snapshot()
    batch.close()


@pytest.mark.medium
def test_a_resumed_run_has_the_same_archive(alone, tmp_path):
    batch = run_of([*KNOWN, "runner.workers=0"], 5)
    checkpoint.save(tmp_path, 5, batch.snapshot(), {"grown": dict(batch.grown)}, 2, batch.host_snapshot())
    again, _ = batch_of([*KNOWN, "runner.workers=0", "seeds=1"], "auto")
    again.prepare_for(checkpoint.remembered(tmp_path / "5")["grown"])
    snapshot, _, host = checkpoint.load(tmp_path / "5", again.template())
    again.restore(snapshot, host)
    again.run(5, 7, 100)
    equal(cells_of(again.snapshot()), cells_of(alone.snapshot()))
    assert again.host_snapshot() == alone.host_snapshot()


@pytest.mark.medium
def test_dynamic_cells_are_searched_for_again_and_resume_exactly_with_any_number_of_workers(tmp_path):
    whole = run_of([*DYNAMIC, "runner.workers=0"], 9)
    [row] = whole.take_metrics()
    assert row["archive/searches"] >= 2 and row["archive/former"] > 5 and row["time/cell_search"] > 0
    assert (row["archive/width"], row["archive/height"], row["archive/depth"]) == whole._kept[0].dynamic.representation != (1, 1, 2)
    batch = run_of([*DYNAMIC, "runner.workers=2"], 4)
    assert batch._kept[0].dynamic.searches >= 1 and batch._kept[0].dynamic.recent
    checkpoint.save(tmp_path, 4, batch.snapshot(), {"grown": dict(batch.grown)}, 2, batch.host_snapshot())
    batch.close()
    again, _ = batch_of([*DYNAMIC, "runner.workers=0", "seeds=1"], "auto")
    again.prepare_for(checkpoint.remembered(tmp_path / "4")["grown"])
    snapshot, _, host = checkpoint.load(tmp_path / "4", again.template())
    again.restore(snapshot, host)
    again.run(4, 5, 100)
    equal(cells_of(again.snapshot()), cells_of(whole.snapshot()))
    assert again._kept == whole._kept


@pytest.mark.medium
@pytest.mark.parametrize("settings", [KNOWN, GAME, DYNAMIC, GRID], ids=["knowledge", "downscaled", "dynamic", "minigrid"])
def test_every_cell_replays_from_reset(settings, alone):
    """From the world's own start, a cell's actions give its score and end in it; what is kept of the world goes on as the replayed one."""
    batch = alone if settings is KNOWN else run_of([*settings, "runner.workers=0"], 8)
    (keys, kept, _), tree, size, *_ = cells_of(batch.snapshot())
    runner = batch.runner
    world, changing = runner.env.single(), batch._kept[0].dynamic
    representation = changing.representation if changing else ()
    assert size >= 10
    for i in range(size):
        if i == START or kept.episode_length[i] == NEVER:
            continue
        way = walked(*tree, int(kept.note.row[i]), int(kept.note.steps[i]))
        world.reset()
        met = [world.step(action) for action in way]
        assert np.cumsum([reward for reward, _, _ in met], dtype=np.float32)[-1] == kept.episode_return[i] and len(way) == kept.episode_length[i]
        assert not any(terminated or truncated for _, terminated, truncated in met[:-1])
        if i > START:
            assert np.frombuffer(runner.cell(world.look, *representation), np.uint32).tolist() == keys[i].tolist()


@pytest.mark.medium
def test_a_run_from_the_command_line_tells_steps_frames_and_rooms(tmp_path):
    summary = api.train(compose([*KNOWN, "seeds=1", "total_steps=3600", "logger.console=false", "runner.workers=1"]), tmp_path)
    assert summary["results"]["evaluation/return/median"] >= 0
    last = [row for row in api.metrics(summary["run_dir"]) if "archive/cells" in row][-1]
    assert last["frames/emulator"] == 4 * last["steps/agent"] <= 4 * last["step"] and last["archive/rooms"] >= 1 and last["archive/cells"] > 5
    assert any(row.get("evaluation/replays") == 1 for row in api.metrics(summary["run_dir"]))


@pytest.mark.medium
def test_an_archive_goes_on_in_another_run(tmp_path):
    """With what the first run left on disk, to the archive that one run would have made."""
    settings = [*KNOWN, "total_steps=1800", "segments=4", "logger.console=false", "runner.workers=0", "evaluations=0"]
    whole = api.train(compose([*settings, "seeds=2"]), tmp_path)["run_dir"]
    half = api.train(compose([*settings, "seeds=2", "stop_at=900"]), tmp_path)["run_dir"]
    second = api.train(compose([*settings, "seeds=[1]", f"continues={half}"]), tmp_path)["run_dir"]
    a, b = read(Path(whole), 1).cells, read(Path(second), 0).cells
    equal((a.kept, a.seen, a.tree, a.size), (b.kept, b.seen, b.tree, b.size))
    assert demonstrate([second, "which=all"])["trajectories"] == demonstrate([second, "which=all"])["replay_exactly"] > 5


@pytest.mark.medium
def test_a_rollout_that_kills_its_workers_ends_the_run_in_one_line():
    explorers = Explorers(Recipe(deadly, lambda look: bytes(8), None, "deadly"), 1)
    with pytest.raises(Failure, match="3 worker processes of the world deadly died of the same rollout"):
        explorers.run([Job(None, 0.0, np.zeros(3, np.int32))])
    explorers.close()


def deadly():
    os._exit(1)


def crew_without_room(places, mortal):
    """Workers that have room in so many places, and of which the ``mortal`` die of their first job."""
    born = []

    def start():
        born.append([])
        return len(born) - 1

    def take(worker):
        if worker in mortal:
            raise Lost
        return True, born[worker].pop()

    def give(worker, job):
        born[worker].append(job)

    return Crew(start, lambda worker: worker < places, give, lambda workers: [len(workers) - 1], take, lambda worker: None, lambda workers: None)


def test_workers_that_are_left_do_the_work_of_one_that_finds_no_place():
    recipe, jobs = Recipe(deadly, None, None, "made up"), list(range(7))
    assert Explorers(recipe, 3, crew_without_room(2, {})).run(jobs) == jobs
    for mortal in ({0}, {1}):
        explorers = Explorers(recipe, 2, crew_without_room(2, mortal))
        assert explorers.run(jobs) == jobs and explorers.replaced == 1 and explorers.run(jobs) == jobs
    with pytest.raises(Failure, match="no place for another"):
        Explorers(recipe, 2, crew_without_room(2, {0, 1})).run(jobs)
    with pytest.raises(Failure, match="none of 2 workers"):
        Explorers(recipe, 2, crew_without_room(0, {}))


@pytest.mark.parametrize(
    ("typed", "reason"),
    [
        (["env=atari"], "not deterministic"),
        (["env=atari", "env.sticky=0", "agent=ppo"], "agent=repeated_random"),
        (["env=atari", "env.sticky=0", "env.game=breakout", "exploration.cell=knowledge"], "nothing is known of 'breakout'"),
        (["env=gymnasium", "env.id=FrozenLake-v1"], "not deterministic"),
        (["env=gymnasium", "env.id=CartPole-v1", "exploration.cell=downscaled"], "shrinks pictures"),
        (["env=gymnasium", "env.id=CartPole-v1", "exploration.cell=dynamic"], "shrinks pictures"),
        (["env=deep_sea", "exploration.cell=dynamic"], "for worlds on the host"),
        (["env=atari", "exploration.lucky=true"], "cannot be put back"),
    ],
)
def test_what_does_not_fit_is_refused(typed, reason):
    with pytest.raises(Refusal, match=reason):
        made = experiment(compose(["exploration=go_explore", *typed]))
        made.make_runner(made.members[0].hyper)


def test_two_members_differ():
    batch = run_of([*KNOWN, "seeds=2", "runner.workers=0"], 2)
    first, second = (jax.tree.map(lambda x, i=i: x[i], batch.snapshot()[0].archive.tree.actions) for i in range(2))
    assert not np.array_equal(first, second)


@pytest.mark.medium
@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning", "ignore::ResourceWarning")
def test_actors_of_a_ray_cluster_make_the_same_archive_also_when_one_dies(alone):
    if importlib.util.find_spec("ray") is None:
        pytest.skip("ray is not installed (requirements-ray.lock)")
    batch, _ = batch_of([*KNOWN, "runner.cluster=local", "runner.workers=2", "seeds=1"], "auto")
    try:
        batch.start()
        batch.run(0, 6, 100)
        ray = importlib.import_module("ray")
        os.kill(ray.get(batch.workers()._workers[1]["actor"].process.remote()), signal.SIGKILL)
        batch.run(6, 6, 100)
        assert batch.workers().replaced == 1
        equal(cells_of(batch.snapshot()), cells_of(alone.snapshot()))
        assert batch.host_snapshot() == alone.host_snapshot()
    finally:
        batch.close()
