"""Mazes: layouts, uniform spanning trees, levels, views, and the numbers of docs/mazes.md, exactly."""

import math
import re
import zlib
from collections import Counter
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from envs.builder import Refusal
from envs.maze import AGENT, GOAL, WALL, maze
from envs.maze_layouts import MOVES, NAMES, distances, named
from envs.spanning_tree import random_maze, spanning_tree

CARVED = {"medium": 2108895852, "hard": 3625961348, "large": 2064800331}  # CRC-32 of the walls
DOCS = Path(__file__).resolve().parents[2] / "docs" / "mazes.md"


def keys(number, seed=0):
    return jax.random.split(jax.random.key(seed), number)


def random_walk_success(layout, steps):
    """Probability that a uniform random walk is at the goal within ``steps``; exact, by the distribution over squares."""
    free = np.argwhere(distances(layout.walls, layout.start) >= 0)
    number = np.zeros(layout.walls.shape, int)
    number[tuple(free.T)] = np.arange(len(free))
    onward = []
    for move in MOVES:
        ahead = tuple((free + move).T)
        onward.append(np.where(layout.walls[ahead], np.arange(len(free)), number[ahead]))
    onward, goal = np.stack(onward), number[layout.goal]
    chance = np.zeros(len(free))
    chance[number[layout.start]] = 1.0
    there = 0.0
    for _ in range(steps):
        chance = np.bincount(onward.reshape(-1), np.tile(chance / 4, 4), len(free))
        there, chance[goal] = there + chance[goal], 0.0
    return there


# --- fixed layouts -----------------------------------------------------------------------------------------------------


def table_row(name):
    """The row of docs/mazes.md."""
    layout = named(name)
    away = distances(layout.walls, layout.start)
    free, (rows, columns) = int((away >= 0).sum()), layout.walls.shape
    success = random_walk_success(layout, 4 * free)
    share = f"{100 * success:.1f} %" if success > 5e-4 else f"{success:.0e}"
    return f"| `{name}` | {rows} x {columns} | {free} | {away[layout.goal]} | {4 * free} | {share} |"


@pytest.mark.parametrize("name", [name if name != "large" else pytest.param(name, marks=pytest.mark.medium) for name in NAMES])
def test_documented_numbers(name):
    assert table_row(name) in DOCS.read_text().splitlines()


@pytest.mark.parametrize("name", NAMES)
def test_goal_is_within_reach_and_no_square_is_cut_off(name):
    layout = named(name)
    away = distances(layout.walls, layout.start)
    assert 0 < away[layout.goal] < maze(layout=name).spec.max_steps
    assert ((away >= 0) == ~layout.walls).all()


def test_carved_layouts_never_change():
    """Results of runs are compared under a layout's name."""
    found = {name: zlib.crc32(np.packbits(named(name).walls).tobytes()) for name in ("medium", "hard", "large")}
    assert found == CARVED


def test_carved_layouts_have_one_way_between_squares_and_rooms_make_squares_of_four():
    for name in ("medium", "hard"):
        walls = named(name).walls
        assert (~walls).sum() == 2 * (~walls[1::2, 1::2]).sum() - 1  # with all of them connected: a tree
    open_ = ~named("large").walls
    assert (open_[:-1, :-1] & open_[1:, :-1] & open_[:-1, 1:] & open_[1:, 1:]).sum() > 200


def test_spiral_is_one_corridor_of_sgcrl():
    layout = named("spiral")
    away = distances(layout.walls, layout.start)
    assert (layout.start, layout.goal, away.max(), (away >= 0).sum()) == ((5, 5), (10, 10), 54, 55)
    assert sorted(away[away >= 0]) == list(range(55))  # nowhere a choice
    assert (~layout.walls)[1, 1:11].all() and not (~layout.walls)[11].any() and not (~layout.walls)[0].any()


OWN = ("#######", "#S..G.#", "##.####", "##...##", "#######")


def test_own_layout_and_what_can_be_reached():
    env = maze(layout=list(OWN))
    assert (env.spec.num_cells, env.spec.num_states, env.spec.grid, env.spec.max_steps) == (8, 8, (5, 7), 32)  # the square behind G not
    assert maze(layout=list(OWN), reward="none").spec.num_cells == 9


