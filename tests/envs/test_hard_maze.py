"""HardMaze: kinematics by the published formula, lasers by marching, walls, and what pays."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from envs.fastsim import LASERS, edges, robot
from envs.hard_maze import FASTSIM, KHEPERAX, hard_maze

KEY = jax.random.PRNGKey(0)


def run(env, state, actions):
    return jax.jit(lambda s, a: jax.lax.scan(lambda s, x: (lambda out: (out[0], out))(env.step(s, KEY, x)), s, a))(state, jnp.asarray(actions, jnp.float32))[1]


def posture(x, y, heading, left, right):
    """One move in plain Python: rotate by heading - pi / 2, add."""
    a = (right - left) / 20
    if abs(a) > 1e-10:
        r = left / a + 10
        dx, dy = (math.cos(a) - 1) * r, math.sin(a) * r
    else:
        dx, dy = 0.0, left
    turn = heading - math.pi / 2
    return x + dx * math.cos(turn) - dy * math.sin(turn), y + dx * math.sin(turn) + dy * math.cos(turn), heading + a


def test_the_robot_moves_by_the_formula():
    env = hard_maze()
    rng = np.random.default_rng(0)
    actions = rng.uniform(-1, 1, (40, 2))
    actions[::7, 1] = actions[::7, 0]  # straight on
    states, _ = run(env, env.reset(KEY)[0], actions)
    x, y, heading = 60.0, 450.0, math.pi / 4
    for i, (left, right) in enumerate(actions):
        x, y, heading = posture(x, y, heading, left, right)
        np.testing.assert_allclose(states.place[i], [x, y], atol=2e-3)
        np.testing.assert_allclose(np.cos(states.heading[i] - heading), 1.0, atol=1e-6)


def distance_to_walls(place, layout):
    """Of a point to the nearest wall or border, below 0 inside."""
    found = []
    for start, end in np.asarray(layout.walls, float):
        along = end - start
        share = np.clip(np.dot(place - start, along) / np.dot(along, along), 0, 1)
        found.append(np.linalg.norm(place - start - share * along) - layout.half)
    return min([*found, *(place - layout.border), *(layout.side - layout.border - place)])


@pytest.mark.parametrize(("name", "layout"), [("fastsim", FASTSIM.arena), ("kheperax", KHEPERAX.arena)])
def test_lasers_see_the_nearest_edge(name, layout):
    """Against marching in small steps, from places that are free."""
    env, rng = hard_maze(layout=name), np.random.default_rng(1)
    observe = jax.jit(lambda state: env.step(state, KEY, jnp.zeros(2))[1].obs)
    start, checked = env.reset(KEY)[0], 0
    step = layout.reach / 400
    corners = edges(layout)
    while checked < 12:
        place, heading = rng.uniform(0, layout.side, 2), rng.uniform(-np.pi, np.pi)
        if distance_to_walls(place, layout) < 2 * layout.radius:
            continue
        checked += 1
        seen = np.asarray(observe(start._replace(place=jnp.asarray(place, jnp.float32), heading=jnp.float32(heading))))[:3]
        for value, angle in zip(seen, LASERS, strict=True):
            ray = place + np.arange(401)[:, None] * step * np.array([np.cos(heading + angle), np.sin(heading + angle)])
            crossed = [crossing(ray[i], ray[i + 1], corners) for i in range(400)]
            wanted = crossed.index(True) * step if True in crossed else layout.reach
            assert wanted - 1e-4 * layout.side <= value <= wanted + step + 1e-4 * layout.side


def crossing(p, q, segments) -> bool:
    """Whether p-q crosses one of the segments, by orientation."""

    def side(a, b, c):
        return (b[..., 0] - a[..., 0]) * (c[..., 1] - a[..., 1]) - (b[..., 1] - a[..., 1]) * (c[..., 0] - a[..., 0])

    a, b = segments[:, 0], segments[:, 1]
    p, q = np.broadcast_to(p, a.shape), np.broadcast_to(q, a.shape)
    return bool(np.any((side(a, b, p) * side(a, b, q) <= 0) & (side(p, q, a) * side(p, q, b) <= 0)))


@pytest.mark.parametrize("layout", ["fastsim", "kheperax"])
def test_no_wall_is_entered_and_a_robot_that_is_stopped_turns(layout):
    env = hard_maze(layout=layout)
    made = {"fastsim": FASTSIM, "kheperax": KHEPERAX}[layout].arena
    actions = np.repeat(np.random.default_rng(2).uniform(-0.3, 1, (30, 2)), 40, axis=0)
    states, told = run(env, env.reset(KEY)[0], actions)
    places = np.asarray(states.place, float)
    assert min(distance_to_walls(place, made) for place in places) > made.radius - 1e-3 * made.side
    touched = np.asarray(states.touched).any(-1)
    assert touched.any() and (~touched).any()
    np.testing.assert_array_equal(places[1:][touched[1:]], places[:-1][touched[1:]])
    assert np.any(np.abs(np.diff(np.asarray(states.heading)))[touched[1:]] > 1e-4)
    np.testing.assert_array_equal(np.asarray(told.obs)[:, 3:], np.asarray(states.touched, np.float32))


def test_bumpers_tell_left_from_right():
    """Beside the left border with the heading upwards (y grows): the wall is at the left."""
    env = hard_maze()
    state = env.reset(KEY)[0]._replace(place=jnp.array([18.0, 300.0]), heading=jnp.float32(np.pi / 2))
    _, told = env.step(state, KEY, jnp.zeros(2))
    np.testing.assert_array_equal(told.obs[3:], [1.0, 0.0])
    _, told = env.step(state._replace(heading=jnp.float32(-np.pi / 2)), KEY, jnp.zeros(2))
    np.testing.assert_array_equal(told.obs[3:], [0.0, 1.0])


@pytest.mark.parametrize(("place", "paid", "area"), [((60.0, 60.0), 1.0, 1), ((60.0, 85.0), 0.5, 1), ((120.0, 200.0), 0.6, 2), ((300.0, 300.0), 0.0, 0)])
def test_the_last_step_pays(place, paid, area):
    env = hard_maze(max_steps=2)
    states, told = run(env, env.reset(KEY)[0]._replace(place=jnp.array(place)), np.zeros((2, 2)))
    np.testing.assert_allclose(told.reward, [0.0, paid], atol=1e-5)
    np.testing.assert_array_equal(told.info["area"], [0, area])
    np.testing.assert_array_equal(told.truncated, [False, True])
    np.testing.assert_allclose(told.info["descriptor"][-1], np.array(place) / 600, atol=1e-6)


def test_the_published_code_pays_by_the_place_before():
    late, now = hard_maze(max_steps=1, late_reward=True), hard_maze(max_steps=1)
    state = now.reset(KEY)[0]._replace(place=jnp.array([60.0, 60.0]))
    move = jnp.array([4.0, 4.0])
    assert float(late.step(state, KEY, move)[1].reward) == 1.0
    np.testing.assert_allclose(float(now.step(state, KEY, move)[1].reward), 1 - 4 / 50, atol=1e-5)


def test_lasers_and_free_moves_are_those_of_kheperax():
    """``laser_measures`` and ``move`` of kheperax 0.2.0 (jax 0.9.2) in its standard maze, to five places; its lasers go the other way round."""
    fastsim = robot(KHEPERAX.arena)
    poses = [(0.15, 0.15, np.pi / 2), (0.4, 0.3, 0.7), (0.8, 0.8, 2.0), (0.15, 0.6, -1.2), (0.6, 0.3, 3.0)]
    measured = [(0.14142, 0.2, 0.2), (0.2, 0.106, 0.10957), (0.2, 0.2, 0.18549), (0.1102, 0.2, 0.10926), (0.00109, 0.2, 0.2)]
    lasers = jax.jit(jax.vmap(lambda pose: fastsim.lasers(pose[:2], pose[2])))(jnp.array(poses, jnp.float32))
    np.testing.assert_allclose(lasers[:, ::-1], measured, atol=2e-5)
    drive = jax.jit(lambda pose, action: fastsim.drive(pose[:2], pose[2], *(action * KHEPERAX.speed)))
    pose, found = jnp.array(poses[0], jnp.float32), []
    for action in [(1, 1), (1, 0.5), (-0.3, 0.8), (0.2, -0.9), (1, 0.9)]:
        place, heading, touched = drive(pose, jnp.array(action, jnp.float32))
        pose = jnp.append(place, heading)
        found.append(pose.tolist())
        assert not touched.any()
    moved = [(0.15, 0.175, 1.5708), (0.15385, 0.19321, 1.15413), (0.1536, 0.19924, 2.0708), (0.15395, 0.1908, 1.15413), (0.16446, 0.21209, 1.0708)]
    np.testing.assert_allclose(found, moved, atol=2e-5)
