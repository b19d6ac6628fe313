"""``runner=go_explore``: archives of real worlds, their trajectories replayed, room that doubles, runs that are resumed."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from envs.base import Lanes
from envs.builder import Refusal, build
from envs.deep_sea import optimal_return
from exploration.go_explore import COUNTERS, NEVER, START
from exploration.trajectories import walked
from runners import api, checkpoint
from runners.compose import compose
from runners.experiment import experiment
from runners.train import assemble
from tests.runners.tiny import batch_of

SEA = ["exploration=go_explore", "env=deep_sea", "env.size=8", "runner.lanes=4", "runner.explore_steps=8"]
MEDIANS = {10: (541, 1_065), 20: (7_002, 14_891), 30: (27_781, 60_615)}  # the method card, section 7A: 1/sqrt(seen + 1) and uniform choice


def cells_of(snapshot, member: int = 0):
    """The cells in use, in the order in which they were found, without the table that finds them."""
    archive = jax.tree.map(lambda x: x[member], snapshot[0].archive)
    kept, size, rows = archive.kept, int(archive.size), int(archive.tree.rows)
    cells = jax.tree.map(lambda x: x[:size], (archive.keys, kept, {name: getattr(archive, name) for name in COUNTERS}))
    tree = jax.tree.map(lambda x: x[:rows], (archive.tree.actions, archive.tree.parent_row, archive.tree.parent_steps))
    return cells, tree, size, int(archive.best), snapshot[0].record, snapshot[0].bonus


def equal(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)


@pytest.mark.medium
@pytest.mark.parametrize("size", [10, pytest.param(20, marks=pytest.mark.slow), pytest.param(30, marks=pytest.mark.slow)])
def test_deep_sea_with_batches_of_one(size):
    """Steps until the treasure, medians over 20 seeds: those of the card within a factor of two, and fewer than with a uniform choice."""
    weighted, uniform = MEDIANS[size]
    made = experiment(
        compose([
            "exploration=go_explore", "env=deep_sea", f"env.size={size}", "env.observation=index", "runner.lanes=1", f"runner.explore_steps={size}",
            "agent.mean_run=1", "seeds=20", "vmap.exploration.power=[0.5,0]", "exploration.capacity=2048",
        ])
    )  # fmt: skip
    batch, _, _ = assemble(made, "vmap")
    batch.plan()
    batch.compile()
    batch.start()
    done = 0
    while done < 100 * weighted // size:
        batch.run(done, 200, 10**6)
        done += 200
        found = batch.snapshot()[0].record.first_success.reshape(2, 20)
        if np.all(found > 0):
            break
    medians = np.median(np.where(found > 0, found, 10**9), axis=1)
    assert weighted / 2 < medians[0] < weighted * 2 and uniform / 2 < medians[1] < uniform * 2 and medians[0] < medians[1], medians


WORLDS = {
    "deep_sea": ["env=deep_sea", "env.size=8"],
    "maze": ["env=maze", "env.size=9", "env.num_levels=1"],
    "minigrid": ["env=minigrid", "env.id=MiniGrid-DoorKey-6x6-v0"],
    "position": ["env=maze", "env.layout=u", "exploration.cell=position"],
    "random_levels": ["env=maze", "env.size=7"],
    "box_actions": ["env=gymnax", "env.id=MountainCarContinuous-v0", "exploration.cell=tests.runners.test_go_explore.bins"],
}


def bins(transition):
    return jnp.floor(transition.next_obs * jnp.array([10.0, 100.0])).astype(jnp.int32)


@pytest.mark.medium
@pytest.mark.parametrize("world", WORLDS)
def test_every_trajectory_replays_from_reset(world):
    """From the reset with the trajectory's own key, its actions lead to the cell's state with the cell's score and length."""
    made = experiment(compose(["exploration=go_explore", *WORLDS[world], "runner.lanes=8", "runner.explore_steps=25", "seeds=1", "total_steps=10000"]))
    batch, runner, _ = assemble(made, "vmap")
    batch.plan()
    batch.compile()
    batch.start()
    batch.run(0, 50, 50)
    (_, kept, _), tree, size, _, _, _ = cells_of(batch.snapshot())
    env = build({k: v for k, v in made.config["env"].items() if k not in ("sticky_actions", "noisy_tv")})
    longest = int(np.max(kept.episode_length[kept.episode_length != NEVER]))
    assert size > 10 and longest >= 8

    @jax.jit
    @jax.vmap
    def replay(origin, actions, length):
        def one(carry, inputs):
            t, action = inputs
            world, seen = env.step(carry[0], jax.random.PRNGKey(0), action)
            return jax.tree.map(lambda a, b: jnp.where(t < length, a, b), (world, seen.obs, carry[2] + seen.reward), carry), None

        world, obs = env.reset(origin)
        return jax.lax.scan(one, (world, obs, jnp.float32(0)), (jnp.arange(longest), actions))[0]

    there = [i for i in range(size) if i != START and kept.episode_length[i] != NEVER]
    ways = [walked(*tree, int(kept.note.row[i]), int(kept.note.steps[i])) for i in there]
    assert [len(way) for way in ways] == kept.episode_length[there].tolist()
    padded = np.stack([np.concatenate([way, np.zeros((longest - len(way), *way.shape[1:]), way.dtype)]) for way in ways])
    worlds, obs, scores = replay(kept.note.origin[there], padded, kept.episode_length[there])
    expected: Lanes = jax.tree.map(lambda x: x[there], kept)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), (worlds, obs), (expected.world, expected.obs))
    np.testing.assert_allclose(scores, expected.episode_return, atol=1e-4)


