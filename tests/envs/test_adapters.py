"""The adapters, step for step against the libraries they adapt, and two worlds against Gymnasium's own."""

import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnasium.envs.classic_control.cartpole import CartPoleEnv
from gymnasium.envs.classic_control.mountain_car import MountainCarEnv

from envs.builder import Refusal
from envs.gymnax import gymnax
from envs.xminigrid import xminigrid

LANES = 8


def leaf_types(tree):
    return [(x.shape, x.dtype, x.weak_type) for x in jax.tree.leaves(tree)]


def check_contract(env):
    """State and obs keep structure and dtypes; reward f32[], ends bool[]; obs fits its space. Nothing is compiled."""
    key = jax.random.key(0)
    action = jnp.zeros(env.spec.action.shape, jnp.float32 if env.spec.action.shape else jnp.int32)
    state, obs = jax.eval_shape(env.reset, key)
    after, step = jax.eval_shape(env.step, state, key, action)
    assert jax.tree.structure(state) == jax.tree.structure(after) and leaf_types(state) == leaf_types(after)
    assert leaf_types(obs) == leaf_types(step.obs) == [(env.spec.observation.shape, step.obs.dtype, False)]
    assert leaf_types(step[1:4]) == [((), jnp.float32, False), ((), bool, False), ((), bool, False)]
    assert set(step.info) == set(env.spec.info)
    assert not any(weak for _, _, weak in leaf_types((after, step)))


@pytest.mark.parametrize("id", ["CartPole-v1", "MountainCar-v0"])
def test_gymnax_like_gymnaxs_own_step(id):
    """gymnax's auto-resetting step gives the successor as info["final_observation"]; ours gives it as obs."""
    import gymnax as library

    limit = 30
    env = gymnax(id=id, max_steps_in_episode=limit)
    world, params = library.make(id)
    params = params.replace(max_steps_in_episode=limit)

    def both(carry, key):
        state, theirs = carry
        keys = jax.random.split(key, LANES)
        step_keys = jax.vmap(lambda k: jax.random.split(k)[0])(keys)  # as gymnax derives it
        actions = jax.random.randint(key, (LANES,), 0, env.spec.action.n)
        ours, step = jax.vmap(env.step)(state, step_keys, actions)
        _, theirs, reward, terminated, truncated, info = jax.vmap(world.step, (0, 0, 0, None))(keys, theirs, actions, params)
        ended = terminated | truncated
        ours = jax.tree.map(lambda a, b: jnp.where(ended, jnp.asarray(b, a.dtype), a), ours, theirs)  # restart where they did
        return (ours, theirs), (step, info["final_observation"], reward, terminated, truncated)

    def run(keys):
        state, _ = jax.vmap(env.reset)(keys)
        _, theirs = jax.vmap(world.reset_env, (0, None))(keys, params)
        return jax.lax.scan(both, (state, theirs), jax.random.split(jax.random.key(1), 120))[1]

    step, obs, reward, terminated, truncated = jax.tree.map(np.asarray, jax.jit(run)(jax.random.split(jax.random.key(0), LANES)))
    np.testing.assert_allclose(step.obs, obs, rtol=1e-4, atol=1e-5)  # one program fuses differently from the other
    np.testing.assert_array_equal(step.reward, reward)
    np.testing.assert_array_equal(step.terminated, terminated)
    np.testing.assert_array_equal(step.truncated, truncated)
    assert truncated.any() and (terminated.any() if id == "CartPole-v1" else not terminated.any())


def test_time_limit_truncates_and_does_not_terminate():
    env = gymnax(id="MountainCar-v0", max_steps_in_episode=7)
    assert env.spec.max_steps == 7
    state, _ = env.reset(jax.random.key(0))
    steps = jax.jit(lambda s: jax.lax.scan(lambda s, k: env.step(s, k, jnp.int32(1)), s, jax.random.split(jax.random.key(0), 7))[1])(state)
    assert not steps.terminated.any()
    assert list(np.asarray(steps.truncated)) == [False] * 6 + [True]
    np.testing.assert_allclose(steps.obs[-1, 0] - steps.obs[-2, 0], steps.obs[-1, 1], atol=1e-6)  # position moved by its velocity


def gymnasium_steps(world, states, actions):
    """(obs, reward, terminated) of single steps of a Gymnasium classic-control world from given states."""
    found = []
    for state, action in zip(states, actions, strict=True):
        world.reset(seed=0)
        world.state = np.asarray(state, np.float64)
        found.append(world.step(int(action))[:3])
    return [np.array(column) for column in zip(*found, strict=True)]