@pytest.mark.parametrize(
    ("layout", "match"),
    [
        ("fourrooms", "did you mean four_rooms"),
        ([1, 2], "is not a layout"),
        (3, "is not a layout"),
        ([], "same length"),
        (["#####", "#S.G#", "####"], "same length"),
        (["##", "##", "##"], "too small"),
        (["#####", "#S.X#", "#####"], "'X' means nothing"),
        (["#####", "#..G#", "#####"], "0 S and 1 G"),
        (["#####", "#SGG#", "#####"], "1 S and 2 G"),
        (["#####", "#S.G.", "#####"], "border must be wall; row 1, column 4"),
        (["######", "#S.#G#", "######"], "no way leads"),
        (["######", "#S.#.#", "######"], "mark one with G"),
        (["######", "#S#.G#", "######"], "nowhere to go"),
    ],
)
def test_bad_layouts_are_refused(layout, match):
    with pytest.raises(Refusal, match=re.escape(match)):
        maze(layout=layout)


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ({"size": 8}, "the nearest are 7 and 9"),
        ({"layout": "u", "size": 7}, "env.size is of random mazes"),
        ({"layout": "u", "braid": 0.5}, "env.braid is of random mazes"),
        ({"level_start": 3}, "needs env.num_levels"),
        ({"num_levels": 2**31 - 1, "level_start": 1}, "at most"),
        ({"view_size": 4, "view": "partial"}, "env.view_size=5"),
        ({"view": "cell"}, "fixed layout"),
        ({"layout": "large", "view": "cell"}, "5327 entries"),
    ],
)
def test_bad_options_are_refused(arguments, match):
    with pytest.raises(Refusal, match=re.escape(match)):
        maze(**arguments)


# --- steps -------------------------------------------------------------------------------------------------------------


def follow(env, actions):
    """Time steps of ``actions`` from a fresh start."""
    state, obs = env.reset(jax.random.key(0))
    return obs, jax.jit(lambda s, a: jax.lax.scan(lambda s, a: env.step(s, jax.random.key(0), a), s, a))(state, jnp.asarray(actions, jnp.int32))[1]


def shortest(layout):
    """Actions of a shortest path."""
    home = distances(layout.walls, layout.goal)
    at, actions = np.array(layout.start), []
    while tuple(at) != layout.goal:
        actions.append(next(a for a, move in enumerate(MOVES) if home[tuple(at + move)] == home[tuple(at)] - 1))
        at = at + MOVES[actions[-1]]
    return actions


@pytest.mark.parametrize("name", NAMES)
def test_the_shortest_path_earns_one_at_its_end(name):
    env, layout = maze(layout=name, view="position"), named(name)
    _, steps = follow(env, shortest(layout))
    np.testing.assert_array_equal(steps.reward, [0] * (len(steps.reward) - 1) + [1])
    np.testing.assert_array_equal(steps.terminated, steps.reward == 1)
    assert not steps.truncated.any() and tuple(steps.info["position"][-1].tolist()) == layout.goal


def test_moves_walls_and_the_limit():
    _, steps = follow(maze(layout=list(OWN), reward="none", max_steps=7), [0, 1, 1, 2, 2, 3, 1])
    np.testing.assert_array_equal(steps.info["position"], [[1, 1], [1, 2], [1, 3], [1, 3], [1, 3], [1, 2], [1, 3]])
    np.testing.assert_array_equal(steps.truncated, [False] * 6 + [True])
    assert not steps.terminated.any() and not steps.reward.any()


def test_at_the_limit_the_goal_still_counts():
    _, steps = follow(maze(layout=list(OWN), max_steps=3), [1, 1, 1])
    assert steps.reward[-1] == 1 and steps.terminated[-1] and not steps.truncated[-1]


def test_without_reward_there_is_no_goal():
    env = maze(layout="u", reward="none")
    _, steps = follow(env, shortest(named("u")))
    assert not steps.reward.any() and not steps.terminated.any() and not np.asarray(steps.obs)[..., GOAL].any()
    assert env.spec.success_return is None and env.spec.num_cells == 13


def test_state_ids_number_the_squares():
    env, layout = maze(layout="four_rooms", reward="none"), named("four_rooms")
    actions = np.random.default_rng(0).integers(0, 4, 6000)
    _, steps = follow(env, actions)  # nothing stops an episode inside ``step``
    pairs = {(tuple(p), int(i)) for p, i in zip(np.asarray(steps.info["position"]).tolist(), steps.info["state_id"], strict=True)}
    assert len(pairs) == len({p for p, _ in pairs}) == 104 and {i for _, i in pairs} == set(range(104))
    assert not any(layout.walls[p] for p, _ in pairs)


