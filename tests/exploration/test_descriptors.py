"""Signatures of paths, and autoencoders of pictures: known answers."""

from __future__ import annotations

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from envs.pictures import disc
from envs.point2d import point2d
from exploration.autoencoder import UpConv, autoencoder
from exploration.watching import joined, pictures, piece, signature, size_of

ORDER = 4


def signature_of(path: np.ndarray, order: int = ORDER) -> list[np.ndarray]:
    levels = [jnp.zeros((path.shape[1],) * level) for level in range(1, order + 1)]
    for step in np.diff(path, axis=0):
        levels = joined(levels, piece(jnp.asarray(step, jnp.float32), order))
    return [np.asarray(level) for level in levels]


SQUARE = np.array([[0, 0], [1, 0], [1, 1], [0, 1], [0, 0]], float)
PATH = np.random.default_rng(0).normal(size=(9, 2)).cumsum(0)


def test_signature_of_the_unit_square():
    """Closed, so level 1 is 0; counter-clockwise, so twice the area between the mixed terms of level 2 is 2."""
    first, second = signature_of(SQUARE, 2)
    np.testing.assert_allclose(first, [0, 0], atol=1e-6)
    assert second[0, 1] - second[1, 0] == pytest.approx(2.0)


def test_signature_level_1_is_where_it_went_and_level_2_shuffles():
    first, second, *_ = signature_of(PATH)
    np.testing.assert_allclose(first, PATH[-1] - PATH[0], rtol=1e-5)
    np.testing.assert_allclose(second + second.T, np.outer(first, first), rtol=1e-4, atol=1e-4)


def test_signature_is_that_of_iterated_sums_in_the_limit():
    """Level 3 of a smooth path by sums over i < j < k of a fine cut."""
    time = np.linspace(0, 1, 400)
    path = np.stack([np.sin(3 * time), time**2], axis=-1)
    steps = np.diff(path, axis=0)
    wanted = np.zeros((2, 2, 2))
    one = np.cumsum(steps, axis=0) - steps
    for a, b, c in itertools.product(range(2), repeat=3):
        two = np.cumsum(one[:, a] * steps[:, b]) - one[:, a] * steps[:, b]
        wanted[a, b, c] = np.sum(two * steps[:, c])
    levels = [jnp.zeros((2,) * level) for level in range(1, 4)]
    (levels, _) = jax.lax.scan(lambda s, d: (joined(s, piece(d, 3)), None), levels, jnp.asarray(steps, jnp.float32))
    np.testing.assert_allclose(levels[2], wanted, atol=0.01)


def test_signature_agrees_with_signax():
    """``signax.signature(path, depth=3)`` of signax 0.2.1 (jax 0.9.2), flattened, to five places."""
    path = np.array([[-0.4, 0.3, 0.1], [-2.5, -2.1, 0.9], [-2.0, -4.0, 0.1], [-1.9, -4.9, 2.9], [-2.4, -4.3, 2.6], [-1.9, -5.0, 3.0]])
    wanted = [-1.5, -5.3, 2.9, 1.125, 7.605, -3.875, 0.345, 14.045, -12.09, -0.475, -3.28, 4.205, -0.5625, -6.27083, 2.7295, 1.13417, -17.11683, 16.78833]
    wanted += [0.3535, 2.60583, -4.90167, -0.82583, -6.07283, 1.14333, 2.12217, -24.81283, 29.14334, 0.20333, 5.79033, -14.85634, 0.1795, 2.66033, -1.43417]
    wanted += [-0.34617, 5.79683, -5.34833, 0.02833, -2.08183, 4.06483]
    found = np.concatenate([level.reshape(-1) for level in signature_of(path, 3)])
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-4)


def test_signature_knows_neither_speed_nor_place_nor_what_is_taken_back():
    slow = np.concatenate([np.linspace(a, b, 4)[:-1] for a, b in itertools.pairwise(PATH)] + [PATH[-1:]])
    for same in (slow, PATH + 5.0):
        for a, b in zip(signature_of(PATH), signature_of(same), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-3)
    for level in signature_of(np.concatenate([PATH, PATH[::-1]])):
        np.testing.assert_allclose(level, 0, atol=2e-3)
    assert [size_of(2, 5), size_of(3, 5)] == [62, 363]