def gymnax_steps(id, states, actions):
    """The same from ours; a state's fields are set from the columns of ``states``, in gymnax's order."""
    env = gymnax(id=id)
    start, _ = env.reset(jax.random.key(0))
    names = {"CartPole-v1": ("x", "x_dot", "theta", "theta_dot"), "MountainCar-v0": ("position", "velocity")}[id]

    def one(values, action):
        state = start.replace(**{name: values[i] for i, name in enumerate(names)})
        return env.step(state, jax.random.key(0), action)[1]

    return jax.jit(jax.vmap(one))(jnp.asarray(states, jnp.float32), jnp.asarray(actions, jnp.int32))


@pytest.mark.parametrize("id", ["CartPole-v1", "MountainCar-v0"])
def test_gymnax_like_gymnasium(id):
    rng = np.random.default_rng(0)
    if id == "CartPole-v1":
        world, bound = CartPoleEnv(), np.array([2.4, 3.0, 0.2, 3.0])
        states = rng.uniform(-bound, bound, (300, 4)).astype(np.float32)
    else:
        world = MountainCarEnv()
        states = rng.uniform([-1.2, -0.07], [0.5, 0.07], (300, 2)).astype(np.float32)
        states[:20] = [-1.2, -0.05]  # at the wall
        states[20:60, 0] = 0.47  # some reach the flag
    actions = rng.integers(0, world.action_space.n, 300)
    obs, reward, terminated = gymnasium_steps(world, states, actions)
    ours = gymnax_steps(id, states, actions)
    np.testing.assert_allclose(ours.obs, obs, atol=1e-5)
    np.testing.assert_allclose(ours.reward, reward)
    np.testing.assert_array_equal(ours.terminated, terminated)
    assert 5 < terminated.sum() < 295


def test_gymnax_spec_and_contract():
    env = gymnax()
    assert env.spec.success_return == 475 and env.spec.deterministic and env.spec.max_steps == 500
    np.testing.assert_allclose(env.spec.observation.high[[0, 2]], [4.8, 0.41887903], rtol=1e-6)
    for id in ("CartPole-v1", "MountainCarContinuous-v0", "Breakout-MinAtar", "Catch-bsuite", "UmbrellaChain-bsuite", "FrozenLake-misc"):
        check_contract(gymnax(id=id))


def test_gymnax_can_be_built_inside_a_traced_function_under_strict_promotion():
    def successor(key):
        env = gymnax(id="MountainCar-v0")
        state, _ = env.reset(key)
        return env.step(state, key, jnp.int32(0))[1].obs

    with jax.numpy_dtype_promotion("strict"), jax.numpy_rank_promotion("raise"):
        inside = jax.jit(successor)(jax.random.key(3))
    np.testing.assert_allclose(inside, successor(jax.random.key(3)), atol=1e-6)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"id": "Cartpole-v1"}, "did you mean CartPole-v1.*legal: Acrobot-v1"),
        ({"max_step": 5}, "env.max_step: .*did you mean max_steps_in_episode.*gravity"),
        ({"max_steps_in_episode": 0}, r"max_steps_in_episode=0 is not legal .* whole number, 1 or more"),
        ({"gravity": "low"}, "gravity='low' is not legal .* a number"),
    ],
)
def test_gymnax_refuses(arguments, message):
    with pytest.raises(Refusal, match=message):
        gymnax(**arguments)


@pytest.mark.parametrize(("builder", "package", "extra"), [(gymnax, "gymnax", r"-e \."), (xminigrid, "xminigrid", r"\[minigrid\]")])
def test_a_missing_package_names_its_extra(monkeypatch, builder, package, extra):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(Refusal, match=rf"needs the package '{package}'.*{extra}"):
        builder()


def compiled_minigrid(id, **arguments):
    """(env, library's world, params, jitted reset and step of ours)."""
    import xminigrid as library

    env = xminigrid(id=id, **arguments)
    return env, *library.make(id), jax.jit(env.reset), jax.jit(env.step)


