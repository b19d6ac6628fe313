"""What every world promises, walked over ``cases.WORLDS``."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from envs.base import Environment, sample_action
from envs.builder import build
from envs.wrappers import wrapped
from runners.checks import parted
from tests.laws.cases import WORLDS
from tests.laws.data import assert_close, assert_equal, kinds, quick

LANES, STEPS = 3, 24
each_world = pytest.mark.parametrize("name", WORLDS)


@functools.cache
def world(name: str) -> Environment:
    own, wrappers = parted("env", WORLDS[name])
    return wrapped(build(own), **wrappers)


@functools.cache
def walk(name: str):
    """Random steps, each lane reset where its episode ended -> first obs [LANES]; and [STEPS, LANES]: states before and after, step keys,
    actions, what the steps gave."""
    env = world(name)

    def one(carry, key):
        state, obs = carry
        act, step, reset = jax.random.split(key, 3)
        action, keys = sample_action(env.spec.action, act, LANES), jax.random.split(step, LANES)
        new, timestep = jax.vmap(env.step)(state, keys, action)
        fresh = jax.vmap(env.reset)(jax.random.split(reset, LANES))
        done = timestep.terminated | timestep.truncated
        place = lambda a, b: jnp.where(done.reshape(LANES, *[1] * (a.ndim - 1)), a, b)  # noqa: E731
        return jax.tree.map(place, fresh, (new, timestep.obs)), (state, new, keys, action, timestep)

    def run(key):
        start, rest = jax.random.split(key)
        carry = jax.vmap(env.reset)(jax.random.split(start, LANES))
        return carry, jax.lax.scan(one, carry, jax.random.split(rest, STEPS))[1]

    (_, obs), rest = quick(run)(jax.random.PRNGKey(0))
    return obs, *rest


def plain(obs, at=()):
    """The observation at an index, in numpy."""
    return jax.tree.map(lambda x: np.asarray(x[at]), obs)


@functools.cache
def alone(name: str):
    return quick(world(name).step)


@each_world
def test_kinds_are_stable(name):
    env = world(name)
    key = jax.random.PRNGKey(0)
    action = sample_action(env.spec.action, key, 1)[0]
    state, obs = jax.eval_shape(env.reset, key)
    new, timestep = jax.eval_shape(env.step, state, key, action)
    assert kinds(new) == kinds(state) and kinds(timestep.obs) == kinds(obs)
    assert not any(weak for _, _, weak in kinds((state, timestep))[1])
    scalar = {"reward": jnp.float32, "terminated": bool, "truncated": bool}
    for field, dtype in scalar.items():
        value = getattr(timestep, field)
        assert value.shape == () and value.dtype == dtype, field


@each_world
def test_observations_and_info_lie_in_their_spaces(name):
    env, (first, *_, timestep) = world(name), walk(name)
    spec = env.spec
    assert set(timestep.info) == set(spec.info)
    for t in range(STEPS):
        for lane in range(LANES):
            assert spec.observation.contains(plain(timestep.obs, (t, lane))), (t, lane)
            for key, space in spec.info.items():
                value = np.asarray(timestep.info[key][t, lane])
                assert space.contains(value.item() if space.shape == () else value), key
    assert all(spec.observation.contains(plain(first, lane)) for lane in range(LANES))
    assert np.isfinite(timestep.reward).all()
    if spec.num_states is not None:
        ids = np.asarray(timestep.info["state_id"])
        assert ids.min() >= 0 and ids.max() < spec.num_states


@each_world
def test_episodes_end_at_the_limit_at_the_latest(name):
    env, (*_, timestep) = world(name), walk(name)
    done = np.asarray(timestep.terminated | timestep.truncated)
    longest = np.zeros(LANES, int)
    for row in done:
        longest = np.where(row, 0, longest + 1)
        assert env.spec.max_steps is None or (longest < env.spec.max_steps).all()
    assert done.any()


def moments(name: str):
    """((state, key, action), (successor, time step)) of some steps of the walk; the last one ends an episode."""
    _, before, after, keys, action, timestep = walk(name)
    over = np.argwhere(timestep.terminated | timestep.truncated)[0]
    for at in [(0, 0), (2, 1), (3, 2), (5, 0), tuple(over)]:
        yield jax.tree.map(lambda x: x[at], ((before, keys, action), (after, timestep)))  # noqa: B023


@each_world
def test_a_lane_equals_itself_alone_and_jit_equals_no_jit(name):
    step = alone(name)
    for taken, wanted in moments(name):
        assert_close(step(*taken), wanted)
    with jax.disable_jit():
        assert_close(world(name).step(*taken), wanted)


@each_world
def test_a_deterministic_world_does_not_use_its_key(name):
    step = alone(name)
    for n, ((state, _, action), wanted) in enumerate(moments(name)):
        if world(name).spec.deterministic:
            assert_close(step(state, jax.random.PRNGKey(100 + n), action), wanted)


@each_world
def test_a_reset_is_a_function_of_its_key(name):
    env = world(name)
    reset, key = quick(env.reset), jax.random.PRNGKey(3)
    state, obs = reset(key)
    assert_equal(reset(key), (state, obs))
    assert env.spec.observation.contains(plain(obs))
    with jax.disable_jit():
        assert_close(env.reset(key), (state, obs))


@each_world
def test_pictures(name):
    env = world(name)
    if env.render is None:
        pytest.skip("no pictures")
    image = np.asarray(env.render(env.reset(jax.random.PRNGKey(0))[0]))
    assert image.dtype == np.uint8 and image.ndim == 3 and image.shape[2] == 3 and image.std() > 0
