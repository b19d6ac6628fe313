"""The point maze: it slides, it never passes a wall, and the goal pays as said."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from envs.base import Transition
from envs.builder import Refusal
from envs.maze_layouts import MOVES, NAMES, distances, named
from envs.point_maze import MARGIN, PointMazeState, point_maze, slide, square
from exploration.counts import counts
from exploration.laws.play import play

ROOM = ["#####", "#S..#", "#.#.#", "#..G#", "#####"]  # a block in the middle, at [2, 3) x [2, 3)


def run(env, actions, state=None, seed=0):
    """(states, time steps), both [T, ...], of ``actions`` [T, 2] from a fresh start."""
    state = env.reset(jax.random.key(0))[0] if state is None else state

    def step(state, inputs):
        state, timestep = env.step(state, *inputs)
        return state, (state, timestep)

    actions = jnp.asarray(actions, jnp.float32)
    return jax.jit(lambda s: jax.lax.scan(step, s, (jax.random.split(jax.random.key(seed), len(actions)), actions)))(state)[1]


def at(row, column, velocity=(0.0, 0.0)):
    return PointMazeState(jnp.float32([row, column]), jnp.float32(velocity), jnp.int32(0))


def test_moves_by_its_action_and_stops_at_a_wall():
    states, steps = run(point_maze(layout=ROOM), [[0, 1], [0, 0.5], [0.25, 0], [-0.7, 0], [-1, 0]])
    np.testing.assert_allclose(states.position, [[1.5, 2.0], [1.5, 2.25], [1.625, 2.25], [1.275, 2.25], [1 + MARGIN, 2.25]], atol=1e-5)
    np.testing.assert_array_equal(steps.info["position"][1:], [[1, 2]] * 4)
    np.testing.assert_allclose(steps.obs[0], [2 * 1.5 / 5 - 1, 2 * 2.0 / 5 - 1], atol=1e-6)


def test_slides_along_a_wall():
    states, _ = run(point_maze(layout=ROOM, max_step=1.0), [[1, 0.25]] * 3, at(1.5, 2.1))  # pushes down onto the block, drifts right
    np.testing.assert_allclose(states.position[0], [2 - MARGIN, 2.35], atol=1e-5)
    np.testing.assert_allclose(states.position[1], [2 - MARGIN, 2.6], atol=1e-5)


def test_larger_actions_count_as_one():
    states, _ = run(point_maze(layout=ROOM), [[0, 100.0]])
    np.testing.assert_allclose(states.position[0], [1.5, 2.0], atol=1e-5)


def test_inertia():
    env = point_maze(layout=["########", "#S....G#", "########"], dynamics="acceleration", max_step=0.25, acceleration=0.1)
    states, steps = run(env, [[0, 1]] * 4)
    np.testing.assert_allclose(states.velocity[:, 1], [0.1, 0.2, 0.25, 0.25], atol=1e-6)
    np.testing.assert_allclose(states.position[:, 1], [1.6, 1.8, 2.05, 2.3], atol=1e-5)
    np.testing.assert_allclose(steps.obs[:, 2:], states.velocity / 0.25, atol=1e-5)
    states, _ = run(env, [[1, 0], [-0.5, 0]], at(1.9, 1.5, (0.2, 0.1)))  # the wall below takes the velocity into it, not the other
    np.testing.assert_allclose(states.position[0], [2 - MARGIN, 1.6], atol=1e-5)
    np.testing.assert_allclose(states.velocity, [[0, 0.1], [-0.05, 0.1]], atol=1e-6)


# --- no tunnelling -----------------------------------------------------------------------------------------------------


def assert_stays_inside(walls, before, after):
    """``after`` [..., 2] is free, and its square is the square of ``before`` or connected to it within one step of at most 1 x 1 squares."""
    a, b = np.floor(before).astype(int), np.floor(after).astype(int)
    assert not walls[b[..., 0], b[..., 1]].any()
    assert np.abs(b - a).max() <= 1
    diagonal = (a != b).all(-1)
    corner_free = ~walls[b[..., 0], a[..., 1]] | ~walls[a[..., 0], b[..., 1]]
    assert corner_free[diagonal].all()  # round a corner, never between two walls that touch
    return diagonal.sum()


@pytest.mark.parametrize("name", NAMES)
def test_no_step_passes_a_wall(name):
    """Random points of the free squares, also on and beside their edges, and steps of every size and direction."""
    walls = named(name).walls
    random, number = np.random.default_rng(0), 40_000
    free = np.argwhere(~walls)
    inside = random.uniform(0, 1, (number, 2))
    edges = random.choice([0.0, 1e-7, MARGIN / 2, MARGIN, 1 - MARGIN, 1 - MARGIN / 2], (number, 2))
    position = np.float32(free[random.integers(len(free), size=number)] + np.where(random.random((number, 2)) < 0.3, edges, inside))
    position = np.where(walls[tuple(np.floor(position).astype(int).T)][:, None], np.float32(free[0] + 0.5), position)  # rounded into a wall
    largest = 0.999  # with 1, rounding takes a point from one edge of a square to beyond the other
    velocity = np.where(random.random((number, 2)) < 0.3, random.choice([-largest, 0.0, largest], (number, 2)), random.uniform(-largest, largest, (number, 2)))
    velocity = np.float32(velocity)
    after, left = jax.jit(jax.vmap(lambda p, v: slide(walls, p, v)))(position, velocity)
    after, left = np.asarray(after), np.asarray(left)
    assert_stays_inside(walls, position, after)
    assert np.isin(left, [0]).any() and ((left == 0) | (left == velocity)).all()
    unhindered = (left == velocity).all(-1)
    np.testing.assert_allclose(after[unhindered], (position + velocity)[unhindered], atol=1e-4)


@pytest.mark.parametrize("dynamics", ["velocity", "acceleration"])
def test_adversarial_pushes_stay_inside(dynamics):
    """Every lane pushes into walls and corners for a long time, in steps as large as they may be."""
    walls = named("easy").walls
    env = point_maze(layout="easy", dynamics=dynamics, max_step=1.0, acceleration=1.0, reward="none", max_steps=10_000, noise=1.0)
    lanes, time = 128, 300
    directions = np.random.default_rng(0).choice([-1.0, -0.999, 1e-6, 0.0, 1.0, 1e9], (time // 6, lanes, 2)).repeat(6, 0).astype(np.float32)
    state = jax.vmap(env.reset)(jax.random.split(jax.random.key(0), lanes))[0]

    def step(state, inputs):
        new, timestep = jax.vmap(env.step)(state, jax.random.split(inputs[0], lanes), inputs[1])
        return new, (state.position, new.position, timestep.obs)

    before, after, obs = jax.lax.scan(step, state, (jax.random.split(jax.random.key(1), time), directions))[1]
    corners = assert_stays_inside(walls, np.asarray(before), np.asarray(after))
    assert corners > 100 and np.abs(obs).max() <= 1
    assert len(np.unique(np.floor(after).reshape(-1, 2), axis=0)) > 30


def test_never_between_two_walls_that_touch():
    walls = np.array([list(row) for row in ("####", "#.##", "##.#", "####")]) == "#"
    fan = np.linspace(0, 2 * np.pi, 721)
    velocity = np.float32(np.stack([np.sin(fan), np.cos(fan)], -1))
    position = np.float32(np.broadcast_to([2 - 1e-3, 2 - 1e-3], velocity.shape))
    for _ in range(20):
        position, _ = jax.jit(jax.vmap(lambda p, v: slide(walls, p, v)))(position, velocity)
    assert (np.floor(position) == 1).all()


# --- goal and options --------------------------------------------------------------------------------------------------


def waypoints(layout):
    """Displacements [T, 2] through the middles of the squares of a shortest path."""
    home, here, moves = distances(layout.walls, layout.goal), np.array(layout.start), []
    while tuple(here) != layout.goal:
        move = next(m for m in MOVES if home[tuple(here + m)] == home[tuple(here)] - 1)
        moves += [move, move]  # half a square each
        here = here + move
    return np.float32(moves)


@pytest.mark.parametrize("name", NAMES)
def test_the_goal_is_within_reach(name):
    env = point_maze(layout=name, radius=0.4)
    actions = waypoints(named(name))
    assert len(actions) < env.spec.max_steps
    _, steps = run(env, actions)
    np.testing.assert_array_equal(np.flatnonzero(steps.reward), [len(actions) - 1])  # half a square before it is not near enough
    assert steps.terminated[-1] and not steps.truncated.any()
    assert env.spec.num_cells == (~named(name).walls).sum()


def test_going_on_at_the_goal():
    env = point_maze(layout=["#####", "#S.G#", "#####"], ends_at_goal=False, radius=0.6, max_steps=6)
    _, steps = run(env, [[0, 1]] * 3 + [[0, 0]] * 2 + [[0, -1]])
    np.testing.assert_array_equal(steps.reward, [0, 0, 1, 1, 1, 0])
    assert not steps.terminated.any()
    np.testing.assert_array_equal(steps.truncated, [False] * 5 + [True])


def test_without_reward_and_with_the_goal_shown():
    env = point_maze(layout="spiral", reward="none", goal_in_observation=True)
    _, steps = run(env, waypoints(named("spiral")))
    assert not steps.reward.any() and not steps.terminated.any()
    np.testing.assert_allclose(steps.obs[:, 2:], np.broadcast_to(2 * 10.5 / 12 - 1, steps.obs[:, 2:].shape), atol=1e-6)
    np.testing.assert_allclose(steps.obs[-1, :2], steps.obs[-1, 2:], atol=1e-5)
    with pytest.raises(Refusal, match="mark one with G"):
        point_maze(layout=["####", "#S.#", "####"], reward="none", goal_in_observation=True)
    assert point_maze(layout=["####", "#S.#", "####"], reward="none").spec.success_return is None
    with pytest.raises(Refusal, match="did you mean spiral"):
        point_maze(layout="spirals")


def test_noise_has_its_size():
    env = point_maze(layout=["#####", "#...#", "#.S.#", "#..G#", "#####"], noise=0.1, max_step=1.0)
    assert not env.spec.deterministic
    keys = jax.random.split(jax.random.key(0), 20_000)
    state = env.reset(keys[0])[0]
    moved = jax.jit(jax.vmap(lambda key: env.step(state, key, jnp.float32([0.3, 0.0]))[0].position - state.position))(keys)
    np.testing.assert_allclose(moved.mean(0), [0.3, 0.0], atol=0.004)
    np.testing.assert_allclose(moved.std(0), [0.1, 0.1], atol=0.003)


def test_numbers_may_be_traced():
    def end(max_step, noise):
        env = point_maze(layout=ROOM, max_step=max_step, noise=noise)
        return env.step(env.reset(jax.random.key(0))[0], jax.random.key(1), jnp.float32([0, 1]))[0].position[1]

    moved = jax.jit(jax.vmap(end))(jnp.float32([0.1, 1.0]), jnp.float32([0.0, 0.0]))
    np.testing.assert_allclose(moved, [1.6, 2.5], atol=1e-5)


def test_pictures_of_every_layout():
    for name in ("u", "four_rooms"):
        env = point_maze(layout=name)
        image = env.render(env.reset(jax.random.key(0))[0])
        rows, columns = env.spec.grid
        assert image.shape == (16 * rows, 16 * columns, 3) and image.dtype == np.uint8
        assert len(np.unique(image.reshape(-1, 3), axis=0)) == 4  # floor, wall, goal, point


def test_squares_can_be_counted():
    """Beside ``exploration.key=envs.point_maze.square``: two steps in one square, one in the next, and back."""
    env = point_maze(layout=ROOM)
    _, steps = run(env, [[0, 0.1], [0, 0.1], [0, 1], [0, -1]])
    no = jnp.zeros((4, 1), bool)
    steps = jax.tree.map(lambda x: x[:, None], steps)
    lived = Transition(steps.obs, jnp.zeros((4, 1, 2)), steps.reward, steps.obs, no, no, no, steps.info)
    _, paid = play(counts(env.spec, key="envs.point_maze.square", capacity=64), lived)
    np.testing.assert_allclose(paid[:, 0], [1, 2**-0.5, 1, 3**-0.5], rtol=1e-6)
    assert square(lived).shape == (4, 1, 2)