def test_random_walks_succeed_as_often_as_computed():
    env, episodes = maze(layout="u"), 4000
    limit = env.spec.max_steps
    actions = jax.random.randint(jax.random.key(1), (limit, episodes), 0, 4)
    state = jax.vmap(env.reset)(keys(episodes))[0]
    step = lambda s, a: (lambda n, t: (n, t.terminated))(*jax.vmap(env.step)(s, keys(episodes), a))  # noqa: E731
    there = np.asarray(jax.lax.scan(step, state, actions)[1]).any(axis=0)
    expected = random_walk_success(named("u"), limit)
    assert there.mean() == pytest.approx(expected, abs=4 * math.sqrt(expected * (1 - expected) / episodes))


# --- views -------------------------------------------------------------------------------------------------------------


def test_full_view():
    first, steps = follow(maze(layout=list(OWN)), [1])
    text = np.array([list(row) for row in OWN])
    np.testing.assert_array_equal(first[..., WALL], text == "#")
    np.testing.assert_array_equal(first[..., AGENT], text == "S")
    np.testing.assert_array_equal(first[..., GOAL], text == "G")
    assert steps.obs[0, 1, 2, AGENT] == 1 and steps.obs[0, ..., AGENT].sum() == 1


def test_partial_view_is_a_window_with_wall_outside():
    first, steps = follow(maze(layout=list(OWN), view="partial", view_size=5), [1, 1])
    np.testing.assert_array_equal(first[..., 0], [[1, 1, 1, 1, 1], [1, 1, 1, 1, 1], [1, 1, 0, 0, 0], [1, 1, 1, 0, 1], [1, 1, 1, 0, 0]])
    assert not first[..., 1].any()
    assert np.argwhere(steps.obs[1, ..., 1]).tolist() == [[2, 3]]


def test_position_and_cell_views():
    _, steps = follow(maze(layout=list(OWN), view="position"), [1, 1])
    np.testing.assert_allclose(steps.obs, [[-0.5, -1 / 3], [-0.5, 0.0]], atol=1e-6)
    first, steps = follow(maze(layout=list(OWN), view="cell"), [1, 1])
    np.testing.assert_array_equal(steps.obs.argmax(1), steps.info["state_id"])
    assert (steps.obs.sum(1) == 1).all() and first.argmax() == 0


def test_pictures():
    for env in (maze(layout="u"), maze(size=9)):
        state, _ = env.reset(jax.random.key(0))
        image = env.render(state)
        rows, columns = env.spec.grid
        assert image.shape == (8 * rows, 8 * columns, 3) and image.dtype == np.uint8
        assert [len(set(map(tuple, image.reshape(-1, 3).tolist())))] == [4]  # floor, wall, goal, agent


# --- random mazes ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("rows", "columns", "trees"), [(1, 2, 1), (2, 2, 4), (2, 3, 15), (3, 2, 15), (3, 3, 192)])
def test_every_spanning_tree_is_equally_likely(rows, columns, trees):
    samples = 100 * trees
    onward = np.asarray(jax.jit(jax.vmap(lambda key: spanning_tree(key, rows, columns)))(keys(samples)))
    edges = [frozenset(frozenset((cell, int(to))) for cell, to in enumerate(tree) if cell != to) for tree in onward]
    found = Counter(edges)
    assert len(found) == trees  # the matrix-tree theorem says how many there are
    if trees > 1:
        chi_square, freedom = sum((n - 100) ** 2 / 100 for n in found.values()), trees - 1
        assert abs(chi_square - freedom) < 4 * math.sqrt(2 * freedom), chi_square


@pytest.mark.parametrize(("rows", "columns", "samples"), [(2, 2, 100), (3, 7, 300), (10, 10, 200), (1, 9, 20)])
def test_random_mazes_are_connected_and_without_loops(rows, columns, samples):
    walls = np.asarray(jax.jit(jax.vmap(lambda key: random_maze(key, rows, columns)))(keys(samples)))
    assert walls.shape == (samples, 2 * rows + 1, 2 * columns + 1)
    assert ((~walls).sum(axis=(1, 2)) == 2 * rows * columns - 1).all()  # cells, and one passage less: with connectedness a tree
    assert not walls[:, 1::2, 1::2].any() and walls[:, 0::2, 0::2].all()
    assert all((distances(maze_, (1, 1)) >= 0).sum() == (~maze_).sum() for maze_ in walls)


