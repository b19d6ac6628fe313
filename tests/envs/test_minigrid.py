"""MiniGrid on device: the same as Farama's, step for step and level for level."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from envs.builder import Refusal
from envs.minigrid import core, views
from envs.minigrid.tasks import TASKS
from envs.minigrid.world import minigrid
from tests.envs.farama import Episode, farama, level_of, played

EACH_KIND = [
    "MiniGrid-DoorKey-8x8-v0",
    "MiniGrid-Empty-Random-6x6-v0",
    "MiniGrid-FourRooms-v0",
    "MiniGrid-LavaGapS7-v0",
    "MiniGrid-LockedRoom-v0",
    "MiniGrid-Unlock-v0",
    "MiniGrid-UnlockPickup-v0",
    "MiniGrid-BlockedUnlockPickup-v0",
    "MiniGrid-KeyCorridorS3R3-v0",
    "MiniGrid-KeyCorridorS6R3-v0",
    "MiniGrid-MultiRoom-N4-S5-v1",
    "MiniGrid-MultiRoom-N7-S8-v0",
    "MiniGrid-MultiRoom-N10-S10-v0",
    "MiniGrid-ObstructedMaze-1Dlhb-v0",
    "MiniGrid-ObstructedMaze-2Dlhb-v0",
    "MiniGrid-ObstructedMaze-2Q-v1",
    "MiniGrid-ObstructedMaze-Full-v0",
]


# --- the same steps ------------------------------------------------------------------------------------------------------


def assert_same_episodes(id: str, episodes: int, limit: int) -> tuple[int, int]:
    """(steps compared, successes among them)."""
    world = farama(id)
    limit = min(limit, TASKS[id].max_steps)
    theirs = [played(world, seed, limit, displaced=seed % 2 == 1) for seed in range(episodes)]
    stacked: Episode = jax.tree.map(lambda *leaves: np.stack(leaves), *theirs)
    env = minigrid(id=id)

    def replay(level, actions):
        state = core.begin(level)

        def one(state, action):
            state, timestep = env.step(state, jax.random.PRNGKey(0), action)
            return state, (timestep.obs, timestep.reward, timestep.terminated, timestep.truncated)

        first = views.partial(state, 7, TASKS[id].see_through)
        return first, jax.lax.scan(one, state, actions)[1]

    first, (images, rewards, terminated, truncated) = jax.tree.map(np.asarray, jax.jit(jax.vmap(replay))(stacked.level, stacked.actions))
    going_on = np.arange(limit) < stacked.steps[:, None]
    np.testing.assert_array_equal(first, stacked.images[:, 0])
    for ours, theirs in ((terminated, stacked.terminated), (truncated, stacked.truncated)):
        np.testing.assert_array_equal(ours & going_on, theirs)
    np.testing.assert_allclose(np.where(going_on, rewards, 0), stacked.rewards, atol=1e-6)
    np.testing.assert_array_equal(np.where(going_on[..., None, None, None], images, 0), stacked.images[:, 1:])
    return int(going_on.sum()), int((stacked.rewards > 0).sum())


@pytest.mark.parametrize("id", EACH_KIND)
def test_equal_actions_give_equal_steps(id):
    steps, _ = assert_same_episodes(id, 24, 60)
    assert steps > 400


@pytest.mark.medium
@pytest.mark.parametrize("id", ["MiniGrid-DoorKey-6x6-v0", "MiniGrid-KeyCorridorS3R1-v0", "MiniGrid-Unlock-v0", "MiniGrid-MultiRoom-N2-S4-v0"])
def test_successes_and_limits_are_among_the_compared_steps(id):
    steps, successes = assert_same_episodes(id, 40, 10_000)
    assert successes >= 3 and steps > 40 * 20


@pytest.mark.slow
@pytest.mark.parametrize("id", TASKS)
def test_thousands_of_episodes_are_the_same(id):
    steps, successes = assert_same_episodes(id, 2000, 150)
    print(f"{id}: {steps} steps, {successes} successes")


# --- the same levels -----------------------------------------------------------------------------------------------------


@functools.cache
def our_levels(id: str, number: int) -> core.Level:
    keys = jax.random.split(jax.random.PRNGKey(7), number)
    return jax.tree.map(np.asarray, jax.jit(lambda keys: jax.lax.map(TASKS[id].level, keys, batch_size=8))(keys))


def their_levels(id: str, number: int) -> core.Level:
    world = farama(id)
    levels = []
    for seed in range(number):
        world.reset(seed=seed)
        levels.append(level_of(world))
    return jax.tree.map(lambda *leaves: np.stack(leaves), *levels)


def features(levels: core.Level) -> np.ndarray:
    """f64[levels, F] of what can be told about a level, each to be compared in the mean: what is where, in which colours, what is far
    from what, and how much there is of it."""
    grid = levels.grid
    kinds, colours, states, inside = core.kind_of(grid), core.colour_of(grid), core.state_of(grid), core.inside_of(grid)
    number, height, width = grid.shape
    rows, columns = np.indices((height, width))
    found = [kinds == kind for kind in range(1, 10)]  # what is where
    found += [(rows == levels.position[:, 0, None, None]) & (columns == levels.position[:, 1, None, None])]
    found += [(kinds == core.DOOR) & (states == core.LOCKED), inside > 0]
    found = [x.reshape(number, -1) for x in found]
    things = (core.DOOR, core.KEY, core.BALL, core.BOX, core.GOAL)
    for kind in things:
        here = kinds == kind
        found += [np.stack([(here & (colours == colour)).sum((1, 2)) for colour in range(6)], axis=1)]
        distance = np.abs(rows - levels.position[:, 0, None, None]) + np.abs(columns - levels.position[:, 1, None, None])
        nearest = np.where(here, distance, 99).min((1, 2))
        level_with = [(here & (axis == levels.position[:, n, None, None])).sum((1, 2)) for n, axis in enumerate((rows, columns))]
        where = [(here * axis).sum((1, 2)) for axis in (rows, columns, rows**2, columns**2, rows * columns)]
        found += [np.stack([*where, *level_with, here.sum((1, 2)), here.sum((1, 2)) ** 2, nearest, nearest**2, nearest == 1], axis=1)]
    found += [np.stack([(inside == colour + 1).sum((1, 2)) for colour in range(6)], axis=1)]
    locked = np.stack([((states == core.LOCKED) & (kinds == core.DOOR) & (colours == colour)).sum((1, 2)) for colour in range(6)], axis=1)
    found += [locked, levels.direction[:, None] == np.arange(4)]
    found += [(core.kind_of(levels.wanted)[:, None] == np.arange(10)), (core.colour_of(levels.wanted)[:, None] == np.arange(6))]
    found += [(kinds == core.WALL).sum((1, 2))[:, None] ** np.arange(1, 3)]
    return np.concatenate([np.asarray(x, np.float64) for x in found], axis=1)


def largest_difference(id: str, number: int) -> tuple[float, int]:
    """(largest |z| over the features' means, number of features that vary)."""
    ours, theirs = features(our_levels(id, number)), features(their_levels(id, number))
    spread = np.sqrt((ours.var(0) + theirs.var(0)) / number)
    constant = spread == 0
    np.testing.assert_array_equal(ours.mean(0)[constant], theirs.mean(0)[constant])
    rare = (ours.sum(0) + theirs.sum(0) < 20) & ~constant  # too rare for the normal approximation
    varies = ~constant & ~rare
    z = (ours.mean(0) - theirs.mean(0))[varies] / spread[varies]
    return float(np.abs(z).max(initial=0)), int(varies.sum())


@pytest.mark.parametrize("id", EACH_KIND)
def test_levels_come_from_the_same_distribution(id):
    largest, number = largest_difference(id, 400)
    assert number >= 8
    assert largest < 4.9  # of up to 3,000 features: by chance about once in 300 runs, and the seeds are fixed


@pytest.mark.slow
@pytest.mark.parametrize("id", TASKS)
def test_thousands_of_levels_come_from_the_same_distribution(id):
    largest, number = largest_difference(id, 3000)
    print(f"{id}: largest difference {largest:.2f} standard errors, of {number} features")
    assert largest < 5.2


def test_the_comparison_of_levels_sees_a_wrong_one():
    """Were the key put only where it is not next to the agent, or the door more often high than low, it would be found."""
    id = "MiniGrid-DoorKey-8x8-v0"
    theirs, ours = features(their_levels(id, 400)), our_levels(id, 800)
    rows = np.indices(ours.grid.shape[1:])[0]
    door_row = np.where(core.kind_of(ours.grid) == core.DOOR, rows, 0).max((1, 2))
    keys = core.kind_of(ours.grid) == core.KEY
    key_row = np.where(keys, rows, 0).max((1, 2))
    for kept in (np.abs(key_row - ours.position[:, 0]) > 0, (door_row < 4) | (np.arange(800) % 3 == 0)):
        wrong = features(jax.tree.map(lambda leaf: leaf[kept][:400], ours))  # noqa: B023
        spread = np.sqrt((wrong.var(0) + theirs.var(0)) / 400)
        varies = spread > 0
        assert (np.abs(wrong.mean(0) - theirs.mean(0))[varies] / spread[varies]).max() > 4.9


# --- what every level promises -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("id", [id for id in TASKS if "MultiRoom" in id and "S10" not in id])
def test_rooms_hang_together(id):
    """Every goal can be reached through the doors."""
    levels = our_levels(id, 64)
    open_to = np.isin(core.kind_of(levels.grid), (core.EMPTY, core.DOOR, core.GOAL))
    reached = np.zeros_like(open_to)
    reached[np.arange(64), levels.position[:, 0], levels.position[:, 1]] = True
    for _ in range(25 * 25):
        spread = reached.copy()
        spread[:, 1:] |= reached[:, :-1]
        spread[:, :-1] |= reached[:, 1:]
        spread[:, :, 1:] |= reached[:, :, :-1]
        spread[:, :, :-1] |= reached[:, :, 1:]
        spread &= open_to
        if (spread == reached).all():
            break
        reached = spread
    assert (reached & (core.kind_of(levels.grid) == core.GOAL)).any((1, 2)).all()
    doors = (core.kind_of(levels.grid) == core.DOOR).sum((1, 2))
    rooms = {"N2": 2, "N4-S5-v0": 6, "N4-S5-v1": 4, "N6": 6, "N7": 7, "N10": 10}
    assert (doors == next(n for name, n in rooms.items() if f"-{name}" in id) - 1).all()


def test_the_fingerprint_is_that_of_the_state():
    """Kept up step by step it is what it would be made anew, and states that differ have different ones."""
    env = minigrid(id="MiniGrid-ObstructedMaze-1Dlhb-v0")
    state, _ = env.reset(jax.random.PRNGKey(3))

    def one(state, action):
        state, timestep = env.step(state, jax.random.PRNGKey(0), action)
        return state, (state, timestep.info["state_id"])

    actions = np.random.default_rng(0).integers(0, 6, 4000)
    states, prints = jax.tree.map(np.asarray, jax.jit(lambda s: jax.lax.scan(one, s, jnp.asarray(actions)))(state)[1])
    anew = jax.jit(jax.vmap(lambda s: core.begin(core.Level(s.grid, s.position, s.direction, s.wanted)).print))(states)
    np.testing.assert_array_equal(anew, states.print)
    whole = np.concatenate([states.grid.reshape(4000, -1), states.position, states.direction[:, None], states.carried[:, None]], axis=1)
    assert len(np.unique(whole, axis=0)) == len(np.unique(prints, axis=0)) == len(np.unique(np.concatenate([whole, prints], axis=1), axis=0)) > 500


def test_the_views_are_those_of_their_wrappers():
    from minigrid.wrappers import FullyObsWrapper, SymbolicObsWrapper

    world = farama("MiniGrid-KeyCorridorS3R3-v0")
    world.reset(seed=1)
    state = core.begin(jax.tree.map(jnp.asarray, level_of(world)))
    for wrapper, view in ((FullyObsWrapper, views.full), (SymbolicObsWrapper, views.symbolic)):
        np.testing.assert_array_equal(view(state), wrapper(world).observation(world.gen_obs())["image"])
    for size in (3, 5, 9):
        larger = farama("MiniGrid-KeyCorridorS3R3-v0")
        larger.agent_view_size = size
        larger.reset(seed=1)
        np.testing.assert_array_equal(views.partial(state, size, False), larger.gen_obs()["image"])


def test_bad_settings_are_refused():
    for arguments, says in (
        ({"id": "MiniGrid-KeyCoridorS3R3-v0"}, "KeyCorridorS3R3"),
        ({"view_size": 6}, "try env.view_size=7"),
    ):
        with pytest.raises(Refusal, match=says):
            minigrid(**arguments)


def test_pictures_show_the_state():
    env = minigrid(id="MiniGrid-DoorKey-8x8-v0")
    state, _ = env.reset(jax.random.PRNGKey(0))
    image = env.render(state)
    assert image.shape == (8 * 16, 8 * 16, 3) and image.dtype == np.uint8
    row, column = np.asarray(state.position)
    red = (image[..., 0] > 200) & (image[..., 1] < 140) & (image[..., 2] < 140)
    assert {(r // 16, c // 16) for r, c in np.argwhere(red)} == {(row, column)}
