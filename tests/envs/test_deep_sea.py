"""DeepSea against bsuite's rules, restated here step by step in numpy, and against known values."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from envs.deep_sea import DeepSeaState, action_mapping, deep_sea, optimal_return


class Bsuite:
    """bsuite's deterministic DeepSea, with its own names, as written in its documentation and paper."""

    def __init__(self, size, mapping_seed=42, move_cost=0.01):
        self.size, self.move_cost = size, move_cost
        self.mapping = np.random.RandomState(mapping_seed).binomial(1, 0.5, [size, size])
        self.reset()

    def reset(self):
        self.row, self.column, self.bad_episode = 0, 0, False
        return self.observation()

    def observation(self):
        grid = np.zeros((self.size, self.size), np.float32)
        if self.row < self.size:
            grid[self.row, self.column] = 1.0
        return grid

    def step(self, action):
        reward = 0.0
        if action == self.mapping[self.row, self.column]:
            if self.column == self.size - 1:
                reward += 1.0
            self.column = min(self.column + 1, self.size - 1)
            reward -= self.move_cost / self.size
        else:
            if self.row == self.column:
                self.bad_episode = True
            self.column = max(self.column - 1, 0)
        self.row += 1
        return self.observation(), reward, self.row == self.size


def rollout(env, policy, episodes, seed=0):
    """(actions, time steps), both [size, episodes], of ``policy(state, u) -> action`` with u uniform in [0, 1); lane = episode."""
    size = env.spec.max_steps
    keys = jax.random.split(jax.random.key(seed), size * episodes).reshape(size, episodes)
    chance = np.random.default_rng(seed).random((size, episodes), np.float32)

    def step(states, inputs):
        actions = jax.vmap(policy)(states, inputs[1])
        states, steps = jax.vmap(env.step)(states, inputs[0], actions)
        return states, (actions, steps)

    def run(keys, chance):
        states, _ = jax.vmap(env.reset)(keys[0])
        return jax.lax.scan(step, states, (keys, chance))[1]

    return jax.tree.map(np.asarray, jax.jit(run)(keys, chance))


def right_with(probability, size):
    mapping = action_mapping(size)

    def policy(state, u):
        right = jnp.asarray(mapping)[state.row, state.column]
        return jnp.where(u < probability, right, 1 - right)

    return policy


@pytest.mark.parametrize("size", [2, 5, 10, 20, 50])
def test_always_right_earns_the_optimal_return(size):
    _, steps = rollout(deep_sea(size=size), right_with(1.0, size), 1)
    np.testing.assert_allclose(steps.reward.sum(), 0.99, atol=1e-5)
    assert optimal_return(size) == pytest.approx(0.99)
    assert not steps.info["bad_episode"].any()
    np.testing.assert_array_equal(steps.info["state_id"][:, 0], [t * size + t for t in range(1, size)] + [size * size])


def test_mapping_is_numpys_for_the_seed():
    np.testing.assert_array_equal(action_mapping(10)[0], [0, 1, 1, 1, 0, 0, 0, 1, 1, 1])  # u > 0.5, u = 0.37 0.95 0.73 0.60 ...
    assert (action_mapping(10, randomize_actions=False) == 1).all()
    assert (action_mapping(10) != action_mapping(10, mapping_seed=1)).any()


@pytest.mark.parametrize("size", [3, 10])
def test_step_for_step_like_bsuite(size):
    env, reference = deep_sea(size=size), Bsuite(size)
    episodes = 3000 // size
    assert (env.reset(jax.random.key(0))[1] == reference.reset()).all()
    actions, steps = rollout(env, right_with(0.75, size), episodes)  # so that deep cells are reached as well
    rewarded = 0
    for lane in range(episodes):
        reference.reset()
        for t in range(size):
            obs, reward, last = reference.step(actions[t, lane])
            assert (steps.obs[t, lane] == obs).all()
            assert steps.reward[t, lane] == pytest.approx(reward, abs=1e-6)
            assert steps.terminated[t, lane] == last
            assert steps.info["bad_episode"][t, lane] == reference.bad_episode
            rewarded += reward > 0.5
    assert rewarded > 0