def dead_ends(walls):
    """[N] of mazes [N, rows, columns]: cells with three walls."""
    sides = walls[:, :-2, 1:-1].astype(int) + walls[:, 2:, 1:-1] + walls[:, 1:-1, :-2] + walls[:, 1:-1, 2:]
    return (sides[:, ::2, ::2] == 3).sum(axis=(1, 2))


@pytest.mark.medium
def test_braid_opens_its_share_of_dead_ends():
    def drawn(braid):
        return np.asarray(jax.jit(jax.vmap(lambda key: random_maze(key, 8, 8, braid)))(keys(400)))

    plain, half, all_ = map(drawn, (0.0, 0.5, 1.0))
    assert dead_ends(plain).min() > 0 and not dead_ends(all_).any()
    for braided in (half, all_):
        assert not (braided & ~plain).any()  # only opens
        assert not any((distances(m, (1, 1)) < 0)[~m].any() for m in braided[:50])
        assert braided[:, [0, -1]].all() and braided[:, :, [0, -1]].all() and braided[:, 0::2, 0::2].all()
    opened = 1 - dead_ends(half).sum() / dead_ends(plain).sum()
    assert 0.5 < opened < 0.65  # half of them, and some more where the neighbour was a dead end itself


def starts(env, number, seed=0):
    """(grid [N, rows, columns, 3] with the agent, states) of fresh episodes."""
    states, obs = jax.jit(jax.vmap(env.reset))(keys(number, seed))
    return np.asarray(obs), states


def test_start_and_goal_are_any_two_cells():
    obs, _ = starts(maze(size=5), 6000)
    pairs = Counter(zip(obs[..., AGENT].reshape(6000, -1).argmax(1).tolist(), obs[..., GOAL].reshape(6000, -1).argmax(1).tolist(), strict=True))
    squares = [6, 8, 16, 18]
    assert set(pairs) == {(a, b) for a in squares for b in squares if a != b}
    assert sum((n - 500) ** 2 / 500 for n in pairs.values()) < 35  # chi-square of 11: above 35 once in 4000


def level_set(env, number=400, seed=0):
    return {grid.tobytes() for grid in starts(env, number, seed)[0]}


@pytest.mark.medium
def test_levels_are_decided_by_number_and_seed():
    train, test = maze(size=9, num_levels=6), maze(size=9, num_levels=6, level_start=6)
    six, next_six = level_set(train), level_set(test)
    assert len(six) == len(next_six) == 6 and not six & next_six
    assert level_set(train, seed=1) == six
    assert level_set(maze(size=9, num_levels=12)) == six | next_six
    assert level_set(maze(size=9, num_levels=1, level_start=4)) < six
    assert not level_set(maze(size=9, num_levels=6, level_seed=1)) & six
    assert len(level_set(maze(size=9))) == 400  # every episode another


def test_levels_are_drawn_uniformly():
    grids, _ = starts(maze(size=9, num_levels=5), 5000)
    drawn = Counter(grid.tobytes() for grid in grids)
    assert sum((n - 1000) ** 2 / 1000 for n in drawn.values()) < 24  # chi-square of 4: above 24 once in 10,000


@pytest.mark.medium
def test_fingerprints_tell_layout_goal_and_agent():
    def seen(env, number):
        states, obs = jax.vmap(env.reset)(keys(number))
        _, steps = jax.jit(jax.vmap(lambda s: env.step(s, jax.random.key(0), jnp.int32(1))))(states)
        return {(grid.tobytes(), tuple(i)) for grid, i in zip(np.asarray(steps.obs), np.asarray(steps.info["state_id"]).tolist(), strict=True)}

    for env, number in ((maze(size=5), 800), (maze(size=9, reward="none"), 400)):
        pairs = seen(env, number)
        assert len(pairs) == len({g for g, _ in pairs}) == len({i for _, i in pairs})


def test_braid_may_be_traced():
    made = jax.jit(jax.vmap(lambda braid: maze(size=9, braid=braid).reset(jax.random.key(0))[1]))(jnp.float32([0.0, 1.0]))
    np.testing.assert_array_equal(made[0], maze(size=9).reset(jax.random.key(0))[1])
    assert made[1][..., WALL].sum() < made[0][..., WALL].sum()