def test_a_watched_episode_has_the_signature_of_its_observations():
    env = point2d(max_steps=5)
    watcher = signature(3, time=True)(env, 5)
    world, obs = env.reset(jax.random.PRNGKey(0))
    carry, path = watcher.begin(world, obs), [np.array([0.0, *obs])]
    for t in range(5):
        world, new = env.step(world, jax.random.PRNGKey(0), jnp.array([np.cos(t), np.sin(t)]))
        carry = watcher.step(carry, jnp.int32(t), world, new.obs)
        path.append(np.array([(t + 1) / 5, *new.obs]))
    wanted = np.concatenate([level.reshape(-1) for level in signature_of(np.stack(path), 3)])
    np.testing.assert_allclose(watcher.outcome(carry), wanted, atol=1e-6)


def test_pictures_are_those_of_their_steps_and_the_last_is_repeated():
    """Two of six steps: after steps 3 and 5 (from 0); an episode that ends after step 3 shows its end twice."""
    env = point2d(max_steps=6)
    watcher = pictures(2, 32)(env, 6)
    world, obs = env.reset(jax.random.PRNGKey(0))
    carry, worlds = watcher.begin(world, obs), []
    for t in range(6):
        world, new = env.step(world, jax.random.PRNGKey(0), jnp.ones(2))
        carry = watcher.step(carry, jnp.int32(t), world, new.obs)
        worlds.append(world)
        shown = np.asarray(watcher.outcome(carry))
        for place, wanted in zip(shown, (min(t, 3), t), strict=True):
            whole = np.asarray(env.render(worlds[wanted])).reshape(32, 2, 32, 2, 3).mean((1, 3))
            np.testing.assert_allclose(place, whole, atol=0.51)


def test_transposed_convolutions_undo_the_shape_of_convolutions_and_are_linear():
    """The adjoint of a 4 x 4 convolution of stride 2 and padding 1 by jax's own, with the same numbers."""
    layer, x = UpConv(3), jax.random.normal(jax.random.PRNGKey(0), (2, 5, 5, 2))
    params = layer.init(jax.random.PRNGKey(1), x)
    kernel = params["params"]["kernel"]  # [row, column, (i, j, channel), features]
    full = np.zeros((4, 4, 2, 3), np.float32)
    for row, column, i, j in itertools.product((0, 1), repeat=4):
        # output 2 y + row sees input y + row + i - 1: in a convolution of the input, widened by zeros, that is tap 2 i + row of four
        full[2 * i + row, 2 * j + column] = kernel[row, column].reshape(2, 2, 2, 3)[i, j]
    wanted = jax.lax.conv_general_dilated(
        x, full, (1, 1), ((2, 2), (2, 2)), lhs_dilation=(2, 2), dimension_numbers=("NHWC", "HWIO", "NHWC")
    )  # fmt: skip
    np.testing.assert_allclose(layer.apply(params, x), wanted, atol=1e-5)


@pytest.mark.medium
def test_what_was_not_seen_in_training_is_surprising():
    """Trained on discs at the left only, pictures with one at the right are twice as surprising as others of the left; who is not known changes nothing."""
    rng = np.random.default_rng(0)

    def drawn(low, high, number):
        places = jnp.asarray(rng.uniform([low, -0.8], [high, 0.8], (number, 2)), jnp.float32)
        return jax.vmap(lambda place: disc(jnp.zeros((16, 16, 3), jnp.uint8), place, 4.0, (255, 255, 255)))(places)[:, None]

    left, held, right = drawn(-0.8, -0.2, 160), drawn(-0.8, -0.2, 32), drawn(0.3, 0.8, 32)
    network = autoencoder(1, 16, 10, 3e-3, 60)
    train = jax.jit(network.train)
    known = jnp.arange(160) < 128
    model = train(network.init(jax.random.PRNGKey(1)), jax.random.PRNGKey(2), left, known)
    strange, usual = (np.asarray(network.describe(model, some)[1]) for some in (right, held))
    assert strange.mean() > 2 * usual.mean() and int(model.trained) == 1, (strange.mean(), usual.mean())
    other = train(network.init(jax.random.PRNGKey(1)), jax.random.PRNGKey(2), left.at[128:].set(7), known)
    jax.tree.map(np.testing.assert_array_equal, model, other)