@pytest.mark.medium
@pytest.mark.parametrize("batching", ["vmap", "shard", "map"])
def test_room_that_doubles_changes_nothing_and_resumes(batching, tmp_path):
    small, large = [*SEA, "seeds=2", "exploration.capacity=2"], [*SEA, "seeds=2", "exploration.capacity=1024"]
    batch, _ = batch_of(small, batching)
    batch.start()
    batch.run(0, 20, 40)
    checkpoint.save(tmp_path, 20, batch.snapshot(), {"grown": dict(batch.grown)}, 2)
    batch.run(20, 20, 40)
    assert batch.grown["rows"] >= 2, batch.grown
    other, _ = batch_of(large, "vmap" if batching == "map" else batching)
    other.start()
    other.run(0, 40, 40)
    assert not other.grown
    again, _ = batch_of(small, batching)
    again.prepare_for(checkpoint.remembered(tmp_path / "20")["grown"])
    again.restore(checkpoint.load(tmp_path / "20", again.template())[0])
    again.run(20, 20, 40)
    assert again.grown == batch.grown
    for member in range(2):
        whole = cells_of(batch.snapshot(), member)
        equal(cells_of(again.snapshot(), member), whole)
        equal(cells_of(other.snapshot(), member)[:4], whole[:4])


@pytest.mark.medium
def test_a_run_from_the_command_line_finds_the_treasure_and_its_policy_is_the_way(tmp_path):
    summary = api.train(compose([*SEA, "seeds=2", "total_steps=20000", "logger.console=false"]), tmp_path)
    assert summary["results"]["evaluation/return/median"] == pytest.approx(optimal_return(8)) and summary["results"]["evaluation/success/median"] == 1
    rows = api.metrics(summary["run_dir"])
    last = [row for row in rows if "archive/cells" in row][-1]
    assert last["archive/cells"] == 8 * 9 // 2 - 1 and last["archive/score"] == pytest.approx(optimal_return(8))  # a triangle, without the start
    assert last["steps/agent"] < last["step"] and last["steps/virtual"] > 0 and last["archive/dropped"] == 0
    assert any(row.get("evaluation/replays") == 1 for row in rows)


@pytest.mark.parametrize(
    ("typed", "reason"),
    [
        (["exploration=go_explore", "env.stochastic=true"], "not deterministic"),
        (["exploration=go_explore", "env.sticky_actions=0.25"], "not deterministic"),
        (["exploration=go_explore", "runner=on_policy", "agent=random"], "use runner=go_explore"),
        (["exploration=counts", "runner=go_explore"], "needs an archive"),
        (["exploration=go_explore", "+exploration.scale=2"], "takes no 'scale'"),
        (["exploration=go_explore", "batching=lanes"], "cuts lanes apart"),
    ],
)
def test_what_does_not_fit_is_refused(typed, reason):
    with pytest.raises(Refusal, match=reason):
        made = experiment(compose(typed))
        assemble(made, made.config["batching"])