def test_random_actions_find_the_treasure_once_in_two_to_the_n():
    episodes = 1 << 15
    _, steps = rollout(deep_sea(size=4), right_with(0.5, 4), episodes)
    rate = float((steps.reward.sum(0) > 0.5).mean())
    assert rate == pytest.approx(1 / 16, abs=4 * np.sqrt(15 / 256 / episodes))


def test_ends_by_termination_after_size_steps():
    _, steps = rollout(deep_sea(size=6), right_with(0.5, 6), 64)
    assert not steps.truncated.any()
    assert not steps.terminated[:-1].any() and steps.terminated[-1].all()
    assert not steps.obs[-1].any()
    assert (steps.info["state_id"][-1] == 36).all() and (steps.info["state_id"][:-1] < 36).all()


def test_bad_episode_is_left_on_the_diagonal_and_stays():
    size = 6
    step, mapping = jax.jit(deep_sea(size=size).step), action_mapping(size)

    def left(row, column, bad=False):
        state = DeepSeaState(jnp.int32(row), jnp.int32(column), jnp.bool_(bad))
        return bool(step(state, jax.random.key(0), jnp.int32(1 - mapping[row, column]))[1].info["bad_episode"])

    assert left(0, 0) and left(3, 3)
    assert not left(3, 1)  # right failed before: the treasure was out of reach already
    assert left(3, 1, bad=True)


def test_stochastic_moves_and_noise():
    size, episodes = 10, 40_000
    env = deep_sea(size=size, stochastic=True)
    _, steps = rollout(env, right_with(1.0, size), episodes)
    assert not steps.info["bad_episode"].any()
    moved = float((steps.info["state_id"][0] == size + 1).mean())
    assert moved == pytest.approx(0.9, abs=4 * np.sqrt(0.09 / episodes))
    np.testing.assert_allclose(steps.reward[:-1], -0.001, atol=1e-7)
    assert optimal_return(size, stochastic=True) == pytest.approx(0.3774, abs=1e-4)
    returns = steps.reward.sum(0)
    assert returns.mean() == pytest.approx(optimal_return(size, stochastic=True), abs=4 * returns.std() / np.sqrt(episodes))
    column = steps.info["state_id"][-2] % size
    at_treasure, between = column == size - 1, (column > 0) & (column < size - 1)
    noise = steps.reward[-1][at_treasure] - 1 + 0.001
    assert at_treasure.mean() == pytest.approx(0.9**9, abs=0.01)
    assert noise.mean() == pytest.approx(0, abs=4 / np.sqrt(at_treasure.sum())) and noise.std() == pytest.approx(1, abs=0.03)
    np.testing.assert_allclose(steps.reward[-1][between], -0.001, atol=1e-7)
    assert not env.spec.deterministic and env.spec.success_return is None


def test_left_end_is_noisy_too():
    env = deep_sea(size=4, stochastic=True)
    state = DeepSeaState(jnp.int32(3), jnp.int32(0), jnp.bool_(True))
    left = jnp.int32(1 - action_mapping(4)[3, 0])
    rewards = jax.jit(jax.vmap(lambda key: env.step(state, key, left)[1].reward))(jax.random.split(jax.random.key(0), 4000))
    assert float(rewards.mean()) == pytest.approx(0, abs=0.07) and float(rewards.std()) == pytest.approx(1, abs=0.05)


def test_move_cost_can_be_traced_and_state_keeps_its_dtypes():
    def first_reward(cost):
        env = deep_sea(size=5, move_cost=cost)
        state, _ = env.reset(jax.random.key(0))
        after, steps = env.step(state, jax.random.key(0), jnp.int32(action_mapping(5)[0, 0]))
        assert [(x.dtype, x.weak_type) for x in state] == [(x.dtype, x.weak_type) for x in after]
        return steps.reward

    np.testing.assert_allclose(jax.jit(jax.vmap(first_reward))(jnp.array([0.0, 0.5])), [0.0, -0.1], atol=1e-7)


def test_render_shows_the_diver():
    env = deep_sea(size=5)
    state, _ = env.reset(jax.random.key(0))
    image = env.render(state)
    assert image.shape == (40, 40, 3) and image.dtype == np.uint8
    assert (image[:8, :8] == 255).all() and (image[-8:, -8:] == (240, 200, 60)).all()
