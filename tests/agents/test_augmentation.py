"""Random shifts: known answers."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnasium import spaces

from agents.augmentation import augmentation, random_shift, shifted
from envs.builder import Refusal

KEY, PAD, SIDE = jax.random.PRNGKey(0), 2, 5
PICTURE = jnp.arange(SIDE * (SIDE + 1) * 2, dtype=jnp.uint8).reshape(SIDE, SIDE + 1, 2)


def windows():
    """All windows of the padded picture, by numpy: window -> (row, column) where it begins."""
    padded = np.pad(np.asarray(PICTURE), ((PAD, PAD), (PAD, PAD), (0, 0)), mode="edge")
    places = [(row, column) for row in range(2 * PAD + 1) for column in range(2 * PAD + 1)]
    return {padded[row : row + SIDE, column : column + SIDE + 1].tobytes(): (row, column) for row, column in places}


def test_a_shift_of_zero_is_the_identity_and_others_repeat_the_edge():
    moved = shifted(jnp.stack([PICTURE] * 3), jnp.asarray([[0, 0], [1, 0], [0, -2]]))
    assert moved.dtype == jnp.uint8
    np.testing.assert_array_equal(moved[0], PICTURE)
    np.testing.assert_array_equal(moved[1], jnp.concatenate([PICTURE[:1], PICTURE[:-1]]))  # down
    np.testing.assert_array_equal(moved[2], jnp.concatenate([PICTURE[:, 2:], PICTURE[:, -1:], PICTURE[:, -1:]], axis=1))  # left


def test_each_is_a_window_of_the_padded_picture_and_all_appear_alike():
    number = 2500
    known = windows()
    assert len(known) == 25
    moved = np.asarray(random_shift(KEY, jnp.broadcast_to(PICTURE, (number, *PICTURE.shape)), PAD))
    places = [known[picture.tobytes()] for picture in moved]  # a KeyError is a picture that is no window
    counts = np.asarray([places.count(place) for place in known.values()])
    assert counts.min() > 60 and counts.max() < 140  # 100 expected, deviation 10


def test_pictures_are_shifted_wherever_they_are_and_other_numbers_are_not():
    picture, codes, numbers = spaces.Box(0, 255, PICTURE.shape, np.uint8), spaces.Box(0, 9, (5, 5, 2), np.uint8), spaces.Box(-1.0, 1.0, (3,), np.float32)
    obs = {"codes": jnp.ones((8, 5, 5, 2), jnp.uint8), "numbers": jnp.ones((8, 3)), "picture": jnp.broadcast_to(PICTURE, (8, *PICTURE.shape))}
    made = augmentation(spaces.Dict(codes=codes, numbers=numbers, picture=picture), PAD)(KEY, obs)
    assert made["codes"] is obs["codes"] and made["numbers"] is obs["numbers"]
    assert made["picture"].shape == obs["picture"].shape and not np.array_equal(made["picture"], obs["picture"])
    assert augmentation(picture, 0)(KEY, obs["picture"]) is obs["picture"] and augmentation(numbers, 0)(KEY, obs) is obs
    for space in (codes, numbers):
        with pytest.raises(Refusal, match=r"agent\.augment=2"):
            augmentation(space, PAD)