@pytest.mark.medium
def test_xminigrid_like_xminigrids_own_step():
    env, world, params, _, _ = compiled_minigrid("MiniGrid-DoorKey-8x8", show_carried=False)
    keys = jax.random.split(jax.random.key(0), LANES)
    actions = jax.random.randint(jax.random.key(1), (300, LANES), 0, 6)

    def both(carry, actions):
        state, theirs = carry
        state, step = jax.vmap(env.step)(state, keys, actions)
        theirs = jax.vmap(world.step, (None, 0, 0))(params, theirs, actions)
        return (state, theirs), (step, state.grid, state.agent, theirs.replace(state=theirs.state.replace(key=None)))

    def run(keys):
        start = jax.vmap(env.reset)(keys)[0], jax.vmap(world.reset, (None, 0))(params, keys)
        return jax.lax.scan(both, start, actions)[1]

    step, grid, agent, theirs = jax.tree.map(np.asarray, jax.jit(run)(keys))
    np.testing.assert_array_equal(step.obs, theirs.observation)
    np.testing.assert_array_equal(step.reward, theirs.reward)
    np.testing.assert_array_equal(step.terminated, theirs.discount == 0)
    np.testing.assert_array_equal(grid, theirs.state.grid)
    np.testing.assert_array_equal(step.info["position"], theirs.state.agent.position)
    np.testing.assert_array_equal(agent.pocket, theirs.state.agent.pocket)
    assert len(np.unique(agent.pocket[..., 0])) == 2, "some lane picked the key up"
    assert env.spec.observation.contains(step.obs[0, 0]) and not step.truncated.any()
    assert list(env.spec.observation.high[0, 0]) == [12, 11]


@pytest.mark.medium
def test_xminigrid_reward_limit_views_and_picture():
    env, world, params, reset, step = compiled_minigrid("MiniGrid-Empty-5x5", view="full", max_steps=100)
    state, obs = reset(jax.random.key(0))
    assert obs.shape == (5, 5, 3) and obs.dtype == np.uint8 and int(obs[1, 1, 2]) == 2  # at (1, 1), facing right (1)
    for action in (0, 0, 1, 0, 0):  # forward twice, turn right, forward twice: on the goal
        state, out = step(state, jax.random.key(0), action)
    assert bool(out.terminated) and not bool(out.truncated)
    np.testing.assert_allclose(out.reward, 1 - 0.9 * 5 / 100, rtol=1e-6)
    assert list(np.asarray(out.info["position"])) == [3, 3] and np.asarray(out.obs)[..., 2].sum() == np.asarray(out.obs)[3, 3, 2] == 3
    assert env.spec.success_return == 0.05 and env.spec.max_steps == 100
    image = env.render(state)
    assert image.dtype == np.uint8 and image.shape == (160, 160, 3)
    for _ in range(95):
        assert not bool(out.truncated)
        state, out = step(state, jax.random.key(0), 1)
    assert bool(out.truncated) and not bool(out.terminated)


@pytest.mark.medium
def test_xminigrid_shows_what_is_carried_and_hides_behind_walls():
    env, _, _, reset, step = compiled_minigrid("MiniGrid-DoorKey-5x5", show_carried=True, see_through=False)
    open_view = jax.jit(xminigrid(id="MiniGrid-DoorKey-5x5").reset)
    key = jax.random.key(0)
    state, obs = reset(key)
    seen, all_codes = np.asarray(obs), np.asarray(open_view(key)[1])
    own = env.spec.observation.shape[0] - 1, env.spec.observation.shape[1] // 2
    assert list(seen[own]) == [0, 0]
    others = np.ones(seen.shape[:2], bool)
    others[own] = False
    hidden = (seen != all_codes).any(-1) & others
    assert hidden.any() and (seen[hidden] == 0).all()
    carrying = state.replace(agent=state.agent.replace(pocket=jnp.uint8([7, 5])))  # a yellow key
    assert list(np.asarray(step(carrying, key, 1)[1].obs[own])) == [7, 5]


def test_xminigrid_contract():
    for arguments in ({"id": "MiniGrid-Empty-5x5", "view": "full"}, {"id": "MiniGrid-Unlock"}, {"id": "MiniGrid-MemoryS8"}):
        env = xminigrid(**arguments)
        check_contract(env)
        assert env.spec.success_return == 0.05
    assert xminigrid(id="XLand-MiniGrid-R1-9x9").spec.success_return is None  # the empty ruleset never pays


def test_xminigrid_refuses():
    with pytest.raises(Refusal, match="did you mean MiniGrid-DoorKey-8x8.*legal: MiniGrid-"):
        xminigrid(id="MiniGrid-DoorKey-8x8-v0")
    with pytest.raises(Refusal, match="env.view_size=4 must be odd.*env.view_size=5"):
        xminigrid(view_size=4)
    with pytest.raises(Refusal, match="see_through=false needs env.view=partial"):
        xminigrid(view="full", see_through=False)
